"""Compiling an avatar: from its full path to a small basis, with the accuracy it has.

codes ─full path─► columns ─► what moves ─► order ─► inputs and blocks ─► check at other codes
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avat3r_ros.animation import basis_fit, compiled
from avat3r_ros.animation.accuracy import measure_accuracy
from avat3r_ros.animation.codes import compile_codes
from avat3r_ros.animation.compiled import CompiledParts
from avat3r_ros.animation.contributions import PICTURE_PX, largest_contributions
from avat3r_ros.animation.snapshots import MILLIMETRES, FullPath
from avat3r_ros.model import Avat3r, restore_avatar
from avat3r_ros.model.rig_motion import FADE_FROM, FADE_TO
from avat3r_ros.native import LinearBasis
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Avatar, Gaussians

Progress = Callable[[str, float], None]

FILE_OVERHEAD_MB = 0.3
"""Header, thumbnails and small tensors."""

RESTING_BYTES = 38
"""Stored for each Gaussian at rest: position and order in 4 bytes, 11 other numbers in 2."""

MAX_TOLERANCE = 8.0


@dataclass(frozen=True)
class CompileConfig:
    """How an avatar is compiled.

    Attributes:
        num_codes: Codes at which the full path is evaluated; 0 takes 96 for the base guess, whose
            rig is linear, and 384 for a network. More: truer between codes, slower, more memory.
        prune_below_px: Gaussians that cover less than this many pixels in every tried picture
            (384x384, all directions, expressions that open mouth and eyes) are left out; 0 keeps
            all, and saves most of the time.
        max_mb: Size of the avatar with its compiled path, 10^6 bytes; it travels as one message.
            Tolerances grow until it fits.
        num_test_codes: Codes of a performance at which both paths are rendered and compared.
        num_test_pairs: Frequent pairs, not compiled at these scores, at which points are compared.
        seed: Of all random choices.
    """

    num_codes: int = 0
    prune_below_px: float = 0.05
    max_mb: float = 25.0
    num_test_codes: int = 60
    num_test_pairs: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_codes", "prune_below_px", "num_test_pairs", "max_mb"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} >= 0, got {getattr(self, name)}")
        if self.num_test_codes < 1:
            raise ValueError(f"expected num_test_codes >= 1, got {self.num_test_codes}")


def quick() -> CompileConfig:
    """Some seconds: few codes, nothing is pruned, and the accuracy is measured at fewer codes.

    A network changes what the rig does by little and smoothly: 96 codes give 56.1 dB against its
    full path where 384 give 56.4, in 40 % of the time (demo's operator, shipped weights).
    """
    return CompileConfig(num_codes=96, prune_below_px=0.0, num_test_codes=12, num_test_pairs=40)


def compile_avatar(
    avatar: Avatar,
    config: CompileConfig | None = None,
    *,
    template: HeadTemplate | None = None,
    network: Avat3r | None = None,
    progress: Progress | None = None,
) -> Avatar:
    """Return the avatar with a compiled path beside its full one.

    Args:
        avatar: Its own compiled path, if it has one, is replaced. Its id is not that of the result.
        config: See `CompileConfig`; its defaults if None.
        template: Head template; the shipped one if None.
        network: The avatar's network, if the caller has it in memory.
        progress: Called with a stage name and the fraction done in [0, 1].

    Raises:
        ValueError: The avatar is incomplete or needs a head template or weights that are not here.
    """
    config = config or CompileConfig()
    report = progress or (lambda stage, fraction: None)
    path = FullPath(*restore_avatar(avatar, template=template, network=network))
    num_codes = config.num_codes or (96 if path.network is None else 384)
    codes = compile_codes(avatar.code_space, num_codes, config.seed)

    keep, pruned_bound = torch.ones(len(path), dtype=torch.bool), 0.0
    if config.prune_below_px:
        most = largest_contributions(
            path, avatar.code_space, lambda done: report("finding what is seen", 0.3 * done)
        )
        keep = most >= config.prune_below_px
        pruned_bound = float(most[~keep].sum()) / PICTURE_PX**2
    start = 0.3 if config.prune_below_px else 0.0
    changes = _evaluate(
        path, codes, lambda done: report("evaluating codes", start + (0.75 - start) * done)
    )
    report("finding components", 0.75)
    whole = _without_compiled(avatar.tensors)
    room_mb = config.max_mb - _megabytes(whole) - FILE_OVERHEAD_MB
    parts, fit_facts = _fit(path, codes, changes, keep, room_mb)
    del changes
    accuracy = measure_accuracy(
        path,
        parts,
        avatar.code_space,
        num_codes=config.num_test_codes,
        num_pairs=config.num_test_pairs,
        progress=lambda done: report("measuring accuracy", 0.85 + 0.15 * done),
    )
    tensors, about = compiled.stored_parts(parts)
    about |= {
        "version": compiled.VERSION,
        "code_space": avatar.code_space,
        "num_codes": len(codes),
        "num_inputs": parts.basis.num_inputs,
        "num_products": len(parts.feature_map.pairs),
        "num_centers": len(parts.feature_map.centers),
        "num_moving": parts.basis.num_gaussians,
        "num_pruned": int((~keep).sum()),
        # To first order, the mean change of a tried picture's colours is no more than this.
        "pruned_mean_change_bound": pruned_bound,
        **fit_facts,
        "settings": asdict(config),
        "accuracy": accuracy.to_json(),
    }
    report("done", 1.0)
    return replace(
        avatar,
        avatar_id="",
        tensors=whole | tensors,
        config=avatar.config | {compiled.KEY: about},
    )


def _evaluate(
    path: FullPath, codes: Float[np.ndarray, "s e"], progress: Callable[[float], None]
) -> Float[Tensor, "s n c"]:
    """How each code changes the columns from those of the first, neutral one.

    Half floats are enough for changes: 0.01 mm of 20 mm.
    """
    resting = path.columns(torch.from_numpy(codes[0]))
    changes = torch.empty(len(codes), *resting.shape, dtype=torch.half)

    def evaluate(row: int) -> None:
        changes[row] = path.columns(torch.from_numpy(codes[row])) - resting

    for begin in range(0, len(codes), 16):
        progress(begin / len(codes))
        in_threads(evaluate, range(begin, min(begin + 16, len(codes))))
    return changes


def _fit(
    path: FullPath,
    codes: Float[np.ndarray, "s e"],
    changes: Float[Tensor, "s n c"],
    keep: Bool[Tensor, "n"],
    room_mb: float,
) -> tuple[CompiledParts, dict[str, float]]:
    """Fit everything; also facts about the fit."""
    neutral = torch.from_numpy(codes[0])
    shapes, resting = path.shapes(neutral), path.resting(neutral)
    inverse_area = torch.zeros(len(path))
    inverse_area[shapes.fading] = 1 / shapes.placed_area_mm2.clamp(min=1e-4)
    moves = basis_fit.what_moves(changes) & keep
    fades = moves & (inverse_area > 0)
    runs = (fades, moves & ~fades, keep & ~moves)
    sorted_runs = []
    for run in runs:
        rows = run.nonzero()[:, 0]
        sorted_runs.append(rows[basis_fit.morton_order(resting[rows, :3])])
    order = torch.cat(sorted_runs)
    moving = torch.cat(sorted_runs[:2])

    changes = changes[:, moving]
    feature_map, inputs, input_error = basis_fit.fit_inputs(codes, changes, 1 + codes.shape[1])
    g = path.gaussians(neutral)
    at_rest = Gaussians(
        **{name: getattr(g, name)[order] for name in Gaussians.__dataclass_fields__}
    )
    resting_mb = len(order) * RESTING_BYTES / 1e6
    tolerance = 1.0
    while True:
        blocks = basis_fit.fit_blocks(
            inputs, changes, resting[moving], shapes.limits_mm[moving], inverse_area[moving],
            len(sorted_runs[0]), path.groups, tolerance,
        )  # fmt: skip
        size_mb = resting_mb + _megabytes({"stream": blocks.stream, "map": blocks.map})
        if size_mb <= room_mb:
            break
        if tolerance >= MAX_TOLERANCE:
            raise ValueError(
                f"the compiled path takes {size_mb:.1f} MB even at {tolerance:.1f} times the "
                f"tolerances, but the avatar leaves room for {room_mb:.1f} MB; raise max_mb or "
                "prune_below_px"
            )
        tolerance *= 1.5
    basis = LinearBasis(
        counts=blocks.counts,
        ranks=blocks.ranks,
        fades=blocks.fades,
        stream=blocks.stream,
        positions=compiled.packed_positions(at_rest.means, blocks.counts, blocks.ranks),
        map=blocks.map,
        fade_from=FADE_FROM,
        fade_to=FADE_TO,
    )
    facts = {"held_out_input_error": input_error, "tolerance": tolerance}
    return CompiledParts(_rounded(at_rest), basis, feature_map, order), facts


def _megabytes(tensors: dict[str, Tensor]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6


def _without_compiled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: tensor for n, tensor in tensors.items() if not n.startswith(compiled.PREFIX)}


def _rounded(g: Gaussians) -> Gaussians:
    """Values as the file holds them, so that what is measured is what will be loaded."""
    return Gaussians(
        means=g.means.float(),
        quats_wxyz=torch.nn.functional.normalize(g.quats_wxyz.half().float(), dim=-1),
        scales=(MILLIMETRES * g.scales).half().float() / MILLIMETRES,
        opacities=g.opacities.half().float(),
        colors=g.colors.half().float(),
    )
