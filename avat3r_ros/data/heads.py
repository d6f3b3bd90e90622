"""SyntheticHead: one made-up person, rendered from any camera in any expression, with exact truth.

The person is the head template with a random identity, bent a little so that no template fits them
exactly, painted (appearance.py), with hair (hair.py) and clothes (clothes.py):

    identity, code ─► template vertices ─► + hair, clothes ─► triangles and barycentrics per pixel
                                                                   │
    texels, hair picture ──────────────────── colour x light ◄─────┘   (painter.py)
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from avat3r_ros.data.appearance import random_appearance
from avat3r_ros.data.clothes import COLLAR_TILT, neck_axes, random_clothes
from avat3r_ros.data.hair import STYLES, random_hair
from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.painter import CLOTH, DETAIL, HAIR, SKIN, Body, Painter, Part, Picture
from avat3r_ros.data.patches import GridPatch
from avat3r_ros.data.person_mesh import PersonMesh
from avat3r_ros.data.shading import Light, NormalOperator, bake_ambient_occlusion, random_light
from avat3r_ros.data.template_surface import template_surface
from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import Camera, SurfaceBinding

_STYLE_ODDS = (0.1, 0.15, 0.3, 0.22, 0.23)
"""Shares of the hair styles `STYLES` among people."""

_BEND_M, _BEND_WAVELENGTH_M = 0.0012, 0.05
"""Spread and scale of the change of shape that lies outside the template's identities."""

_NECK_END_Y_M = -0.137
"""Height on the mean head, in the collar's plane, below which the neck narrows into the collar."""

_DETAILED = (
    "brows", "lips", "lid_left", "lid_right", "eye_left", "eye_right", "eye_sockets", "teeth",
)  # fmt: skip
"""Regions drawn with several samples in every pixel."""

_SELF_LIT = ("inner_mouth", "teeth", "tongue", "eyelashes", "eye_left", "eye_right", "eye_sockets")
"""Regions whose shadows are painted: they are hidden while the mouth is shut and the lids are where
occlusion is baked."""


@dataclass(frozen=True)
class SyntheticView:
    """A picture of a synthetic head with the truth behind every pixel.

    Attributes:
        image: RGB in [0, 1], times the mask (black background).
        mask: Share of each pixel that the head covers.
        position_map: Head-frame surface point at each pixel's centre, metres; 0 where none is.
        binding: Place of that point on the head template; off the template (hair) -1.
        surface: Place of that point on the person's own mesh, hair included; for
            `PersonMesh.points`.
        depth_m: Camera-frame z of that point; infinite where there is none.
    """

    image: Float[Tensor, "3 h w"]
    mask: Float[Tensor, "1 h w"]
    position_map: Float[Tensor, "3 h w"]
    binding: SurfaceBinding
    surface: SurfaceBinding
    depth_m: Float[Tensor, "h w"]


