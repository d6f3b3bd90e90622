"""How large a head is, told by its irises.

A photo shows a large head far away as it shows a small one near by. But irises are of nearly the
same width in all adults: heads differ by 5 %, irises by 4 %, independently. A focal length that is
off takes the head's distance with it, and the irises' width stays.

The tracker's iris landmarks do not serve: they keep a fixed share of the eye's width, whatever the
photo shows (drawn irises 10, 11.7 and 13.5 mm wide: 11.0, 11.1, 11.0 mm). Here the limbus itself is
looked for, in two arcs left and right of the iris's centre, between the lids:

    width = argmax over centre and radius of (brightness outside - inside), red channel

It is seen as an ellipse, squashed along the way the fitted head looks aside.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

IRIS_CENTERS = (468, 473)
"""Landmarks of the subject's right and left iris; the next four are its rim, counted around it."""

EYE_OPENINGS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
)
"""Landmarks around each eye's opening."""

READ_IRIS_M = 0.0116
"""How wide a visible iris of 11.7 mm, the mean of adults, is found here, on drawn people (32 of our
own; those of the other head model 2 % less)."""

IRIS_LOG_SIGMA = 0.04
"""Spread of the visible iris among adults (0.42 of 11.71 mm, Ruefer et al., Cornea 2005)."""

ADULT_LOG_SPREAD = 0.05
"""Spread of the size of adults' faces about the mean head's."""

EYE_LOG_SIGMA = 0.04
"""Least error of one eye's reading."""

MAX_LOG_SIZE = 0.12
"""Heads farther from the mean are children's, or the irises were misread."""

MIN_IRIS_PX = 8.0
MIN_COSINE = 0.85
"""Of the angle between the eye's axis and the line of sight: others are squashed too much."""

MIN_CONTRAST = 0.5
"""Of the limbus on both sides, over the contrast between iris and white."""

RADIUS_PX = 20.0
"""Eyes are enlarged until an iris of the mean width has this radius."""

LOG_RADII = np.linspace(-0.3, 0.3, 25)
"""Logarithms of tried radii over the mean's in the fit."""

CENTERS = np.arange(-0.2, 0.21, 0.05), np.arange(-0.49, 0.22, 0.07)
"""Tried places of the iris's centre about its landmark, right and down, in radii: the upper lid
hides much of some irises, and the landmark is in the middle of what is left."""

ARC_DEG = 40.0
MIN_RAYS = 6
"""Of 17 on each side: a slit between the lids shows too little."""

EDGE = 0.12
"""Half the distance between inside and outside of the edge, in radii."""

FULL_RISE = 0.7
"""Of the brightness from inside to outside, over the contrast between iris and white; more counts
no more."""

SCORE_SPREAD = 0.02
"""Of scores that are as good as the best."""


def iris_widths_m(
    image: UInt8[np.ndarray, "_ _ 3"],
    landmarks_px: Float[np.ndarray, "478 2"],
    fitted: Float[np.ndarray, "478 3"],
    focal_px: float,
) -> list[float]:
    """Measure the irises that a photo shows well.

    Args:
        image: RGB.
        landmarks_px: As detected.
        fitted: The same landmarks on the fitted head, camera frame, metres.
        focal_px: Focal length of the fit.

    Returns:
        Diameters at the fitted distance, metres: none to two.
    """
    widths = []
    for center, lids in zip(IRIS_CENTERS, EYE_OPENINGS, strict=True):
        squash, cosine = _squash(fitted[center : center + 5])
        radius_px = 0.5 * READ_IRIS_M * focal_px / fitted[center, 2]
        if 2 * radius_px < MIN_IRIS_PX or cosine < MIN_COSINE:
            continue
        factor = _found_factor(image, landmarks_px[center], landmarks_px[list(lids)],
                               radius_px, squash)  # fmt: skip
        if factor is not None:
            widths.append(factor * READ_IRIS_M)
    return widths


def log_size_from_irises(widths_m: Sequence[float], fitted_log_size: float) -> float:
    """Likeliest size of a head, as a logarithm relative to the mean head's.

    Args:
        widths_m: Of all irises that were measured in a fit.
        fitted_log_size: Of the head in that fit.

    Returns:
        0, the mean head's, where no iris was measured.
    """
    if not len(widths_m):
        return 0.0
    shares = np.log(np.asarray(widths_m) / READ_IRIS_M)
    middle = np.median(shares)
    # Median of n values, of which some may be wild.
    spread = max(1.48 * float(np.median(np.abs(shares - middle))), EYE_LOG_SIGMA)
    variance = IRIS_LOG_SIGMA**2 + 1.6 * spread**2 / len(shares)
    trust = ADULT_LOG_SPREAD**2 / (ADULT_LOG_SPREAD**2 + variance)
    return float(np.clip(trust * (fitted_log_size - middle), -MAX_LOG_SIZE, MAX_LOG_SIZE))


