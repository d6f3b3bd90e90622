"""Hair that one photo's matte cuts off comes back where other photos show it, or its other side.

Segmenters cut long hair off, in one photo and not in the next, on one side and not on the other.
Two things together say that a pixel outside a matte is hair, and either alone does not:

    the others   on its ray is a place beside the head that most other mattes have inside; of one
                 or two photos, a place whose mirror image its own matte has inside
    its colour   is one of the head's in this photo, and far from all of the background's
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

from avat3r_ros.capture.color_examples import (
    MAX_COLOR_DISTANCE,
    MIN_EXAMPLES,
    color_examples,
    smooth_lab,
)
from avat3r_ros.geometry import camera_direction
from avat3r_ros.mattes import SEEN_MASK, parts_touching
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig.framing import (
    BOX_CENTER_HEAD_M,
    BOX_SIZE_M,
    SKULL_CENTER_HEAD_M,
    SKULL_RADII_M,
    height_over_chin_plane,
)

MIN_VIEWS = 3
"""Of two photos the other one alone would decide."""

MAX_TURN_RAD = np.radians(25.0)
"""In a photo turned farther, most places beside the head have their mirror images behind it."""

PLACE_M = 0.007
"""Distance of the places around the head that are looked at."""

REACH = 1.6
"""They lie within so many radii of the skull, and below its middle in a column of that width."""

BELOW_CHIN_M = 0.03
"""Lower there are shoulders."""

STRAND_M = 0.008
"""What is narrower is the slack of the fit and no cut."""

BACKGROUND_FARTHER, BACKGROUND_APART = 2.0, 3.0
"""The nearest colours of the background are so many times farther away, and that far at least."""

STRAY = 3
"""So many still nearer ones may be hair that no matte has."""

CERTAIN_HEAD, CERTAIN_BACKGROUND = 0.9, 0.1
"""Mattes above and below these give examples of colours."""

BESIDE_PX = 4
"""Background begins this far outside of all that may be head."""

EDGE_PX = 0.7
"""Softness of the edge of what was added."""


def with_cut_hair(
    pictures: Sequence[Float[np.ndarray, "h w 3"]],
    masks: Sequence[Float[np.ndarray, "h w"]],
    shown: Sequence[Bool[np.ndarray, "h w"]],
    intrinsics: Sequence[Float[np.ndarray, "3 3"]],
    camera_from_head: Float[np.ndarray, "v 4 4"],
    chin: Float[np.ndarray, "3"],
) -> Sequence[Float[np.ndarray, "h w"]]:
    """Return the masks with the hair that others or the other side show and the colours confirm.

    Args:
        pictures: Square crops of one head, RGB in [0, 1].
        masks: Their mattes.
        shown: Where a crop lies inside its photo.
        intrinsics: Of the crops.
        camera_from_head: Their cameras.
        chin: Of the resting head, head frame.
    """
    places = _places(chin)
    size = len(masks[0])
    at = [
        _pixels(places, k, pose, size) for k, pose in zip(intrinsics, camera_from_head, strict=True)
    ]
    if len(masks) < MIN_VIEWS:
        mirrored = places * [-1, 1, 1]
        agreed = [
            _inside(mask, _pixels(mirrored, k, pose, size))
            & (abs(camera_direction(pose)[0]) < MAX_TURN_RAD)
            for mask, k, pose in zip(masks, intrinsics, camera_from_head, strict=True)
        ]
    else:
        inside = np.stack([_inside(*one) for one in zip(masks, at, strict=True)])
        agreed = inside.sum(0) - inside > (len(masks) - 1) / 2

    def completed(view: int) -> np.ndarray:
        k, mask = intrinsics[view], masks[view]
        px_per_m = float(k[0, 0] / np.linalg.norm(camera_from_head[view][:3, 3]))
        row, column, ok = at[view]
        around, head = (
            _drawn(row[which], column[which], len(mask), PLACE_M * px_per_m)
            for which in (ok, ok & agreed[view])
        )
        head &= shown[view]
        missing = _missing(pictures[view], mask, shown[view], head, around, STRAND_M * px_per_m)
        if not missing.any():
            return mask
        # Gaps of a pixel or two between the matte and what is added are mixtures of the same.
        kernel = np.ones((5, 5), np.uint8)
        whole = cv2.morphologyEx(
            (missing | (mask > SEEN_MASK)).astype(np.uint8), cv2.MORPH_CLOSE, kernel
        )
        whole *= cv2.dilate(missing.astype(np.uint8), kernel)
        soft = cv2.GaussianBlur(whole.astype(mask.dtype), (0, 0), EDGE_PX)
        return np.maximum(mask, soft * shown[view])

    return in_threads(completed, range(len(masks)))


def _places(chin: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """An even grid of places where hair may be."""
    steps = np.arange(-BOX_SIZE_M / 2, BOX_SIZE_M / 2, PLACE_M)
    places = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3) + BOX_CENTER_HEAD_M
    radii = (places - SKULL_CENTER_HEAD_M) / SKULL_RADII_M
    radii[:, 1] = radii[:, 1].clip(0)
    near = (radii**2).sum(1) < REACH**2
    return places[near & (height_over_chin_plane(places, chin) > -BELOW_CHIN_M)]


def _pixels(
    points: np.ndarray, intrinsics: np.ndarray, camera_from_head: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of points (n, 3), nearest in the picture, and whether they are in it."""
    rays = (points @ camera_from_head[:3, :3].T + camera_from_head[:3, 3]) @ intrinsics.T
    column, row = np.floor(rays[:, :2] / rays[:, 2:]).astype(int).T
    inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
    return row.clip(0, size - 1), column.clip(0, size - 1), inside