class SyntheticHead:
    """A person drawn from a seed; the same seed is the same person.

    Attributes:
        seed: What the person was drawn from.
        template: The head template under the person.
        style: Hair style, one of `hair.STYLES`.
        light: Default light, fixed to the head.
        mesh: The person's shape in any expression.
    """

    def __init__(self, seed: int, template: HeadTemplate, *, style: str | None = None) -> None:
        """Draw a person.

        Args:
            seed: Any non-negative integer.
            template: Shared by all people; its texels are laid out at first use.
            style: Hair style instead of a random one.

        Raises:
            ValueError: The seed is negative or there is no such hair style.
        """
        if style is not None and style not in STYLES:
            raise ValueError(f"expected a hair style of {STYLES}, got {style!r}")
        rng = np.random.default_rng([seed, 0xA7A3])
        self.seed = seed
        self.template = template
        identity = rng.normal(size=template.num_identity).clip(-2.2, 2.2).astype(np.float32)
        drawn = STYLES[rng.choice(len(STYLES), p=_STYLE_ODDS)]
        self.style = drawn if style is None else style
        identity_shape = template.vertices(torch.from_numpy(identity)).numpy()
        appearance = random_appearance(rng, template, self.style, identity_shape)
        self.light = random_light(rng)

        neutral = template.neutral.numpy()
        bend = [value_noise(neutral, _BEND_WAVELENGTH_M, rng) for _ in range(3)]
        rest = (identity_shape + _BEND_M * np.stack(bend, -1)).astype(np.float32)

        hair = random_hair(rng, template, self.style, appearance.hair)
        clothes = _dress(rng, template, rest)
        patches = tuple(patch for patch in (hair, clothes) if patch is not None)
        self.mesh = PersonMesh.build(template, identity, rest, patches)
        self._painter = Painter(self._body(appearance.albedo, appearance.gloss))

    @property
    def identity(self) -> Float[np.ndarray, "k"]:
        """Template coefficients, standard deviations; they express most of the shape, not all."""
        return self.mesh.identity

    def render(
        self,
        camera: Camera,
        code: Float[np.ndarray, "52"],
        *,
        supersample: int = 2,
        light: Light | None = None,
    ) -> SyntheticView:
        """Take a picture of the head alone, cut at the neck, with truth per pixel.

        Args:
            camera: One camera (no leading dimension).
            code: `arkit_52` scores.
            supersample: Picture samples per pixel and axis at edges and fine detail.
            light: In the head frame; the person's own if None.

        Raises:
            ValueError: The camera is a batch or the code is not an `arkit_52` code.
        """
        vertices = self.mesh.vertices(code)
        heights = self.mesh.height_over_neck_cut(vertices)
        picture = self._painter.paint(
            vertices,
            *_single_camera(camera),
            light or self.light,
            supersample,
            part="head",
            heights=heights,
        )
        ids, barycentrics = picture.triangle_ids.astype(np.int64), picture.barycentrics
        corners = self.mesh.triangles[ids.clip(0)]
        height = np.einsum("hwk,hwk->hw", heights[corners], barycentrics)
        kept = (ids >= 0) & (height > 0)
        positions = np.einsum("hwkc,hwk->hwc", vertices[corners], barycentrics)

        size = (camera.height, camera.width)
        image, mask = np.zeros((3, *size), np.float32), np.zeros((1, *size), np.float32)
        rows, columns = picture.window
        image[:, rows, columns] = picture.rgba[..., :3].transpose(2, 0, 1)
        mask[0, rows, columns] = picture.rgba[..., 3]
        position_map = np.zeros((3, *size), np.float32)
        position_map[:, rows, columns] = (positions * kept[..., None]).transpose(2, 0, 1)
        depth = np.full(size, np.inf, np.float32)
        depth[picture.window] = np.where(kept, picture.depth_m, np.inf)
        on_template = kept & (ids < self.mesh.num_template_triangles)
        return SyntheticView(
            image=torch.from_numpy(image),
            mask=torch.from_numpy(mask),
            position_map=torch.from_numpy(position_map),
            binding=_binding(ids, barycentrics, on_template, picture.window, size),
            surface=_binding(ids, barycentrics, kept, picture.window, size),
            depth_m=torch.from_numpy(depth),
        )

    def paint_portrait(
        self,
        camera: Camera,
        code: Float[np.ndarray, "52"],
        *,
        supersample: int = 2,
        light: Light | None = None,
        part: Part = "all",
    ) -> Picture:
        """Take a picture with neck and clothes, or of one of the two.

        Args:
            camera: One camera (no leading dimension).
            code: `arkit_52` scores.
            supersample: Samples per pixel and axis at edges and fine detail.
            light: In the head frame; the person's own if None.
            part: What is shown.
        """
        vertices = self.mesh.vertices(code)
        return self._painter.paint(
            vertices, *_single_camera(camera), light or self.light, supersample, part=part
        )

    def _body(self, albedo: np.ndarray, gloss: float) -> Body:
        """Bake occlusion at rest, and say how each part is drawn."""
        mesh, template = self.mesh, self.template
        regions = template.triangle_regions.numpy()
        kinds = np.full(len(mesh.triangles), HAIR, np.uint8)
        kinds[: len(regions)] = np.where(template.region_mask(*_DETAILED).numpy(), DETAIL, SKIN)
        kinds[mesh.clothes_triangle :] = CLOTH

        vertices = mesh.vertices(np.zeros(52, np.float32))
        normals = NormalOperator(mesh.triangles, len(vertices))(vertices)
        shown = mesh.triangles[mesh.shown]
        occlusion = 0.12 + 0.88 * bake_ambient_occlusion(vertices, shown, normals)
        shine = np.full(len(vertices), gloss, np.float32)
        for names, open_share, gloss_factor in (
            (_SELF_LIT, 0.8, 0.0),
            (("lips",), None, 1.8),
            (("scalp",), None, 0.6),
        ):
            own = template.region_vertices(*names)
            shine[own] = gloss * gloss_factor
            if open_share is not None:
                occlusion[own] = open_share
        shine[len(mesh.rest) : mesh.clothes_vertex] = 0.05
        shine[mesh.clothes_vertex :] = 0.0
        return Body(
            mesh=mesh,
            grid=template_surface(template).grid,
            albedo=albedo,
            occlusion=occlusion.astype(np.float32),
            shine=shine,
            kinds=kinds,
            eyes=[self._eye(regions, name) for name in ("eye_left", "eye_right")],
        )

    def _eye(self, regions: Integer[np.ndarray, "f"], name: str) -> tuple[int, int, np.ndarray]:
        rows = np.flatnonzero(regions == REGIONS.index(name))
        if len(rows) != rows[-1] + 1 - rows[0]:
            raise ValueError(f"expected the template's triangles of {name} to be consecutive")
        return int(rows[0]), int(rows[-1]) + 1, np.unique(self.template.triangles.numpy()[rows])


