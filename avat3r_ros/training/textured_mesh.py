"""The fitted head template with the photos projected onto it: a baseline without Gaussians.

target pixel ─► triangle and place on it ─► the same place in each photo ─► colour, where it is seen
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros import native
from avat3r_ros.geometry import (
    invert_poses,
    project_points,
    transform_points,
    triangle_normals,
)
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews

HIDDEN_BELOW_M = 0.006
"""A point so far behind what a photo shows there is hidden in it."""


class TexturedMesh:
    """The template in a person's shape, coloured by their photos.

    Args:
        views: References.
        template: Head template of their fit.
    """

    def __init__(self, views: ReferenceViews, template: HeadTemplate) -> None:
        self.views, self.template = views, template
        self._triangles = template.triangles_without_lashes().int().numpy()
        self._posed = [
            template.vertices(views.identity.float(), code.float()) for code in views.codes
        ]
        self._depths = [
            torch.from_numpy(self._rasterized(vertices, views.cameras[view]).depth_m)
            for view, vertices in enumerate(self._posed)
        ]
        shown = views.masks[:, 0] > SEEN_MASK
        self._mean = views.images.permute(0, 2, 3, 1)[shown].mean(0)

    def picture(self, code: Float[Tensor, "e"], camera: Camera) -> Float[Tensor, "3 h w"]:
        """Draw the mesh in an expression for one camera, on black."""
        vertices = self.template.vertices(self.views.identity.float(), code.float())
        seen = self._rasterized(vertices, camera)
        on = torch.from_numpy(seen.triangle_ids >= 0)
        ids = torch.from_numpy(seen.triangle_ids)[on].long()
        weights = torch.from_numpy(seen.barycentrics)[on]
        corners = torch.from_numpy(self._triangles).long()[ids]
        colors, total = torch.zeros(len(ids), 3), torch.full((len(ids), 1), 1e-6)
        for view, posed in enumerate(self._posed):
            sampled, weight = self._sample(view, posed[corners], weights)
            colors += sampled * weight
            total += weight
        # What no photo shows gets the mean colour.
        colors = torch.where(total > 1e-3, colors / total, self._mean)
        image = torch.zeros(camera.height, camera.width, 3)
        image[on] = colors
        return image.permute(2, 0, 1)

    def _rasterized(self, vertices: Tensor, camera: Camera) -> native.mesh.MeshFragments:
        return native.rasterize_mesh(
            vertices.numpy(),
            self._triangles,
            camera.intrinsics.double().numpy(),
            camera.camera_from_head.double().numpy(),
            camera.width,
            camera.height,
        )

    def _sample(self, view: int, corners: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Colours of surface points in a photo, and their weights: squared cosine, 0 if hidden."""
        camera = self.views.cameras[view]
        points = (corners * weights[..., None]).sum(1)
        inside = transform_points(camera.camera_from_head.float(), points)
        pixels = project_points(camera.intrinsics.float(), inside)
        x, y = pixels.floor().long().unbind(-1)
        there = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        x, y = x.clamp(0, camera.width - 1), y.clamp(0, camera.height - 1)
        center = invert_poses(camera.camera_from_head.float())[:3, 3]
        facing = torch.cosine_similarity(triangle_normals(corners), center - points, dim=-1).clamp(
            min=0
        )
        visible = there & (inside[:, 2] < self._depths[view][y, x] + HIDDEN_BELOW_M)
        visible &= self.views.masks[view, 0, y, x] > SEEN_MASK
        size = torch.tensor([camera.width, camera.height])
        grid = (pixels / size * 2 - 1)[None, None]
        sampled = torch.nn.functional.grid_sample(
            self.views.images[view : view + 1].float(), grid, align_corners=False
        )[0, :, 0].T
        return sampled, (facing.clamp(min=0).square() * visible)[:, None]


def nearest_view(views: ReferenceViews, camera: Camera) -> int:
    """Reference whose direction towards the head is nearest to a camera's."""
    directions = [
        np.asarray(invert_poses(one.camera_from_head.double())[:3, 3])
        for one in [*(views.cameras[view] for view in range(len(views.images))), camera]
    ]
    units = [direction / np.linalg.norm(direction) for direction in directions]
    return int(np.argmax([unit @ units[-1] for unit in units[:-1]]))
