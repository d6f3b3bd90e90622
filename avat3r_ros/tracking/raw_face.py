"""A face as the landmark networks see it, before pose, smoothing and calibration."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class RawFace:
    """One face of an image.

    Attributes:
        landmarks: x and y in pixels of the image, centres at +0.5; z away from the camera in the
            same scale, from an arbitrary zero, coarser than x and y.
        scores: Blendshape scores in ARKIT_52 order, [0, 1]. tongueOut is the probability of a
            tongue that shows (face_follower.py), and 0 in stills.
    """

    landmarks: Float[np.ndarray, "478 3"]
    scores: Float[np.ndarray, "52"]

    @property
    def landmarks_px(self) -> Float[np.ndarray, "478 2"]:
        """Places in the image."""
        return self.landmarks[:, :2]

    @property
    def box(self) -> Float[np.ndarray, "2 2"]:
        """Smallest and largest x and y of the landmarks."""
        return np.stack([self.landmarks_px.min(0), self.landmarks_px.max(0)])

    @property
    def area_px(self) -> float:
        """Area of the box."""
        return float(np.prod(self.box[1] - self.box[0]))


def same_place(a: RawFace, b: RawFace) -> bool:
    """The boxes' centres lie in each other's boxes."""
    boxes = [a.box, b.box]
    centres = [box.mean(0) for box in boxes]
    return all(
        bool(((box[0] <= centre) & (centre <= box[1])).all())
        for box, centre in zip(boxes, reversed(centres), strict=True)
    )
