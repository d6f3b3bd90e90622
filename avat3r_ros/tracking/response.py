"""Response calibration: a score of 1 means the full movement, not the largest reading.

MediaPipe's scores stay small for some movements: raised brows often read 0.3, closed lids 0.6. A
score s above rest (neutral.py) is freed of what closed lids add to raised brows, and amplified up
to 1 at its reach r, the reading at the full movement:

    code = s + (1 - r) (s / r)²        s <= r, else 1

so that jitter at rest is not amplified. Reaches start at typical values and grow with the largest
score seen: a strong reading is never cut off for long.

All constants were measured on renders of 14 synthetic heads, each unit at 0, 1/3, 2/3 and 1; raised
brows again on 10, inner and outer ones together: an inner brow alone reads 0.2.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX

TYPICAL_REACH: dict[str, float] = {
    "jawOpen": 0.80,
    "eyeBlinkLeft": 0.65, "eyeBlinkRight": 0.65,
    "browInnerUp": 0.60,
    "browOuterUpLeft": 0.50, "browOuterUpRight": 0.50,
    "browDownLeft": 0.45, "browDownRight": 0.45,
    "mouthSmileLeft": 0.75, "mouthSmileRight": 0.75,
    "mouthFunnel": 0.35,
    "mouthFrownLeft": 0.35, "mouthFrownRight": 0.35,
    "eyeWideLeft": 0.35, "eyeWideRight": 0.35,
    "tongueOut": 0.5,
}  # fmt: skip
"""Median reading at the full movement; 1 for all other scores. None is below 0.35: a larger gain
would show the landmarker's jitter. The tongue's is a probability, and a guess: tongues painted into
photos read 0.1 to 0.8."""

BLINK_TO_BROW = 0.3
"""Raised outer brows read into closed lids, per unit of eyeBlink: 0 to 0.45 from person to person.
Too much of it is harmless: who blinks hardly raises the brows just then."""


class ResponseRange:
    """Stretches scores to their reach, and learns the reach of the person who is tracked."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Go back to the typical reaches: somebody else may come."""
        self._reach = np.ones(len(ARKIT_52), np.float32)
        for name, reach in TYPICAL_REACH.items():
            self._reach[ARKIT_INDEX[name]] = reach

    @property
    def reach(self) -> Float[np.ndarray, "52"]:
        """Score of each unit, above rest and freed, that counts as the full movement."""
        return self._reach.copy()

    def learn(self, scores: Float[np.ndarray, "52"]) -> None:
        """Let the reaches grow to smoothed scores above rest, in [0, 1]."""
        np.maximum(self._reach, free_scores(scores), out=self._reach)

    def stretch(self, scores: Float[np.ndarray, "52"]) -> Float[np.ndarray, "52"]:
        """Scores above rest -> share of the full movement, [0, 1]."""
        freed = free_scores(scores)
        share = np.minimum(freed / self._reach, 1.0)
        return (freed + (1.0 - self._reach) * share**2).clip(0.0, 1.0).astype(np.float32)


def free_scores(scores: Float[np.ndarray, "52"]) -> Float[np.ndarray, "52"]:
    """Take the lids' share from the raised brows; the other scores stay."""
    freed = scores.copy()
    for side in ("Left", "Right"):
        blink = scores[ARKIT_INDEX[f"eyeBlink{side}"]]
        freed[ARKIT_INDEX[f"browOuterUp{side}"]] -= BLINK_TO_BROW * blink
    return freed.clip(0.0, 1.0)
