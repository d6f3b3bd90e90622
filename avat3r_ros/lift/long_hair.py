"""Long hair of one photo: a curtain that falls around the neck, as wide as the photo shows it.

The shell of short hair stands off the skull; hair that hangs beside the jaw is far from any part
of the head that the shell could stand on. It is taken to hang around an upright axis through the
neck: at each height as far out as the photo's hair beside the head, and behind as far as the skull.
What stands out of the photo's matte is pressed in.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from avat3r_ros.lift.photo import PhotoOnHead
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.rig.fields import follow

AXIS_Z_M = -0.09
"""Depth of the upright axis that long hair hangs around."""

LEVEL_M = 0.005
"""Height of a level, of which there is one width to each side."""

STRAND_M = 0.008
"""Hair that hangs beside the head is wider than this."""

CURTAIN_M, CHEEK_M = 0.018, 0.02
"""Hair hangs on a side where so much of it, as high as wide, is beside the head below the second
height: what there is of short hair, or taken for hair, stands out less."""

FRONT_Z_M, FORWARD_M = -0.045, 0.075
"""Hair hangs before no more of the cheeks than this, and so far before the axis it ends."""

HIGHEST_M, MAX_OFF_M = 0.05, 0.09
"""The skull carries the hair above this height; and hair hangs no farther off the skin."""

SEEN_SKIN = 0.3
"""Trust in the photo from which a vertex that shows skin is not covered."""

BARE_EAR = 0.2
"""An ear of which more is seen bare is not covered anywhere."""

OVER_M = 0.06
"""What stands off the head above this height is hair."""

PRESSED = np.linspace(0, 1, 9)
"""Shares of the distance off the skin that are tried."""

SMOOTHNESS = 0.15
"""Of the surface of hair."""

MAX_TURN_RAD = np.radians(25.0)
"""A photo turned by more shows what hangs behind one side, and not how far out it does."""


def hanging_hair(photo: PhotoOnHead) -> Float[np.ndarray, "v"]:
    """How far hair that hangs down stands off each vertex along its coarse normal, metres.

    Args:
        photo: The photo on its bald head; its hair is read off `photo.view.hair`.
    """
    view, count = photo.view, len(photo.normals)
    off = np.zeros(count)
    bottom = photo.view.vertices[photo.template.region_vertices("neck"), 1].min()
    levels = np.arange(bottom, HIGHEST_M + LEVEL_M, LEVEL_M)
    widths = [_widths(photo, levels, side) for side in (-1, 1)]
    turned = np.abs(np.arctan2(view.center[0], view.center[2])) > MAX_TURN_RAD
    if turned or not any((width > 0).any() for width in widths):
        return off
    covered = _coverable(photo)
    vertices = view.vertices.astype(np.float64)
    out = vertices[:, [0, 2]] - [0.0, AXIS_Z_M]
    radius = np.linalg.norm(out, axis=1)
    direction = out / np.maximum(radius, 1e-6)[:, None]
    level = np.searchsorted(levels, vertices[:, 1] - LEVEL_M / 2).clip(0, len(levels) - 1)
    back = np.quantile(radius[(direction[:, 1] < -0.9) & (vertices[:, 1] > 0)], 0.9)
    behind = direction[:, 1] < 0
    depth = np.where(behind, back, FORWARD_M)
    # Before the ears there is hair on the side that shows some; behind the neck, if either does.
    width = np.where(out[:, 0] > 0, widths[1][level], widths[0][level])
    other = np.where(out[:, 0] > 0, widths[0][level], widths[1][level])
    width = np.where((width == 0) & behind & (direction[:, 1] < -0.5), other, width)
    covered &= (width > 0) & (vertices[:, 1] < HIGHEST_M)
    width = np.maximum(width, 0.05)
    target = 1 / np.sqrt((direction[:, 0] / width) ** 2 + (direction[:, 1] / depth) ** 2)
    along = (photo.normals[:, [0, 2]] * direction).sum(1)
    off[covered] = ((target - radius) / along.clip(0.5, 1))[covered].clip(0, MAX_OFF_M)
    off = _pressed(photo, off)[:, None]
    smooth = follow(np.zeros_like(off), off, np.ones(count), photo.laplacian, SMOOTHNESS)[:, 0]
    return np.where(covered, smooth.clip(0, MAX_OFF_M), 0.0)


def _widths(
    photo: PhotoOnHead, levels: Float[np.ndarray, "l"], side: int
) -> Float[np.ndarray, "l"]:
    """How far from the axis hair beside the head reaches at each level of one side; 0 without."""
    view = photo.view
    hair = view.hair & ~view.on_mesh & (view.mask > SEEN_MASK) & _like_hair(photo)
    points = view.points[hair]
    points = points[points[:, 0] * side > 0]
    level = np.searchsorted(levels, points[:, 1] - LEVEL_M / 2)
    radius = np.hypot(points[:, 0], points[:, 2] - AXIS_Z_M)
    widths, beside = np.zeros(len(levels)), np.zeros(len(levels))
    for row in range(len(levels)):
        here = radius[level == row]
        beside[row] = len(here) * view.pixel_size_m() ** 2 / LEVEL_M
        if beside[row] > STRAND_M:
            widths[row] = np.quantile(here, 0.95)
    shown = widths > 0
    if (beside[levels < CHEEK_M] > CURTAIN_M).sum() * LEVEL_M < CURTAIN_M:
        return np.zeros(len(levels))
    # What hangs below the crop's cut is as wide as above it; gaps, as at an ear, are bridged.
    lowest = int(shown.argmax())
    inside = np.interp(np.arange(len(levels)), np.flatnonzero(shown), widths[shown])
    inside = gaussian_filter1d(inside, 2.0)
    reaches_cut = levels[lowest] < _cut(photo) + 2 * LEVEL_M
    inside[: 0 if reaches_cut else lowest] = 0
    return inside


def _like_hair(photo: PhotoOnHead) -> Bool[np.ndarray, "h w"]:
    """Pixels that look more like what stands over the top of the head than like the face."""
    view = photo.view
    over = ~view.on_mesh & photo.solid & (view.points[..., 1] > OVER_M)
    hair = np.median(photo.log_photo[over], axis=0) if over.any() else np.full(3, np.inf)
    skin = photo.skin_color()
    to_hair, to_skin = (np.linalg.norm(photo.log_photo - c, axis=-1) for c in (hair, skin))
    return to_hair < to_skin


def _cut(photo: PhotoOnHead) -> float:
    """Height at which the crop ends under the head."""
    view = photo.view
    return float(np.quantile(view.points[view.mask > SEEN_MASK][:, 1], 0.002))


def _coverable(photo: PhotoOnHead) -> Bool[np.ndarray, "v"]:
    """Vertices that hair may hang over: the photo does not show their skin."""
    template, view = photo.template, photo.view
    vertices = view.vertices.astype(np.float64)
    may = np.zeros(len(vertices), bool)
    may[template.region_vertices("skin", "scalp", "neck", "ears")] = True
    may &= vertices[:, 2] < FRONT_Z_M
    neck = template.region_vertices("neck")
    may[neck[vertices[neck, 2] > AXIS_Z_M]] = False
    row, column, _, _ = view.pixels_of(vertices)
    seen, _ = photo.look()
    skin = (seen > SEEN_SKIN) & ~view.hair[row, column]
    ears = template.region_vertices("ears")
    for side in (-1, 1):
        ear = ears[vertices[ears, 0] * side > 0]
        skin[ear] |= skin[ear].mean() > BARE_EAR
    return may & ~skin


def _pressed(photo: PhotoOnHead, off: np.ndarray) -> np.ndarray:
    """As far off as the photo's matte allows; below its cut it says nothing."""
    view = photo.view
    cut = _cut(photo) + 2 * LEVEL_M
    allowed = np.zeros_like(off)
    for share in PRESSED:
        points = view.vertices + (share * off)[:, None] * photo.normals
        row, column, inside, _ = view.pixels_of(points.astype(np.float64))
        within = ~inside | (view.mask[row, column] > SEEN_MASK) | (points[:, 1] < cut)
        allowed = np.where(within & (off > 0), share * off, allowed)
    return allowed
