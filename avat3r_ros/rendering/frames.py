"""Images of `Gaussians` through `Camera`s: differentiable, or straight to bytes for live use."""

import weakref
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avat3r_ros.native import SplatScene, SplatStats, SplatWorkspace
from avat3r_ros.rendering.checks import check_cameras, check_shapes, finite_rows
from avat3r_ros.rendering.rasterization import Backend, rasterization, resolve_backend
from avat3r_ros.rendering.reprojection import Layer
from avat3r_ros.types import Camera, Gaussians

MIN_LAYER_ALPHA = 0.05
"""Pixels of a layer that are more transparent have no depth of their own."""


class RenderedViews(NamedTuple):
    """What C cameras see.

    Attributes:
        rgb: Blended with the background; not clamped, so that gradients pass.
        alpha: In [0, 1].
        depth: Expected z in the camera frame, metres; 0 where alpha is 0. None if not asked for.
    """

    rgb: Float[Tensor, "c 3 h w"]
    alpha: Float[Tensor, "c 1 h w"]
    depth: Float[Tensor, "c 1 h w"] | None


def render_gaussians(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: Float[Tensor, "3"] | None = None,
    depth: bool = False,
    backend: Backend = "auto",
) -> RenderedViews:
    """Render Gaussians for one camera (no leading dimension) or C cameras; differentiable.

    Args:
        gaussians: In the head frame.
        camera: On the device of the Gaussians.
        background: RGB in [0, 1] behind all cameras; None for black.
        depth: Also return the depth.
        backend: See `rasterization`.

    Raises:
        ValueError: See `rasterization`.
        RuntimeError: See `rasterization`.
    """
    device = gaussians.means.device
    viewmats, intrinsics = _camera_tensors(camera, device)
    backgrounds = None
    if background is not None:
        background = torch.as_tensor(background, dtype=torch.float32, device=device)
        backgrounds = background.expand(len(viewmats), 3)
    channels, alphas, _ = rasterization(
        gaussians.means,
        gaussians.quats_wxyz,
        gaussians.scales,
        gaussians.opacities,
        gaussians.colors,
        viewmats,
        intrinsics,
        camera.width,
        camera.height,
        backgrounds=backgrounds,
        render_mode="RGB+ED" if depth else "RGB",
        backend=backend,
    )
    images = channels.permute(0, 3, 1, 2)
    return RenderedViews(
        images[:, :3], alphas.permute(0, 3, 1, 2), images[:, 3:] if depth else None
    )


