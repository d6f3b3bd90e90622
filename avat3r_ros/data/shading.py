"""Light on a mesh: irradiance and gloss per vertex, ambient occlusion baked once per person.

Vertices are millimetres apart, so shading them and interpolating over pixels looks the same as
shading pixels, at a fraction of the work. Colours are linear until `encode` takes the square root.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Integer
from scipy.sparse import csr_matrix

from avat3r_ros import native
from avat3r_ros.geometry import intrinsics_matrix, look_at_head


@dataclass(frozen=True)
class Light:
    """One soft key light, a weaker fill light and light from all around.

    Attributes:
        key_direction: Unit vector towards the key light.
        key_color: Linear RGB of the key light's irradiance on a surface that faces it.
        fill_direction: Unit vector towards the fill light.
        fill_color: Linear RGB.
        sky_color: Linear RGB that reaches surfaces facing up.
        ground_color: Linear RGB that reaches surfaces facing down.
    """

    key_direction: Float[np.ndarray, "3"]
    key_color: Float[np.ndarray, "3"]
    fill_direction: Float[np.ndarray, "3"]
    fill_color: Float[np.ndarray, "3"]
    sky_color: Float[np.ndarray, "3"]
    ground_color: Float[np.ndarray, "3"]

    def rotated(self, rotation: Float[np.ndarray, "3 3"]) -> "Light":
        """Express the directions in another frame (`a_from_b` for directions given in b)."""
        return replace(
            self,
            key_direction=rotation @ self.key_direction,
            fill_direction=rotation @ self.fill_direction,
        )


def random_light(rng: np.random.Generator) -> Light:
    """Indoor light: a key from the front and above, total exposure near that of a good photo."""
    yaw, pitch = rng.uniform(-1.1, 1.1), rng.uniform(0.05, 0.9)
    warm = rng.uniform(-0.10, 0.14)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    exposure = rng.uniform(0.85, 1.15)
    key = rng.uniform(0.35, 0.85)
    ambient = (1.12 - 0.75 * key) * exposure
    return Light(
        key_direction=_direction(yaw, pitch),
        key_color=key * exposure * tint,
        fill_direction=_direction(-np.sign(yaw) * rng.uniform(0.6, 1.4), rng.uniform(-0.2, 0.4)),
        fill_color=rng.uniform(0.05, 0.3) * exposure * np.array([1 - warm, 1.0, 1 + warm]),
        sky_color=ambient * np.array([0.97, 1.0, 1.04]),
        ground_color=ambient * rng.uniform(0.45, 0.8) * np.array([1.06, 1.0, 0.92]),
    )


def _direction(yaw_rad: float, pitch_rad: float) -> np.ndarray:
    return np.array(
        [
            np.sin(yaw_rad) * np.cos(pitch_rad),
            np.sin(pitch_rad),
            np.cos(yaw_rad) * np.cos(pitch_rad),
        ]
    )


class NormalOperator:
    """Vertex normals of a mesh of fixed topology."""

    def __init__(self, triangles: Integer[np.ndarray, "f 3"], num_vertices: int) -> None:
        """Prepare the sum over each vertex's triangles."""
        rows = triangles.ravel()
        columns = np.repeat(np.arange(len(triangles)), 3)
        ones = np.ones(len(rows), np.float32)
        self._sum = csr_matrix((ones, (rows, columns)), shape=(num_vertices, len(triangles)))
        self._triangles = triangles

    def crosses(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "f 3"]:
        """Outward normals of the triangles, as long as twice their area."""
        a = vertices[self._triangles[:, 0]]
        u, v = vertices[self._triangles[:, 1]] - a, vertices[self._triangles[:, 2]] - a
        cross = np.empty_like(a)
        cross[:, 0] = u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]
        cross[:, 1] = u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]
        cross[:, 2] = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        return cross

    def from_crosses(self, crosses: Float[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
        """Area-weighted unit normals of the vertices; 0 for a vertex without triangles."""
        normals = self._sum @ crosses
        length = np.sqrt(np.einsum("vc,vc->v", normals, normals))
        return normals / np.maximum(length, 1e-20)[:, None]

    def __call__(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
        """Unit normals of the vertices."""
        return self.from_crosses(self.crosses(vertices))


def bake_ambient_occlusion(
    vertices: Float[np.ndarray, "v 3"],
    triangles: Integer[np.ndarray, "f 3"],
    normals: Float[np.ndarray, "v 3"],
    *,
    num_directions: int = 40,
    size_px: int = 192,
) -> Float[np.ndarray, "v"]:
    """Share of the sky that each vertex sees, weighted by the cosine; 1 in the open.

    The mesh is drawn from many distant cameras, and a vertex that is not at the front of the depth
    image does not see that direction.
    """
    index = np.arange(num_directions) + 0.5
    height = 1 - 2 * index / num_directions  # a Fibonacci sphere
    azimuth = index * np.pi * (1 + 5**0.5)
    distance, radius = 3.0, 0.26
    intrinsics = intrinsics_matrix(size_px / 2 * distance / radius, size_px / 2, size_px / 2)
    target = np.array([0.0, -0.03, -0.08])
    seen = np.zeros(len(vertices), np.float32)
    total = np.full(len(vertices), 1e-6, np.float32)
    for sine, yaw in zip(height, azimuth, strict=True):
        pose = look_at_head(yaw, np.arcsin(np.clip(sine, -0.98, 0.98)), distance, target)
        depth = native.rasterize_mesh(
            vertices, triangles, intrinsics, pose, size_px, size_px
        ).depth_m
        points = vertices @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32)
        pixels = points[:, :2] / points[:, 2:] * intrinsics[0, 0] + size_px / 2
        column, row = pixels.astype(np.int32).clip(0, size_px - 1).T
        facing = np.maximum(-normals @ pose[2, :3].astype(np.float32), 0)
        free = points[:, 2] < depth[row, column] + 0.004 + 0.004 / np.maximum(facing, 0.2)
        seen += facing * free
        total += facing
    return seen / total


def vertex_light(
    normals: Float[np.ndarray, "v 3"],
    to_camera: Float[np.ndarray, "v 3"],
    light: Light,
    occlusion: Float[np.ndarray, "v"],
    gloss: Float[np.ndarray, "v"],
) -> Float[np.ndarray, "v 4"]:
    """Light that reaches and leaves each vertex.

    Args:
        normals: Unit, same frame as the light.
        to_camera: Unit vectors from each vertex to the camera.
        light: Directions in the frame of the normals.
        occlusion: `bake_ambient_occlusion`, in [0, 1].
        gloss: Strength of the highlight at each vertex.

    Returns:
        RGB irradiance, to be multiplied by the albedo, and the white highlight to be added.
    """
    out = np.empty((len(normals), 4), np.float32)
    facing_key = normals @ light.key_direction.astype(np.float32)
    facing_fill = normals @ light.fill_direction.astype(np.float32)
    up = 0.5 + 0.5 * normals[:, 1]
    open_key = np.sqrt(occlusion)
    # Light bleeds through skin past the terminator, red the farthest.
    for channel, bleed in enumerate((0.35, 0.22, 0.18)):
        key = np.maximum((facing_key + bleed) / (1 + bleed), 0) * open_key
        fill = np.maximum((facing_fill + 0.3) / 1.3, 0) * open_key
        ambient = light.ground_color[channel] + up * (
            light.sky_color[channel] - light.ground_color[channel]
        )
        out[:, channel] = (
            light.key_color[channel] * key
            + light.fill_color[channel] * fill
            + ambient * occlusion ** (1.0 - 0.15 * (channel == 0))
        )
    half = to_camera + light.key_direction.astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-9
    shine = np.maximum(np.einsum("vc,vc->v", half, normals), 0) ** 18
    out[:, 3] = gloss * shine * open_key * float(np.mean(light.key_color)) * 1.6
    return out


def encode(linear: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Linear light to display values in [0, 1]; a gamma of 2 and a soft shoulder near white."""
    values = np.minimum(linear, 4.0)
    knee = np.maximum(values - 0.7, 0.0)
    values = values - knee + 0.3 * (1 - np.exp(-knee / 0.3))
    return np.sqrt(np.maximum(values, 0.0))
