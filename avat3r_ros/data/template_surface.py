"""The template's surface in texels: what is the same for all drawn people, made once.

Texels lie at their places on the mean head (metres, head frame); appearance.py paints them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from avat3r_ros.data.noise import NoiseBank, value_noise
from avat3r_ros.data.texels import TexelGrid, divisions_for_triangles
from avat3r_ros.rig import REGIONS, HeadTemplate

_TEXEL_MM = {
    "scalp": 2.0, "neck": 2.0, "ears": 1.2, "eye_sockets": 4.0, "inner_mouth": 3.0, "tongue": 1.5,
    "eyelashes": 3.0, "eye_left": 0.45, "eye_right": 0.45, "teeth": 0.8, "brows": 0.5, "lips": 0.5,
}  # fmt: skip
"""Texel size by region where it is not 0.8 mm; half a pixel of a 512-pixel crop is 0.3 mm."""

PORE_M, BLOTCH_M = 0.0016, 0.005
"""Wavelengths of the noise evaluated at texels; longer ones are evaluated at vertices."""

EYES = ("eye_left", "eye_right")


@dataclass(frozen=True)
class TemplateSurface:
    """What is the same for all people: texels of the template and their places on the mean head.

    Attributes:
        grid: Texels of all template triangles.
        triangles: Vertex ids of the template's triangles.
        points: Place of each texel on the mean head, metres.
        regions: Soft membership of each texel in each region, fading over one triangle.
        hard_regions: Region of each texel, index into `REGIONS`.
        eye_centers: Centres of the left and right eyeball on the mean head, metres.
        eye_vertices: Vertices of the left and right eyeball.
        noise: Fine noise at the texels.
        tree: Nearest-texel search over `points`.
        lids: Texels of the lids and around the eyeballs.
        to_lashes: Distance of each of them from the nearest root of the upper and of the lower
            lashes, metres.
        brow_line: Coefficients of the brow's height over |x|, lowest power first.
    """

    grid: TexelGrid
    triangles: np.ndarray
    vertices: np.ndarray
    points: np.ndarray
    regions: dict[str, np.ndarray]
    hard_regions: np.ndarray
    eye_centers: np.ndarray
    eye_vertices: tuple[np.ndarray, np.ndarray]
    noise: NoiseBank
    tree: cKDTree
    lids: np.ndarray
    to_lashes: tuple[np.ndarray, np.ndarray]
    brow_line: np.ndarray

    def smooth_noise(self, wavelength_m: float, rng: np.random.Generator) -> np.ndarray:
        """Noise of a wavelength above the mesh's edges, at the texels; unit spread."""
        values = value_noise(self.vertices, wavelength_m, rng)
        return self.grid.interpolate(values, self.triangles)


@lru_cache(maxsize=2)
def template_surface(template: HeadTemplate) -> TemplateSurface:
    """Lay out the texels of a template; about a second, once per process."""
    vertices = template.neutral.numpy()
    triangles = template.triangles.numpy().astype(np.int32)
    region_of = template.triangle_regions.numpy()
    size_mm = np.array([_TEXEL_MM.get(name, 0.8) for name in REGIONS])[region_of]
    grid = TexelGrid.build(divisions_for_triangles(vertices, triangles, size_mm * 1e-3))
    points = grid.interpolate(vertices, triangles)
    membership = np.zeros((len(vertices), len(REGIONS)), np.float32)
    for corner in range(3):
        np.add.at(membership, (triangles[:, corner], region_of), 1)
    membership /= np.maximum(membership.sum(1, keepdims=True), 1)
    soft = {
        name: grid.interpolate(np.ascontiguousarray(membership[:, i]), triangles)
        for i, name in enumerate(REGIONS)
    }
    eyes = [np.unique(triangles[region_of == REGIONS.index(name)]) for name in EYES]
    brows = vertices[np.unique(triangles[region_of == REGIONS.index("brows")])]
    around = np.maximum(soft["lid_left"], soft["lid_right"]) + soft["eye_sockets"]
    lids = np.flatnonzero(around > 0.05)
    upper, lower = _lash_roots(vertices, triangles, region_of)
    return TemplateSurface(
        grid=grid,
        triangles=triangles,
        vertices=vertices,
        points=points,
        regions=soft,
        hard_regions=region_of[grid.triangle_ids],
        eye_centers=np.stack([middle(vertices[eye]) for eye in eyes]),
        eye_vertices=(eyes[0], eyes[1]),
        noise=NoiseBank(points, (PORE_M, BLOTCH_M), fields=3),
        tree=cKDTree(points),
        lids=lids,
        to_lashes=(upper.query(points[lids])[0], lower.query(points[lids])[0]),
        brow_line=np.polynomial.polynomial.polyfit(np.abs(brows[:, 0]), brows[:, 1], 2),
    )


def middle(points: np.ndarray) -> np.ndarray:
    """Middle of the box around points (n, 3)."""
    return (points.min(0) + points.max(0)) / 2


def _lash_roots(
    vertices: np.ndarray, triangles: np.ndarray, region_of: np.ndarray
) -> tuple[cKDTree, cKDTree]:
    """Points along the lines where the lashes of the upper and of the lower lids grow."""

    def of(*names: str) -> np.ndarray:
        return triangles[np.isin(region_of, [REGIONS.index(name) for name in names])]

    lids = cKDTree(vertices[np.unique(of("lid_left", "lid_right", "eye_sockets"))])
    lashes = of("eyelashes")
    edges = np.concatenate([lashes[:, [0, 1]], lashes[:, [1, 2]], lashes[:, [2, 0]]])
    rooted = lids.query(vertices)[0] < 0.0012
    edges = edges[rooted[edges].all(1)]
    steps = np.linspace(0, 1, 9)[None, :, None]
    points = (1 - steps) * vertices[edges[:, :1]] + steps * vertices[edges[:, 1:]]
    points = points.reshape(-1, 3)
    upper = points[:, 1] > -0.0008  # the height of the corners of the eyes on the mean head
    return cKDTree(points[upper]), cKDTree(points[~upper])
