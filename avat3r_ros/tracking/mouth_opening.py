"""Lips as far apart as the landmarks show them.

Lips that touch are a zero that every face shares: no calibration is needed, and still images can be
read so, too.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.tracking.head_pose import HeadPoseSolver
from avat3r_ros.tracking.landmark_distances import Displacements, LandmarkDistances

PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318))
"""Inner edges of the upper and the lower lip that meet in a closed mouth."""

UNIT_SPREAD = {
    "jawOpen": 0.3,
    "mouthFunnel": 0.15,
    "mouthLowerDownLeft": 0.15, "mouthLowerDownRight": 0.15,
    "mouthUpperUpLeft": 0.15, "mouthUpperUpRight": 0.15,
}  # fmt: skip
"""The jaw explains most of an opening; the lips, what it cannot."""

SPREAD_MM = 1.5
"""On renders of three people's avatars gaps were read with a slope of 0.8 to 1.1 and a standard
deviation of 1.0 to 2.0 mm."""

CLOSED_MM, OPEN_MM = 1.0, 2.5
"""Below the first, lips touch: a template whose lips pass through each other is as closed as one
whose lips meet, and is left alone. From the second on, both directions count."""


class MouthOpening(LandmarkDistances):
    """Corrects codes by the gap between the lips."""

    def __init__(self, solver: HeadPoseSolver) -> None:
        super().__init__(solver, PAIRS, UNIT_SPREAD, SPREAD_MM)

    def correct(
        self, code: Float[np.ndarray, "52"], seen: Displacements
    ) -> Float[np.ndarray, "52"]:
        """The most probable code that shows these gaps.

        Args:
            code: In [0, 1].
            seen: From `measure`.
        """
        missing_mm = seen.mm - self.predict(code, seen.slant)
        gaps_mm = self.rest_mm + seen.mm
        open_share = np.clip((gaps_mm - CLOSED_MM) / (OPEN_MM - CLOSED_MM), 0.0, 1.0)
        missing_mm = np.where(missing_mm > 0, open_share * missing_mm, missing_mm)
        return self.explain(code, missing_mm, seen.slant)
