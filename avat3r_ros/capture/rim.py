"""The rim of a matte, where pixels show head and background at once.

Near the outline a pixel's colour lies between the head's colour and the background's, and how far
along says how much of it is head. Where the two look alike it says nothing.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from avat3r_ros.mattes import SEEN_MASK

RIM, AROUND = 1.5, 2.5
"""Half width of the rim of a network's matte, and the reach of the means on either side of it, in
pixels of that network."""

SPILL, SPILL_AROUND = 0.02, 0.02
"""How far into the head the background's colour spills, by blur and by light, and the reach of the
means beyond, as shares of a head crop's side."""

HUES_APART, FULL_SPILL = (0.1, 0.3), 0.25
"""Squared sines of the angle between the colours of head and background from which on hues tell how
much of either a pixel has; and the share from which on it takes the head's hue."""

MAX_SPILL = 0.7
"""Largest share of the background that a pixel's colour is freed of."""

APART = (1.5, 3.0)
"""Head and background are told apart where their mean colours differ by more than the first of
these times the sum of their spreads, and fully from the second on."""

COVERED = (0.1, 0.8)
"""Places on the line from background to head that count as neither and as all head: hair is not of
one colour."""


def without_background(
    image: Float[np.ndarray, "h w 3"], matte: Float[np.ndarray, "h w"], network_px: float
) -> Float[np.ndarray, "h w"]:
    """Take from a matte what its rim shows of the background; nothing is added.

    Args:
        image: RGB in [0, 1].
        matte: In [0, 1].
        network_px: Pixels of the image per pixel of the network that made the matte.
    """
    inside, outside = _to_outline(matte)
    rim = (inside + outside <= RIM * network_px) & (matte > 0)
    if not rim.any():
        return matte
    front, back, trust = _sides(image, inside, outside, rim, RIM * network_px, AROUND * network_px)
    line = front - back
    along = ((image[rim] - back) * line).sum(1) / np.maximum((line**2).sum(1), 1e-6)
    shown = matte.copy()
    shown[rim] = np.minimum(matte[rim], 1 - trust * (1 - _ramp(along, COVERED)))
    return shown


def without_spill(
    crop: Float[np.ndarray, "h w 3"], matte: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Take the background's colour from the head's rim.

    Args:
        crop: Of a head, RGB in [0, 1], the background not yet removed.
        matte: In [0, 1].
    """
    inside, outside = _to_outline(matte)
    reach = SPILL * len(matte)
    rim = (inside + outside <= reach) & (matte > 0)
    if not rim.any():
        return crop
    front, back, trust = _sides(crop, inside, outside, rim, reach, SPILL_AROUND * len(matte))
    line = back - front
    share = ((crop[rim] - front) * line).sum(1) / np.maximum((line**2).sum(1), 1e-6)
    shaded, apart = _share_in_shade(crop[rim], front, back)
    share += apart * (shaded - share)
    share *= trust * _ramp(inside[rim], (reach, reach / 2))
    # What a pixel lacks it does not have of the background either: dark hair stays dark.
    share = np.minimum(share, (crop[rim] / np.maximum(back, 1e-3)).min(1)).clip(0, MAX_SPILL)
    clean = crop.copy()
    freed = ((crop[rim] - share[:, None] * back) / (1 - share[:, None])).clip(0, 1)
    # What is left of another hue is the background's, too: colours blur farther than light.
    light = freed.mean(1) / np.maximum(front.mean(1), 1e-3)
    usual = (light[:, None] * front).clip(0, 1)
    clean[rim] = freed + (apart * (share / FULL_SPILL).clip(0, 1))[:, None] * (usual - freed)
    return clean


def _share_in_shade(
    colors: Float[np.ndarray, "n 3"],
    front: Float[np.ndarray, "n 3"],
    back: Float[np.ndarray, "n 3"],
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the background in colours whose head is lighter or darker than around, and trust.

    Least squares of `head * front + share * back`: there is an answer where their hues differ.
    """
    ff, fb, bb = ((a * b).sum(1) for a, b in ((front, front), (front, back), (back, back)))
    determinant = ff * bb - fb**2
    share = (ff * (colors * back).sum(1) - fb * (colors * front).sum(1)) / np.maximum(
        determinant, 1e-6
    )
    return share, _ramp(determinant / np.maximum(ff * bb, 1e-6), HUES_APART)


def _to_outline(matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels from the outline, inside (0 outside) and outside (0 inside)."""
    head = (matte > SEEN_MASK).astype(np.uint8)
    return tuple(
        cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for part in (head, 1 - head)
    )


def _sides(
    image: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    rim: Bool[np.ndarray, "h w"],
    beyond: float,
    reach: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of head and background near each pixel of the rim (n, 3), and how far to trust them.

    They are taken farther than `beyond` pixels from the outline.
    """
    (front, front_spread), (back, back_spread) = (
        _local_colors(image, side > beyond, rim, reach) for side in (inside, outside)
    )
    apart = np.linalg.norm(front - back, axis=1)
    return front, back, _ramp(apart / np.maximum(front_spread + back_spread, 1e-3), APART)


def _local_colors(
    image: np.ndarray, where: np.ndarray, at: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of chosen pixels around n others (n, 3), and their spread (n,).

    The spread is endless where none is near. Means are smooth: a coarse grid does.
    """
    height, width = where.shape
    step = max(1, int(sigma / 3))
    grid = (max(1, width // step), max(1, height // step))
    weights = where.astype(np.float32)
    chosen = image * weights[..., None]

    def around(sums: np.ndarray) -> np.ndarray:
        small = cv2.resize(sums, grid, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / step)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)[at]

    weight = around(weights)
    share = np.maximum(weight, 1e-6)
    mean = around(chosen) / share[:, None]
    squares = np.einsum("hwc,hwc->hw", chosen, chosen)
    variance = around(squares) / share - (mean**2).sum(-1)
    return mean, np.where(weight > 1e-3, np.sqrt(variance.clip(0)), np.inf)


def _ramp(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return ((values - low) / (high - low)).clip(0.0, 1.0)
