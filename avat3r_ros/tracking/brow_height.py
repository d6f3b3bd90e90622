"""Brows as far above their place at rest as the landmarks show them.

Where brows rest differs between people by more than they move, and so do the scores of resting
brows. Both are learned while a face is followed: people mostly rest, so the medians of what was
seen lately are rest. In the first seconds scores are believed more.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_52
from avat3r_ros.tracking.head_pose import HeadPoseSolver
from avat3r_ros.tracking.landmark_distances import Displacements, LandmarkDistances
from avat3r_ros.tracking.learned_rest import LearnedRest

PAIRS = (
    (55, 243), (107, 243), (105, 226), (46, 226), (70, 226),
    (285, 463), (336, 463), (334, 446), (276, 446), (300, 446),
)  # fmt: skip
"""A brow's inner and outer part and the skin beside the corner of the eye below it, which stays
where it is when the lids close (the template's own moves with them a little; that is left out)."""

UNIT_SPREAD = {
    "browInnerUp": 0.3,
    "browOuterUpLeft": 0.3, "browOuterUpRight": 0.3,
    "browDownLeft": 0.3, "browDownRight": 0.3,
}  # fmt: skip

SPREAD_MM = 2.0
"""Errors of a pair are about half as large, but its neighbours share them."""


class BrowHeight(LandmarkDistances):
    """Corrects codes by the height of the brows, and learns where they rest."""

    def __init__(self, solver: HeadPoseSolver) -> None:
        super().__init__(solver, PAIRS, UNIT_SPREAD, SPREAD_MM)
        self._not_eyes = np.array([not name.startswith("eye") for name in ARKIT_52])
        self._rest, self._rest_scores = LearnedRest(0.5), LearnedRest(0.5)

    def predict(self, code: Float[np.ndarray, "52"], slant: float) -> Float[np.ndarray, "pairs"]:
        """Without what the template's eyes do to the skin beside them, mm."""
        return super().predict(code * self._not_eyes, slant)

    def forget(self) -> None:
        """Somebody else may come."""
        self._rest.forget()
        self._rest_scores.forget()

    def learn(self, code: Float[np.ndarray, "52"], seen: Displacements, stamp_s: float) -> None:
        """See one image's code and distances."""
        self._rest.learn(seen.mm, seen.mm - self.predict(code, seen.slant), stamp_s)
        scores = code[self.units]
        self._rest_scores.learn(scores, np.zeros_like(scores), stamp_s)

    def correct(
        self, code: Float[np.ndarray, "52"], seen: Displacements
    ) -> Float[np.ndarray, "52"]:
        """The most probable code that shows these heights; call `learn` once before.

        Args:
            code: In [0, 1].
            seen: From `measure`.
        """
        code = code.copy()
        code[self.units] = (code[self.units] - self._rest_scores.values).clip(0.0, 1.0)
        missing_mm = seen.mm - self._rest.values - self.predict(code, seen.slant)
        return self.explain(code, missing_mm, seen.slant)
