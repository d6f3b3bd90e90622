"""People of a second head model, ICT-FaceKit: for measuring what was made with the head template.

Nothing of the template's fit knows these heads: another mesh, other identities (100 components
measured on scans), other expressions, other skin. The model's file is the user's; nothing of it
comes with this package.

    identity, code ─► ICT vertices ─► + hair ─► triangle, barycentrics per sample ─► colour x light

Colours are functions of the place on the mean head: no texture is needed. Hair is that of
`hair.py`, moved from the mean template to the person along rays from the middle of the skull.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros import native
from avat3r_ros.data.hair import STYLES, random_hair
from avat3r_ros.data.head_surface import HeadSurface
from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.painter import Picture
from avat3r_ros.data.patches import GridPatch
from avat3r_ros.data.shading import (
    Light,
    NormalOperator,
    bake_ambient_occlusion,
    encode,
    random_light,
    vertex_light,
)
from avat3r_ros.expression import ARKIT_52, validate_code
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

# First vertex of each part that is drawn, and the one after the last (ICT-FaceKit's README).
_PARTS = {
    "skin": (0, 11248),
    "mouth": (11248, 13294),
    "sockets": (13294, 14062),
    "gums": (14062, 17039),
    "teeth": (17039, 21451),
    "eye_left": (21451, 23021),
    "eye_right": (23021, 24591),
}

_HEAD_FROM_ICT_CM = np.array([0.0, -3.37, -10.65])
"""Brings the mean sellion to the origin, as on the template."""

_CHIN_M = np.array([0.0, -0.1078, -0.0007])
"""Where the tracker sees the chin's landmark on the mean head."""

_CROWN_M = np.array([0.0, 0.012, -0.095])
"""Middle of the skull: hair moves along rays from here."""

_IRIS_RADIUS_M, _PUPIL_RADIUS_M = 0.00585, 0.002
"""The visible iris is 11.7 mm wide in the mean."""

_IRIS_SPREAD = 0.04
"""Of its width among adults, relative."""

_FACE_OUTLINE_M = np.array(
    [
        (0.0, 0.062), (0.03, 0.06), (0.05, 0.045), (0.062, 0.02), (0.064, -0.03), (0.055, -0.07),
        (0.035, -0.095), (0.015, -0.107), (0.0, -0.109),
    ]
)  # fmt: skip
"""Half of the outline of what counts as face, seen from the front of the mean head."""

NOTHING, FACE, REST, HAIR = range(4)
"""What a pixel shows."""


@dataclass(frozen=True)
class IctView:
    """A picture with the truth behind every pixel.

    Attributes:
        image: RGB in [0, 1], times the mask.
        mask: Share of each pixel that the person covers.
        position_map: Head-frame surface point at each pixel's centre, metres; 0 where none is.
        part: NOTHING, FACE, REST (ears, neck, bare scalp) or HAIR at each pixel's centre.
    """

    image: Float[Tensor, "3 h w"]
    mask: Float[Tensor, "1 h w"]
    position_map: Float[Tensor, "3 h w"]
    part: Integer[Tensor, "h w"]


@dataclass(frozen=True, eq=False)
class _Model:
    """The file's content in metres, head frame."""

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    triangles: np.ndarray


@lru_cache(maxsize=1)
def _load(path: Path) -> _Model:
    with np.load(path, allow_pickle=False) as file:
        missing = {"neutral", "identity", "expression", "expr_names", "faces"} - set(file.files)
        if missing or file["neutral"].shape != (26719, 3):
            raise ValueError(
                f"{path}: expected ICT-FaceKit as an .npz of 26719 vertices, missing "
                f"{sorted(missing) or 'vertices'}"
            )
        names = [str(name) for name in file["expr_names"]]
        shapes = file["expression"].astype(np.float32) / 100
        quads = file["faces"]
        mean = (file["neutral"] + _HEAD_FROM_ICT_CM) / 100
        identity = file["identity"].astype(np.float32) / 100
    expression = np.zeros((len(ARKIT_52), *mean.shape), np.float32)
    for row, name in enumerate(ARKIT_52):
        stem = name.removesuffix("Left").removesuffix("Right")
        side = {"Left": "_L", "Right": "_R"}.get(name[len(stem) :], "")
        # Names that are not theirs (tongueOut) move nothing; some of ours are two of theirs.
        wanted = [stem + side] if stem + side in names else [stem + "_L", stem + "_R"]
        if name in names:
            wanted = [name]
        for one in wanted:
            if one in names:
                expression[row] += shapes[names.index(one)]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    last = max(end for _, end in _PARTS.values())
    triangles = triangles[(triangles < last).all(1)].astype(np.int32)
    return _Model(mean.astype(np.float32), identity, expression, triangles)


