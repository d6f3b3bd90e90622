"""Hair as a shell: how far it stands off the head, by the mattes and by what hair is like.

The mesh is bald. Hair is on its scalp, and on forehead and sides where photos show hair in front of
them. The outline of a matte tells its thickness along one curve over the head: where the shell's
outline falls short of it or goes beyond. What no outline tells is completed from learned
thicknesses of hair, and follows the outlines smoothly. All photos share one hair surface, so that
it neither doubles nor fans out between them.
"""

from functools import partial

import cv2
import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree

from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.parallel import in_threads
from avat3r_ros.priors.view import ReferenceView
from avat3r_ros.rig import HeadTemplate, graph_laplacian
from avat3r_ros.rig.fields import follow
from avat3r_ros.rig.looks import HAIR_NOISE, THICKNESS_UNIT_M, Components, HeadLooks

MAX_THICKNESS_M = 0.05
"""Thicker hair is cut to this: most of what is farther away is not hair."""

MIN_PIXELS_OFF = 1.5
"""Nearer to the mesh's outline than this the matte says nothing about hair."""

SMOOTHNESS = 0.15
"""Weight of neighbours' agreement against each observation."""

SIDE_FACING = 0.5
"""Skin whose normal looks forward by less than this cosine may lie under long hair."""

OUTLINE_FACING = 0.2
"""Hair seen at a smaller cosine than this makes the outline of a photo."""

OUTLINE_ROUNDS = 3
"""How often the shell is brought to the outlines of the mattes."""

OUTLINE_PX = 2
"""Vertices this close within the drawn outline are on it."""

OUTLINE_ALONG = 0.6
"""The matte's outline tells of a vertex if it runs across its normal, up to this cosine."""

MAX_GAP_M = 0.03
"""One round moves the shell by no more than this."""

TIPS_M = 0.0012
"""Outlines show the tips that stand out; between them the surface lies this much lower. Ours: on
drawn people 0, 1.2 and 2.5 mm give 5.0, 4.8 and 5.2 mm of median error (size given)."""

BROWS_M = 0.005
"""Forehead begins this far below the upper end of the brows."""

BORDER_PX = 3
"""Outlines so close to the border of the crop are its border."""


