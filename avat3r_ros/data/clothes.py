"""A collar and shoulders, so that a synthetic head does not end at its neck."""

import numpy as np
from jaxtyping import Float

from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.patches import GridPatch, grid_triangles, grid_uv

_COLUMNS = 64

_RINGS = np.array(
    [
        # y, half width, half depth, middle z, roundness (2 = ellipse, more = boxier)
        [-0.160, 0.050, 0.045, -0.110, 2.0],
        [-0.139, 0.066, 0.065, -0.112, 2.0],
        [-0.134, 0.074, 0.073, -0.112, 2.0],
        [-0.137, 0.080, 0.079, -0.112, 2.0],
        [-0.152, 0.088, 0.085, -0.112, 2.0],
        [-0.163, 0.112, 0.092, -0.112, 2.1],
        [-0.180, 0.160, 0.100, -0.111, 2.3],
        [-0.205, 0.195, 0.102, -0.108, 2.5],
        [-0.240, 0.212, 0.112, -0.105, 2.6],
        [-0.330, 0.222, 0.125, -0.100, 2.6],
        [-0.600, 0.215, 0.130, -0.100, 2.6],
    ]
)
"""Cross-sections from inside the collar to below the chest, metres, head at rest."""

COLLAR_TILT = 0.16
"""How much higher the collar sits per metre towards the back."""


def neck_axes(neck: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Middle (x, y, z) and half sizes (x, y, z) of the vertices of a neck, head frame, metres."""
    low, high = np.percentile(neck, [5, 95], axis=0)
    return (low + high) / 2, (high - low) / 2


def random_clothes(
    rng: np.random.Generator,
    shift: Float[np.ndarray, "3"],
    widening: Float[np.ndarray, "3"],
) -> GridPatch:
    """A plain top with a round collar, in a random cloth.

    Args:
        rng: Source of the cloth.
        shift: How far the person's neck is from the mean head's, metres.
        widening: Size of the person's neck relative to the mean head's, per axis.
    """
    rows = len(_RINGS)
    angle = np.linspace(-np.pi, np.pi, _COLUMNS)
    y, half_width, half_depth, middle, power = (column[:, None] for column in _RINGS.T)
    sine, cosine = np.sin(angle), np.cos(angle)
    x = half_width * np.sign(sine) * np.abs(sine) ** (2 / power)
    z = middle + half_depth * np.sign(cosine) * np.abs(cosine) ** (2 / power)
    collar = np.clip(1 - (np.arange(rows)[:, None] - 3) / 3, 0, 1)
    y = y - COLLAR_TILT * (z - middle) * collar
    fit = 1 + (np.asarray(widening) - 1) * collar[..., None]
    vertices = np.stack([x, np.broadcast_to(y, x.shape), z], -1)
    pivot = np.array([0.0, -0.145, -0.112])
    vertices = (vertices - pivot) * np.stack(
        [fit[..., 0], np.ones_like(fit[..., 0]), fit[..., 2]], -1
    )
    vertices = (vertices + pivot + shift).reshape(-1, 3)
    count = len(vertices)
    return GridPatch(
        offsets=vertices.astype(np.float32),
        anchor_ids=np.zeros((count, 3), np.int64),
        anchor_weights=np.zeros((count, 3), np.float32),
        triangles=grid_triangles(rows, _COLUMNS),
        uv=grid_uv(rows, _COLUMNS),
        picture=_cloth(rng),
    )


def _cloth(rng: np.random.Generator) -> np.ndarray:
    size = 256
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    points = np.stack([across.ravel(), down.ravel()], -1).astype(np.float32)
    weave = 0.05 * value_noise(points, 1.5, rng) + 0.06 * value_noise(points, 18.0, rng)
    base = rng.uniform(0.02, 0.45) * rng.uniform(0.5, 1.2, 3)
    picture = base * np.exp(weave.reshape(size, size))[..., None]
    picture[int(0.22 * size) : int(0.32 * size)] *= 0.8  # rib of the collar
    return picture.clip(0, 1).astype(np.float32)