def _inside(mask: np.ndarray, at: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Which points (`_pixels`) lie in a mask."""
    row, column, ok = at
    return ok & (mask[row, column] > SEEN_MASK)


def _drawn(row: np.ndarray, column: np.ndarray, size: int, gap_px: float) -> np.ndarray:
    """Pixels that points of a grid cover, (size, size) bool."""
    drawn = np.zeros((size, size), np.uint8)
    drawn[row, column] = 1
    side = int(np.ceil(gap_px)) + 2
    return cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)) > 0


def _missing(
    picture: np.ndarray,
    mask: np.ndarray,
    shown: np.ndarray,
    head: np.ndarray,
    around: np.ndarray,
    strand_px: float,
) -> Bool[np.ndarray, "h w"]:
    """Pixels of a head outside its matte, by colour, that hang together with it.

    Args:
        picture: RGB in [0, 1].
        mask: Matte.
        shown: Pixels of the photo.
        head: Where the other photos allow the head.
        around: Where a head may be at all; below it are clothes.
        strand_px: Width of a strand of hair.
    """
    none = np.zeros(mask.shape, bool)
    contested = head & (mask < CERTAIN_HEAD)
    beside = (
        cv2.dilate((head | (mask > CERTAIN_BACKGROUND)).astype(np.uint8), _disc(BESIDE_PX)) == 0
    )
    of_head, of_background = around & (mask > CERTAIN_HEAD), beside & shown
    of_background[_lowest(around) :] = False
    if min(of_head.sum(), of_background.sum()) < MIN_EXAMPLES or not contested.any():
        return none
    lab = smooth_lab(picture)
    to_head, _ = color_examples(lab[of_head]).query(
        lab[contested], distance_upper_bound=MAX_COLOR_DISTANCE
    )
    near = np.flatnonzero(np.isfinite(to_head))
    apart = np.maximum(BACKGROUND_FARTHER * to_head[near], BACKGROUND_APART)
    to_background, _ = color_examples(lab[of_background]).query(
        lab[contested][near], k=[STRAY + 1], distance_upper_bound=apart.max(initial=0) + 1
    )
    alike = none.copy()
    alike.flat[np.flatnonzero(contested)[near]] = to_background[:, 0] > apart
    outside = (alike & (mask < SEEN_MASK)).astype(np.uint8)
    strands = cv2.morphologyEx(outside, cv2.MORPH_OPEN, _disc(strand_px / 2))
    if not strands.any():
        return none
    beside_matte = cv2.dilate((mask > SEEN_MASK).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return parts_touching(parts_touching(alike, strands > 0), beside_matte)


def _lowest(mask: np.ndarray) -> int:
    """The row below the lowest of a mask."""
    rows = np.flatnonzero(mask.any(1))
    return int(rows[-1]) + 1 if len(rows) else 0


def _disc(radius_px: float) -> np.ndarray:
    radius = max(round(radius_px), 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
