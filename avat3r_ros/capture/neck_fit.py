"""The neck's own shape, by the skin that photos show beside it.

The fit sees outlines, and those of a neck may be a collar's or of hair. Here colours are known:
from where the drawn neck ends, pixels of skin are followed to the outline of the matte.

    rows of crops ──► skin beyond the drawn neck, or matte that ends before it, in metres
                  ──► the coefficients of `rig.neck_shape`, for all photos together
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from avat3r_ros import native
from avat3r_ros.capture.color_examples import (
    MAX_COLOR_DISTANCE,
    MIN_EXAMPLES,
    color_examples,
    smooth_lab,
)
from avat3r_ros.geometry import invert_pose
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.framing import NECK_BELOW_CHIN_M, height_over_chin_plane
from avat3r_ros.rig.neck_shape import NECK_SHAPES

REACH_M = 0.012
"""Skin that goes on farther beside the neck is of shoulders, and says nothing."""

MAX_CHROMA_APART = 12.0
"""Examples of the neck's skin are so near to the face in chroma (a and b of CIELAB): collars lie on
necks."""

CERTAIN_MASK, RIM_PX = 0.9, 2
"""Mattes above this show no background; so wide is their rim that does."""

SIGMA_M, ROBUST_M = 0.002, 0.004
"""Usual error of an outline, and from where on errors count less."""

ROWS_PER_PHOTO = 6
"""A photo's rows count as so many: neighbours err alike."""

MAX_COEFFICIENT = 3.0
ROUNDS = 4


def with_neck(
    pictures: Sequence[Float[np.ndarray, "h w 3"]],
    masks: Sequence[Float[np.ndarray, "h w"]],
    intrinsics: Sequence[Float[np.ndarray, "3 3"]],
    camera_from_head: Float[np.ndarray, "v 4 4"],
    identity: Float[np.ndarray, "k"],
    codes: Float[np.ndarray, "v e"],
    chin: Float[np.ndarray, "3"],
    template: HeadTemplate,
) -> Float[np.ndarray, "k_and_neck"]:
    """Return the identity followed by the coefficients of the neck's shape.

    Args:
        pictures: Square crops of one head, RGB in [0, 1].
        masks: Their mattes.
        intrinsics: Of the crops.
        camera_from_head: Their cameras.
        identity: Of the head, without its neck.
        codes: Expression of each crop.
        chin: Of the resting head, head frame.
        template: Head template.
    """
    shape = torch.from_numpy(identity)

    def observe(view: int) -> tuple[np.ndarray, np.ndarray]:
        vertices = template.vertices(shape, torch.from_numpy(codes[view])).numpy()
        return _observe(
            pictures[view], masks[view], intrinsics[view], camera_from_head[view], vertices, chin,
            template,
        )  # fmt: skip

    slopes, gaps = zip(*in_threads(observe, range(len(pictures))), strict=True)
    trust = [min(1.0, ROWS_PER_PHOTO / max(len(gap), 1)) / SIGMA_M**2 for gap in gaps]
    trust = np.repeat(trust, [len(gap) for gap in gaps])
    neck = _solved(np.concatenate(slopes), np.concatenate(gaps), trust)
    return np.concatenate([identity, neck]).astype(np.float32)


