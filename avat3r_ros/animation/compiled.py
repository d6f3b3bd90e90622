"""The compiled path: an avatar's Gaussians from a small linear basis, and how a file holds it.

    tensor              shape      dtype    meaning
    compiled.means      (N, 3)     float32  at a code of zeros, metres; the moving ones first
    compiled.quats_wxyz (N, 4)     float16
    compiled.scales     (N, 3)     float16  millimetres
    compiled.opacities  (N,)       float16
    compiled.colors     (N, 3)     float16
    compiled.order      (N,)       int32    which of the full path's Gaussians each one is
    compiled.counts     (B,)       uint8    Gaussians of each block
    compiled.ranks      (B, 5)     uint8    components of its position, half axes, thickness, ...
    compiled.fades      (B,)       uint8    1 where opacity follows the area of the half axes
    compiled.stream     (S,)       float16  see native/src/basis_types.h
    compiled.map        (K, G)     float16  coefficients of the components from inputs
    compiled.pairs      (P, 2)     int16    products among the features of a code (features.py)
    compiled.centers    (C, E)     float32  codes whose nearness is a feature
    compiled.weights    (G, F)     float32  inputs from features

`avatar.config["compiled"]` holds the version, the code space it was made for, what else evaluation
needs, and the accuracy measured when it was made. Avatars without it stay valid, and a version of
the package that does not know it uses the full path.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from avat3r_ros.animation.features import FeatureMap
from avat3r_ros.expression import CODE_SPACES
from avat3r_ros.native import LinearBasis
from avat3r_ros.native.basis import LANES, POSITION
from avat3r_ros.types import Avatar, Gaussians

KEY = "compiled"
PREFIX = "compiled."
VERSION = 1

_MILLIMETRES = 1000.0
_WIDTHS = {"means": 3, "quats_wxyz": 4, "scales": 3, "opacities": 1, "colors": 3}


@dataclass(frozen=True)
class CompiledParts:
    """What is stored; see the module.

    Attributes:
        resting: At a code of zeros, the moving ones first.
        basis: How the moving ones move.
        feature_map: Inputs of the basis from a code.
        order: The full path's index of each Gaussian.
    """

    resting: Gaussians
    basis: LinearBasis
    feature_map: FeatureMap
    order: Int[Tensor, "n"]


def is_compiled(avatar: Avatar) -> bool:
    """Whether the avatar holds a compiled path that this version reads, for its code space."""
    about = avatar.config.get(KEY)
    return (
        isinstance(about, dict)
        and about.get("version") == VERSION
        and about.get("code_space") == avatar.code_space
    )


def has_full_path(avatar: Avatar) -> bool:
    """Whether the avatar holds what the full path needs; `thin_avatar` takes it out."""
    return any(not name.startswith(PREFIX) for name in avatar.tensors)


def thin_avatar(avatar: Avatar) -> Avatar:
    """Return the avatar without what only its full path needs: for clients that just show it.

    Raises:
        ValueError: It has no compiled path.
    """
    if not is_compiled(avatar):
        raise ValueError("the avatar has no compiled path; make one with `avat3r compile`")
    kept = {name: tensor for name, tensor in avatar.tensors.items() if name.startswith(PREFIX)}
    return replace(avatar, avatar_id="", tensors=kept)


def stored_parts(parts: CompiledParts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a compiled path and what belongs into `config["compiled"]`."""
    g, basis, features = parts.resting, parts.basis, parts.feature_map
    tensors = {
        "means": g.means.float(),
        "quats_wxyz": g.quats_wxyz.half(),
        "scales": (_MILLIMETRES * g.scales).half(),
        "opacities": g.opacities.half(),
        "colors": g.colors.half(),
        "order": parts.order.to(torch.int32),
        "counts": torch.from_numpy(basis.counts).to(torch.uint8),
        "ranks": torch.from_numpy(basis.ranks).to(torch.uint8),
        "fades": torch.from_numpy(basis.fades).to(torch.uint8),
        "stream": basis.stream,
        "map": basis.map,
        "pairs": torch.from_numpy(features.pairs).to(torch.int16),
        "centers": torch.from_numpy(features.centers).float(),
        "weights": torch.from_numpy(features.weights).float(),
    }
    about = {
        "width": features.width,
        "fade_from": basis.fade_from,
        "fade_to": basis.fade_to,
    }
    return {PREFIX + name: t.detach().cpu().contiguous() for name, t in tensors.items()}, about