def _squash(iris: np.ndarray) -> tuple[np.ndarray, float]:
    """How a unit circle in the iris's plane is seen, (2, 2), and the cosine of its turn."""
    normal = np.cross(iris[1] - iris[3], iris[2] - iris[4])
    sight = iris[0] / np.linalg.norm(iris[0])
    cosine = abs(float(normal @ sight)) / max(float(np.linalg.norm(normal)), 1e-12)
    aside = (normal - (normal @ sight) * sight)[:2]
    aside = aside / max(float(np.linalg.norm(aside)), 1e-12)
    return np.eye(2) - (1 - cosine) * np.outer(aside, aside), cosine


def _found_factor(
    image: np.ndarray, center_px: np.ndarray, lids_px: np.ndarray, radius_px: float,
    squash: np.ndarray,
) -> float | None:  # fmt: skip
    """Radius of the iris over the expected one; None where no limbus stands out on both sides."""
    scale, half = RADIUS_PX / radius_px, int(2.6 * RADIUS_PX)
    eye = _enlarged(image[..., 0], center_px, scale, half)
    opening = np.zeros(eye.shape, np.uint8)
    lids = (lids_px - center_px) * scale + half
    cv2.fillPoly(opening, [np.round(lids * 16).astype(np.int32)], 1, shift=4)
    if not opening.any():
        return None
    opening = opening.astype(np.float32)
    turn = np.radians(np.linspace(-ARC_DEG, ARC_DEG, 17))
    turn = np.concatenate([turn, turn + np.pi])
    rays, left = np.stack([np.cos(turn), np.sin(turn)], 1) @ squash.T * RADIUS_PX, turn > np.pi / 2
    # Pupils and catch-lights do not count: nothing is darker than the iris or brighter than white.
    ring = np.linspace(0.55, 0.75, 5)[:, None, None] * rays
    ring = _at(eye, half, ring)[_at(opening, half, ring) > 0.5]
    if not len(ring):
        return None
    low, high = np.median(ring), np.quantile(eye[opening > 0], 0.9)
    if high - low < 5:
        return None
    eye = np.clip((eye - low) / (high - low), 0, 1)

    centers = RADIUS_PX * np.stack(np.meshgrid(*CENTERS), -1).reshape(-1, 1, 1, 2)
    shown = _at(opening, half, centers[:, 0] + rays) > 0.5
    enough = np.minimum(shown[:, left].sum(1), shown[:, ~left].sum(1)) >= MIN_RAYS
    if not enough.any():
        return None
    centers, shown = centers[enough], shown[enough, None].astype(np.float32)
    shapes = np.exp(LOG_RADII)[:, None, None] * rays
    outside, inside = (
        _at(eye, half, (centers + shapes + step).reshape(-1, len(rays), 2))
        for step in (EDGE * rays, -EDGE * rays)
    )
    rise = (outside - inside).reshape(len(centers), len(LOG_RADII), -1).clip(-FULL_RISE, FULL_RISE)
    rise *= shown / FULL_RISE
    sides = [rise[..., side].sum(-1) / shown[..., side].sum(-1) for side in (left, ~left)]
    score = np.mean(sides, 0)
    at, best = np.unravel_index(score.argmax(), score.shape)
    if best in (0, len(LOG_RADII) - 1) or min(side[at, best] for side in sides) < MIN_CONTRAST:
        return None
    # A wide limbus scores alike in many places: their middle.
    alike = np.exp((score - score.max()) / SCORE_SPREAD)
    return float(np.exp((alike * LOG_RADII).sum() / alike.sum()))


def _enlarged(channel: np.ndarray, center_px: np.ndarray, scale: float, half: int) -> np.ndarray:
    """Square around a point of a photo, which comes to lie on pixel index (half, half)."""
    channel = channel.astype(np.float32) if scale > 0.7 else cv2.GaussianBlur(
        channel.astype(np.float32), (0, 0), 0.4 / scale
    )  # fmt: skip
    shift = half - scale * (center_px - 0.5)
    move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    size = (2 * half + 1, 2 * half + 1)
    eye = cv2.warpAffine(
        channel, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.GaussianBlur(eye, (0, 0), 0.05 * RADIUS_PX)


def _at(picture: np.ndarray, half: int, offsets: np.ndarray) -> np.ndarray:
    """Bilinear values at offsets (..., 2) from the middle of a picture."""
    flat = (offsets + half).reshape(len(offsets), -1, 2).astype(np.float32)
    values = cv2.remap(
        picture, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return values.reshape(offsets.shape[:-1])
