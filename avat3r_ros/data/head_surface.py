"""HeadSurface: where points of a made-up person's surface go, and which of them a camera sees."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from avat3r_ros import native
from avat3r_ros.expression import ARKIT_52
from avat3r_ros.rig.framing import NECK_BELOW_CHIN_M, height_over_chin_plane
from avat3r_ros.types import Camera, SurfaceBinding


class HeadSurface(ABC):
    """A mesh that moves with an expression; head frame, metres.

    Attributes:
        triangles: Vertex ids.
        chin: Tip of the chin at rest.
    """

    triangles: Integer[np.ndarray, "f 3"]
    chin: Float[np.ndarray, "3"]

    @abstractmethod
    def vertices(self, code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "n 3"]:
        """Vertices in an expression, metres."""

    @property
    def head_triangles(self) -> Integer[np.ndarray, "n"]:
        """Triangles that pictures of the head alone show, before the neck is cut."""
        return np.arange(len(self.triangles))

    @property
    def moving_units(self) -> Bool[np.ndarray, "52"]:
        """Units of `arkit_52` that move the surface; the others change nothing."""
        return np.ones(len(ARKIT_52), bool)

    def points(
        self, surface: SurfaceBinding, code: Float[np.ndarray, "52"]
    ) -> Float[Tensor, "*p 3"]:
        """Where points of the surface are in an expression; 0 off the surface."""
        ids = surface.triangle_ids.numpy()
        corners = self.vertices(code)[self.triangles[ids.clip(0)]]
        points = np.einsum("...kc,...k->...c", corners, surface.barycentrics.numpy())
        return torch.from_numpy((points * (ids >= 0)[..., None]).astype(np.float32))

    def height_over_neck_cut(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Signed height over the plane at which the head ends, metres; positive is kept."""
        return height_over_chin_plane(points, self.chin) + NECK_BELOW_CHIN_M

    def visible_surface(self, camera: Camera, code: Float[np.ndarray, "52"]) -> SurfaceBinding:
        """What a camera sees of the head alone at every pixel centre, (H, W)."""
        vertices = self.vertices(code)
        rows = self.head_triangles
        fragments = native.rasterize_mesh(
            vertices,
            self.triangles[rows],
            camera.intrinsics.double().numpy(),
            camera.camera_from_head.double().numpy(),
            camera.width,
            camera.height,
        )
        ids = np.where(fragments.triangle_ids >= 0, rows[fragments.triangle_ids], -1)
        heights = self.height_over_neck_cut(vertices)[self.triangles[ids.clip(0)]]
        kept = (ids >= 0) & ((heights * fragments.barycentrics).sum(-1) > 0)
        return SurfaceBinding(
            torch.from_numpy(np.where(kept, ids, -1).astype(np.int64)),
            torch.from_numpy(fragments.barycentrics * kept[..., None]),
        )
