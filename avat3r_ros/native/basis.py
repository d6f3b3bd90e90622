"""Gaussians as small linear bases, evaluated by libavat3r_native: the compiled animation's core.

`LinearBasis` holds the numbers in the layout of `src/basis_types.h`; what they mean and how they
are found is animation/'s business.
"""

import ctypes
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int32
from torch import Tensor

from avat3r_ros.native.loader import library
from avat3r_ros.native.splats import instruction_set_index

LANES = 16
"""Gaussians that are computed together; the stream holds their numbers side by side."""

GROUP_WIDTHS = (3, 6, 1, 3, 1)
"""Numbers a Gaussian of position, half axes, thickness, colour, opacity."""

POSITION, HALF_AXES, THICKNESS, COLOR, OPACITY = range(5)
MAX_INPUTS, MAX_RANK = 256, 64

_BLOCK = np.dtype(
    [
        *((name, np.int64) for name in ("stream_begin", "position_begin", "coefficient_begin")),
        *((name, np.int32) for name in ("first", "count")),
        ("ranks", np.int32, (5,)),
        ("fades", np.int32),
    ]
)


class _Basis(ctypes.Structure):
    _fields_ = [
        ("num_blocks", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("blocks", "stream", "positions", "map")),
        ("num_inputs", ctypes.c_int32),
        *((name, ctypes.c_float) for name in ("fade_from", "fade_to")),
    ]


class _Outputs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p) for name in ("means", "quats_wxyz", "scales", "opacities", "colors")
    ]


