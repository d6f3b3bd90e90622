"""The texture of hair that nobody photographed: patches of the hair that shows, mixed at random.

Hair is a texture without parts: it may be laid on again anywhere. The cylinder around the head is
unrolled, and the photos' hair leaves on it what differs from its surroundings. Every node of a
lattice gets a patch of that, turned so that its hairs hang down, and between the nodes the patches
are blended so that contrast stays (Heitz and Neyret, "High-Performance By-Example Noise using a
Histogram-Preserving Blending Operator", HPG 2018, without its histograms).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

HEIGHT_M = 0.4
"""Of the unrolled cylinder; at its ends it goes on from the other one."""

SURROUNDINGS_M = 0.005
"""Hair is light or dark next to its surroundings: a Gaussian of this standard deviation."""

STRANDS_M = 0.004
"""The direction of hairs is that of a neighbourhood of this standard deviation."""

LIMIT, MOST = 0.6, 0.25
"""What is farther than this from the colour around it is no texture, and the greatest standard
deviation; relative."""

NODES_M = 0.012
"""Distance of the nodes, and so far a patch reaches to each side."""

LONGER = 2.0
"""Patches are drawn out along the hairs, which are longer than patches."""

KNOWN_SHARE = 0.7
"""Of a patch, at least."""

MIN_PATCHES = 100
"""Fewer places for patches would repeat visibly."""

CROWN_M = (0.03, 0.06)
"""Nearer to the axis than the first the texture is laid on from above, from the second on around.
"""

_SKULL_Z_M, _SKULL_RADIUS_M = -0.09, 0.085
"""The axis around which hair hangs down, head frame, and how far from it."""


def textured_hair(
    colors: Float[Tensor, "n 3"],
    points: Float[Tensor, "n 3"],
    hairy: Bool[Tensor, "n"],
    seen_colors: Float[Tensor, "p 3"],
    seen_points: Float[Tensor, "p 3"],
    pitch_m: float,
) -> Float[Tensor, "n 3"]:
    """Give hair that nobody saw the texture of what photos show; smooth, it looks like clay.

    Args:
        colors: Of template Gaussians, smooth.
        points: Where they are at rest, head frame, metres.
        hairy: Which of them are hair.
        seen_colors: Of the photos' hair.
        seen_points: Where it is at rest.
        pitch_m: Size of the photos' pixels on the head.
    """
    aside = _from_axis(seen_points.numpy()) > CROWN_M[0]
    exemplar, known = _unrolled(seen_colors.numpy()[aside], seen_points.numpy()[aside], pitch_m)
    reach = round(NODES_M / pitch_m)
    enough = cv2.blur(known.astype(np.float32), (2 * reach + 1, 2 * reach + 1)) > KNOWN_SHARE
    enough[:reach] = enough[len(enough) - reach :] = False
    middles = np.argwhere(enough & known)
    if len(middles) < MIN_PATCHES or not bool(hairy.any()):
        return colors
    strands = _strands(exemplar, STRANDS_M / pitch_m)[tuple(middles.T)]
    patches = _Patches(exemplar, middles, strands, pitch_m)
    at = points[hairy].numpy()
    around = patches.laid_on(_on_cylinder(at), 2 * np.pi * _SKULL_RADIUS_M, seed=0)
    from_above = at[:, [2, 0]] - [_SKULL_Z_M, 0]
    above = patches.laid_on(from_above, HEIGHT_M, seed=1, radial=True)
    # Two independent textures keep their contrast if the squares of their weights add up to 1.
    share = np.interp(_from_axis(at), CROWN_M, (0, 1))[:, None]
    texture = np.sqrt(share) * around + np.sqrt(1 - share) * above
    found = colors.clone()
    found[hairy] *= torch.from_numpy(1 + texture).float().clamp(1 - LIMIT, 1 + LIMIT)
    return found.clamp(0, 1)


def _from_axis(points: np.ndarray) -> np.ndarray:
    return np.hypot(points[:, 0], points[:, 2] - _SKULL_Z_M)


def _on_cylinder(points: np.ndarray) -> np.ndarray:
    """Height and arc length, (n, 2) metres."""
    turn = np.arctan2(points[:, 0], points[:, 2] - _SKULL_Z_M)
    return np.stack([points[:, 1], _SKULL_RADIUS_M * turn], -1)


def _unrolled(
    colors: np.ndarray, points: np.ndarray, pitch_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """What hair differs by from its surroundings, relative, (h, w, 3), and where it is known."""
    shape = round(HEIGHT_M / pitch_m), round(2 * np.pi * _SKULL_RADIUS_M / pitch_m)
    row, column = np.floor(_on_cylinder(points).T / pitch_m).astype(int) % np.array(shape)[:, None]
    total = np.zeros((*shape, 4), np.float32)
    np.add.at(total, (row, column), np.pad(colors, ((0, 0), (0, 1)), constant_values=1))

    def mean(sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
        near = cv2.GaussianBlur(total, (0, 0), sigma_px)
        return near[..., :3] / np.maximum(near[..., 3:], 1e-3), near[..., 3]

    (own, count), (around, _) = mean(0.6), mean(SURROUNDINGS_M / pitch_m)
    differs = own / np.maximum(around, 0.02) - 1
    known = (count > 0.3) & (np.abs(differs) < LIMIT).all(-1)
    differs[~known] = 0
    return differs * min(1.0, MOST / max(float(differs[known].std()), 1e-6)), known


def _strands(exemplar: np.ndarray, sigma_px: float) -> np.ndarray:
    """Angle of the hairs everywhere, from the first axis to the second, by the structure tensor."""
    down, right = np.gradient(exemplar.mean(-1))
    tensor = np.stack([down * down, right * right, down * right], -1)
    down2, right2, mixed = np.moveaxis(cv2.GaussianBlur(tensor, (0, 0), sigma_px), -1, 0)
    return 0.5 * np.arctan2(2 * mixed, down2 - right2) + np.pi / 2


def _turned(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors (2, n) turned by angles (n,) from the first axis to the second."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * vectors[0] - sin * vectors[1], sin * vectors[0] + cos * vectors[1]])


@dataclass(frozen=True)
class _Patches:
    """Patches of an exemplar.

    Attributes:
        exemplar: Values, (h, w, c).
        middles: Rows and columns, (m, 2).
        strands: Direction of the hairs there, (m,).
        pitch_m: Of the exemplar's cells.
    """

    exemplar: np.ndarray
    middles: np.ndarray
    strands: np.ndarray
    pitch_m: float

    def laid_on(
        self, at_m: np.ndarray, circumference_m: float, seed: int, radial: bool = False
    ) -> np.ndarray:
        """Values (n, c) at places (n, 2) on a surface, turned so that hairs run along.

        Args:
            at_m: Places.
            circumference_m: After which the surface closes in its second direction.
            seed: Of the choice of patches.
            radial: Hairs run away from the origin, and not along the first direction.
        """
        rows, columns = (round(size / NODES_M) for size in (HEIGHT_M, circumference_m))
        cell_m = np.array([HEIGHT_M / rows, circumference_m / columns])
        chosen = np.random.default_rng(seed).integers(len(self.middles), size=(rows, columns))
        value, squares = 0.0, 0.0
        for corner in np.ndindex(2, 2):
            node = np.floor(at_m / cell_m).astype(int) + corner
            patch = chosen[node[:, 0] % rows, node[:, 1] % columns]
            offset = at_m / cell_m - node
            weight = (1 - np.abs(offset)).prod(-1)
            runs = np.arctan2(*(node * cell_m).T[::-1]) if radial else np.zeros(len(node))
            along, across = _turned(offset.T * NODES_M / self.pitch_m, -runs)
            cell = _turned(np.stack([along / LONGER, across]), self.strands[patch])
            row, column = np.round(self.middles[patch].T + cell).astype(int)
            height, width = self.exemplar.shape[:2]
            value = value + weight[:, None] * self.exemplar[row % height, column % width]
            squares = squares + weight**2
        return value / np.sqrt(squares)[:, None]
