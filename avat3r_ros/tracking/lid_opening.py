"""Lids as far apart as the landmarks show them.

How wide eyes are open at rest differs between people, and is learned while a face is followed. A
look down lowers the template's lids by a third, and people are read as looking down who look at a
screen below the camera: scores alone held the eyes of three people who talk in videos 1.2 to 1.5 mm
too narrow.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.rig.correctives import corrected
from avat3r_ros.tracking.head_pose import HeadPoseSolver
from avat3r_ros.tracking.landmark_distances import Displacements, LandmarkDistances
from avat3r_ros.tracking.learned_rest import LearnedRest

PAIRS = ((158, 153), (159, 145), (160, 144), (385, 380), (386, 374), (387, 373))
"""Edges of the upper and the lower lid."""

UNIT_SPREAD = {
    "eyeBlinkLeft": 0.3, "eyeBlinkRight": 0.3,
    "eyeWideLeft": 0.3, "eyeWideRight": 0.3,
}  # fmt: skip

SPREAD_MM = 1.0

OPEN_QUANTILE = 0.7
"""Of the openings of the last minute: eyes close more often than they widen."""


class LidOpening(LandmarkDistances):
    """Corrects codes by the gap between the lids, and learns how wide open eyes are."""

    def __init__(self, solver: HeadPoseSolver) -> None:
        super().__init__(solver, PAIRS, UNIT_SPREAD, SPREAD_MM)
        self._rest = LearnedRest(OPEN_QUANTILE)
        self.forget = self._rest.forget

    def predict(self, code: Float[np.ndarray, "52"], slant: float) -> Float[np.ndarray, "pairs"]:
        """As the avatar's lids move: shapes that do not add up are corrected first, mm."""
        return super().predict(corrected(code), slant)

    def learn(self, code: Float[np.ndarray, "52"], seen: Displacements, stamp_s: float) -> None:
        """See one image's code and distances."""
        self._rest.learn(seen.mm, seen.mm - self.predict(code, seen.slant), stamp_s)

    def correct(
        self, code: Float[np.ndarray, "52"], seen: Displacements
    ) -> Float[np.ndarray, "52"]:
        """The most probable code that shows these openings; call `learn` once before.

        Args:
            code: In [0, 1].
            seen: From `measure`.
        """
        missing_mm = seen.mm - self._rest.values - self.predict(code, seen.slant)
        return self.explain(code, missing_mm, seen.slant)
