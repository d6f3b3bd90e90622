"""SyntheticHead: one made-up person, rendered from any camera in any expression, with exact truth.

The person is the head template with a random identity, bent a little so that no template fits them
exactly, painted (appearance.py), with hair (hair.py) and clothes (clothes.py):

    identity, code ─► template vertices ─► + hair, clothes ─► triangles and barycentrics per pixel
                                                                   │
    texels, hair picture ──────────────────── colour x light ◄─────┘
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros import native
from avat3r_ros.data.appearance import random_appearance, template_surface
from avat3r_ros.data.clothes import COLLAR_TILT, neck_axes, random_clothes
from avat3r_ros.data.hair import STYLES, random_hair
from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.shading import (
    Light,
    NormalOperator,
    bake_ambient_occlusion,
    encode,
    random_light,
    vertex_light,
)
from avat3r_ros.expression import validate_code
from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import Camera, SurfaceBinding

_STYLE_ODDS = (0.1, 0.15, 0.3, 0.22, 0.23)
"""Shares of the hair styles `STYLES` among people."""

_BEND_M, _BEND_WAVELENGTH_M = 0.0012, 0.05
"""Spread and scale of the change of shape that lies outside the template's identities."""

_NECK_END_Y_M = -0.137
"""Height on the mean head, in the collar's plane, below which the neck narrows into the collar."""

_DETAILED = (
    "brows",
    "lips",
    "lid_left",
    "lid_right",
    "eye_left",
    "eye_right",
    "eye_sockets",
    "teeth",
)
"""Regions drawn with several samples in every pixel."""

_NOTHING, _SKIN, _CLOTH, _DETAIL = 0, 1, 2, 3
"""Kinds of surface; skin and cloth take one sample per pixel away from edges."""

_DEPTH_EDGE_M = 0.012