@dataclass(frozen=True)
class LinearBasis:
    """Blocks of neighbouring Gaussians [0, M), each block with components of its own.

    Attributes:
        counts: Gaussians of each block.
        ranks: Components of each group (see `GROUP_WIDTHS`) in each block; 0 where nothing moves.
        fades: 1 where a block's opacity follows the area of its half axes.
        stream: Resting values and components, in the order of `src/basis_types.h`.
        positions: Resting positions, metres, (3, 16) for each 16 Gaussians of blocks that move.
        map: Coefficients from inputs; one row for each component of each block.
        fade_from: Area ratio up to which a fading Gaussian is whole.
        fade_to: Area ratio from which it is gone.

    Raises:
        ValueError: Sizes do not fit one another.
    """

    counts: Int32[np.ndarray, "b"]
    ranks: Int32[np.ndarray, "b 5"]
    fades: Int32[np.ndarray, "b"]
    stream: Float16[Tensor, "s"]
    positions: Float32[Tensor, "p"]
    map: Float16[Tensor, "k g"]
    fade_from: float
    fade_to: float

    def __post_init__(self) -> None:
        num_blocks = len(self.counts)
        if self.ranks.shape != (num_blocks, 5) or self.fades.shape != (num_blocks,):
            raise ValueError(
                f"expected ranks ({num_blocks}, 5) and fades ({num_blocks},), got "
                f"{self.ranks.shape} and {self.fades.shape}"
            )
        if num_blocks and (self.counts.min() < 1 or self.ranks.min() < 0):
            raise ValueError("expected blocks of at least one Gaussian and ranks of at least 0")
        if num_blocks and self.ranks.max() > MAX_RANK:
            raise ValueError(f"expected ranks up to {MAX_RANK}, got {self.ranks.max()}")
        if self.map.shape[1] > MAX_INPUTS:
            raise ValueError(f"expected at most {MAX_INPUTS} inputs, got {self.map.shape[1]}")
        stream_sizes, position_sizes = self._sizes()
        for name, tensor, expected in (
            ("stream", self.stream, stream_sizes.sum()),
            ("positions", self.positions, position_sizes.sum()),
            ("map", self.map, self.ranks.sum()),
        ):
            if len(tensor) != expected:
                raise ValueError(f"expected {expected} rows of the {name}, got {len(tensor)}")
        blocks = np.zeros(num_blocks, _BLOCK)
        for name, sizes in (
            ("stream_begin", stream_sizes),
            ("position_begin", position_sizes),
            ("coefficient_begin", self.ranks.sum(1)),
            ("first", self.counts),
        ):
            blocks[name] = np.cumsum(sizes, dtype=np.int64) - sizes
        blocks["count"], blocks["ranks"], blocks["fades"] = self.counts, self.ranks, self.fades
        padding = -self.map.shape[1] % LANES
        padded_map = torch.nn.functional.pad(self.map, (0, padding)).contiguous()
        stream, positions = self.stream.contiguous(), self.positions.contiguous()
        # What the addresses below point to must live as long as this object.
        object.__setattr__(self, "_kept", (blocks, stream, positions, padded_map))
        object.__setattr__(
            self,
            "_native",
            _Basis(
                num_blocks,
                blocks.ctypes.data,
                stream.data_ptr(),
                positions.data_ptr(),
                padded_map.data_ptr(),
                padded_map.shape[1],
                self.fade_from,
                self.fade_to,
            ),
        )

    @property
    def num_gaussians(self) -> int:
        """M."""
        return int(self.counts.sum())

    @property
    def num_inputs(self) -> int:
        """Numbers that `evaluate` takes."""
        return self.map.shape[1]

    def num_rows(self) -> Int32[np.ndarray, "b 5"]:
        """Rows of 16 numbers that each group takes in the stream for 16 Gaussians of a block."""
        present = self.ranks > 0
        present[:, OPACITY] |= self.fades > 0
        rows = (self.ranks + present) * np.array(GROUP_WIDTHS, np.int32)
        rows[:, POSITION] = self.ranks[:, POSITION] * GROUP_WIDTHS[POSITION]
        rows[:, HALF_AXES] += present[:, HALF_AXES] * (2 + (self.fades > 0))
        return rows.astype(np.int32)

    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of each block in the stream and in the positions."""
        chunks = -(-self.counts.astype(np.int64) // LANES)
        moves = self.ranks[:, POSITION] > 0
        return chunks * LANES * self.num_rows().sum(1), chunks * LANES * 3 * moves

    def evaluate(
        self,
        inputs: Float32[np.ndarray, "g"],
        *,
        means: Tensor,
        quats_wxyz: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        num_threads: int = 1,
        instruction_set: str | None = None,
    ) -> None:
        """Write the rows [0, M) that move; the others keep what they hold.

        Args:
            inputs: What the components are mixed by.
            means: (N, 3) float32 with N >= M, contiguous, on the CPU, as all the following.
            quats_wxyz: (N, 4).
            scales: (N, 3).
            opacities: (N,).
            colors: (N, 3).
            num_threads: The result does not depend on it.
            instruction_set: One of `instruction_sets()`; None for the best.

        Raises:
            ValueError: Wrong number of inputs, or an array that is not as described.
        """
        padded = np.zeros(self._native.num_inputs, np.float32)
        if inputs.shape != (self.num_inputs,):
            raise ValueError(f"expected {self.num_inputs} inputs, got shape {inputs.shape}")
        padded[: self.num_inputs] = inputs
        outputs = {
            "means": (means, 3), "quats_wxyz": (quats_wxyz, 4), "scales": (scales, 3),
            "opacities": (opacities, 1), "colors": (colors, 3),
        }  # fmt: skip
        for name, (tensor, width) in outputs.items():
            fits = tensor.dtype == torch.float32 and tensor.is_contiguous() and tensor.is_cpu
            if not fits or tensor.numel() < width * self.num_gaussians:
                raise ValueError(
                    f"expected {name} contiguous float32 on the CPU with at least "
                    f"{width * self.num_gaussians} numbers, got {tensor.dtype} "
                    f"{tuple(tensor.shape)} on {tensor.device}"
                )
        index = instruction_set_index(instruction_set)
        status = library().avat3r_basis_evaluate(
            ctypes.byref(self._native),
            ctypes.c_void_p(padded.ctypes.data),
            ctypes.byref(_Outputs(*(tensor.data_ptr() for tensor, _ in outputs.values()))),
            ctypes.c_int32(num_threads),
            ctypes.c_int32(index),
        )
        assert status == 0, status
