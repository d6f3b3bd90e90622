"""One differentiable rasterizer for Gaussians with two back-ends that draw the same image.

The call is that of `gsplat.rasterization` (Ye et al., "gsplat: An open-source library for Gaussian
splatting", 2024), restricted to pinhole cameras, plain colours and the "classic" rasterizer.
"""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.native import SplatScene
from avat3r_ros.rendering import cpu_backend, gsplat_backend
from avat3r_ros.rendering.checks import check_cameras, check_shapes, finite_rows

Backend = Literal["auto", "gsplat", "cpu"]
RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]


def rasterization(
    means: Float[Tensor, "n 3"],
    quats_wxyz: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    colors: Float[Tensor, "n d"] | None,
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],  # noqa: N803 (gsplat's name)
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    backgrounds: Float[Tensor, "c d"] | None = None,
    render_mode: RenderMode = "RGB",
    backend: Backend = "auto",
    num_threads: int | None = None,
) -> tuple[Float[Tensor, "c h w ch"], Float[Tensor, "c h w 1"], dict[str, Any]]:
    """Render Gaussians for C cameras, in float32 whatever the input's type.

    Gradients flow to everything but `Ks`. On the CPU the result does not depend on the number of
    threads, bit for bit.

    Args:
        means: Metres, in the frame that `viewmats` map from.
        quats_wxyz: Need not have unit length, but not zero either.
        scales: Standard deviations, metres.
        opacities: In [0, 1]; Gaussians below 1/255 are not seen.
        colors: One to three channels; None is enough for the modes "D" and "ED".
        viewmats: camera_from_head, OpenCV axes.
        Ks: Intrinsics in pixels, zero skew; pixel centres at +0.5.
        width: Pixels.
        height: Pixels.
        near_plane: Gaussians with a smaller z are left out; > 0, metres.
        far_plane: Gaussians with a larger z are left out.
        eps2d: Blur added to both screen variances, px^2; higher keeps thin Gaussians from
            flickering and softens the image.
        backgrounds: Colour behind each camera's Gaussians; None for black. Depth has none.
        render_mode: "D" is the blended depth (z, metres), "ED" that divided by alpha; it follows
            the colours as the last channel.
        backend: "auto" takes gsplat for CUDA tensors and our own library for CPU tensors.
        num_threads: Of the CPU back-end; torch.get_num_threads() if None.

    Returns:
        The channels of `render_mode`, not clamped; alphas; and facts about the call: `backend`, and
        on the CPU the fields of `native.SplatStats`.

    Raises:
        ValueError: A shape, device or number is wrong, or a Gaussian holds a NaN or an infinity.
        RuntimeError: The back-end cannot run here; the message names the remedy.
    """
    if render_mode not in get_args(RenderMode):
        raise ValueError(f"expected render_mode of {get_args(RenderMode)}, got {render_mode!r}")
    with_color, with_depth = "RGB" in render_mode, "D" in render_mode
    if not with_color:
        colors = backgrounds = None
    elif colors is None:
        raise ValueError(f"expected colors (N, 1..3) for render_mode {render_mode!r}, got None")
    check_shapes(means, quats_wxyz, scales, opacities, colors, viewmats, Ks, backgrounds)
    check_cameras(viewmats, Ks, backgrounds, width, height)
    if Ks.requires_grad:
        raise ValueError("expected Ks without requires_grad: no back-end has their gradients")
    if not 0 < near_plane < far_plane:
        raise ValueError(f"expected 0 < near_plane < far_plane, got {near_plane} and {far_plane}")
    if not 0 <= eps2d < float("inf"):
        raise ValueError(f"expected eps2d >= 0, got {eps2d}")
    tensors = [
        None if tensor is None else tensor.to(torch.float32)
        for tensor in (means, quats_wxyz, scales, opacities, colors, viewmats, Ks, backgrounds)
    ]
    chosen = resolve_backend(backend, means.device)
    if chosen == "gsplat":
        _refuse(int((~finite_rows(*tensors[:5])).sum()), len(means))
        channels, alphas, facts = gsplat_backend.rasterize(
            *tensors[:7],
            width,
            height,
            near_plane=near_plane,
            far_plane=far_plane,
            eps2d=eps2d,
            backgrounds=tensors[7],
            render_mode=render_mode,
        )
        return channels, alphas, {**facts, "backend": chosen}

    scene = SplatScene(
        *tensors[:7],
        width,
        height,
        backgrounds=tensors[7],
        with_depth=with_depth,
        eps2d=eps2d,
        near_plane=near_plane,
        far_plane=far_plane,
    )
    channels, alphas, stats = cpu_backend.rasterize(scene, num_threads or torch.get_num_threads())
    _refuse(stats.num_invalid, len(means))
    alphas = alphas[..., None]
    if "ED" in render_mode:
        expected = channels[..., -1:] / alphas.clamp(min=1e-10)
        channels = torch.cat([channels[..., :-1], expected], -1) if with_color else expected
    return channels, alphas, {**stats._asdict(), "backend": chosen}


def resolve_backend(backend: Backend, device: torch.device) -> Literal["gsplat", "cpu"]:
    """Choose the back-end for tensors on `device`.

    Raises:
        ValueError: The name is unknown, or the back-end does not draw from that device.
        RuntimeError: gsplat is wanted and cannot run here.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"expected backend of {get_args(Backend)}, got {backend!r}")
    chosen = backend if backend != "auto" else ("cpu" if device.type == "cpu" else "gsplat")
    if chosen == "gsplat":
        gsplat_backend.require()
    wanted = {"gsplat": "cuda", "cpu": "cpu"}[chosen]
    if device.type != wanted:
        raise ValueError(f"expected tensors on {wanted} for backend {chosen!r}, got {device}")
    return chosen


def _refuse(num_invalid: int, num: int) -> None:
    if num_invalid:
        raise ValueError(
            f"expected finite Gaussians, got {num_invalid} of {num} with a NaN or an infinity"
        )
