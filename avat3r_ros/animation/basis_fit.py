"""From evaluated codes to small bases: what moves, its components, and the map from the code.

    columns at S codes ── changes from neutral, in units of what is visible ──► (S, everything)
    principal components of it ─► G inputs, few ─► map from the code (features.py)
    Gaussians in Morton order, 64 a block: each block and group of attributes keeps the few
    combinations of inputs that it needs to stay within tolerance

Neighbours move alike: a block needs some 7 components where all Gaussians together need 50.

Letters: S codes, N Gaussians, M moving, C columns (snapshots.py), G inputs, K components of one
block.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.animation.features import FeatureMap, fit_features
from avat3r_ros.native.basis import GROUP_WIDTHS, HALF_AXES, LANES, MAX_RANK, OPACITY, POSITION
from avat3r_ros.parallel import in_threads

BLOCK_SIZE = 64
"""Gaussians that share components. Fewer: fewer components each, and a larger map."""

TOLERANCES = (0.05, 0.03, 0.03, 1 / 255, 0.01)
"""Root mean square error allowed over the codes: position, half axes and thickness in mm, colour,
opacity. A pixel of a 512x512 picture is 0.6 mm, a typical half axis as much. Ours."""

FADING_TOLERANCE = 0.2
"""Tolerance of half axes, relative to other blocks', where opacity follows their area."""

MAX_ERROR = 5.0
"""Error allowed at any evaluated code, in tolerances."""

STILL = 2.0
"""What never changes by more than this many tolerances is static."""

MAX_INPUTS = 64
_MORTON_BITS = 10

_ENDS = np.cumsum(GROUP_WIDTHS)
GROUP_SLICES = tuple(
    slice(int(end) - w, int(end)) for end, w in zip(_ENDS, GROUP_WIDTHS, strict=True)
)
_UNITS = torch.cat([torch.full((w,), t) for w, t in zip(GROUP_WIDTHS, TOLERANCES, strict=True)])


@dataclass(frozen=True)
class BlockBases:
    """Components of all blocks, ready for `native.LinearBasis`.

    Attributes:
        counts: Gaussians of each block.
        ranks: Components of each group in each block.
        fades: 1 where a block fades.
        stream: See native/src/basis_types.h.
        map: Coefficients from inputs.
    """

    counts: Int[np.ndarray, "b"]
    ranks: Int[np.ndarray, "b 5"]
    fades: Int[np.ndarray, "b"]
    stream: Float[Tensor, "s"]
    map: Float[Tensor, "k g"]


def what_moves(changes: Float[Tensor, "s n c"]) -> Bool[Tensor, "n"]:
    """Gaussians with a change that can be seen at one of the codes."""
    largest = torch.maximum(changes.amax(0), -changes.amin(0)).float()
    return (largest / _UNITS[: changes.shape[2]] > STILL).any(-1)


def morton_order(points: Float[Tensor, "n 3"]) -> Int[Tensor, "n"]:
    """Order along a space-filling curve (Morton 1966): neighbours in it are neighbours in space."""
    if not len(points):
        return torch.zeros(0, dtype=torch.long)
    low = points.amin(0)
    side = (points.amax(0) - low).max().clamp(min=1e-9)
    cells = ((points - low) / side * (2**_MORTON_BITS - 1)).long()
    keys = torch.zeros(len(points), dtype=torch.long)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            keys |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return torch.argsort(keys, stable=True)


def fit_inputs(
    codes: Float[np.ndarray, "s e"], changes: Float[Tensor, "s m c"], num_units: int
) -> tuple[FeatureMap, Float[Tensor, "s g"], float]:
    """Find the inputs: principal components of all changes, and their map from the code.

    Args:
        codes: Evaluated codes.
        changes: What each of them changes.
        num_units: The first so many codes are never left out of a fit; see `fit_features`.

    Returns:
        The map; each code's inputs as they really are (not as mapped), with unit mean square;
        and the map's relative error at held-out codes.
    """
    num_codes, num_gaussians, num_columns = changes.shape
    gram = torch.zeros(num_codes, num_codes, dtype=torch.float64)
    for chunk in changes.split(2048, 1):
        scaled = (chunk.float() / _UNITS[:num_columns]).flatten(1)
        gram += (scaled @ scaled.T).double()
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    # A component that brings no Gaussian's mean error above a tenth of the tolerance is noise.
    floor = 1e-4 * num_codes * num_gaussians
    num_inputs = int((values[:MAX_INPUTS] > floor).sum())
    scores = vectors[:, :num_inputs] * values[:num_inputs].clamp(min=0).sqrt()
    feature_map, error = fit_features(codes, scores.numpy(), num_units)
    spread = (values[:num_inputs] / num_codes).sqrt()
    whitened = FeatureMap(
        feature_map.pairs,
        feature_map.centers,
        feature_map.width,
        (feature_map.weights / spread.numpy()[:, None]).astype(np.float32),
    )
    return whitened, (scores / spread).float(), error


