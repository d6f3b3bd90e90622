"""The one photo, laid on the template: what it shows of the surface, and how far to trust it."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates

from avat3r_ros.priors.view import ReferenceView
from avat3r_ros.rig import HeadTemplate, graph_laplacian
from avat3r_ros.rig.fields import follow
from avat3r_ros.rig.looks import DARKEST, OUTER_REGIONS
from avat3r_ros.types import HeadCrops

SOLID_MASK = 0.95
"""Pixels of the photo's matte below this are mixed with the background."""

FULL_FACING, NO_FACING = 0.5, 0.2
"""Cosines between which the photo fades into what is guessed: beyond, its pixels are smeared."""

FULL_FACING_HAIR, NO_FACING_HAIR = 0.3, 0.1
"""The same for hair: strands that are stretched are still hair, where skin becomes stripes."""

CROWN_CUT = 0.1
"""A share of the scalp: the photo ends before it."""

MIN_SHOWN = 0.3
"""Pixels' worth of surroundings that a vertex must have to be seen."""


class PhotoOnHead:
    """A photo on the head that was fitted to it.

    Attributes:
        template: The head model.
        view: The head in the photo; bald until hair is drawn over it.
        normals: (v, 3) coarse outward normals of the bald head.
        surface_normals: (v, 3) the same of what is drawn.
        hair: (v,) which vertices carry hair; none until it is drawn.
        laplacian: Of the template's mesh.
        log_photo: (h, w, 3) log sRGB, the background taken off.
        solid: (h, w) which pixels show the head alone.
        cuts_crown: Whether the photo ends before the head does, so that it hardly shows its hair.
    """

    def __init__(self, crops: HeadCrops, template: HeadTemplate) -> None:
        """Lay the first view of the crops on its head.

        Raises:
            ValueError: It shows nothing of the face.
        """
        self.template = template
        self.laplacian = graph_laplacian(len(template.neutral), template.triangles.numpy())
        self.identity = crops.identity
        self.normals = self.surface_normals = template.coarse_normals(crops.identity).numpy()
        self.hair = np.zeros(len(self.normals), bool)
        self.view = ReferenceView(crops, template, 0)
        self.cuts_crown = self._cuts_crown()
        alpha = self.view.mask
        rgb = crops.images[0].movedim(0, -1).double().numpy()
        self.log_photo = np.log((rgb / np.maximum(alpha, 0.05)[..., None]).clip(DARKEST, 1))
        self.solid = cv2.erode((alpha > SOLID_MASK).astype(np.uint8), np.ones((3, 3))) > 0
        if not (self.solid & self.shows("skin")).any():
            raise ValueError("the photo shows nothing of the face")

    def shows(self, region: str) -> Bool[np.ndarray, "h w"]:
        """Pixels on a region of the template."""
        on = self.view.on_mesh.copy()
        on[on] = self.template.region_mask(region).numpy()[self.view.ids[on]]
        return on

    def skin_color(self) -> Float[np.ndarray, "3"]:
        """Median log colour of the face."""
        return np.median(self.log_photo[self.solid & self.shows("skin")], axis=0)

    def _cuts_crown(self) -> bool:
        view, scalp = self.view, self.template.region_vertices("scalp")
        row, column, inside, _ = view.pixels_of(view.vertices[scalp].astype(np.float64))
        return bool((inside & ~view.shown[row, column]).mean() > CROWN_CUT)

    def draw_hair(
        self, thickness_m: Float[np.ndarray, "v"], present: Bool[np.ndarray, "v"]
    ) -> None:
        """Draw a shell of this thickness over the bald head, which is hair where it is present."""
        self.hair = present
        offset = thickness_m[:, None] * self.normals
        self.view.draw(offset)
        self.surface_normals = self.template.coarse_normals(
            self.identity, torch.from_numpy(offset).float()
        ).numpy()

    def leave_out(self, pixels: Bool[np.ndarray, "h w"]) -> None:
        """Take pixels for background from now on."""
        self.view.mask = np.where(pixels, 0.0, self.view.mask)
        self.solid &= ~pixels

    def smeared(self) -> Bool[np.ndarray, "h w"]:
        """Pixels at the outline of the head and beyond it: turned, they would be stripes."""
        view = self.view
        on = view.on_mesh
        corners = view.triangles[view.ids[on]]
        normals = mix(self.surface_normals, corners, view.weights[on].astype(np.float64))
        outer = self.template.region_mask(*OUTER_REGIONS).numpy()[view.ids[on]]
        slant = np.where(self.hair[corners].all(1), NO_FACING_HAIR, NO_FACING)
        smeared = ~on
        smeared[on] = outer & (view.facing(view.points[on], normals) < slant)
        return smeared

    def look(self) -> tuple[Float[np.ndarray, "v"], Float[np.ndarray, "v 3"]]:
        """Trust in the photo at each vertex [0, 1], and its log colour there."""
        view = self.view
        on = view.on_mesh & self.solid
        corners, shares = view.triangles[view.ids[on]], view.weights[on]
        weight = self._shown()
        total = np.zeros((len(weight), 3))
        for channel in range(3):
            values = shares * self.log_photo[on][:, channel, None]
            np.add.at(total[:, channel], corners, values)
        vertices = torch.from_numpy(view.vertices)
        fine = self.template.vertex_normals(vertices).double().numpy()
        facing = np.minimum(
            view.facing(view.vertices, fine), view.facing(view.vertices, self.surface_normals)
        )
        trust = _smoothstep((facing - NO_FACING) / (FULL_FACING - NO_FACING))
        return self.narrowed(trust, weight > MIN_SHOWN), total / np.maximum(weight, 1e-9)[:, None]

    def hair_trust(self) -> Float[np.ndarray, "v"]:
        """Trust in the photo at each vertex [0, 1], where it shows hair."""
        facing = self.view.facing(self.view.vertices, self.surface_normals)
        trust = _smoothstep((facing - NO_FACING_HAIR) / (FULL_FACING_HAIR - NO_FACING_HAIR))
        return self.narrowed(trust, self._shown() > MIN_SHOWN)

    def _shown(self) -> Float[np.ndarray, "v"]:
        """Pixels' worth of surroundings of each vertex."""
        view = self.view
        on = view.on_mesh & self.solid
        weight = np.zeros(len(view.vertices))
        np.add.at(weight, view.triangles[view.ids[on]], view.weights[on])
        return weight

    def narrowed(
        self, trust: Float[np.ndarray, "v"], where: Bool[np.ndarray, "v"]
    ) -> Float[np.ndarray, "v"]:
        """Trust that fades towards the border of where it holds, and never reaches over it."""
        inside = (trust * where)[:, None]
        faded = follow(np.zeros_like(inside), inside, np.ones(len(inside)), self.laplacian, 0.3)
        return np.minimum(trust, faded[:, 0].clip(0, 1)) * where

    def at(
        self,
        corners: Int[np.ndarray, "n 3"],
        shares: Float[np.ndarray, "n 3"],
        trusted: Float[np.ndarray, "v"],
    ) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n"]]:
        """What the photo shows at points of the surface.

        Args:
            corners: Three vertices of each point.
            shares: Their weights.
            trusted: Trust in the photo at each vertex, [0, 1].

        Returns:
            Log colour, and trust in it: none where the point is hidden.
        """
        view = self.view
        points = mix(view.vertices.astype(np.float64), corners, shares)
        trust = mix(trusted[:, None], corners, shares)[:, 0]
        trust = trust * view.sees(points)
        camera = points @ view.camera_from_head[:3, :3].T + view.camera_from_head[:3, 3]
        pixels = (camera / np.maximum(camera[:, 2:], 1e-6)) @ view.intrinsics.T
        # SciPy counts pixel centres at integers.
        at = pixels[:, 1::-1].T - 0.5
        colors = [
            map_coordinates(self.log_photo[..., channel], at, order=1, mode="nearest")
            for channel in range(3)
        ]
        return np.stack(colors, -1), trust


def mix(
    values: Float[np.ndarray, "v c"],
    corners: Int[np.ndarray, "n 3"],
    shares: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "n c"]:
    """Values of vertices at points of triangles."""
    return np.einsum("pkc,pk->pc", values[corners], shares)


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)
