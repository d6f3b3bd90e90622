"""Where true heads are to the cameras of a fit.

Photos leave open how large and how far away a head is, and where in it the origin lies: before a
fitted head and the true one are compared, one is laid over the other.

    landmarks of both heads, or the photographed faces ─► first guess
        ─► moved until the fit's cameras see the true head where the photos show it
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

from avat3r_ros.data.head_surface import HeadSurface
from avat3r_ros.geometry import (
    fit_similarity,
    pixel_centers,
    project_points,
    transform_points,
)
from avat3r_ros.priors.depth import FACE_REGIONS
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews, SurfaceBinding

PIXELS_ASKED, INDEPENDENT_PIXELS = 1500, 200
"""Pixels of each photo that say where a true head is, and as how many all photos' together count:
errors of neighbours are alike."""

USUAL_CHANGE = np.array([0.03, 0.1, 0.1, 0.1, 0.02, 0.02, 0.02])
"""Spread of the changes of a first guess: logarithm of the size, rotation vector (radians), metres.
A pixel off counts as much."""


@dataclass(frozen=True)
class Similarity:
    """`a_from_b` with a scale: points_a = scale * rotation @ points_b + translation."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def points(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
        """Map points from b to a."""
        rotation = torch.from_numpy(self.rotation).to(points)
        return self.scale * points @ rotation.T + torch.from_numpy(self.translation).to(points)

    def cameras(self, cameras: Camera) -> Camera:
        """Turn cameras of the frame b into those of the frame a that take the same pictures.

        Distances in the camera frame grow by the scale, which a picture does not show.
        """
        rotation = torch.from_numpy(self.rotation).to(cameras.camera_from_head)
        translation = torch.from_numpy(self.translation).to(cameras.camera_from_head)
        pose = cameras.camera_from_head.clone()
        pose[..., :3, :3] = pose[..., :3, :3] @ rotation.T
        pose[..., :3, 3] = self.scale * pose[..., :3, 3] - pose[..., :3, :3] @ translation
        return replace(cameras, camera_from_head=pose)


def align_landmarks(
    template: HeadTemplate, true_rest: Float[np.ndarray, "v 3"], fit_rest: Float[np.ndarray, "v 3"]
) -> Similarity:
    """Similarity that lays the true resting face over the fitted one, by their landmarks."""
    fitted, true = (
        template.landmarks(torch.from_numpy(rest)).double().numpy()
        for rest in (fit_rest, true_rest)
    )
    return Similarity(*fit_similarity(fitted, true))


def align_photographed(
    views: ReferenceViews,
    surfaces: SurfaceBinding,
    mesh: HeadSurface,
    codes: Float[Tensor, "v 52"],
    template: HeadTemplate,
) -> Similarity:
    """Similarity that lays the photographed true faces over the position maps.

    A first guess for meshes of another kind, which have no landmarks of ours.

    Args:
        views: References.
        surfaces: True surface under each of their pixels.
        mesh: The person's true shape.
        codes: True expression of each reference.
        template: Says which pixels show the face.
    """
    triangles = views.binding.triangle_ids
    face = template.region_mask(*FACE_REGIONS)[triangles.clamp(min=0)]
    face &= (triangles >= 0) & (surfaces.triangle_ids >= 0) & (views.masks[:, 0] > 0.9)
    true = torch.stack(
        [
            mesh.points(SurfaceBinding(ids, weights), code.numpy())
            for ids, weights, code in zip(
                surfaces.triangle_ids, surfaces.barycentrics, codes, strict=True
            )
        ]
    )
    placed = views.position_maps.movedim(1, -1)
    return Similarity(*fit_similarity(placed[face].double().numpy(), true[face].double().numpy()))


def align_to_photos(
    start: Similarity,
    views: ReferenceViews,
    surfaces: SurfaceBinding,
    mesh: HeadSurface,
    codes: Float[Tensor, "v 52"],
) -> Similarity:
    """Similarity after which the fitted cameras see the true head where their photos show it.

    Photos leave open how large and how far away a head is, and where in it the origin lies. What an
    avatar shows follows its photos' cameras, and so true pictures have to be taken from where they
    are to these cameras. Landmarks of fitted and true heads, laid over each other, are off by a
    pixel and more: the fit errs in each of them.

    Args:
        start: First guess; where photos tell little, nothing far from it is chosen.
        views: References.
        surfaces: True surface under each of their pixels.
        mesh: The person's true shape.
        codes: True expression of each reference.
    """
    centers = pixel_centers(views.cameras.height, views.cameras.width).double()
    photographed = []
    for view, code in enumerate(codes):
        shown = (surfaces.triangle_ids[view] >= 0) & (views.masks[view, 0] > 0.9)
        asked = shown.flatten().nonzero()[:, 0]
        asked = asked[:: max(len(asked) // PIXELS_ASKED, 1)]
        surface = SurfaceBinding(
            surfaces.triangle_ids[view].flatten()[asked],
            surfaces.barycentrics[view].flatten(0, 1)[asked],
        )
        points = mesh.points(surface, code.numpy()).double()
        photographed.append((points, centers.flatten(0, 1)[asked]))
    weight = np.sqrt(INDEPENDENT_PIXELS / max(sum(len(points) for points, _ in photographed), 1))
    intrinsics, poses = views.cameras.intrinsics.double(), views.cameras.camera_from_head.double()

    def changed(change: np.ndarray) -> Similarity:
        """By log scale, rotation vector and translation."""
        return Similarity(
            float(np.exp(change[0]) * start.scale),
            Rotation.from_rotvec(change[1:4]).as_matrix() @ start.rotation,
            start.translation + change[4:],
        )

    def residuals(change: np.ndarray) -> np.ndarray:
        to = changed(change)
        off = [
            project_points(intrinsic, transform_points(pose, to.points(points))) - pixels
            for (points, pixels), intrinsic, pose in zip(
                photographed, intrinsics, poses, strict=True
            )
        ]
        return np.concatenate([weight * torch.cat(off).flatten().numpy(), change / USUAL_CHANGE])

    return changed(least_squares(residuals, np.zeros(7)).x)
