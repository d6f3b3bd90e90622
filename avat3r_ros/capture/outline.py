"""The head's outline in a photo: where the drawn template ends, and where the matte says it does.

Landmarks cover the face only. Its sides, ears, neck and the size of the skull show in the outline:
points on the outline of the drawn mesh are pulled along the image normal to the edge of the matte.

    pixel error = signed distance of a point from the matte's edge, positive outside

Skin, ears and neck should end at the edge. The bald scalp may end inside it, for there is hair; and
hair may cover the others too, so that a mesh that sticks out is surer evidence than one inside.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from avat3r_ros import native
from avat3r_ros.rig import HeadTemplate

WORKING_SIZE_PX = 96.0
"""Outlines are drawn at the scale at which a face (sellion to chin, 0.12 m) is this long: about a
millimetre a pixel."""

FACE_LENGTH_M = 0.12
REACH_M = 0.02
"""Matte edges farther from the mesh's outline than this belong to hair, hands or clothes."""

NECK_BELOW_CHIN_M = 0.04
"""Below it lie collars."""

POINTS_PER_VIEW = 150
"""Points of an outline that are used, evenly spread."""

SAME_DIRECTION = 0.6
"""Cosine between the outlines' normals from which mesh and matte show the same edge."""

MATTE_BLUR_PX, BLUR_REACH_PX = 1.5, 8
BACKGROUND = 0.5


@dataclass(frozen=True)
class Outline:
    """Points on the drawn outline of one photo; n may be 0.

    Attributes:
        triangles: Where on the mesh, triangle of each point.
        barycentrics: Likewise.
        target_px: Nearest point of the matte's edge, pixels of the whole photo.
        normal: Unit normal of that edge, pointing out of the person.
        one_sided: Points that may lie inside (the bald scalp).
    """

    triangles: Int[np.ndarray, "n"]
    barycentrics: Float[np.ndarray, "n 3"]
    target_px: Float[np.ndarray, "n 2"]
    normal: Float[np.ndarray, "n 2"]
    one_sided: Bool[np.ndarray, "n"]


def find_outline(
    vertices: Float[np.ndarray, "v 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    camera_from_head: Float[np.ndarray, "4 4"],
    matte: Float[np.ndarray, "h w"],
    template: HeadTemplate,
    chin: Float[np.ndarray, "3"],
) -> Outline:
    """Pair the outline of a posed head with the edge of its matte.

    Args:
        vertices: The head in the photo's expression, head frame, metres.
        intrinsics: Of the whole photo, pixels, centres at +0.5.
        camera_from_head: Pose of the head.
        matte: Share of each pixel that belongs to the person, [0, 1].
        template: Whose head it is.
        chin: The resting chin, head frame.
    """
    height, width = matte.shape
    scale = WORKING_SIZE_PX * camera_from_head[2, 3] / (FACE_LENGTH_M * intrinsics[0, 0])
    scale = min(scale, 1.0)
    size = (max(round(width * scale), 8), max(round(height * scale), 8))
    scales = np.array([size[0] / width, size[1] / height])
    small_k = np.diag([*scales, 1.0]) @ intrinsics
    inside = cv2.resize(matte.astype(np.float32), size, interpolation=cv2.INTER_AREA) > BACKGROUND
    ids, weights, _ = native.rasterize_mesh(
        vertices,
        template.triangles_without_lashes().int().numpy(),
        small_k,
        camera_from_head,
        *size,
    )
    row, column = np.nonzero(_edge(ids >= 0))
    if not inside.any() or inside.all() or not len(row):
        return _no_outline()
    reach_px = REACH_M * small_k[0, 0] / camera_from_head[2, 3]
    # Edges out of reach say nothing: only what is around the mesh is looked at.
    margin = int(reach_px) + BLUR_REACH_PX
    top, left = max(row.min() - margin, 0), max(column.min() - margin, 0)
    around = np.s_[top : row.max() + margin + 1, left : column.max() + margin + 1]
    place = row - top, column - left
    distance, normal = _signed_distance(inside[around], *place)
    own_distance, own_normal = _signed_distance(ids[around] >= 0, *place)
    distance = distance - own_distance  # the pixels' centres lie half a pixel inside the mesh

    triangles, barycentrics = ids[row, column], weights[row, column]
    corners = vertices[template.triangles.numpy()[triangles]]
    points = (barycentrics[..., None] * corners).sum(1)
    good = (normal * own_normal).sum(-1) > SAME_DIRECTION
    good &= np.abs(distance) < reach_px
    good &= points[:, 1] > chin[1] - NECK_BELOW_CHIN_M
    if not shows_crown(vertices, intrinsics, camera_from_head, matte.shape):
        # Mattes round off a head that goes on beyond the photo, and skulls would follow.
        good &= points[:, 1] < vertices[template.region_vertices("brows"), 1].max()
    chosen = np.flatnonzero(good)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), POINTS_PER_VIEW)).astype(int)]
    at = np.stack([column, row], -1)[chosen] + 0.5
    target = at - distance[chosen, None] * normal[chosen]
    return Outline(
        triangles=triangles[chosen],
        barycentrics=barycentrics[chosen].astype(np.float64),
        target_px=target / scales,
        normal=normal[chosen],
        one_sided=template.region_mask("scalp").numpy()[triangles[chosen]],
    )


def shows_crown(
    vertices: Float[np.ndarray, "v 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    camera_from_head: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
) -> bool:
    """Whether the top of a head is inside a photo of so many rows and columns."""
    crown = vertices[vertices[:, 1].argmax()]
    x, y, depth = intrinsics @ (camera_from_head[:3, :3] @ crown + camera_from_head[:3, 3])
    return bool(0 < x < size[1] * depth and 0 < y < size[0] * depth)


def _edge(mask: np.ndarray) -> np.ndarray:
    """Outermost pixels of a mask; the image's border is no edge."""
    padded = np.pad(mask, 1, mode="edge").astype(np.uint8)
    return mask & (cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] == 0)


def _signed_distance(
    mask: np.ndarray, row: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of pixels from a mask's edge, positive outside, and the edge's outward normal."""
    outside, inside = (
        cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for part in (~mask, mask)
    )
    distance = outside.astype(np.float64) - inside
    distance -= np.where(mask, -0.5, 0.5)  # the edge lies between pixels
    distance = cv2.GaussianBlur(distance, (0, 0), MATTE_BLUR_PX)
    slope = np.stack(
        [_differences(distance, row, column), _differences(distance.T, column, row)], -1
    )
    length = np.linalg.norm(slope, axis=-1, keepdims=True)
    return distance[row, column], slope / np.maximum(length, 1e-9)


def _differences(values: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Sobel's differences along rows, at some pixels."""
    last_row, last_column = (side - 1 for side in values.shape)
    # Mirrored at the border, without its pixel again.
    rows = last_row - np.abs(last_row - np.abs(row + np.array([[-1], [0], [1]])))
    before, after = (last_column - np.abs(last_column - np.abs(column + k)) for k in (-1, 1))
    along = values[rows, after] - values[rows, before]
    return along[0] + 2 * along[1] + along[2]


def _no_outline() -> Outline:
    return Outline(
        np.zeros(0, np.int32), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2)),
        np.zeros(0, bool),
    )  # fmt: skip
