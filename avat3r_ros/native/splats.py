"""The Gaussian rasterizer of libavat3r_native: structures, workspace, forward and backward.

This is the bare call: tensors must already be contiguous float32 on the CPU and of the right shape.
`rendering.rasterization` is the front that checks its input and takes part in autograd.
"""

import ctypes
import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from avat3r_ros.native.loader import library

MAX_COLORS = 3


@dataclass(frozen=True)
class SplatScene:
    """Gaussians and the cameras that look at them; float32, contiguous, on the CPU.

    Attributes:
        means: (N, 3), world frame.
        quats_wxyz: (N, 4), world_from_gaussian, any length but zero.
        scales: (N, 3), standard deviations.
        opacities: (N,), in [0, 1].
        colors: (N, D) with D <= 3; None for no colour channels.
        viewmats: (C, 4, 4), camera_from_world.
        intrinsics: (C, 3, 3), pixels.
        width: Pixels.
        height: Pixels.
        backgrounds: (C, D); None for black.
        with_depth: Append the z of the camera frame, weighted like a colour, as the last channel.
        eps2d: Blur, added to both screen variances, px^2.
        near_plane: Gaussians with a smaller z are left out; > 0.
        far_plane: Gaussians with a larger z are left out.
    """

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | None
    viewmats: Tensor
    intrinsics: Tensor
    width: int
    height: int
    backgrounds: Tensor | None = None
    with_depth: bool = False
    eps2d: float = 0.3
    near_plane: float = 0.01
    far_plane: float = 1e10

    @property
    def num_cameras(self) -> int:
        """C."""
        return self.viewmats.shape[0]

    @property
    def num_channels(self) -> int:
        """Colour channels, plus one for depth."""
        return (0 if self.colors is None else self.colors.shape[1]) + self.with_depth


class SplatStats(NamedTuple):
    """What one forward pass did.

    Attributes:
        num_visible: Gaussians on the screen, summed over the cameras.
        num_pairs: (Gaussian, 16x16 tile) pairs, summed over the cameras.
        num_invalid: Gaussians that were left out because of a NaN or an infinity.
        project_ms: Time of the projection.
        sort_ms: Time of the sorting into tiles.
        blend_ms: Time of the depth sort and the blending.
    """

    num_visible: int
    num_pairs: int
    num_invalid: int
    project_ms: float
    sort_ms: float
    blend_ms: float


class SplatGradients(NamedTuple):
    """Gradients of the tensors of a SplatScene; `colors` is None where the scene has none."""

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | None
    viewmats: Tensor


class _Scene(ctypes.Structure):
    _fields_ = [
        ("num_gaussians", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("num_cameras", "width", "height")),
        *((name, ctypes.c_int32) for name in ("num_colors", "with_depth")),
        *((name, ctypes.c_float) for name in ("eps2d", "near_plane", "far_plane")),
        *((name, ctypes.c_void_p) for name in ("means", "quats_wxyz", "scales", "opacities")),
        *((name, ctypes.c_void_p) for name in ("colors", "viewmats", "intrinsics", "backgrounds")),
    ]


class _Options(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_threads", "instruction_set")),
        *((name, ctypes.c_int32) for name in ("keep_for_backward", "bgr", "bytes_alpha")),
        ("min_depth_alpha", ctypes.c_float),
    ]


class _Images(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("channels", "alphas", "bytes", "depths")]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("channels", "alphas", *SplatGradients._fields)]


