"""Hair that hangs beside the head: how deep it lies, from what the other photos deny.

A pixel of hair off the mesh says nothing of its depth. Beginning where it passes the skull, its ray
is searched nearest first for a place that no other photo denies: one that is not outside its matte,
and not before skin that it shows. Long hair hangs, and hangs elsewhere when the head is tilted, so
that below the middle of the skull one denial is no proof: as many photos may deny a place as show
hair there.
"""

import cv2
import numpy as np

from avat3r_ros.mattes import SEEN_MASK, parts_touching
from avat3r_ros.priors.view import (
    DEPTH_TOLERANCE_M,
    ReferenceView,
)
from avat3r_ros.rig.framing import hangs

MATTE_TOLERANCE_M = 0.012
"""How far outside another photo's matte a point may be: so good are fits of skulls and hair."""

STRAND_M = 0.007
"""Width from which something off the mesh is a strand of hair."""

SMOOTHING_M = 0.015
"""Depth is smoothed over this distance: locks are sheets, and pixel by pixel they were crumbs."""

SKIN_MARGIN_M = 0.004
"""Skin this close to its edge denies nothing."""

FINAL = 99
"""Denials of a place that one photo rules out for good."""

DEPTHS_M = np.array(sorted(np.arange(-0.06, 0.0801, 0.01), key=abs))
"""Places tried before and behind the skull."""


def place_free_hair(views: list[ReferenceView]) -> None:
    """Move the points of off-mesh hair along their rays, in place.

    Sets `ReferenceView.free_hair`: pixels of hair that found a place.
    """
    witnesses = [_Witness(view) for view in views]
    for view in views:
        wanted = _strands(view)
        view.free_hair = np.zeros_like(wanted)
        if not wanted.any():
            continue
        guess = view.beside_skull(wanted)
        rays = guess - view.center
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        others = [other for other in witnesses if other.view is not view]
        depth, least = np.zeros(len(guess)), np.ones(len(guess), int)
        for tried in DEPTHS_M:
            left = np.flatnonzero(least > -len(others))
            denials = _denials(guess[left] + tried * rays[left], others)
            better = denials < least[left]
            depth[left[better]], least[left[better]] = tried, denials[better]
        found = least <= 0
        view.free_hair[wanted] = found
        # Neighbours that chose different steps are brought together where that is not denied.
        smooth = _smoothed(depth, found, wanted, SMOOTHING_M / view.pixel_size_m())
        keep = found & (_denials(guess + smooth[:, None] * rays, others) <= 0)
        view.points[wanted] = guess + np.where(keep, smooth, depth)[:, None] * rays


def _strands(view: ReferenceView) -> np.ndarray:
    """Hair off the mesh, without the slivers that are only the fit's slack.

    Beside the face, slivers stay that hang together with a strand.
    """
    hair = (view.hair & ~view.on_mesh & (view.mask > SEEN_MASK)).astype(np.uint8)
    radius = max(round(STRAND_M / 2 / view.pixel_size_m()), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    strands = cv2.morphologyEx(hair, cv2.MORPH_OPEN, disc) > 0
    beside_face = hair * hangs(view.points)
    return strands | parts_touching(beside_face > 0, strands)


def _denials(points: np.ndarray, others: list["_Witness"]) -> np.ndarray:
    """By how many photos more points (n, 3) are denied than confirmed, (n,)."""
    more, final = np.zeros(len(points), int), np.zeros(len(points), bool)
    stays = ~hangs(points)
    for other in others:
        outside, before_skin, hair = other.says_of(points)
        more += outside.astype(int) - hair
        final |= before_skin | (outside & stays)
    return np.where(final, FINAL, more)


def _smoothed(
    values: np.ndarray, known: np.ndarray, mask: np.ndarray, sigma_px: float
) -> np.ndarray:
    """Values (n,) of the mask's pixels, averaged with their known neighbours in the picture."""
    picture, weight = np.zeros(mask.shape), np.zeros(mask.shape)
    picture[mask], weight[mask] = np.where(known, values, 0), known
    total = cv2.GaussianBlur(weight, (0, 0), sigma_px)
    return (cv2.GaussianBlur(picture, (0, 0), sigma_px) / np.maximum(total, 1e-9))[mask]


class _Witness:
    """What one photo says of hair elsewhere."""

    def __init__(self, view: ReferenceView) -> None:
        self.view = view
        self._outside = view.outside_m > MATTE_TOLERANCE_M
        skin = (view.on_mesh & ~view.hair & (view.mask > SEEN_MASK)).astype(np.uint8)
        within = cv2.distanceTransform(skin, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self._skin = within * view.pixel_size_m() > SKIN_MARGIN_M

    def says_of(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of points (n, 3): outside the matte, before skin, and on hair, (n,) each."""
        row, column, inside, depth = self.view.pixels_of(points)
        before = inside & (depth < self.view.depth[row, column] + DEPTH_TOLERANCE_M)
        outside = inside & self._outside[row, column]
        hair = before & ~outside & self.view.hair[row, column]
        return outside, before & self._skin[row, column], hair
