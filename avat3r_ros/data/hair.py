r"""Hair as a shell around the scalp that can hang down beyond it.

A column of the shell starts at the crown, follows the scalp at some thickness and either ends at
the hairline (short hair) or, once the head curves inwards, hangs straight down (medium, long):

        crown  ____ thickness
            .-'    '-.                  columns: azimuth around the vertical through the crown,
           /  scalp   \                          0 = forehead, +90 degrees = subject's left
     fringe            |  hangs from   rows:    from the crown to the tips
       |   face        |  the widest
                       |  point
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import Delaunay

from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.patches import GridPatch, grid_triangles, grid_uv
from avat3r_ros.rig import HeadTemplate

STYLES = ("bald", "buzz", "short", "medium", "long")

_COLUMNS, _ROWS = 120, 30
_CENTER = np.array([0.0, 0.012, -0.095])
"""Middle of the skull on the mean head: polar angles are seen from here."""

_WIDEST_RAD = np.radians(82)
"""Polar angle from which long hair hangs instead of following the head."""


@dataclass(frozen=True)
class _Skull:
    """The mean head's surface seen from the middle of its skull, and where hair ends on it."""

    azimuth: Float[np.ndarray, "c"]
    hairline: Float[np.ndarray, "c"]
    surface: Delaunay
    vertex_ids: np.ndarray
    vertices: np.ndarray

    def anchors(self, polar: np.ndarray, azimuth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Template vertices and weights of the surface seen from the skull's middle."""
        flat = np.stack([polar * np.cos(azimuth), polar * np.sin(azimuth)], -1)
        found = self.surface.find_simplex(flat)
        if (found < 0).any():
            raise RuntimeError("hair reaches beyond the head template")
        affine = self.surface.transform[found]
        first = np.einsum("nij,nj->ni", affine[:, :2], flat - affine[:, 2])
        weights = np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1)
        return self.vertex_ids[self.surface.simplices[found]], weights.astype(np.float32)


@lru_cache(maxsize=2)
def _skull(template: HeadTemplate) -> _Skull:
    vertices = template.neutral.numpy()
    ids = template.region_vertices("skin", "scalp", "neck", "brows")
    direction = vertices[ids] - _CENTER
    polar = np.arccos((direction[:, 1] / np.linalg.norm(direction, axis=1)).clip(-1, 1))
    around = np.arctan2(direction[:, 0], direction[:, 2])
    keep = polar < np.radians(140)
    ids, polar, around = ids[keep], polar[keep], around[keep]
    surface = Delaunay(np.stack([polar * np.cos(around), polar * np.sin(around)], -1))

    scalp = np.isin(ids, template.region_vertices("scalp"))
    azimuth = np.linspace(-np.pi, np.pi, _COLUMNS)
    hairline = np.empty(_COLUMNS)
    for column, angle in enumerate(azimuth):
        near = np.abs((around[scalp] - angle + np.pi) % (2 * np.pi) - np.pi) < 0.09
        hairline[column] = np.percentile(polar[scalp][near], 97) if near.any() else np.nan
    known = np.isfinite(hairline)
    hairline = np.interp(azimuth, azimuth[known], hairline[known])
    hairline = (hairline + hairline[::-1]) / 2
    hairline[:-1] = gaussian_filter1d(hairline[:-1], 2.0, mode="wrap")
    hairline[-1] = hairline[0]
    return _Skull(azimuth, hairline, surface, ids, vertices)