def fit_blocks(
    inputs: Float[Tensor, "s g"],
    changes: Float[Tensor, "s m c"],
    resting: Float[Tensor, "m 14"],
    limits: Float[Tensor, "m 2"],
    inverse_area: Float[Tensor, "m"],
    num_fading: int,
    groups: tuple[int, ...],
    tolerance: float = 1.0,
) -> BlockBases:
    """Reduce each block to the components it needs.

    Args:
        inputs: Of each code.
        changes: From the neutral code, in the order of the blocks; the fading Gaussians first.
        resting: Columns at the neutral code.
        limits: Least and greatest scale, mm.
        inverse_area: 1 / area at which a fading Gaussian is whole, 1/mm^2.
        num_fading: The first so many Gaussians fade.
        groups: Groups that may move.
        tolerance: Of the error, in `TOLERANCES`.
    """
    counts = _block_sizes(num_fading) + _block_sizes(len(resting) - num_fading)
    ends = np.cumsum(counts)
    ranks = np.zeros((len(counts), 5), np.int32)
    fades = np.zeros(len(counts), np.int32)

    def reduced(block: int) -> tuple[list[Tensor], Tensor]:
        """Map and stream of one block."""
        rows = slice(ends[block] - counts[block], ends[block])
        fading = rows.start < num_fading
        of_block = changes[:, rows].permute(1, 2, 0).float()
        maps: list[Tensor] = []
        components: list[Tensor | None] = [None] * 5
        for group in groups:
            changed = of_block[:, GROUP_SLICES[group]]
            allowed = tolerance * TOLERANCES[group]
            if group == HALF_AXES and fading:
                allowed *= FADING_TOLERANCE
            combined, found = _reduce(inputs, changed, allowed)
            ranks[block, group] = len(combined)
            if len(combined):
                maps.append(combined)
                components[group] = found
        fades[block] = int(fading and ranks[block, HALF_AXES] > 0)
        return maps, _pack(
            components, resting[rows], limits[rows], inverse_area[rows], bool(fades[block])
        )

    # In threads of their own: matrices of 50 rows take 50 times as long where two of torch's meet.
    blocks = in_threads(reduced, range(len(counts)))
    maps = [part for of_block, _ in blocks for part in of_block]
    return BlockBases(
        counts=np.array(counts, np.int32),
        ranks=ranks,
        fades=fades,
        stream=torch.cat([s for _, s in blocks]) if blocks else torch.zeros(0, dtype=torch.half),
        map=(torch.cat(maps) if maps else torch.zeros(0, inputs.shape[1])).half(),
    )


def _block_sizes(count: int) -> list[int]:
    return [min(BLOCK_SIZE, count - i) for i in range(0, count, BLOCK_SIZE)]


def _reduce(
    inputs: Tensor, changes: Float[Tensor, "n w s"], tolerance: float
) -> tuple[Float[Tensor, "k g"], Float[Tensor, "n k w"]]:
    """Combinations of inputs, and the components they mix, that keep a block within tolerance."""
    num_codes = len(inputs)
    wanted = changes.flatten(0, 1) / tolerance  # (C, S)
    if float(wanted.abs().max()) <= STILL:
        n, width, _ = changes.shape
        return inputs.new_zeros(0, inputs.shape[1]), changes.new_zeros(n, 0, width)
    # Inputs are orthogonal with unit mean square: projecting is one product.
    of_inputs = wanted @ inputs / num_codes  # (C, G)
    _, directions = torch.linalg.eigh(of_inputs.T @ of_inputs)
    directions = directions.flip(1)  # (G, G), strongest first
    components = of_inputs @ directions  # (C, G)
    # Mean square error of each column if only the first k components are kept.
    left_over = components.square().flip(1).cumsum(1).flip(1).amax(0)
    rank = min(int((left_over > 1).sum()), MAX_RANK)
    mixed_by = (inputs @ directions).T  # (G, S)
    rest = wanted - components[:, :rank] @ mixed_by[:rank]
    # What even all inputs cannot say is not this block's to mend.
    limit = max(MAX_ERROR, 1.2 * float((wanted - components @ mixed_by).abs().max()))
    while rank < min(inputs.shape[1], MAX_RANK) and float(rest.abs().max()) > limit:
        rest -= components[:, rank : rank + 1] * mixed_by[rank]
        rank += 1
    found = tolerance * components[:, :rank].unflatten(0, changes.shape[:2])  # (n, W, K)
    return directions[:, :rank].T, found.transpose(1, 2)


def _pack(
    components: list[Tensor | None],
    resting: Float[Tensor, "n 14"],
    limits: Float[Tensor, "n 2"],
    inverse_area: Float[Tensor, "n"],
    fades: bool,
) -> Float[Tensor, "s"]:
    """Lay a block out as `native/src/basis_types.h` says."""
    rows: list[Tensor] = []  # (n, rows of one part)
    for group, (found, columns) in enumerate(zip(components, GROUP_SLICES, strict=True)):
        if found is None and not (group == OPACITY and fades):
            continue
        if group == HALF_AXES:
            rows.append(limits)
            if fades:
                rows.append(inverse_area[:, None])
        if group != POSITION:
            rows.append(resting[:, columns])
        if found is not None:
            rows.append(found.flatten(1))  # (n, K * W)
    if not rows:
        return torch.zeros(0, dtype=torch.half)
    table = torch.cat(rows, 1)
    padding = -len(table) % LANES
    table = torch.nn.functional.pad(table, (0, 0, 0, padding))
    return table.view(-1, LANES, table.shape[1]).transpose(1, 2).flatten().half()
