"""Distances between landmarks of a face, and the code that explains them.

    landmarks + head pose --> displacements (mm) -- least squares around a code --> code

Scores alone tell the avatar too little of real faces: driven by them, avatars of people who talk in
videos opened their mouths by 0.6 to 1.0 of what the camera saw and moved their brows by a quarter
of it, and a drawn operator's avatar opened its mouth too far. What the landmarks show is the same
for every face: distances in the scale of the template's head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX
from avat3r_ros.tracking.head_pose import HeadPoseSolver

_PASSES = 3


@dataclass(frozen=True)
class Displacements:
    """How much farther apart pairs of landmarks are than in the template's neutral face.

    Attributes:
        mm: Along the head's vertical, as the camera sees it, in the scale of the template's head.
        slant: What a movement backwards (the jaw's, when it drops) adds to it, per mm: the tangent
            of the camera's elevation, 0 for a camera in front.
    """

    mm: Float[np.ndarray, "pairs"]
    slant: float


class LandmarkDistances:
    """Pairs of landmarks, measured along the head's vertical; a part of the face derives from it.

    Args:
        solver: Gives the template's landmarks in an expression.
        pairs: Upper and lower landmark of each.
        unit_spread: Which units may change to explain displacements, and how far their scores are
            from right (standard deviation).
        spread_mm: Of one pair's displacement around the right one.

    Attributes:
        rest_mm: Distance of each pair in the template's neutral face.
    """

    def __init__(
        self,
        solver: HeadPoseSolver,
        pairs: Sequence[tuple[int, int]],
        unit_spread: Mapping[str, float],
        spread_mm: float,
    ) -> None:
        self._upper, self._lower = np.array(pairs).T
        rest = solver.landmarks_head(np.zeros(len(ARKIT_52)))
        self._ends = rest[self._upper], rest[self._lower]
        self.rest_mm = 1000 * (self._ends[0] - self._ends[1])[:, 1]
        moved = solver.expressions_head
        apart = 1000 * (moved[:, self._upper] - moved[:, self._lower])
        self._up_by_unit, self._back_by_unit = apart[..., 1], apart[..., 2]
        self.units = np.array([ARKIT_INDEX[name] for name in unit_spread])
        self._prior = np.diag(np.array(list(unit_spread.values())) ** -2.0)
        self._spread_mm = spread_mm

    def measure(
        self,
        landmarks_px: Float[np.ndarray, "478 2"],
        camera_from_head: Float[np.ndarray, "4 4"],
        intrinsics: Float[np.ndarray, "3 3"],
    ) -> Displacements:
        """What an image shows, whose head pose is known."""
        upper, lower = self._ends
        middle = (upper + lower).mean(0) / 2
        step = np.array([[0.0, 0.0, 0.0], [0.0, 0.001, 0.0], [0.0, 0.0, 0.001]])
        points = np.concatenate([upper, lower, middle + step])
        seen = (points @ camera_from_head[:3, :3].T + camera_from_head[:3, 3]) @ intrinsics.T
        seen = seen[:, :2] / seen[:, 2:]
        rest_px = seen[: len(upper)] - seen[len(upper) : -3]
        up_px, back_px = seen[-2:] - seen[-3]
        moved = landmarks_px[self._upper] - landmarks_px[self._lower] - rest_px
        return Displacements(
            mm=moved @ up_px / (up_px @ up_px), slant=float(back_px @ up_px / (up_px @ up_px))
        )

    def predict(self, code: Float[np.ndarray, "52"], slant: float) -> Float[np.ndarray, "pairs"]:
        """What `measure` would see of an expression, mm."""
        return code @ (self._up_by_unit + slant * self._back_by_unit)

    def explain(
        self,
        code: Float[np.ndarray, "52"],
        missing_mm: Float[np.ndarray, "pairs"],
        slant: float,
    ) -> Float[np.ndarray, "52"]:
        """The most probable code around this one; units outside `units` stay.

        Args:
            code: In [0, 1].
            missing_mm: Displacements that this code does not show.
            slant: Of the view, as in `Displacements`.
        """
        rows = self._up_by_unit[self.units] + slant * self._back_by_unit[self.units]
        rows = rows.T / self._spread_mm
        normal = rows.T @ rows + self._prior
        right = rows.T @ (missing_mm / self._spread_mm)
        start = code[self.units].astype(np.float64)
        step, free = np.zeros(len(start)), np.ones(len(start), bool)
        for _ in range(_PASSES):
            # Units at a limit stay there, and the others explain what is left.
            left = right - normal[:, ~free] @ step[~free]
            step[free] = np.linalg.solve(normal[np.ix_(free, free)], left[free])
            limited = start + step != np.clip(start + step, 0.0, 1.0)
            step = np.clip(start + step, 0.0, 1.0) - start
            if not (limited & free).any():
                break
            free &= ~limited
        explained = code.copy()
        explained[self.units] = start + step
        return explained
