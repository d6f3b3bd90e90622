"""Hair that hangs beside the head: how deep it lies, from what the other photos deny.

A pixel of hair off the mesh says nothing of its depth. Beginning where it passes the skull, its ray
is searched nearest first for a place that no other photo denies: one that is not outside its matte,
and not before skin that it shows.
"""

import cv2
import numpy as np

from avat3r_ros.mattes import SEEN_MASK, parts_touching
from avat3r_ros.priors.view import (
    DEPTH_TOLERANCE_M,
    ReferenceView,
)
from avat3r_ros.rig.framing import SKULL_CENTER_HEAD_M

MATTE_TOLERANCE_M = 0.012
"""How far outside another photo's matte a point may be: so good are fits of skulls and hair."""

STRAND_M = 0.007
"""Width from which something off the mesh is a strand of hair."""

SMOOTHING_M = 0.006
"""Depth is smoothed over this distance."""

SKIN_MARGIN_M = 0.004
"""Skin this close to its edge denies nothing."""

DEPTHS_M = np.array(sorted(np.arange(-0.06, 0.0801, 0.01), key=abs))
"""Places tried before and behind the skull."""


def place_free_hair(views: list[ReferenceView]) -> None:
    """Move the points of off-mesh hair along their rays, in place.

    Sets `ReferenceView.free_hair`: pixels of hair that found a place.
    """
    denials = [_Denials(view) for view in views]
    for view in views:
        wanted = _strands(view)
        view.free_hair = np.zeros_like(wanted)
        if not wanted.any():
            continue
        guess = view.beside_skull(wanted)
        rays = guess - view.center
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        others = [other for other in denials if other.view is not view]
        depth, found = np.zeros(len(guess)), np.zeros(len(guess), bool)
        for tried in DEPTHS_M:
            left = np.flatnonzero(~found)
            at = left[_allowed(guess[left] + tried * rays[left], others)]
            depth[at], found[at] = tried, True
        view.free_hair[wanted] = found
        # Neighbours that chose different steps are brought together where that is not denied.
        smooth = _smoothed(depth, found, wanted, SMOOTHING_M / view.pixel_size_m())
        keep = _allowed(guess + smooth[:, None] * rays, others)
        view.points[wanted] = guess + np.where(keep, smooth, depth)[:, None] * rays


def _strands(view: ReferenceView) -> np.ndarray:
    """Hair off the mesh, without the slivers that are only the fit's slack.

    Beside the face, slivers stay that hang together with a strand.
    """
    hair = (view.hair & ~view.on_mesh & (view.mask > SEEN_MASK)).astype(np.uint8)
    radius = max(round(STRAND_M / 2 / view.pixel_size_m()), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    strands = cv2.morphologyEx(hair, cv2.MORPH_OPEN, disc) > 0
    beside_face = hair * (view.points[..., 1] < SKULL_CENTER_HEAD_M[1])
    return strands | parts_touching(beside_face > 0, strands)


def _allowed(points: np.ndarray, others: list["_Denials"]) -> np.ndarray:
    """Which points (n, 3) nobody denies."""
    return ~np.any([other.deny(points) for other in others], axis=0)


def _smoothed(
    values: np.ndarray, known: np.ndarray, mask: np.ndarray, sigma_px: float
) -> np.ndarray:
    """Values (n,) of the mask's pixels, averaged with their known neighbours in the picture."""
    picture, weight = np.zeros(mask.shape), np.zeros(mask.shape)
    picture[mask], weight[mask] = np.where(known, values, 0), known
    total = cv2.GaussianBlur(weight, (0, 0), sigma_px)
    return (cv2.GaussianBlur(picture, (0, 0), sigma_px) / np.maximum(total, 1e-9))[mask]


class _Denials:
    """What one photo says is not there."""

    def __init__(self, view: ReferenceView) -> None:
        self.view = view
        self._outside = view.outside_m > MATTE_TOLERANCE_M
        skin = (view.on_mesh & ~view.hair & (view.mask > SEEN_MASK)).astype(np.uint8)
        within = cv2.distanceTransform(skin, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self._skin = within * view.pixel_size_m() > SKIN_MARGIN_M

    def deny(self, points: np.ndarray) -> np.ndarray:
        """Which points (n, 3) cannot be hair, (n,)."""
        row, column, inside, depth = self.view.pixels_of(points)
        before = depth < self.view.depth[row, column] + DEPTH_TOLERANCE_M
        return inside & (self._outside[row, column] | (self._skin[row, column] & before))
