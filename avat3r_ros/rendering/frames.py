"""Images of `Gaussians` through `Camera`s: differentiable, or straight to bytes for live use."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avat3r_ros.native import SplatScene, SplatStats, SplatWorkspace
from avat3r_ros.rendering.checks import check_cameras, check_shapes, finite_rows
from avat3r_ros.rendering.rasterization import Backend, rasterization, resolve_backend
from avat3r_ros.types import Camera, Gaussians


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
    """

    def __init__(self, backend: Backend = "auto", num_threads: int | None = None) -> None:
        self._backend = backend
        self._num_threads = num_threads
        self._workspace: SplatWorkspace | None = None
        self._image = torch.empty(0, dtype=torch.uint8)
        self.last_num_invalid = 0
        self.last_stats: SplatStats | None = None

    @torch.no_grad()
    def render_u8(
        self,
        gaussians: Gaussians,
        camera: Camera,
        background: Float[np.ndarray, "3"] | None = None,
        order: Literal["rgb", "bgr"] = "rgb",
    ) -> UInt8[np.ndarray, "c h w 3"]:
        """Render and round to bytes; colours outside [0, 1] are clamped.

        Args:
            gaussians: In the head frame.
            camera: One camera (no leading dimension) or C of them.
            background: RGB in [0, 1]; None for black. `order` does not concern it.
            order: Channel order of the result.

        Returns:
            The renderer's own memory: the next call overwrites it, so copy what must last.

        Raises:
            ValueError: See `rasterization`; or an unknown order.
            RuntimeError: See `rasterization`.
        """
        if order not in ("rgb", "bgr"):
            raise ValueError(f"expected order 'rgb' or 'bgr', got {order!r}")
        device = gaussians.means.device
        viewmats, intrinsics = _camera_tensors(camera, device)
        backgrounds = None
        if background is not None:
            row = torch.as_tensor(np.asarray(background, np.float32), device=device)
            if row.shape != (3,):
                raise ValueError(f"expected a background of 3 numbers, got {background}")
            backgrounds = row.expand(len(viewmats), 3).contiguous()
        fields = [getattr(gaussians, name) for name in Gaussians.__dataclass_fields__]
        check_shapes(*fields, viewmats, intrinsics, backgrounds)
        check_cameras(viewmats, intrinsics, backgrounds, camera.width, camera.height)
        if gaussians.colors.shape[1] != 3:
            raise ValueError(f"expected colors (N, 3), got {tuple(gaussians.colors.shape)}")
        shape = (len(viewmats), camera.height, camera.width, 3)
        if self._image.shape != shape:
            self._image = torch.empty(shape, dtype=torch.uint8)
        if resolve_backend(self._backend, device) == "cpu":
            self._render_on_cpu(fields, camera, viewmats, intrinsics, backgrounds, order)
        else:
            self._render_with_gsplat(fields, camera, viewmats, intrinsics, backgrounds, order)
        return self._image.numpy()

    def _render_on_cpu(
        self,
        fields: list[Tensor],
        camera: Camera,
        viewmats: Tensor,
        intrinsics: Tensor,
        backgrounds: Tensor | None,
        order: str,
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
        )
        self.last_stats = self._workspace.forward(
            scene,
            image_bytes=self._image,
            bgr=order == "bgr",
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
        order: str,
    ) -> None:
        finite = finite_rows(*fields)
        self.last_num_invalid = int((~finite).sum())
        if self.last_num_invalid:
            fields = [field[finite] for field in fields]
        channels, _, _ = rasterization(
            *fields,
            viewmats,
            intrinsics,
            camera.width,
            camera.height,
            backgrounds=backgrounds,
            backend="gsplat",
        )
        image = (channels.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
        self._image.copy_(image if order == "rgb" else image.flip(-1))


def _camera_tensors(camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
    """Poses (C, 4, 4) and intrinsics (C, 3, 3), float32; a single camera becomes C = 1."""
    viewmats, intrinsics = (
        tensor.to(device=device, dtype=torch.float32).reshape(-1, n, n).contiguous()
        for tensor, n in ((camera.camera_from_head, 4), (camera.intrinsics, 3))
    )
    return viewmats, intrinsics