CHIN_LANDMARK, NECK_BELOW_CHIN_M, NECK_SLOPE = 152, 0.03, 0.25
"""Pictures of the head alone end at a plane this far under the resting chin, in front, rising by
the slope towards the nape (metres per metre): where head crops of photos end, too."""

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
            `SyntheticHead.surface_points`.
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
        identity: Template coefficients, standard deviations. The shape also has a part that no
            coefficients can express.
        light: Default light, fixed to the head.
        style: Hair style, one of `hair.STYLES`.
    """

    def __init__(self, seed: int, template: HeadTemplate, *, style: str | None = None) -> None:
        """Draw a person.

        Args:
            seed: Any non-negative integer.
            template: Shared by all people; its texels are laid out at first use.
            style: Hair style instead of a random one.
        """
        rng = np.random.default_rng([seed, 0xA7A3])
        self.seed = seed
        self.template = template
        self.identity = rng.normal(size=template.num_identity).clip(-2.2, 2.2).astype(np.float32)
        drawn = STYLES[rng.choice(len(STYLES), p=_STYLE_ODDS)]
        self.style = drawn if style is None else style
        appearance = random_appearance(rng, template, self.style)
        self.light = random_light(rng)
        neutral = template.neutral.numpy()
        bend = [value_noise(neutral, _BEND_WAVELENGTH_M, rng) for _ in range(3)]
        identity_shape = template.vertices(torch.from_numpy(self.identity)).numpy()
        self._rest = (identity_shape + _BEND_M * np.stack(bend, -1)).astype(np.float32)
        neck = np.unique(template.triangles[template.region_mask("neck")].numpy())
        mean_middle, mean_size = neck_axes(neutral[neck])
        middle, size = neck_axes(self._rest[neck])
        shift, widening = middle - mean_middle, size / mean_size
        self._narrow_neck(neck, shift[1])
        self._chin = template.landmarks(torch.from_numpy(self._rest))[CHIN_LANDMARK].numpy()
        hair = random_hair(rng, template, self.style, appearance.hair)
        clothes = random_clothes(rng, shift, widening)
        self._patches = [patch for patch in (hair, clothes) if patch is not None]  # clothes last
        self._expressions = template.expression_basis.reshape(52, -1).numpy()
        self._albedo = appearance.albedo.astype(np.float32)
        self._grid = template_surface(template).grid
        self._assemble_mesh()
        self._prepare_light(appearance.gloss)

    @property
    def num_template_triangles(self) -> int:
        """Triangles of the person's mesh below this number are the template's."""
        return len(self.template.triangles)

    def vertices(self, code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "v 3"]:
        """Vertices of the person's mesh (template, hair, clothes) in an expression, metres."""
        code = validate_code("arkit_52", code)
        template_vertices = self._rest + (code @ self._expressions).reshape(-1, 3)
        return np.concatenate(
            [template_vertices, *(patch.vertices(template_vertices) for patch in self._patches)]
        )

    def surface_points(
        self, surface: SurfaceBinding, code: Float[np.ndarray, "52"]
    ) -> Float[Tensor, "*p 3"]:
        """Where points of the person's surface are in an expression; 0 off the surface."""
        ids = surface.triangle_ids.numpy()
        corners = self.vertices(code)[self._triangles[ids.clip(0)]]
        points = np.einsum("...kc,...k->...c", corners, surface.barycentrics.numpy())
        return torch.from_numpy(points * (ids >= 0)[..., None])

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
            supersample: Picture samples per pixel and axis.
            light: In the head frame; the person's own if None.

        Raises:
            ValueError: The camera is a batch or the code is not an `arkit_52` code.
        """
        intrinsics, pose = _single_camera(camera)
        vertices = self.vertices(code)
        size = (camera.width, camera.height)
        window, part = self._picture(
            vertices, intrinsics, pose, size, supersample, light or self.light, clothed=False
        )
        rgba = np.zeros((camera.height, camera.width, 4), np.float32)
        rgba[window] = part
        fragments = native.rasterize_mesh(
            vertices, self._drawn(clothed=False), intrinsics, pose, *size
        )
        ids = self._own_ids(fragments.triangle_ids, clothed=False)
        corners = vertices[self._triangles[ids.clip(0)]]
        positions = np.einsum("hwkc,hwk->hwc", corners, fragments.barycentrics)
        kept = (ids >= 0) & (self._height_over_neck_cut(positions) > 0)
        ids = np.where(kept, ids, -1).astype(np.int64)
        barycentrics = fragments.barycentrics * kept[..., None]
        on_template = ids < self.num_template_triangles
        return SyntheticView(
            image=torch.from_numpy(np.ascontiguousarray(rgba[..., :3].transpose(2, 0, 1))),
            mask=torch.from_numpy(rgba[None, ..., 3].copy()),
            position_map=torch.from_numpy(
                np.ascontiguousarray((positions * kept[..., None]).transpose(2, 0, 1))
            ),
            binding=SurfaceBinding(
                torch.from_numpy(np.where(on_template, ids, -1)),
                torch.from_numpy(barycentrics * on_template[..., None]),
            ),
            surface=SurfaceBinding(torch.from_numpy(ids), torch.from_numpy(barycentrics)),
            depth_m=torch.from_numpy(np.where(kept, fragments.depth_m, np.inf)),
        )

    def render_portrait(self, camera: Camera, code: Float[np.ndarray, "52"], **options: object):
        """`render_portrait_window` as a whole image, RGBA (H, W, 4)."""
        window, part = self.render_portrait_window(camera, code, **options)
        out = np.zeros((camera.height, camera.width, 4), np.float32)
        out[window] = part
        return out

    def render_portrait_window(
        self,
        camera: Camera,
        code: Float[np.ndarray, "52"],
        *,
        supersample: int = 2,
        light: Light | None = None,
        head_from_body: Float[np.ndarray, "4 4"] | None = None,
    ) -> tuple[tuple[slice, slice], Float[np.ndarray, "h w 4"]]:
        """Take a picture with neck and clothes, of the part of the image that shows the person.

        Args:
            camera: One camera (no leading dimension).
            code: `arkit_52` scores.
            supersample: Samples per pixel and axis.
            light: In the head frame; the person's own if None.
            head_from_body: Moves the clothes against the head; identity if None.

        Returns:
            Rows and columns of the image that the picture covers (all others show nothing), and
            RGB times coverage, and coverage; in [0, 1].
        """
        intrinsics, pose = _single_camera(camera)
        vertices = self.vertices(code)
        if head_from_body is not None:
            clothes = vertices[self._clothes_start :]
            moved = clothes @ head_from_body[:3, :3].T + head_from_body[:3, 3]
            vertices[self._clothes_start :] = moved
        size = (camera.width, camera.height)
        return self._picture(
            vertices, intrinsics, pose, size, supersample, light or self.light, clothed=True
        )

    def _height_over_neck_cut(self, points: np.ndarray) -> np.ndarray:
        """Signed height over the plane at which the head ends, metres; positive is kept."""
        end = self._chin[1] - NECK_BELOW_CHIN_M + NECK_SLOPE * (self._chin[2] - points[..., 2])
        return points[..., 1] - end

    def _narrow_neck(self, neck: Int[np.ndarray, "n"], shift_y_m: float) -> None:
        """Draw in the ragged lower end of the template's neck, so that the collar covers it."""
        points = self._rest[neck]
        below = _NECK_END_Y_M + shift_y_m - points[:, 1] - COLLAR_TILT * (points[:, 2] + 0.11)
        share = 1 - 0.45 * np.clip(below / 0.025, 0, 1)
        middle = np.array([0.0, 0.0, -0.11], np.float32)
        self._rest[neck] = middle + (points - middle) * np.stack([share, share**0, share], -1)

    def _assemble_mesh(self) -> None:
        """Join template, hair and clothes; choose what is drawn."""
        triangles = [self.template.triangles.numpy()]
        self._vertex_starts = []
        start = len(self._rest)
        for patch in self._patches:
            self._vertex_starts.append(start)
            triangles.append(patch.triangles + start)
            start += len(patch.offsets)
        self._clothes_start = self._vertex_starts[-1]
        self._triangles = np.concatenate(triangles).astype(np.int32)
        self._part_starts = np.cumsum([0] + [len(part) for part in triangles])
        regions = self.template.triangle_regions.numpy()
        shown = np.ones(len(self._triangles), bool)
        # The template's lashes are solid bars; on a face they read as thick make-up.
        shown[: len(regions)] = regions != REGIONS.index("eyelashes")
        self._clothed_ids = np.flatnonzero(shown).astype(np.int32)
        shown[self._part_starts[-2] :] = False
        self._bare_ids = np.flatnonzero(shown).astype(np.int32)
        detail = np.isin(regions, [REGIONS.index(name) for name in _DETAILED])
        kinds = np.full(len(self._triangles), _DETAIL, np.uint8)  # hair
        kinds[: len(regions)] = np.where(detail, _DETAIL, _SKIN)
        kinds[self._part_starts[-2] :] = _CLOTH
        self._clothed_kinds = np.append(kinds[self._clothed_ids], np.uint8(_NOTHING))
        kinds[: len(regions)][regions == REGIONS.index("neck")] = _DETAIL  # the cut runs through it
        self._bare_kinds = np.append(kinds[self._bare_ids], np.uint8(_NOTHING))
        self._clothed_triangles = self._triangles[self._clothed_ids]
        self._bare_triangles = self._triangles[self._bare_ids]

    def _prepare_light(self, gloss: float) -> None:
        """Bake occlusion at rest and say how shiny each vertex is."""
        vertices = self.vertices(np.zeros(52, np.float32))
        self._normals = NormalOperator(self._triangles, len(vertices))
        normals = self._normals(vertices)
        occlusion = bake_ambient_occlusion(vertices, self._clothed_triangles, normals)
        occlusion = 0.12 + 0.88 * occlusion
        shine = np.full(len(vertices), gloss, np.float32)
        regions = self.template.triangle_regions.numpy()
        triangles = self.template.triangles.numpy()
        for name in _SELF_LIT:
            own = np.unique(triangles[regions == REGIONS.index(name)])
            occlusion[own] = 0.8
            shine[own] = 0.0
        shine[np.unique(triangles[regions == REGIONS.index("lips")])] = gloss * 1.8
        shine[np.unique(triangles[regions == REGIONS.index("scalp")])] = gloss * 0.6
        if len(self._patches) == 2:
            shine[self._vertex_starts[0] : self._clothes_start] = 0.05
        shine[self._clothes_start :] = 0.0
        self._occlusion, self._shine = occlusion, shine
        eyes = []
        for side, name in enumerate(("eye_left", "eye_right")):
            rows = np.flatnonzero(regions == REGIONS.index(name))
            eyes.append((rows.min(), rows.max() + 1, np.unique(triangles[rows])))
            if len(rows) != rows.max() + 1 - rows.min():
                raise ValueError(f"expected the triangles of {name} to be consecutive")
            del side
        self._eyes = eyes

    def _drawn(self, *, clothed: bool) -> np.ndarray:
        return self._clothed_triangles if clothed else self._bare_triangles

    def _own_ids(self, drawn_ids: Int[np.ndarray, "*p"], *, clothed: bool) -> np.ndarray:
        table = self._clothed_ids if clothed else self._bare_ids
        return np.where(drawn_ids >= 0, table[drawn_ids], -1)

    def _picture(
        self,
        vertices: np.ndarray,
        intrinsics: np.ndarray,
        pose: np.ndarray,
        size: tuple[int, int],
        supersample: int,
        light: Light,
        *,
        clothed: bool,
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Premultiplied RGBA of the part of the image that shows the mesh, float32."""
        if supersample < 1:
            raise ValueError(f"expected supersample >= 1, got {supersample}")
        left, top, right, bottom = _bounds(vertices, intrinsics, pose, size)
        place = (slice(top, bottom), slice(left, right))
        if right <= left or bottom <= top:
            return (slice(0), slice(0)), np.zeros((0, 0, 4), np.float32)
        window = np.array(intrinsics)
        window[0, 2] -= left
        window[1, 2] -= top
        width, height = right - left, bottom - top
        drawn = self._drawn(clothed=clothed)
        table = self._light_table(vertices, pose, light)
        eye = (-pose[:3, :3].T @ pose[:3, 3]).astype(np.float32)
        kinds = self._clothed_kinds if clothed else self._bare_kinds
        own_ids = self._clothed_ids if clothed else self._bare_ids

        def shade(fragments: native.MeshFragments, pixels: np.ndarray) -> np.ndarray:
            drawn_ids = fragments.triangle_ids.ravel()[pixels]
            seen = np.flatnonzero(drawn_ids >= 0)
            weights = fragments.barycentrics.reshape(-1, 3)[pixels[seen]]
            out = np.zeros((len(pixels), 4), np.float32)
            color, height_over_cut = self._shade(
                vertices, own_ids[drawn_ids[seen]], weights, eye, light, table
            )
            out[seen, :3] = color
            out[seen, 3] = 1.0 if clothed else height_over_cut > 0
            out[:, :3] *= out[:, 3:]
            return out

        centers = native.rasterize_mesh(vertices, drawn, window, pose, width, height)
        kind = kinds[centers.triangle_ids]  # the last entry is that of "nothing", -1
        out = np.zeros((height, width, 4), np.float32)
        flat = out.reshape(-1, 4)
        if supersample == 1:
            pixels = np.flatnonzero(kind)
            flat[pixels] = shade(centers, pixels)
            return place, out
        busy = _busy_pixels(kind, centers.depth_m)
        pixels = np.flatnonzero((kind > 0) & ~busy)
        flat[pixels] = shade(centers, pixels)
        window[:2] *= supersample
        fine = native.rasterize_mesh(
            vertices, drawn, window, pose, width * supersample, height * supersample
        )
        rows, columns = np.nonzero(busy)
        steps = np.arange(supersample)
        samples = (
            (rows[:, None, None] * supersample + steps[:, None]) * (width * supersample)
            + columns[:, None, None] * supersample
            + steps
        )
        colors = shade(fine, samples.ravel()).reshape(len(rows), -1, 4)
        out[rows, columns] = colors.mean(1)
        return place, out

    def _light_table(self, vertices: np.ndarray, pose: np.ndarray, light: Light) -> np.ndarray:
        """Light at the three corners of every triangle, and their height over the neck cut."""
        eye = (-pose[:3, :3].T @ pose[:3, 3]).astype(np.float32)
        to_camera = eye - vertices
        to_camera /= np.linalg.norm(to_camera, axis=1, keepdims=True)
        channels = np.empty((len(vertices), 5), np.float32)
        channels[:, :4] = vertex_light(
            self._normals(vertices), to_camera, light, self._occlusion, self._shine
        )
        channels[:, 4] = self._height_over_neck_cut(vertices)
        return channels[self._triangles].reshape(len(self._triangles), 15)

    def _shade(
        self,
        vertices: np.ndarray,
        ids: np.ndarray,
        weights: np.ndarray,
        eye: np.ndarray,
        light: Light,
        table: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Display RGB of visible surface points, and their height over the neck cut."""
        corners = table[ids]
        mixed = corners[:, :5] * weights[:, :1]
        mixed += corners[:, 5:10] * weights[:, 1:2]
        mixed += corners[:, 10:] * weights[:, 2:]

        albedo = np.empty((len(ids), 3), np.float32)
        rows = np.flatnonzero(ids < self._part_starts[1])
        albedo[rows] = self._albedo[self._grid.lookup(ids[rows], weights[rows])]
        for patch, low, high in zip(
            self._patches, self._part_starts[1:-1], self._part_starts[2:], strict=True
        ):
            rows = np.flatnonzero((ids >= low) & (ids < high))
            if len(rows):
                albedo[rows] = patch.colors(ids[rows] - low, weights[rows])
        albedo *= mixed[:, :3]
        albedo += mixed[:, 3:4]
        self._add_eye_highlights(vertices, ids, weights, eye, light, albedo)
        return encode(albedo), mixed[:, 4]

    def _add_eye_highlights(
        self,
        vertices: np.ndarray,
        ids: np.ndarray,
        weights: np.ndarray,
        eye: np.ndarray,
        light: Light,
        color: np.ndarray,
    ) -> None:
        """Mirror-like glints of the lights on the wet eyeballs, which are nearly spheres."""
        for low, high, own in self._eyes:
            rows = np.flatnonzero((ids >= low) & (ids < high))
            if not len(rows):
                continue
            points = vertices[own]
            center = (points.min(0) + points.max(0)) / 2
            place = np.einsum("pkc,pk->pc", vertices[self._triangles[ids[rows]]], weights[rows])
            normal = place - center
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            view = eye - center
            view /= np.linalg.norm(view)
            for direction, strength, power in (
                (light.key_direction, 1.4, 900),
                (light.fill_direction, 0.12, 200),
            ):
                half = view + direction
                half = (half / np.linalg.norm(half)).astype(np.float32)
                glint = strength * np.maximum(normal @ half, 0) ** power
                color[rows] += glint[:, None].astype(np.float32)


def _busy_pixels(kind: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """Pixels that need several samples: fine detail, and edges between surfaces."""
    cross = np.ones((3, 3), np.uint8)
    depth = np.minimum(depth_m, 10.0)
    jump = cv2.dilate(depth, cross) - cv2.erode(depth, cross) > _DEPTH_EDGE_M
    return (kind == _DETAIL) | (cv2.dilate(kind, cross) != cv2.erode(kind, cross)) | jump


def _single_camera(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    if camera.intrinsics.ndim != 2:
        raise ValueError(
            f"expected one camera, got a batch of shape {tuple(camera.intrinsics.shape[:-2])}"
        )
    return (
        camera.intrinsics.double().numpy(),
        camera.camera_from_head.double().numpy(),
    )


def _bounds(
    vertices: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Pixel rectangle that holds the whole mesh, clipped to the image."""
    points = vertices @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32)
    if points[:, 2].min() < 0.01:
        return 0, 0, *size
    pixels = points @ intrinsics.T.astype(np.float32)
    pixels = pixels[:, :2] / pixels[:, 2:]
    low = np.floor(pixels.min(0)).astype(int) - 1
    high = np.ceil(pixels.max(0)).astype(int) + 1
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, size)
    return int(left), int(top), int(right), int(bottom)