def random_hair(
    rng: np.random.Generator, template: HeadTemplate, style: str, color: Float[np.ndarray, "3"]
) -> GridPatch | None:
    """Grow hair of a style on the mean head; None for "bald".

    Raises:
        ValueError: The style is not one of `STYLES`.
    """
    if style not in STYLES:
        raise ValueError(f"expected a hair style of {STYLES}, got {style!r}")
    if style == "bald":
        return None
    skull = _skull(template)
    azimuth = skull.azimuth
    front = np.exp(-((azimuth / 0.75) ** 2))  # 1 above the forehead, 0 at the sides
    clumps = _around_noise(rng, 0.22)
    wisps = _around_noise(rng, 0.03)

    hanging = style in ("medium", "long")
    if hanging:
        fringe = rng.uniform(0.0, 0.42) if rng.random() < 0.55 else -0.02
        face = 0.5 * (1 + np.tanh((0.95 + 0.15 * rng.random() - np.abs(azimuth)) / 0.09))
        end = skull.hairline + fringe * front * face + 0.03 * wisps * (fringe > 0)
        end = np.where(face > 0.5, end, _WIDEST_RAD)
        tip_y = rng.uniform(-0.12, -0.06) if style == "medium" else rng.uniform(-0.21, -0.15)
        fall = (1 - face) * (1 + 0.05 * clumps + 0.05 * wisps)
        thickness = np.full(_COLUMNS, rng.uniform(0.011, 0.019))
    else:
        fall, tip_y = np.zeros(_COLUMNS), 0.0
        top = {"buzz": rng.uniform(0.002, 0.004), "short": rng.uniform(0.010, 0.026)}[style]
        sides = min(top, rng.uniform(0.003, 0.008))
        thickness = sides + (top - sides) * np.maximum(front, 0.15)
        fringe = rng.uniform(-0.02, 0.22) if style == "short" else -0.01
        end = skull.hairline + fringe * front + 0.035 * wisps * (style == "short")

    rows = np.linspace(0, 1, _ROWS)[:, None]
    on_head = 0.62 if hanging else 1.0
    reach = np.clip(rows / on_head, 0, 1)
    end = np.minimum(end, np.radians(125))
    polar = 0.02 + reach * (np.minimum(end, _WIDEST_RAD) if hanging else end)
    if hanging:  # columns over the face end at the fringe and use all rows for that
        face_polar = 0.02 + rows * end
        blend = np.clip(fall, 0, 1)
        polar = blend * polar + (1 - blend) * face_polar
    grid_azimuth = np.broadcast_to(azimuth, polar.shape)
    ids, weights = skull.anchors(polar.ravel(), grid_azimuth.ravel())
    base = np.einsum("nkc,nk->nc", skull.vertices[ids], weights)
    base = _smooth_rows(base.reshape(_ROWS, _COLUMNS, 3))

    outward = base - _CENTER
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    over_ears = 0.011 * np.exp(-(((np.abs(azimuth) - 1.75) / 0.32) ** 2)) * fall.clip(0, 1)
    bumps = 1 + 0.14 * clumps + 0.05 * wisps + 0.12 * _wave(rng, base)
    # Short hair thins towards its edge; hanging hair keeps its body to the tips.
    taper = np.sqrt(np.clip((1 - rows) / 0.30, 0.0, 1.0))
    taper = np.where(fall > 0.5, 1.0, 0.12 + 0.88 * taper) if hanging else 0.1 + 0.9 * taper
    lift = 1 + 0.5 * front * np.exp(-(((rows - 0.7) / 0.25) ** 2)) * (style == "short")
    # The top is as thick all round; where columns meet they must agree.
    on_top = 1 / (1 + np.exp((polar - 0.75) / 0.12))
    thickness = on_top * thickness.max() + (1 - on_top) * thickness
    bumps = 1 + (bumps - 1) * np.clip(rows / 0.25, 0, 1)  # all columns meet at the crown
    shape = (
        base + outward * (thickness * bumps * taper * lift + over_ears * np.sqrt(rows))[..., None]
    )
    if hanging:
        drop = np.clip((rows - on_head) / (1 - on_head), 0, 1) * fall.clip(0, 1.1)
        shape = _hang(shape, drop, tip_y, rng)
    return GridPatch(
        offsets=(
            shape.reshape(-1, 3) - np.einsum("nkc,nk->nc", skull.vertices[ids], weights)
        ).astype(np.float32),
        anchor_ids=ids,
        anchor_weights=weights,
        triangles=grid_triangles(_ROWS, _COLUMNS),
        uv=grid_uv(_ROWS, _COLUMNS),
        picture=_strands(rng, style, color),
    )


def _hang(
    shape: np.ndarray, drop: np.ndarray, tip_y: float, rng: np.random.Generator
) -> np.ndarray:
    """Let columns fall to `tip_y` from where they leave the head, with a slight flare and waves."""
    lowest = shape[..., 1]
    fallen = lowest + drop * (tip_y - lowest)
    flare = 1 + drop * rng.uniform(-0.10, 0.12)
    wave = rng.uniform(0.0, 0.05) * np.sin(drop * rng.uniform(6, 14) + rng.uniform(0, 6))
    out = shape.copy()
    out[..., 1] = fallen
    out[..., 0] = shape[..., 0] * (flare + wave * drop)
    out[..., 2] = _CENTER[2] + (shape[..., 2] - _CENTER[2]) * (flare + wave * drop)
    return out


def _smooth_rows(base: np.ndarray) -> np.ndarray:
    """Even out the coarse scalp triangles, around and along, keeping the seam closed."""
    smooth = gaussian_filter1d(base[:, :-1], 2.0, axis=1, mode="wrap")
    smooth = np.concatenate([smooth, smooth[:, :1]], 1)
    return gaussian_filter1d(smooth, 1.0, axis=0, mode="nearest")


def _around_noise(rng: np.random.Generator, wavelength_rad: float) -> np.ndarray:
    """Noise per column that closes around the head."""
    angle = np.linspace(-np.pi, np.pi, _COLUMNS)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    values = value_noise(circle, wavelength_rad, rng)
    values[-1] = values[0]
    return values


def _wave(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    values = value_noise(base.reshape(-1, 3).astype(np.float32), 0.02, rng)
    values = values.reshape(base.shape[:2])
    values[:, -1] = values[:, 0]
    return values


def _strands(rng: np.random.Generator, style: str, color: np.ndarray) -> np.ndarray:
    """Picture of parallel strands, lighter to the tips, darker at the roots and in gaps."""
    width, height = 896, 48
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([across.ravel(), down.ravel()], -1).astype(np.float32)
    stretch = 3.0 if style == "buzz" else 14.0
    fine = value_noise(points / np.array([1.6, stretch], np.float32), 1.0, rng)
    medium = value_noise(points / np.array([7.0, 2.5 * stretch], np.float32), 1.0, rng)
    light = (0.15 * fine + 0.13 * medium).reshape(height, width)
    # Meet at the back of the head without a seam.
    ramp = np.clip((across - (width - 64)) / 64.0, 0, 1)
    light = light * (1 - ramp) + light[:, :1] * ramp
    light += np.linspace(-0.25, rng.uniform(0.0, 0.35), height)[:, None]
    tint = 1 + 0.06 * medium.reshape(height, width)[..., None] * np.array([1.0, 0.2, -0.8])
    return (color * np.exp(light)[..., None] * tint).clip(0, 1).astype(np.float32)