def hair_thickness(
    views: list[ReferenceView],
    template: HeadTemplate,
    normals: np.ndarray,
    looks: Components | None = None,
    hairy: np.ndarray | None = None,
) -> np.ndarray:
    """Estimate the thickness of hair over every vertex.

    Args:
        views: Drawn with the bald mesh.
        template: The head model.
        normals: (v, 3) coarse outward normals of the person's resting head.
        looks: `HeadLooks.hair`; the shipped one if None.
        hairy: (v,) which vertices may carry hair; from what the views say of it if None.

    Returns:
        (v,) metres along the normals; 0 where there is no hair.
    """
    looks = HeadLooks.load().hair if looks is None else looks
    outer = template.region_vertices("skin", "scalp", "neck", "ears", "brows", "lips")
    laplacian = graph_laplacian(len(normals), template.triangles.numpy())
    if hairy is None:
        hairy = covered_vertices(views, template, normals, laplacian)

    def completed(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        weights = np.where(hairy, count, 0.0)
        observed = (total / np.maximum(count, 1)).clip(0, MAX_THICKNESS_M)
        guess = looks.complete_channel(1, observed / THICKNESS_UNIT_M, weights / HAIR_NOISE**2)
        thickness = follow(
            THICKNESS_UNIT_M * guess[:, None], observed[:, None], weights, laplacian, SMOOTHNESS
        )[:, 0]
        return np.where(hairy, thickness.clip(0, MAX_THICKNESS_M), 0.0)

    views = [view for view in views if not view.matte_fails] or views
    observe = partial(observe_hair, normals=normals, outer=outer, hairy=hairy)
    seen = in_threads(observe, views)
    total, count = (np.sum(values, 0) for values in zip(*seen, strict=True))
    if not (total > 0).any():
        return np.zeros(len(normals))
    thickness = completed(total, count)
    for _ in range(OUTLINE_ROUNDS):
        gap = partial(_outline_gap, template=template, thickness=thickness, normals=normals)
        gaps = in_threads(gap, views)
        total, count = (np.sum(values, 0) for values in zip(*gaps, strict=True))
        thickness = completed(total + count * thickness, count)
    return thickness


def covered_vertices(
    views: list[ReferenceView],
    template: HeadTemplate,
    normals: np.ndarray,
    laplacian: sparse.csr_matrix,
) -> np.ndarray:
    """Vertices that may carry hair: the scalp, and what photos show to be covered, (v,)."""
    seen, hair = np.zeros(len(normals)), np.zeros(len(normals))
    for view in views:
        vertices = view.vertices.astype(np.float64)
        row, column, _, _ = view.pixels_of(vertices)
        sees = view.sees(vertices)
        seen += sees
        hair += sees & view.hair[row, column]
    # What no photo shows, as behind an ear, is covered like what is around it.
    share = (hair / np.maximum(seen, 1))[:, None]
    covered = follow(np.zeros_like(share), share, seen, laplacian, SMOOTHNESS)[:, 0] > 0.5
    rest = template.neutral.numpy()
    forehead = rest[:, 1] > rest[template.region_vertices("brows"), 1].max() - BROWS_M
    hairy = np.zeros(len(normals), bool)
    hairy[template.region_vertices("skin", "neck", "ears", "brows")] = True
    hairy &= ((normals[:, 2] < SIDE_FACING) | forehead) & covered
    hairy[template.region_vertices("scalp")] = True
    return hairy


def observe_hair(
    view: ReferenceView, normals: np.ndarray, outer: np.ndarray, hairy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Thickness that one view shows at its outline, and where it shows any, (v,) each.

    Args:
        view: Drawn with the bald mesh.
        normals: (v, 3) coarse outward normals of the person's resting head.
        outer: Vertices that may make an outline.
        hairy: (v,) which vertices may carry hair.
    """
    vertices = view.vertices.astype(np.float64)
    row, column, inside, _ = view.pixels_of(vertices)
    outline = hairy & inside & (np.abs(view.facing(vertices, normals)) < OUTLINE_FACING)
    thickness = np.zeros(len(vertices))
    beyond = ~view.on_mesh & (view.mask > SEEN_MASK)
    off_mesh = (~view.on_mesh).astype(np.uint8)
    beyond &= cv2.distanceTransform(off_mesh, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > MIN_PIXELS_OFF
    if beyond.any():
        points = view.points[beyond]
        _, nearest = cKDTree(vertices[outer]).query(points, distance_upper_bound=MAX_THICKNESS_M)
        near = nearest < len(outer)
        points, vertex = points[near], outer[nearest[near]]
        over_hairy = hairy[vertex]
        points, vertex = points[over_hairy], vertex[over_hairy]
        height = ((points - vertices[vertex]) * normals[vertex]).sum(1)
        np.maximum.at(thickness, vertex, height.clip(0, MAX_THICKNESS_M))
    # An outline vertex without hair beyond it has none, unless the crop ends there.
    ends = outline & view.told[row, column] & (view.to_border(row, column) > BORDER_PX)
    return thickness, (thickness > 0) | ends


def _outline_gap(
    view: ReferenceView, template: HeadTemplate, thickness: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How much thicker the shell must be to fill a view's matte, and where it is told, (v,) each.

    Metres; 0 where the view tells nothing.
    """
    shell = (view.vertices + thickness[:, None] * normals).astype(np.float32)
    drawn = view.rasterize(shell).triangle_ids >= 0
    row, column, inside, _ = view.pixels_of(shell.astype(np.float64))
    own = template.vertex_normals(torch.from_numpy(shell)).numpy()
    within = cv2.distanceTransform(drawn.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    told = inside & (np.abs(view.facing(shell, own)) < OUTLINE_FACING)
    told &= (within[row, column] <= OUTLINE_PX) & (view.to_border(row, column) > BORDER_PX)

    # Positive inside the matte. Where it ends elsewhere than across the normal, as at a neck's
    # cut, it says nothing of the hair.
    depth_px = view.matte_depth_px
    across = (own @ view.camera_from_head[:3, :3].T)[:, :2]
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    inward = view.matte_slope[row, column]
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-9)
    told &= (inward * across).sum(1) < -OUTLINE_ALONG

    gap = (depth_px - within)[row, column] * view.pixel_size_m() - TIPS_M
    rises = ((normals @ view.camera_from_head[:3, :3].T)[:, :2] * across).sum(1)
    gap = (gap / rises.clip(0.5, 1)).clip(-MAX_GAP_M, MAX_GAP_M)
    # A matte that was rounded off shows how much hair there is at least.
    told &= (gap > 0) | view.told[row, column]
    return np.where(told, gap, 0.0), told