def _solved(slopes: np.ndarray, gaps: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Coefficients that explain the gaps, usually of size 1; outliers count less each round."""
    neck = np.zeros(len(NECK_SHAPES))
    for _ in range(ROUNDS):
        off = np.abs(gaps - slopes @ neck)
        weighted = slopes * (trust / np.maximum(off / ROBUST_M, 1))[:, None]
        neck = np.linalg.solve(slopes.T @ weighted + np.eye(len(neck)), weighted.T @ gaps)
    return neck.clip(-MAX_COEFFICIENT, MAX_COEFFICIENT)


def _observe(
    picture: np.ndarray,
    mask: np.ndarray,
    intrinsics: np.ndarray,
    camera_from_head: np.ndarray,
    vertices: np.ndarray,
    chin: np.ndarray,
    template: HeadTemplate,
) -> tuple[Float[np.ndarray, "n s"], Float[np.ndarray, "n"]]:
    """How much farther out the neck ends in rows of a crop than it is drawn, at both its ends.

    Returns:
        By how much each coefficient would move that end outwards, metres, and how far it should.
    """
    size = len(mask)
    ids, weights, depth = native.rasterize_mesh(
        vertices, template.triangles.int().numpy(), intrinsics, camera_from_head, size, size
    )
    on_head = ids >= 0
    on_neck = on_head & template.region_mask("neck").numpy()[ids]
    to_right = invert_pose(camera_from_head)[:3, 0]  # of the picture, in the head frame
    corners = template.triangles.numpy()[ids]
    moved = np.einsum(
        "kvc,c->vk", template.neck_basis.numpy().astype(np.float64), to_right, optimize=True
    )
    points = np.einsum("hwk,hwkc->hwc", weights, vertices[corners])
    on_neck &= height_over_chin_plane(points, chin) > -NECK_BELOW_CHIN_M
    face = on_head & template.region_mask("skin").numpy()[ids]
    skin = _skin_pixels(picture, mask, on_neck, face)
    slopes, gaps = [], []
    for outwards in (-1, 1):
        ends = on_neck & ~np.roll(on_head, -outwards, axis=1)
        for row, column in np.argwhere(ends).tolist():
            pixel = row, column
            metres = depth[pixel] / intrinsics[0, 0]
            gap = _gap(
                skin[row, ::outwards],
                mask[row, ::outwards] > SEEN_MASK,
                column if outwards > 0 else size - 1 - column,
                round(REACH_M / metres),
            )
            if gap is not None:
                slopes.append(outwards * weights[pixel] @ moved[corners[pixel]])
                gaps.append(gap * metres)
    return np.reshape(slopes, (-1, len(NECK_SHAPES))), np.array(gaps)


def _gap(
    skin: Bool[np.ndarray, "n"], matte: Bool[np.ndarray, "n"], end: int, reach: int
) -> int | None:
    """Pixels from the end of the drawn neck to that of the photo's, along a row that goes outwards.

    None where something else than skin is between the two, or the matte ends nowhere near.
    """
    if matte[end]:
        beyond = matte[end + 1 : end + 1 + reach]
        if beyond.all():
            return None
        length = int(np.argmin(beyond))
        return length if skin[end : end + 1 + length].all() else None
    first = max(end - reach, 0)
    inner = np.flatnonzero(matte[first:end])
    if not len(inner):
        return None
    last = first + int(inner[-1])
    return last - end if skin[last] else None


def _skin_pixels(
    picture: np.ndarray, mask: np.ndarray, neck: np.ndarray, face: np.ndarray
) -> Bool[np.ndarray, "h w"]:
    """Pixels of the person in a colour of the neck's skin; none if too little of it is known."""
    skin = np.zeros(mask.shape, bool)
    lab = smooth_lab(picture)
    certain = mask > CERTAIN_MASK
    if not (face & certain).any():
        return skin
    chroma = lab[..., 1:]
    apart = np.linalg.norm(chroma - np.median(chroma[face & certain], axis=0), axis=-1)
    examples = lab[neck & certain & (apart < MAX_CHROMA_APART)]
    if len(examples) < MIN_EXAMPLES:
        return skin
    person = mask > SEEN_MASK
    distance, _ = color_examples(examples).query(
        lab[person], distance_upper_bound=MAX_COLOR_DISTANCE
    )
    skin[person] = np.isfinite(distance)
    # The matte's rim is a mixture with the background: it is what it is the rim of.
    across = np.ones((1, 2 * RIM_PX + 1), np.uint8)
    rim = person & (cv2.erode(person.astype(np.uint8), across) == 0)
    return skin | (rim & (cv2.dilate(skin.astype(np.uint8), across) > 0))