class _Stats(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_visible", "num_pairs", "num_invalid")),
        *((name, ctypes.c_double) for name in ("project_ms", "sort_ms", "blend_ms")),
    ]


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Name the instruction sets this processor can run, best first."""
    name = library().avat3r_instruction_set_name
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_int32]
    found = []
    while (encoded := name(len(found))) is not None:
        found.append(encoded.decode())
    return tuple(found)


def instruction_set_index(name: str | None) -> int:
    """Place of an instruction set among `instruction_sets()`; -1, the best, for None.

    Raises:
        ValueError: This processor cannot run it.
    """
    if name is None:
        return -1
    if name not in instruction_sets():
        raise ValueError(f"expected an instruction set of {instruction_sets()}, got {name!r}")
    return instruction_sets().index(name)


class SplatWorkspace:
    """Memory of one forward and its backward; grows to the largest scene and is reused.

    Not for two threads at once.
    """

    def __init__(self) -> None:
        self._library = library()
        create = self._library.avat3r_splat_workspace_create
        create.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(create())
        if not self._handle:
            raise MemoryError("no memory for a rasterizer workspace")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.avat3r_splat_workspace_destroy(self._handle)
            self._handle = None

    def forward(
        self,
        scene: SplatScene,
        *,
        channels: Tensor | None = None,
        alphas: Tensor | None = None,
        image_bytes: Tensor | None = None,
        bgr: bool = False,
        premultiplied: bool = False,
        depths: Tensor | None = None,
        min_depth_alpha: float = 0.5,
        keep_for_backward: bool = False,
        num_threads: int = 1,
        instruction_set: str | None = None,
    ) -> SplatStats:
        """Render into the given tensors; those left out are not written.

        Args:
            scene: What to render.
            channels: (C, H, W, scene.num_channels) float32.
            alphas: (C, H, W) float32.
            image_bytes: (C, H, W, 3) uint8, or (C, H, W, 4) with alpha, for which the scene should
                have no background; needs three colour channels. Without other outputs, what
                would change a byte by a quarter at most is left out.
            bgr: Channel order of `image_bytes`.
            premultiplied: Leave the colours beside an alpha multiplied by it, for compositing;
                otherwise they are divided by it, as in PNG.
            depths: (C, H, W) float32, expected z in the camera frame; needs scene.with_depth.
            min_depth_alpha: Pixels that are more transparent have depth 0.
            keep_for_backward: Keep what `backward` needs, until the next forward.
            num_threads: The result does not depend on it.
            instruction_set: One of `instruction_sets()`; None for the best.

        Raises:
            ValueError: The Gaussians cover far more tiles than memory should hold.
            MemoryError: There is not enough memory.
        """
        images = _Images(*map(_address, (channels, alphas, image_bytes, depths)))
        options = _options(num_threads, instruction_set, keep_for_backward, bgr)
        if image_bytes is not None and image_bytes.shape[-1] == 4:
            options.bytes_alpha = 1 if premultiplied else 2
        options.min_depth_alpha = min_depth_alpha
        stats = _Stats()
        status = self._library.avat3r_splat_forward(
            self._handle,
            ctypes.byref(_scene(scene)),
            ctypes.byref(options),
            ctypes.byref(images),
            ctypes.byref(stats),
        )
        _raise_for(status, scene)
        return SplatStats(*(getattr(stats, name) for name in SplatStats._fields))

    def backward(
        self,
        scene: SplatScene,
        channels: Tensor,
        alphas: Tensor | None,
        *,
        num_threads: int = 1,
        instruction_set: str | None = None,
    ) -> SplatGradients:
        """Gradients of the scene that the last `forward(keep_for_backward=True)` rendered.

        Args:
            scene: The same scene, unchanged.
            channels: dL/dchannels, (C, H, W, scene.num_channels) float32, contiguous.
            alphas: dL/dalphas, (C, H, W) float32, contiguous; None for zero.
            num_threads: The result does not depend on it.
            instruction_set: As in the forward pass.

        Raises:
            RuntimeError: No such forward went before.
            MemoryError: There is not enough memory.
        """
        outputs = SplatGradients(
            *(
                None if value is None else torch.empty_like(value)
                for value in (getattr(scene, name) for name in SplatGradients._fields)
            )
        )
        gradients = _Gradients(
            _address(channels), _address(alphas), *(_address(output) for output in outputs)
        )
        options = _options(num_threads, instruction_set, False, False)
        status = self._library.avat3r_splat_backward(
            self._handle,
            ctypes.byref(_scene(scene)),
            ctypes.byref(options),
            ctypes.byref(gradients),
        )
        _raise_for(status, scene)
        return outputs


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _scene(scene: SplatScene) -> _Scene:
    tensors = {
        name: _address(getattr(scene, name))
        for name in (
            *("means", "quats_wxyz", "scales", "opacities"),
            *("colors", "viewmats", "intrinsics", "backgrounds"),
        )
    }
    return _Scene(
        num_gaussians=scene.means.shape[0],
        num_cameras=scene.num_cameras,
        width=scene.width,
        height=scene.height,
        num_colors=scene.num_channels - scene.with_depth,
        with_depth=scene.with_depth,
        eps2d=scene.eps2d,
        near_plane=scene.near_plane,
        far_plane=scene.far_plane,
        **tensors,
    )


def _options(
    num_threads: int, instruction_set: str | None, keep_for_backward: bool, bgr: bool
) -> _Options:
    index = instruction_set_index(instruction_set)
    return _Options(num_threads, index, keep_for_backward, bgr)


def _raise_for(status: int, scene: SplatScene) -> None:
    """Turn an Avat3rStatus into an exception."""
    if status == 0:
        return
    size = f"{scene.means.shape[0]} Gaussians at {scene.width}x{scene.height}"
    if status == 2:
        raise MemoryError(f"not enough memory to rasterize {size}")
    if status == 3:
        raise ValueError(
            f"expected Gaussians that cover at most 2^29 tiles of 16x16 pixels in all, got more "
            f"for {size}: their scales are far too large"
        )
    if status == 4:
        raise RuntimeError("call forward(keep_for_backward=True) before backward")
    raise ValueError(f"the rasterizer refused {size} with {scene.num_channels} channels")