class FrameRenderer:
    """Renders frame after frame to bytes without gradients, reusing its memory.

    Not for two threads at once. Gaussians with a NaN or an infinity are left out and counted in
    `last_num_invalid`: one bad Gaussian must not stop a live picture.

    Attributes:
        last_num_invalid: Gaussians left out of the last frame.
        last_stats: What the CPU back-end did for the last frame; None on gsplat.
        last_depth_m: z in the camera frame of the last frame that was asked for depth, 0 where
            alpha is below one half, (C, H, W); reused like the image.
    """

    def __init__(self, backend: Backend = "auto", num_threads: int | None = None) -> None:
        self._backend = backend
        self._num_threads = num_threads
        self._workspace: SplatWorkspace | None = None
        self._buffers = _Buffers()
        self._layers: list[tuple[_Buffers, weakref.ref[Layer]]] = []
        self.last_num_invalid = 0
        self.last_stats: SplatStats | None = None
        self.last_depth_m: np.ndarray | None = None

    @torch.no_grad()
    def render_u8(
        self,
        gaussians: Gaussians,
        camera: Camera,
        background: Float[np.ndarray, "3"] | None = None,
        order: str = "rgb",
        *,
        depth: bool = False,
    ) -> UInt8[np.ndarray, "c h w n"]:
        """Render Gaussians to bytes, rounded and clamped, channels last.

        Args:
            gaussians: In the head frame.
            camera: One camera (no leading dimension) or C of them.
            background: RGB in [0, 1]; None for black. `order` does not concern it.
            order: "rgb" or "bgr"; "rgba" or "bgra" for straight alpha and no background.
            depth: Also fill `last_depth_m`.

        Returns:
            The renderer's own memory: the next call overwrites it, so copy what must last.

        Raises:
            ValueError: See `rasterization`; an unknown order, or a background beside alpha.
            RuntimeError: See `rasterization`.
        """
        if order not in ("rgb", "bgr", "rgba", "bgra"):
            raise ValueError(f"expected order 'rgb', 'bgr', 'rgba' or 'bgra', got {order!r}")
        if background is not None and len(order) == 4:
            raise ValueError(f"expected no background with order {order!r}, got {background}")
        fields = [getattr(gaussians, name) for name in Gaussians.__dataclass_fields__]
        wanted = _Wanted(order.startswith("bgr"), len(order), False, depth, 0.5)
        image, depth_m = self._render(fields, camera, background, wanted, self._buffers)
        self.last_depth_m = depth_m if depth else self.last_depth_m
        return image

    @torch.no_grad()
    def render_layer(self, gaussians: Gaussians, camera: Camera) -> Layer:
        """Render Gaussians to a layer for `reproject`; its memory is reused once it is gone.

        Raises:
            ValueError: See `rasterization`.
            RuntimeError: See `rasterization`.
        """
        # Another thread may still show an earlier layer: only those that nobody holds are free.
        free = next((item for item in self._layers if item[1]() is None), None)
        if free is not None:
            self._layers.remove(free)
        buffers = _Buffers() if free is None else free[0]
        fields = [getattr(gaussians, name) for name in Gaussians.__dataclass_fields__]
        wanted = _Wanted(False, 4, True, True, MIN_LAYER_ALPHA)
        rgba, depth_m = self._render(fields, camera, None, wanted, buffers)
        single = camera.intrinsics.dim() == 2
        layer = Layer(rgba, depth_m, camera[None] if single else camera)
        self._layers.append((buffers, weakref.ref(layer)))
        return layer

    def _render(
        self,
        fields: list[Tensor],
        camera: Camera,
        background: np.ndarray | None,
        wanted: "_Wanted",
        buffers: "_Buffers",
    ) -> tuple[np.ndarray, np.ndarray]:
        device = fields[0].device
        viewmats, intrinsics = _camera_tensors(camera, device)
        backgrounds = None
        if background is not None:
            row = torch.as_tensor(np.asarray(background, np.float32), device=device)
            if row.shape != (3,):
                raise ValueError(f"expected a background of 3 numbers, got {background}")
            backgrounds = row.expand(len(viewmats), 3).contiguous()
        check_shapes(*fields, viewmats, intrinsics, backgrounds)
        check_cameras(viewmats, intrinsics, backgrounds, camera.width, camera.height)
        if fields[-1].shape[1] != 3:
            raise ValueError(f"expected colors (N, 3), got {tuple(fields[-1].shape)}")
        buffers.fit((len(viewmats), camera.height, camera.width), wanted)
        call = (fields, camera, viewmats, intrinsics, backgrounds, wanted, buffers)
        if resolve_backend(self._backend, device) == "cpu":
            self._render_on_cpu(*call)
        else:
            self._render_with_gsplat(*call)
        return buffers.image.numpy(), buffers.depths.numpy()

    def _render_on_cpu(
        self,
        fields: list[Tensor],
        camera: Camera,
        viewmats: Tensor,
        intrinsics: Tensor,
        backgrounds: Tensor | None,
        wanted: "_Wanted",
        buffers: "_Buffers",
    ) -> None:
        if self._workspace is None:
            self._workspace = SplatWorkspace()
        scene = SplatScene(
            *(tensor.float().contiguous() for tensor in fields),
            viewmats,
            intrinsics,
            camera.width,
            camera.height,
            backgrounds=backgrounds,
            with_depth=wanted.depth,
        )
        self.last_stats = self._workspace.forward(
            scene,
            image_bytes=buffers.image,
            bgr=wanted.bgr,
            premultiplied=wanted.premultiplied,
            depths=buffers.depths if wanted.depth else None,
            min_depth_alpha=wanted.min_depth_alpha,
            num_threads=self._num_threads or torch.get_num_threads(),
        )
        self.last_num_invalid = self.last_stats.num_invalid

    def _render_with_gsplat(
        self,
        fields: list[Tensor],
        camera: Camera,
        viewmats: Tensor,
        intrinsics: Tensor,
        backgrounds: Tensor | None,
        wanted: "_Wanted",
        buffers: "_Buffers",
    ) -> None:
        finite = finite_rows(*fields)
        self.last_num_invalid = int((~finite).sum())
        if self.last_num_invalid:
            fields = [field[finite] for field in fields]
        channels, alphas, _ = rasterization(
            *fields,
            viewmats,
            intrinsics,
            camera.width,
            camera.height,
            backgrounds=backgrounds,
            render_mode="RGB+ED" if wanted.depth else "RGB",
            backend="gsplat",
        )
        colors = channels[..., :3]
        if wanted.channels == 4:
            if not wanted.premultiplied:
                colors = colors / alphas.clamp(min=1e-6)
            colors = torch.cat([colors, alphas], -1)
        image = (colors.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
        buffers.image.copy_(image[..., [2, 1, 0, 3][: wanted.channels]] if wanted.bgr else image)
        if wanted.depth:
            transparent = alphas[..., 0] < wanted.min_depth_alpha
            buffers.depths.copy_(channels[..., 3].masked_fill(transparent, 0.0))


class _Wanted(NamedTuple):
    """What a frame consists of."""

    bgr: bool
    channels: int
    premultiplied: bool
    depth: bool
    min_depth_alpha: float


class _Buffers:
    """Image and depth of a frame; kept while the sizes stay."""

    def __init__(self) -> None:
        self.image = torch.empty(0, dtype=torch.uint8)
        self.depths = torch.empty(0)

    def fit(self, shape: tuple[int, int, int], wanted: _Wanted) -> None:
        if self.image.shape != (*shape, wanted.channels):
            self.image = torch.empty(*shape, wanted.channels, dtype=torch.uint8)
        if wanted.depth and self.depths.shape != shape:
            self.depths = torch.empty(shape)


def _camera_tensors(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    """Poses (C, 4, 4) and intrinsics (C, 3, 3), float32; a single camera becomes C = 1."""
    viewmats, intrinsics = (
        tensor.to(device=device, dtype=torch.float32).reshape(-1, n, n).contiguous()
        for tensor, n in ((camera.camera_from_head, 4), (camera.intrinsics, 3))
    )
    return viewmats, intrinsics