class IctHead(HeadSurface):
    """A person drawn from a seed.

    Args:
        path: ICT-FaceKit as .npz: `neutral`, `identity`, `expression` (cm), `expr_names`, `faces`.
        seed: Any non-negative integer.
        template: On whose mean head hair grows before it is moved.
        style: One of `hair.STYLES`.

    Raises:
        ValueError: Another file, or an unknown style.
    """

    def __init__(
        self, path: str | Path, seed: int, template: HeadTemplate, *, style: str = "short"
    ) -> None:
        if style not in STYLES:
            raise ValueError(f"expected a hair style of {STYLES}, got {style!r}")
        model = _load(Path(path))
        rng = np.random.default_rng([seed, 0x1C7])
        self.seed, self.style, self._model = seed, style, model
        coefficients = rng.normal(size=len(model.identity)).astype(np.float32)
        self.rest = model.mean + np.tensordot(coefficients, model.identity, 1)
        self.chin = self.rest[cKDTree(model.mean).query(_CHIN_M)[1]]
        self._paint = _Paint(rng, self.rest)
        hair = random_hair(rng, template, style, self._paint.hair_color)
        self._num_skin = len(model.triangles)
        self.triangles, self._hair = model.triangles, hair
        self._hair_rest, count = np.zeros((0, 3), np.float32), len(self.rest)
        if hair is not None:
            grown = hair.vertices(template.neutral.numpy())
            self._hair_rest = grown + self._shift_to_person(hair, template)
            self.triangles = np.concatenate([model.triangles, hair.triangles + count])
        self.light = random_light(rng)
        vertices = self.vertices(np.zeros(52, np.float32))
        self._normals = NormalOperator(self.triangles, len(vertices))
        occlusion = bake_ambient_occlusion(vertices, self.triangles, self._normals(vertices))
        self._occlusion = (0.15 + 0.85 * occlusion).astype(np.float32)
        self._occlusion[slice(*_PARTS["eye_left"])] = 0.8
        self._occlusion[slice(*_PARTS["eye_right"])] = 0.8
        self._shine = np.full(len(vertices), rng.uniform(0.03, 0.12), np.float32)
        self._shine[count:] = 0.05

    def vertices(self, code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "n 3"]:
        """Vertices in an expression, hair last; head frame, metres."""
        code = validate_code("arkit_52", code)
        moved = self.rest + np.tensordot(code, self._model.expression, 1)
        return np.concatenate([moved, self._hair_rest]).astype(np.float32)

    @property
    def mesh(self) -> HeadSurface:
        """The person's shape in any expression: itself."""
        return self

    @property
    def moving_units(self) -> Bool[np.ndarray, "52"]:
        """All but the tongue's, which this model has not."""
        return np.abs(self._model.expression).max((1, 2)) > 0

    def render(
        self,
        camera: Camera,
        code: Float[np.ndarray, "52"],
        *,
        neck: bool = False,
        room_from_head: Float[np.ndarray, "3 3"] | None = None,
    ) -> IctView:
        """Take a picture from one camera.

        Args:
            camera: One camera (no leading dimension).
            code: `arkit_52` scores.
            neck: All of the neck that the model has, instead of the head alone.
            room_from_head: Turn of the head under lights that stay; lights turn along if None.
        """
        vertices = self.vertices(code)
        heights = None if neck else self.height_over_neck_cut(vertices)
        light = self.light if room_from_head is None else self.light.rotated(room_from_head.T)
        picture = self._paint_picture(vertices, camera, light, heights)
        ids, weights = picture.triangle_ids, picture.barycentrics
        seen = ids >= 0
        corners = self.triangles[ids.clip(0)]
        points = (vertices[corners] * weights[..., None]).sum(-2) * seen[..., None]
        part = np.where(seen, np.where(ids >= self._num_skin, HAIR, REST), NOTHING)
        on_mean = np.zeros((*ids.shape, 3), np.float32)
        body = seen & (ids < self._num_skin)
        on_mean[body] = (self._model.mean[corners[body]] * weights[body][..., None]).sum(1)
        part[body & _in_face(on_mean)] = FACE
        return IctView(
            image=torch.from_numpy(picture.rgba[..., :3].transpose(2, 0, 1).copy()),
            mask=torch.from_numpy(picture.rgba[None, ..., 3].copy()),
            position_map=torch.from_numpy(points.transpose(2, 0, 1).astype(np.float32)),
            part=torch.from_numpy(part),
        )

    def paint_portrait(
        self, camera: Camera, code: Float[np.ndarray, "52"], *, part: Literal["head"] = "head"
    ) -> Picture:
        """Take a picture with all of the neck; arguments of `render`. There is nothing else."""
        return self._paint_picture(self.vertices(code), camera, self.light, None)

    def _paint_picture(
        self, vertices: np.ndarray, camera: Camera, light: Light, heights: np.ndarray | None
    ) -> Picture:
        """What is below height 0 is left out."""
        if camera.intrinsics.ndim != 2:
            raise ValueError(f"expected one camera, got {tuple(camera.intrinsics.shape[:-2])}")
        pose = camera.camera_from_head.double().numpy()
        k = camera.intrinsics.double().numpy()
        to_camera = (-pose[:3, :3].T @ pose[:3, 3]).astype(np.float32) - vertices
        to_camera /= np.linalg.norm(to_camera, axis=1, keepdims=True)
        normals = self._normals(vertices)
        lit = vertex_light(normals, to_camera, light, self._occlusion, self._shine)

        def fragments(scale: int) -> native.mesh.MeshFragments:
            found = native.rasterize_mesh(
                vertices,
                self.triangles,
                np.diag([scale, scale, 1.0]) @ k,
                pose,
                scale * camera.width,
                scale * camera.height,
            )
            if heights is None:
                return found
            corners = self.triangles[found.triangle_ids.clip(0)]
            kept = (heights[corners] * found.barycentrics).sum(-1) > 0
            return native.mesh.MeshFragments(
                np.where(kept, found.triangle_ids, -1),
                found.barycentrics * kept[..., None],
                np.where(kept, found.depth_m, np.inf),
            )

        ids, weights, _ = fragments(2)
        seen = ids >= 0
        corners, mix = self.triangles[ids[seen]], weights[seen][..., None]
        shade = (lit[corners] * mix).sum(1)
        color = encode(
            self._albedo(ids[seen], corners, weights[seen]) * shade[:, :3] + shade[:, 3:]
        )
        rgba = np.zeros((*ids.shape, 4), np.float32)
        rgba[seen] = np.concatenate([color, np.ones_like(color[:, :1])], 1)
        rgba = cv2.resize(rgba, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        window = (slice(0, camera.height), slice(0, camera.width))
        return Picture(window, rgba, *fragments(1))

    def _albedo(self, ids: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Linear RGB of surface samples."""
        out = np.empty((len(ids), 3), np.float32)
        body = ids < self._num_skin
        mix = weights[body][..., None]
        on_mean = (self._model.mean[corners[body]] * mix).sum(1)
        on_rest = (self.rest[corners[body]] * mix).sum(1)
        out[body] = self._paint(on_mean, on_rest, corners[body][:, 0])
        if self._hair is not None:
            out[~body] = self._hair.colors(ids[~body] - self._num_skin, weights[~body].T)
        return out

    def _shift_to_person(self, hair: GridPatch, template: HeadTemplate) -> np.ndarray:
        """From the mean template's surface under each strand to the person's, along its ray."""
        anchors = np.einsum(
            "nkc,nk->nc", template.neutral.numpy()[hair.anchor_ids], hair.anchor_weights
        )
        skin = self.rest[slice(*_PARTS["skin"])]
        outer = self._model.mean[slice(*_PARTS["skin"])][:, 1] > -0.1
        flat, radius = _from_crown(skin[outer])
        at, own = _from_crown(anchors)
        found = LinearNDInterpolator(flat, radius)(at)
        found = np.where(np.isfinite(found), found, NearestNDInterpolator(flat, radius)(at))
        direction = (anchors - _CROWN_M) / own[:, None]
        # The surface is never pulled below the skin: hair may float, but not vanish.
        return (direction * np.maximum(found - own, -0.02)[:, None]).astype(np.float32)


class _Paint:
    """Skin, lips, brows, eyes, teeth and mouth as functions of the place on the head."""

    def __init__(self, rng: np.random.Generator, rest: np.ndarray) -> None:
        self._seed = int(rng.integers(1 << 30))
        tone = rng.uniform(0.0, 1.0)
        light, dark = np.array([0.62, 0.42, 0.32]), np.array([0.12, 0.06, 0.04])
        self._skin = np.exp((1 - tone) * np.log(light) + tone * np.log(dark))
        self.hair_color = np.array([0.05, 0.03, 0.02]) * np.exp(rng.uniform(-0.8, 1.6))
        self._iris = rng.uniform(0.03, 0.3) * np.array([0.8, 0.9, 1.0]) ** rng.uniform(-3, 3)
        self._brow_lift = rng.uniform(-0.002, 0.002)
        own = np.random.default_rng(self._seed)
        self._iris_radius_m = _IRIS_RADIUS_M * np.exp(_IRIS_SPREAD * own.normal())
        self._eyes = []
        for name in ("eye_left", "eye_right"):
            ball = rest[slice(*_PARTS[name])]
            self._eyes.append((slice(*_PARTS[name]), (ball.min(0) + ball.max(0)) / 2))

    def __call__(self, mean: np.ndarray, rest: np.ndarray, vertex: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self._seed)
        tone = sum(
            strength * value_noise(mean, wavelength, rng)
            for strength, wavelength in ((0.05, 0.03), (0.04, 0.008), (0.03, 0.002), (0.03, 0.001))
        )
        red = 0.04 * value_noise(mean, 0.02, rng)
        moles = 0.5 * np.maximum(value_noise(mean, 0.004, rng) - 2.6, 0)
        tint = np.stack([tone + red, tone - red, tone - red], -1) - moles[:, None]
        out = self._skin * np.exp(tint)
        x, y = np.abs(mean[:, 0]), mean[:, 1]
        front = mean[:, 2] > -0.045
        lips = _soft(1 - (x / 0.026) ** 2 - ((y + 0.0705) / (0.011 - 0.15 * x)) ** 2, 0.25)
        out = _mixed(out, out * np.array([0.95, 0.6, 0.6]), 0.8 * lips * front)
        height = y - self._brow_lift - 0.0185 - 0.006 * np.sin((x - 0.015) / 0.04 * np.pi)
        brow = _soft(1 - (height / 0.004) ** 2 - ((x - 0.033) / 0.021) ** 4, 0.5)
        strands = 0.7 + 0.3 * value_noise(mean * [4, 1, 1], 0.002, rng)
        out = _mixed(out, self.hair_color, (brow * strands.clip(0, 1) * front))
        for name, color in (
            ("mouth", (0.10, 0.02, 0.02)), ("sockets", (0.35, 0.15, 0.12)),
            ("gums", (0.35, 0.10, 0.10)), ("teeth", (0.75, 0.70, 0.60)),
        ):  # fmt: skip
            start, end = _PARTS[name]
            out[(vertex >= start) & (vertex < end)] = color
        for own, center in self._eyes:
            rows = (vertex >= own.start) & (vertex < own.stop)
            across = np.linalg.norm((rest[rows] - center)[:, :2], axis=1)
            ahead = rest[rows][:, 2] > center[2]
            white = np.array([0.72, 0.68, 0.66])
            iris = _soft(1 - across / self._iris_radius_m, 0.08) * ahead
            pupil = _soft(1 - across / _PUPIL_RADIUS_M, 0.1) * ahead
            out[rows] = _mixed(_mixed(white, self._iris, iris), np.full(3, 0.005), pupil)
        return out.astype(np.float32)


def _in_face(on_mean: np.ndarray) -> np.ndarray:
    """Whether places on the mean head belong to the face, (...) bool."""
    half = _FACE_OUTLINE_M
    limit = np.interp(on_mean[..., 1], half[::-1, 1], half[::-1, 0], left=0, right=0)
    return (np.abs(on_mean[..., 0]) < limit) & (on_mean[..., 2] > -0.06)


def _from_crown(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polar plane around the skull's middle (crown in the centre), and distance from it."""
    offset = points - _CROWN_M
    radius = np.linalg.norm(offset, axis=1)
    polar = np.arccos((offset[:, 1] / radius).clip(-1, 1))
    around = np.arctan2(offset[:, 0], offset[:, 2])
    return np.stack([polar * np.cos(around), polar * np.sin(around)], -1), radius


def _soft(value: np.ndarray, width: float) -> np.ndarray:
    return (value / width + 0.5).clip(0, 1)


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + share[:, None] * (second - first)