def restore_parts(avatar: Avatar) -> CompiledParts:
    """Read back what `stored_parts` gave.

    Raises:
        ValueError: There is no compiled path for the avatar's code space in a version that is known
            here, or its tensors are incomplete or do not fit one another.
    """
    about = avatar.config.get(KEY)
    if not isinstance(about, dict):
        raise ValueError("the avatar has no compiled path; make one with `avat3r compile`")
    if about.get("version") != VERSION:
        raise ValueError(
            f"expected a compiled path of version {VERSION}, got {about.get('version')!r}; "
            "make it again with `avat3r compile`"
        )
    if about.get("code_space") != avatar.code_space:
        raise ValueError(
            f"the compiled path is for codes in {about.get('code_space')!r}, the avatar for "
            f"{avatar.code_space!r}; make it again with `avat3r compile`"
        )
    numbers = [about.get(name) for name in ("width", "fade_from", "fade_to")]
    if not all(type(value) is float and value > 0 for value in numbers):
        raise ValueError(f"the compiled path's settings are damaged: {numbers}")
    width, fade_from, fade_to = numbers
    read = _Reader(avatar.tensors)
    means = read("means", (None, 3), torch.float32)
    n = len(means)
    half = torch.float16
    resting = Gaussians(
        means=means,
        quats_wxyz=torch.nn.functional.normalize(read("quats_wxyz", (n, 4), half).float(), dim=-1),
        scales=read("scales", (n, 3), half).float() / _MILLIMETRES,
        opacities=read("opacities", (n,), half).float(),
        colors=read("colors", (n, 3), half).float(),
    )
    counts = read("counts", (None,), torch.uint8).numpy().astype(np.int32)
    ranks = read("ranks", (len(counts), 5), torch.uint8).numpy().astype(np.int32)
    if counts.sum() > n:
        raise ValueError(f"the compiled path's blocks hold {counts.sum()} of {n} Gaussians")
    matrix = read("map", (None, None), half)
    length = CODE_SPACES[avatar.code_space]
    centers = read("centers", (None, length), torch.float32)
    pairs = read("pairs", (None, 2), torch.int16).long()
    weights = read("weights", (matrix.shape[1], length + len(pairs) + len(centers)), torch.float32)
    basis = LinearBasis(
        counts=counts,
        ranks=ranks,
        fades=read("fades", (len(counts),), torch.uint8).numpy().astype(np.int32),
        stream=read("stream", (None,), half),
        positions=packed_positions(means, counts, ranks),
        map=matrix,
        fade_from=fade_from,
        fade_to=fade_to,
    )
    features = FeatureMap(pairs.numpy(), centers.numpy(), width, weights.numpy())
    return CompiledParts(resting, basis, features, read("order", (n,), torch.int32).long())


def packed_positions(
    means: Float32[Tensor, "n 3"], counts: Int[np.ndarray, "b"], ranks: Int[np.ndarray, "b 5"]
) -> Float32[Tensor, "p"]:
    """Resting positions in the order `LinearBasis` reads them: (3, 16) for each 16 of a block."""
    moves = ranks[:, POSITION] > 0
    firsts = np.cumsum(counts) - counts
    chunks = -(-counts // LANES)
    # First Gaussian and number of Gaussians of every chunk of every block that moves.
    block = np.repeat(np.flatnonzero(moves), chunks[moves])
    inside = np.arange(len(block)) - np.repeat(
        np.cumsum(chunks[moves]) - chunks[moves], chunks[moves]
    )
    lanes = LANES * inside[:, None] + np.arange(LANES)
    rows = torch.from_numpy(firsts[block][:, None] + np.minimum(lanes, counts[block][:, None] - 1))
    return means[rows].transpose(1, 2).flatten().contiguous()


class CompiledAnimation:
    """Evaluates a compiled path on the CPU, with the native library.

    Every result lies in a buffer that already holds what never moves. A buffer is used again once
    nobody holds any of its tensors.

    Args:
        parts: From `restore_parts`.
        num_threads: Of the native library; torch's number if None.
        instruction_set: One of `native.instruction_sets()`; None for the best.
    """

    def __init__(
        self,
        parts: CompiledParts,
        *,
        num_threads: int | None = None,
        instruction_set: str | None = None,
    ) -> None:
        self._parts, self._num_threads = parts, num_threads
        self._instruction_set = instruction_set
        self._buffers: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._parts.resting)

    def animate(self, code: np.ndarray) -> Gaussians:
        """Return the avatar in an expression; `code` is valid for the avatar's code space."""
        gaussians = self._views(self._free_buffer())
        self._parts.basis.evaluate(
            self._parts.feature_map(code),
            **{name: getattr(gaussians, name) for name in _WIDTHS},
            num_threads=self._num_threads or torch.get_num_threads(),
            instruction_set=self._instruction_set,
        )
        return gaussians

    def _free_buffer(self) -> np.ndarray:
        for buffer in self._buffers:
            # Held by the list, by `buffer` and by the call: no tensor looks into it any more.
            if sys.getrefcount(buffer) == 3:
                return buffer
        buffer = np.empty(sum(_WIDTHS.values()) * len(self), np.float32)
        views = self._views(buffer)
        for name in _WIDTHS:
            getattr(views, name).copy_(getattr(self._parts.resting, name))
        self._buffers.append(buffer)
        return buffer

    def _views(self, buffer: np.ndarray) -> Gaussians:
        tensors, begin = {}, 0
        for name, width in _WIDTHS.items():
            part = buffer[begin : begin + width * len(self)]
            # A tensor made of a NumPy array holds the array, and with it the buffer.
            tensor = torch.from_numpy(part)
            tensors[name] = tensor if width == 1 else tensor.view(-1, width)
            begin += width * len(self)
        return Gaussians(**tensors)


class _Reader:
    """Takes tensors of a compiled path, checking type, shape and that values are finite."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def __call__(self, name: str, shape: tuple[int | None, ...], dtype: torch.dtype) -> Tensor:
        tensor = self._tensors.get(PREFIX + name)
        if tensor is None:
            raise ValueError(f"avatar tensor {PREFIX + name!r} is missing")
        fits = tensor.ndim == len(shape) and all(
            want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype != dtype:
            raise ValueError(
                f"expected avatar tensor {PREFIX + name!r} {shape} {dtype}, got "
                f"{tuple(tensor.shape)} {tensor.dtype}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"avatar tensor {PREFIX + name!r} has values that are not finite")
        return tensor
