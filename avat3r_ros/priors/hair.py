"""Hair as a shell: how far it stands off the scalp, from what the mattes show beyond the mesh.

The mesh is bald. Hair is on its scalp, and on its sides where photos show hair in front of them.
Where a matte reaches beyond the mesh's outline, the hair at that outline is so thick. Each photo
tells this along one curve over the head; in between, thickness is interpolated smoothly, and it is
zero at the hairline. All photos then share one hair surface, so that it neither doubles nor fans
out between them.
"""

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from avat3r_ros.priors.view import SEEN_MASK, ReferenceView
from avat3r_ros.rig import HeadTemplate, graph_laplacian

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


def hair_thickness(
    views: list[ReferenceView], template: HeadTemplate, normals: np.ndarray
) -> np.ndarray:
    """Estimate the thickness of hair over every vertex.

    Args:
        views: Drawn with the bald mesh.
        template: The head model.
        normals: (v, 3) coarse outward normals of the person's resting head.

    Returns:
        (v,) metres along the normals; 0 where there is no hair.
    """
    outer = template.region_vertices("skin", "scalp", "neck", "ears", "brows", "lips")
    hairy = _hairy(views, template, normals)

    total, count = np.zeros(len(normals)), np.zeros(len(normals))
    for view in views:
        observed, valid = observe_hair(view, normals, outer, hairy)
        total += np.where(valid, observed, 0) ** 2
        count += valid
    if not (total > 0).any():
        return np.zeros(len(normals))
    # The quadratic mean leans to the thicker: a fit that is off hides hair behind the mesh.
    laplacian = graph_laplacian(len(normals), template.triangles.numpy())
    return _interpolate(np.sqrt(total / np.maximum(count, 1)), count, laplacian, hairy)


def _hairy(views: list[ReferenceView], template: HeadTemplate, normals: np.ndarray) -> np.ndarray:
    """Vertices that may carry hair: the scalp, and sides that photos show to be covered, (v,)."""
    seen, hair = np.zeros(len(normals)), np.zeros(len(normals))
    for view in views:
        vertices = view.vertices.astype(np.float64)
        row, column, _, _ = view.pixels_of(vertices)
        sees = view.sees(vertices)
        seen += sees
        hair += sees & view.hair[row, column]
    hairy = np.zeros(len(normals), bool)
    hairy[template.region_vertices("skin", "neck", "ears")] = True
    hairy &= (normals[:, 2] < SIDE_FACING) & (hair > 0.5 * seen)
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
    near_border = np.minimum.reduce([row, column, view.height - 1 - row, view.width - 1 - column])
    return thickness, (thickness > 0) | (outline & (near_border > 2))


def _interpolate(
    values: np.ndarray, weights: np.ndarray, laplacian: sparse.csr_matrix, free: np.ndarray
) -> np.ndarray:
    """Smooth field on the free vertices that follows weighted observations; 0 on all others."""
    system = SMOOTHNESS * laplacian[free][:, free] + sparse.diags(weights[free] + 1e-6)
    field = np.zeros(len(values))
    field[free] = spsolve(system.tocsc(), weights[free] * values[free])
    return field.clip(0, MAX_THICKNESS_M)
