"""Surfaces beside the head template that are made as grids: hair and clothes.

A patch is a (rows x columns) grid of vertices with a picture stretched over it. Its vertices hang
on three template vertices each (hair) or on nothing (clothes).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer


@dataclass(frozen=True)
class GridPatch:
    """A grid surface with its picture.

    Attributes:
        offsets: Vertices relative to their anchor point, head frame, metres, row by row.
        anchor_ids: Three template vertices that carry each vertex.
        anchor_weights: Their weights; all 0 for a patch that does not hang on the template.
        triangles: Rows of `offsets`.
        uv: Place of each vertex in the picture, (across, down), in [0, 1].
        picture: Linear RGB.
    """

    offsets: Float[np.ndarray, "n 3"]
    anchor_ids: Integer[np.ndarray, "n 3"]
    anchor_weights: Float[np.ndarray, "n 3"]
    triangles: Integer[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "n 2"]
    picture: Float[np.ndarray, "h w 3"]

    def vertices(self, template_vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "n 3"]:
        """Vertices of the patch on a head whose template has the given vertices."""
        corners = template_vertices[self.anchor_ids]
        return self.offsets + np.einsum("nkc,nk->nc", corners, self.anchor_weights)

    def colors(
        self, triangle_ids: Integer[np.ndarray, "p"], weights: Float[np.ndarray, "3 p"]
    ) -> Float[np.ndarray, "p 3"]:
        """Colour of surface points, given by three rows of weights; the nearest texel."""
        height, width = self.picture.shape[:2]
        scaled = self.uv * np.array([width - 1, height - 1], np.float32) + np.float32(0.5)
        corners = np.ascontiguousarray(scaled[self.triangles].reshape(-1, 6).T)
        across, down = (
            sum(corners[2 * k + axis].take(triangle_ids) * weights[k] for k in range(3))
            for axis in (0, 1)
        )
        texels = down.astype(np.int32) * width + across.astype(np.int32)
        return self.picture.reshape(-1, 3).take(texels, axis=0)


def grid_triangles(rows: int, columns: int) -> Integer[np.ndarray, "f 3"]:
    """Triangles of a grid numbered row by row; outside is left of the walk down the rows."""
    corner = np.arange((rows - 1) * columns).reshape(rows - 1, columns)[:, :-1].ravel()
    quads = np.stack([corner, corner + columns, corner + columns + 1, corner + 1], -1)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)


def grid_uv(rows: int, columns: int) -> Float[np.ndarray, "n 2"]:
    """Evenly spread picture coordinates of a grid."""
    across, down = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    return np.stack([across.ravel(), down.ravel()], -1).astype(np.float32)
