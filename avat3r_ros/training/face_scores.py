"""What the tracker says of rendered faces: landmarks, expression, likeness, identity.

The tracker is MediaPipe's face landmarker, on the driver's scale, picture by picture.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.capture.face_descriptor import describe_faces
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.pictures import uint8_image
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import FaceState

UNITS: dict[str, tuple[str, ...]] = {
    "jawOpen": ("jawOpen",),
    "eyeBlink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "mouthSmile": ("mouthSmileLeft", "mouthSmileRight"),
    "browUp": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "browDown": ("browDownLeft", "browDownRight"),
    "mouthPucker": ("mouthPucker",),
}
"""Expression units that are read again from renderings; the tracker is blind to tongueOut."""

FACE_PX = 48
_LEFT_EYE, _RIGHT_EYE, _MOUTH = (33, 133), (362, 263), (61, 291)
_PLACES = np.float32([[14, 18], [34, 18], [24, 37]])
"""Where the middles of eyes and mouth come to lie in a likeness picture of `FACE_PX`."""


def tracked(images: Float[Tensor, "t 3 h w"], tracker: FaceTracker) -> list[FaceState]:
    """Track pictures in [0, 1] one by one."""
    return [
        tracker.track(np.ascontiguousarray(uint8_image(image.clamp(0, 1).numpy())), 0.0)
        for image in images
    ]


def landmark_distance(truth: Sequence[FaceState], seen: Sequence[FaceState]) -> float:
    """Mean distance of 468 landmarks, pixels; nan where no picture has a face in both."""
    distances = [
        np.linalg.norm(a.landmarks_px[:468] - b.landmarks_px[:468], axis=1).mean()
        for a, b in zip(truth, seen, strict=True)
        if a.detected and b.detected
    ]
    return float(np.mean(distances)) if distances else float("nan")


def share_found(truth: Sequence[FaceState], seen: Sequence[FaceState]) -> float:
    """Share of the faces found in true pictures that are found in renderings; nan if none were."""
    there = [b.detected for a, b in zip(truth, seen, strict=True) if a.detected]
    return float(np.mean(there)) if there else float("nan")


def unit_errors(truth: FaceState, seen: FaceState) -> dict[str, float]:
    """Absolute difference of each of `UNITS` between two faces; empty where one is not found."""
    if not (truth.detected and seen.detected):
        return {}
    return {
        name: float(np.mean([abs(truth.code[ARKIT_INDEX[u]] - seen.code[ARKIT_INDEX[u]])
                             for u in units]))
        for name, units in UNITS.items()
    }  # fmt: skip


def identity_distance(
    images: Float[Tensor, "t 3 h w"], truth: Float[Tensor, "t 3 h w"], where: Sequence[FaceState]
) -> float:
    """Mean distance of faces from their truth for a face recogniser; nan where no face is.

    0 is the same picture; one person's photos are below about 0.5, two people's above 0.6 if real
    and above 0.4 if drawn (docs/real_photos.md).

    Args:
        images: Renderings in [0, 1].
        truth: True pictures of the same moments.
        where: The faces in the true pictures, by which both are cut.
    """
    seen = [i for i, face in enumerate(where) if face.detected]
    if not seen:
        return float("nan")
    faces = [where[i] for i in seen]
    drawn, true = (
        describe_faces([uint8_image(some[i].clamp(0, 1).numpy()) for i in seen], faces)
        for some in (images, truth)
    )
    return float(np.linalg.norm(drawn - true, axis=1).mean())


def likeness_picture(
    image: Float[Tensor, "3 h w"], where: FaceState
) -> Float[np.ndarray, "n"] | None:
    """The face with eyes and mouth in fixed places, as numbers to compare faces by.

    Args:
        image: A picture in [0, 1].
        where: The face of the true picture of the same moment, so that both are cut alike; None
            comes back where it was not found.
    """
    if not where.detected:
        return None
    middles = [where.landmarks_px[list(pair)].mean(0) for pair in (_LEFT_EYE, _RIGHT_EYE, _MOUTH)]
    place = cv2.getAffineTransform(np.float32(middles), _PLACES)
    picture = uint8_image(image.clamp(0, 1).numpy())
    face = cv2.warpAffine(picture, place, (FACE_PX, FACE_PX), flags=cv2.INTER_AREA)
    return cv2.GaussianBlur(face, (0, 0), 1.0).astype(np.float32).ravel() / 255


def likeness(
    seen: Sequence[np.ndarray], truth: Sequence[np.ndarray], mean: Float[np.ndarray, "n"]
) -> float:
    """Mean cosine between faces and their truth once the mean face is taken off; 1 is the same.

    Comparing faces by what sets them off from the mean face: Turk and Pentland, "Eigenfaces for
    recognition", 1991. It sees colours and features, not what a trained recogniser sees.
    """
    cosines = [
        float((a - mean) @ (b - mean) / (np.linalg.norm(a - mean) * np.linalg.norm(b - mean)))
        for a, b in zip(seen, truth, strict=True)
    ]
    return float(np.mean(cosines)) if cosines else float("nan")
