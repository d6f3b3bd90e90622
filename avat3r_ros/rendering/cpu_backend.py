"""CPU back-end of `rasterization`: the native library as a differentiable function."""

import threading
from typing import Any

import torch
from torch import Tensor

from avat3r_ros.native import SplatScene, SplatStats, SplatWorkspace


def rasterize(scene: SplatScene, num_threads: int) -> tuple[Tensor, Tensor, SplatStats]:
    """Render a scene; gradients flow to its tensors except the intrinsics.

    Returns:
        Channels (C, H, W, scene.num_channels), alphas (C, H, W) and what the pass did.
    """
    tensors = (
        *(scene.means, scene.quats_wxyz, scene.scales, scene.opacities, scene.colors),
        *(scene.viewmats, scene.intrinsics, scene.backgrounds),
    )
    call = _Call(scene, num_threads)
    call.keep = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )
    channels, alphas = _Rasterize.apply(call, *tensors)
    return channels, alphas, call.stats


class _Call:
    """What one call carries besides tensors, which travel through autograd alone."""

    def __init__(self, scene: SplatScene, num_threads: int) -> None:
        self.settings = {
            name: getattr(scene, name)
            for name in ("width", "height", "with_depth", "eps2d", "near_plane", "far_plane")
        }
        self.num_threads = num_threads
        self.keep = False
        self.stats: SplatStats | None = None

    def scene(self, tensors: tuple[Tensor | None, ...]) -> SplatScene:
        dense = [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]
        return SplatScene(*dense[:7], backgrounds=dense[7], **self.settings)


class _Lease:
    """A workspace taken out of the free ones, and given back when this object dies.

    Every forward that awaits its backward holds one, so interleaved calls never overwrite each
    other's lists. Only a few are kept for later: each is some 100 bytes a Gaussian.
    """

    _free: list[SplatWorkspace] = []
    _lock = threading.Lock()
    _max_free = 4

    def __init__(self) -> None:
        with self._lock:
            self.workspace = self._free.pop() if self._free else None
        if self.workspace is None:
            self.workspace = SplatWorkspace()

    def __del__(self) -> None:
        if (workspace := getattr(self, "workspace", None)) is not None:
            with self._lock:
                if len(self._free) < self._max_free:
                    self._free.append(workspace)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        scene = call.scene(tensors)
        lease = _Lease()
        shape = (scene.num_cameras, scene.height, scene.width)
        channels = torch.empty(*shape, scene.num_channels)
        alphas = torch.empty(shape)
        call.stats = lease.workspace.forward(
            scene,
            channels=channels,
            alphas=alphas,
            keep_for_backward=call.keep,
            num_threads=call.num_threads,
        )
        if call.keep:
            ctx.call, ctx.lease = call, lease
            ctx.save_for_backward(alphas, *tensors)
        return channels, alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, channels: Tensor, alphas: Tensor) -> tuple[Tensor | None, ...]:
        call = ctx.call
        rendered_alphas, *tensors = ctx.saved_tensors
        scene = call.scene(tuple(tensors))
        lease, ctx.lease = ctx.lease, None
        if lease is None:  # a second backward through a retained graph: its lists were given back
            lease = _Lease()
            lease.workspace.forward(scene, keep_for_backward=True, num_threads=call.num_threads)
        gradients = lease.workspace.backward(
            scene, channels.contiguous(), alphas.contiguous(), num_threads=call.num_threads
        )
        backgrounds = None
        if ctx.needs_input_grad[-1]:
            num_colors = scene.backgrounds.shape[1]
            through = (1 - rendered_alphas)[..., None] * channels[..., :num_colors]
            backgrounds = through.sum((1, 2))
        return None, *gradients, None, backgrounds