def _dress(rng: np.random.Generator, template: HeadTemplate, rest: np.ndarray) -> GridPatch:
    """Clothes in the person's size; the ragged end of the neck is drawn into them, in place."""
    neck = template.region_vertices("neck")
    mean_middle, mean_size = neck_axes(template.neutral.numpy()[neck])
    middle, size = neck_axes(rest[neck])
    points = rest[neck]
    end = _NECK_END_Y_M + middle[1] - mean_middle[1]
    below = end - points[:, 1] - COLLAR_TILT * (points[:, 2] + 0.11)
    share = 1 - 0.45 * np.clip(below / 0.025, 0, 1)
    axis = np.array([0.0, 0.0, -0.11], np.float32)
    rest[neck] = axis + (points - axis) * np.stack([share, share**0, share], -1)
    return random_clothes(rng, middle - mean_middle, size / mean_size)


def _binding(
    ids: np.ndarray,
    barycentrics: np.ndarray,
    kept: np.ndarray,
    window: tuple[slice, slice],
    size: tuple[int, int],
) -> SurfaceBinding:
    """Place the binding of an image's part in the whole image."""
    all_ids, all_barycentrics = np.full(size, -1, np.int64), np.zeros((*size, 3), np.float32)
    all_ids[window] = np.where(kept, ids, -1)
    all_barycentrics[window] = barycentrics * kept[..., None]
    return SurfaceBinding(torch.from_numpy(all_ids), torch.from_numpy(all_barycentrics))


def _single_camera(camera: Camera) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    if camera.intrinsics.ndim != 2:
        raise ValueError(
            f"expected one camera, got a batch of shape {tuple(camera.intrinsics.shape[:-2])}"
        )
    return (
        camera.intrinsics.double().numpy(),
        camera.camera_from_head.double().numpy(),
        (camera.width, camera.height),
    )
