"""The compiled path in plain torch: what the native kernel must say, and the path on a GPU.

All blocks of a group are padded to the group's largest rank, so that one batched product evaluates
them; the closed forms after it are those of native/src/basis_kernels.h.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.animation.compiled import CompiledParts
from avat3r_ros.geometry import quats_wxyz_from_matrices
from avat3r_ros.native.basis import (
    COLOR,
    GROUP_WIDTHS,
    HALF_AXES,
    LANES,
    OPACITY,
    POSITION,
    THICKNESS,
)
from avat3r_ros.types import Gaussians

METRES_PER_MILLIMETRE = 1e-3
TINY = 1e-20


class TorchAnimation:
    """Evaluates a compiled path with torch, on any device.

    Args:
        parts: From `compiled.restore_parts`.
        device: Where to evaluate and return.
    """

    def __init__(self, parts: CompiledParts, device: torch.device | str = "cpu") -> None:
        basis = parts.basis
        self._feature_map = parts.feature_map
        self._resting = parts.resting.to(device)
        self._map = basis.map.float().to(device)
        self._device = device
        self._fade = (basis.fade_from, basis.fade_to)
        resting, components, extras = _unpack(parts)
        self._rest_columns = resting.to(device)
        self._limits, self._inverse_area = (extra.to(device) for extra in extras)
        self._fading = self._inverse_area > 0
        self._groups = [
            (group, *(tensor.to(device) for tensor in found))
            for group, found in enumerate(components)
            if found is not None
        ]

    def __len__(self) -> int:
        return len(self._resting)

    @torch.no_grad()
    def animate(self, code: np.ndarray) -> Gaussians:
        """Return the avatar in an expression; `code` is valid for the avatar's code space."""
        inputs = torch.from_numpy(self._feature_map(code)).float().to(self._device)
        coefficients = torch.cat([self._map @ inputs, inputs.new_zeros(1)])
        columns = self._rest_columns.clone()
        g = self._resting
        written = {}
        for group, rows, padded, gaussians, lanes in self._groups:
            width = GROUP_WIDTHS[group]
            mixed = torch.bmm(coefficients[rows][:, None], padded)[:, 0]  # (B', 64 * W)
            start = sum(GROUP_WIDTHS[:group])
            columns[gaussians, start : start + width] += mixed.view(-1, width)[lanes]
            written[group] = gaussians
        means, quats = g.means.clone(), g.quats_wxyz.clone()
        scales, opacities, colors = g.scales.clone(), g.opacities.clone(), g.colors.clone()
        if (rows := written.get(POSITION)) is not None:
            means[rows] = g.means[rows] + METRES_PER_MILLIMETRE * columns[rows, 0:3]
        if (rows := written.get(THICKNESS)) is not None:
            scales[rows, 2] = METRES_PER_MILLIMETRE * columns[rows, 9].clamp(min=0)
        if (rows := written.get(COLOR)) is not None:
            colors[rows] = columns[rows, 10:13]
        if (rows := written.get(OPACITY)) is not None:
            opacities[rows] = columns[rows, 13].clamp(0, 1)
        if (rows := written.get(HALF_AXES)) is not None:
            quats[rows], sizes, area = principal_axes(columns[rows, 3:6], columns[rows, 6:9])
            low, high = self._limits[rows, :1], self._limits[rows, 1:]
            scales[rows, :2] = METRES_PER_MILLIMETRE * torch.minimum(
                torch.maximum(sizes, low), high
            )
            fading = self._fading[rows]
            rows, area = rows[fading], area[fading]
            ratio = area * self._inverse_area[rows]
            change = torch.maximum(ratio, 1 / ratio.clamp(min=TINY))
            share = (self._fade[1] - change) / (self._fade[1] - self._fade[0])
            opacities[rows] = columns[rows, 13].clamp(0, 1) * share.clamp(0, 1)
        return Gaussians(means, quats, scales, opacities, colors)


