"""The rasterizer's equations in plain PyTorch, dense and slow: the yardstick of both back-ends.

Every pixel looks at every Gaussian, in one matrix of (pixels, Gaussians); use float64 and small
scenes. Written from the paper's equations and the constants of gsplat 1.5 (listed in
`native/src/splat_types.h`), sharing no code with the back-ends. Gradients come from autograd.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_ALPHA = 0.999
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
FRUSTUM_MARGIN = 0.15


class ReferenceImage(NamedTuple):
    """What one camera sees.

    Attributes:
        channels: Colours, then blended depth, both without clamping.
        alpha: 1 - transmittance.
        fragile: Pixels where rounding may decide whether a Gaussian counts: some alpha lies within
            `margin` (relative) of 1/255 or of the clamp, or some transmittance of the limit.
    """

    channels: Float[Tensor, "h w ch"]
    alpha: Float[Tensor, "h w"]
    fragile: Bool[Tensor, "h w"]


def render_reference(
    means: Float[Tensor, "n 3"],
    quats_wxyz: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    colors: Float[Tensor, "n d"],
    viewmat: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    width: int,
    height: int,
    *,
    background: Float[Tensor, "d"] | None = None,
    near_plane: float = 0.01,
    eps2d: float = 0.3,
    margin: float = 1e-4,
) -> ReferenceImage:
    """Render one camera; see `rasterization` for the arguments."""
    u, v, depth, conic, keep = _project(
        means, quats_wxyz, scales, viewmat, intrinsics, width, height, near_plane, eps2d
    )
    keep = keep & (opacities >= MIN_ALPHA)
    # Front to back by depth as float32 rounds it, like the back-ends; ties by index.
    order = torch.argsort(depth.detach().float(), stable=True)
    order = order[keep[order]]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=means.dtype) + 0.5,
        torch.arange(width, dtype=means.dtype) + 0.5,
        indexing="ij",
    )
    dx = x.reshape(-1, 1) - u[order]  # (pixels, gaussians), as all that follows
    dy = y.reshape(-1, 1) - v[order]
    a, b, c = (part[order] for part in conic)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    unclamped = opacities[order] * torch.exp(-sigma)
    alpha = unclamped.clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha < MIN_ALPHA, 0.0, alpha)
    # The first Gaussian that would bring the transmittance to the limit ends the pixel.
    through = torch.cumprod(1 - alpha, 1)
    before_stop = through > MIN_TRANSMITTANCE
    alpha = torch.where(before_stop, alpha, 0.0)
    transmittance = torch.cumprod(1 - alpha, 1)
    in_front = torch.cat([torch.ones_like(transmittance[:, :1]), transmittance[:, :-1]], 1)
    weight = alpha * in_front[:, : alpha.shape[1]]
    image = weight @ torch.cat([colors, depth[:, None]], 1)[order]
    total = weight.sum(1)
    if background is not None:
        behind = (1 - total)[:, None] * background
        image = torch.cat([image[:, :-1] + behind, image[:, -1:]], 1)

    def near(values: Tensor, limit: float) -> Tensor:
        return ((values.detach() / limit - 1).abs() < margin).any(1)

    fragile = near(unclamped, MIN_ALPHA) | near(unclamped, MAX_ALPHA)
    fragile = fragile | near(through, MIN_TRANSMITTANCE)
    return ReferenceImage(
        image.reshape(height, width, -1),
        total.reshape(height, width),
        fragile.reshape(height, width),
    )


def _project(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near_plane: float,
    eps2d: float,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """Pixel position, depth, inverse screen covariance (xx, xy, yy) and whether it is in front."""
    rotation = viewmat[:3, :3]
    points = means @ rotation.T + viewmat[:3, 3]
    depth = points[:, 2]
    keep = depth >= near_plane
    z = torch.where(keep, depth, 1.0)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    u, v = fx * points[:, 0] / z + cx, fy * points[:, 1] / z + cy

    # EWA: covariance through the projection's derivative, taken no further out than the margin.
    xz = (points[:, 0] / z).clamp(
        -(cx + FRUSTUM_MARGIN * width) / fx, (width - cx + FRUSTUM_MARGIN * width) / fx
    )
    yz = (points[:, 1] / z).clamp(
        -(cy + FRUSTUM_MARGIN * height) / fy, (height - cy + FRUSTUM_MARGIN * height) / fy
    )
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * xz / z], -1),
            torch.stack([zero, fy / z, -fy * yz / z], -1),
        ],
        -2,
    )
    axes = jacobian @ rotation @ _rotations(quats_wxyz) * scales[:, None, :]
    covariance = axes @ axes.transpose(-1, -2)
    xx, xy = covariance[:, 0, 0] + eps2d, covariance[:, 0, 1]
    yy = covariance[:, 1, 1] + eps2d
    determinant = xx * yy - xy * xy
    return u, v, depth, (yy / determinant, -xy / determinant, xx / determinant), keep


def _rotations(quats_wxyz: Tensor) -> Tensor:
    w, x, y, z = (quats_wxyz / quats_wxyz.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack(
        [
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ],
        -1,
    ).reshape(-1, 3, 3)
