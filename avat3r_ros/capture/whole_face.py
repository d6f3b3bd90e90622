"""A face is always part of its person: where a segmenter misses it, it is cut out by its colours.

Segmenters lose dark faces before dark walls, and halves that lie in the dark. The landmarks say
where the face is, and what joins it in colour (hair, ears, neck) is more likely the person than
what is far away from it (GrabCut).
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from avat3r_ros.mattes import SEEN_MASK

SLACK = 0.05
"""Landmarks may be this far outside their face, as a share of its size: at most 4 % on drawn ones,
the far cheek of a turned face."""

MAX_MISSED = 0.02
"""A matte that misses more of the face than this is not trusted around it, either."""

NEAR, FAR = 0.3, 0.8
"""What is nearer to the face than the first of these times its size is rather the person; what is
farther than the second, above and beside it, is background unless the matte says otherwise."""

ROUNDS = 4
"""Of GrabCut; more change nothing."""

EDGE_PX = 1.0
"""Softness of the new edge: it is exact to a pixel."""


def with_whole_face(
    image: UInt8[np.ndarray, "h w 3"],
    matte: Float[np.ndarray, "h w"],
    landmarks_px: Float[np.ndarray, "n 2"],
) -> Float[np.ndarray, "h w"]:
    """Add a face, and where it was missed what joins it in colour, to a matte.

    Args:
        image: RGB, small: the work grows with its area (0.15 s for 256 x 256 where a face was
            missed, next to nothing otherwise).
        matte: In [0, 1].
        landmarks_px: Of the face.
    """
    hull = cv2.convexHull(landmarks_px.astype(np.float32)).round().astype(np.int32)
    size = float(np.ptp(hull[:, 0], axis=0).max())
    face = np.zeros(matte.shape, np.uint8)
    cv2.fillConvexPoly(face, hull, 1)
    face = _grown(face, -SLACK * size)
    if not face.any():
        return matte
    if (matte[face > 0] <= SEEN_MASK).mean() > MAX_MISSED:
        matte = np.maximum(matte, _cut_by_color(image, matte > SEEN_MASK, face, size))
    return np.where(face > 0, np.float32(1), matte)


def _cut_by_color(
    image: np.ndarray, seen: np.ndarray, face: np.ndarray, size: float
) -> Float[np.ndarray, "h w"]:
    beside = np.arange(len(face))[:, None] <= np.flatnonzero(face.any(1))[-1]
    labels = np.full(face.shape, cv2.GC_PR_BGD, np.uint8)
    labels[beside & (_grown(face, FAR * size) == 0)] = cv2.GC_BGD
    labels[seen | (_grown(face, NEAR * size) > 0)] = cv2.GC_PR_FGD
    labels[face > 0] = cv2.GC_FGD
    if not (labels == cv2.GC_BGD).any():
        return face.astype(np.float32)
    colors = np.zeros((2, 1, 65))
    cv2.grabCut(image, labels, None, colors[0], colors[1], ROUNDS, cv2.GC_INIT_WITH_MASK)
    person = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return cv2.GaussianBlur(person.astype(np.float32), (0, 0), EDGE_PX)


def _grown(mask: np.ndarray, by_px: float) -> np.ndarray:
    """A mask (0 and 1) grown, or shrunk where negative, by so many pixels."""
    radius = max(round(abs(by_px)), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return (cv2.dilate if by_px > 0 else cv2.erode)(mask, disc)