def principal_axes(
    p: Float[Tensor, "n 3"], q: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Orientation (wxyz), half axes and area of the discs {p cos t + q sin t}."""
    normal = torch.cross(p, q, dim=-1)
    area = normal.norm(dim=-1)
    pp, qq, pq = (p * p).sum(-1), (q * q).sum(-1), (p * q).sum(-1)
    half_turn = 0.5 * torch.atan2(2 * pq, pp - qq)[:, None]
    longest = p * half_turn.cos() + q * half_turn.sin()
    longer = longest.norm(dim=-1).clamp(min=TINY)
    x = longest / longer[:, None]
    z = normal / area.clamp(min=TINY)[:, None]
    y = torch.cross(z, x, dim=-1)
    quats = quats_wxyz_from_matrices(torch.stack([x, y, z], -1))
    return quats, torch.stack([longer, area / longer], -1), area


def _unpack(
    parts: CompiledParts,
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor, Tensor] | None], tuple[Tensor, Tensor]]:
    """Read the stream block by block.

    Returns:
        Resting columns (M, 14), in millimetres except the position, which is 0 here; for each group
        its padded components: map rows (B', K), components (B', K, 64 * W), their Gaussians and
        where those lie in the components' rows; limits (M, 2) and 1 / area (M,), 0 unless fading.
    """
    basis = parts.basis
    m = basis.num_gaussians
    resting = torch.zeros(m, sum(GROUP_WIDTHS))
    limits, inverse_area = torch.zeros(m, 2), torch.zeros(m)
    found: list[list[tuple[int, Tensor, int, int]]] = [[] for _ in GROUP_WIDTHS]
    at = first = coefficient = 0
    num_rows = basis.num_rows()
    for count, ranks, fades, rows in zip(
        basis.counts.tolist(), basis.ranks.tolist(), basis.fades.tolist(), num_rows, strict=True
    ):
        chunks = -(-count // LANES)
        size = chunks * LANES * int(rows.sum())
        table = basis.stream[at : at + size].float().view(chunks, -1, LANES)
        table = table.transpose(1, 2).flatten(0, 1)[:count]  # (n, rows)
        at += size
        own, column, start = slice(first, first + count), 0, 0
        for group, (width, rank) in enumerate(zip(GROUP_WIDTHS, ranks, strict=True)):
            present = rank > 0 or (group == OPACITY and fades)
            if present and group == HALF_AXES:
                limits[own] = table[:, column : column + 2]
                column += 2
                if fades:
                    inverse_area[own] = table[:, column]
                    column += 1
            if present and group != POSITION:
                resting[own, start : start + width] = table[:, column : column + width]
                column += width
            if rank:
                block = table[:, column : column + rank * width].view(count, rank, width)
                found[group].append((coefficient, block, first, count))
                column += rank * width
                coefficient += rank
            start += width
        first += count
    padded = [_padded(blocks, len(basis.map)) for blocks in found]
    return resting, padded, (limits, inverse_area)


def _padded(
    blocks: list[tuple[int, Tensor, int, int]], num_coefficients: int
) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k l"], Int[Tensor, "n"], Int[Tensor, "n"]] | None:
    """Fill blocks (first coefficient, components (n, K, W), first Gaussian, n) up to one size."""
    if not blocks:
        return None
    rank = max(block.shape[1] for _, block, _, _ in blocks)
    size = max(count for _, _, _, count in blocks)
    width = blocks[0][1].shape[2]
    # The coefficient after the last one is 0.
    rows = torch.full((len(blocks), rank), num_coefficients)
    components = torch.zeros(len(blocks), rank, size, width)
    gaussians, lanes = [], []
    for i, (coefficient, block, first, count) in enumerate(blocks):
        rows[i, : block.shape[1]] = coefficient + torch.arange(block.shape[1])
        components[i, : block.shape[1], :count] = block.transpose(0, 1)
        gaussians.append(first + torch.arange(count))
        lanes.append(i * size + torch.arange(count))
    return rows, components.flatten(2), torch.cat(gaussians), torch.cat(lanes)
