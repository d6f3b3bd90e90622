"""Neutral calibration: a person's resting face becomes the zero code.

Tracked scores of a face at rest are not 0 (a low brow reads as browDown). The rest value of each
score is subtracted and the remaining range stretched, so that 1 stays reachable:
`code = clip((raw - neutral) / (1 - neutral), 0, 1)`. Until somebody calibrates, `TYPICAL_NEUTRAL`
stands in.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_52, arkit_code

MIN_STATES = 5
"""Fewer images than this do not show what rest is."""

MAX_SPREAD = 0.25
"""Largest 10-90 percentile range of a score during calibration; more is movement, not rest."""

MAX_NEUTRAL = 0.7
"""A score above this is an expression, and subtracting it would leave no range."""

TYPICAL_NEUTRAL = arkit_code(browOuterUp=0.06, browDown=0.06, eyeBlink=0.05, eyeSquint=0.4)
"""Median reading of 14 resting synthetic heads, for the units whose range is small beside it.
Resting people and heads read as squinting, by 0.1 to 0.7."""


def neutral_from_codes(codes: Sequence[Float[np.ndarray, "52"]]) -> Float[np.ndarray, "52"]:
    """Median of the codes of a face held at rest; blinks in between are left out by the median.

    Raises:
        ValueError: Too few codes, or the face moved or showed an expression; names the scores.
    """
    if len(codes) < MIN_STATES:
        raise ValueError(
            f"expected at least {MIN_STATES} images of a face at rest, got {len(codes)}"
        )
    stacked = np.stack(codes)
    low, neutral, high = np.quantile(stacked, [0.1, 0.5, 0.9], axis=0)
    # Eyes blink and wander while the face is at rest.
    still = np.array([not name.startswith("eye") for name in ARKIT_52])
    moved = (high - low > MAX_SPREAD) & still
    if moved.any():
        raise ValueError(
            f"the face moved during calibration ({_names(moved)}); hold a relaxed face and retry"
        )
    if (neutral > MAX_NEUTRAL).any():
        raise ValueError(
            f"not a face at rest ({_names(neutral > MAX_NEUTRAL)} above {MAX_NEUTRAL}); relax, "
            "mouth closed and eyes open, and retry"
        )
    return neutral.astype(np.float32)


def relative_to_neutral(
    code: Float[np.ndarray, "52"], neutral: Float[np.ndarray, "52"]
) -> Float[np.ndarray, "52"]:
    """Subtract the neutral code and stretch what is left to [0, 1]."""
    return ((code - neutral) / (1.0 - neutral)).clip(0.0, 1.0).astype(np.float32)


def _names(chosen: np.ndarray) -> str:
    return ", ".join(name for name, flag in zip(ARKIT_52, chosen, strict=True) if flag)
