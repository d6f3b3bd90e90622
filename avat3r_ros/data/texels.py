"""Colour on a mesh without a texture atlas: every triangle carries its own small grid of texels.

A texel is a fixed place on the head template, so anything evaluated at the mean head's 3D positions
(noise, brows, an iris) sticks to the skin in every identity and expression, without seams.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer


@dataclass(frozen=True)
class TexelGrid:
    """Texels of all triangles, stored one after the other.

    Attributes:
        divisions: Texel steps along an edge of each triangle, n >= 1; it has (n+1)(n+2)/2 texels.
        offsets: First texel of each triangle.
        triangle_ids: Triangle of each texel.
        barycentrics: Place of each texel on its triangle.
    """

    divisions: Integer[np.ndarray, "f"]
    offsets: Integer[np.ndarray, "f"]
    triangle_ids: Integer[np.ndarray, "m"]
    barycentrics: Float[np.ndarray, "m 3"]

    def __len__(self) -> int:
        return len(self.triangle_ids)

    @staticmethod
    def build(divisions: Integer[np.ndarray, "f"]) -> "TexelGrid":
        """Lay out texels for the given number of steps per triangle.

        Raises:
            ValueError: A triangle has less than one step.
        """
        divisions = np.asarray(divisions, np.int32)
        if len(divisions) == 0 or divisions.min() < 1:
            raise ValueError("expected at least one division for every triangle")
        counts = (divisions + 1) * (divisions + 2) // 2
        offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
        barycentrics = np.empty((counts.sum(), 3), np.float32)
        for n in np.unique(divisions):
            i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
            inside = i + j <= n
            grid = np.stack([i, j, n - i - j], -1)[inside] / n  # in the order `lookup` counts
            rows = offsets[divisions == n][:, None] + np.arange(len(grid))
            barycentrics[rows] = grid
        triangle_ids = np.repeat(np.arange(len(divisions), dtype=np.int32), counts)
        return TexelGrid(divisions, offsets, triangle_ids, barycentrics)

    def lookup(
        self,
        triangle_ids: Integer[np.ndarray, "p"],
        first: Float[np.ndarray, "p"],
        second: Float[np.ndarray, "p"],
    ) -> Integer[np.ndarray, "p"]:
        """Nearest texel of each surface point, given by its first two barycentric weights."""
        n = self.divisions.take(triangle_ids)
        i = (first * n + np.float32(0.5)).astype(np.int32)
        j = (second * n + np.float32(0.5)).astype(np.int32)
        np.minimum(j, n - i, out=j)
        return self.offsets.take(triangle_ids) + (i * (2 * n + 3 - i)) // 2 + j

    def interpolate(
        self, vertex_values: Float[np.ndarray, "v *c"], triangles: Integer[np.ndarray, "f 3"]
    ) -> Float[np.ndarray, "m *c"]:
        """Per-vertex values at every texel."""
        values = np.ascontiguousarray(vertex_values, np.float32)
        weights = self.barycentrics.reshape(-1, 3, *[1] * (values.ndim - 1))
        # By triangle first: texels of one triangle follow one another in memory.
        corners = [values[triangles[:, k]] for k in range(3)]
        total = corners[0][self.triangle_ids] * weights[:, 0]
        total += corners[1][self.triangle_ids] * weights[:, 1]
        total += corners[2][self.triangle_ids] * weights[:, 2]
        return total


def divisions_for_triangles(
    vertices: Float[np.ndarray, "v 3"],
    triangles: Integer[np.ndarray, "f 3"],
    texel_size_m: Float[np.ndarray, "f"],
    *,
    most: int = 32,
) -> Integer[np.ndarray, "f"]:
    """Steps per triangle so that no texel is longer than `texel_size_m` (up to `most` steps)."""
    corners = vertices[triangles]
    longest = np.linalg.norm(corners - corners[:, [1, 2, 0]], axis=-1).max(-1)
    return np.clip(np.ceil(longest / texel_size_m), 1, most).astype(np.int32)
