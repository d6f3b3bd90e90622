"""Checks of what callers hand to the rasterizer; errors name what was expected and what came."""

import torch
from torch import Tensor


def check_shapes(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor | None,
    viewmats: Tensor,
    intrinsics: Tensor,
    backgrounds: Tensor | None,
) -> None:
    """Compare shapes, kinds and devices of the tensors of one call; colours may be left out.

    Raises:
        ValueError: One of them does not fit the others.
    """
    n = means.shape[0] if means.ndim else 0
    c = viewmats.shape[0] if viewmats.ndim else 0
    if colors is not None and (colors.ndim != 2 or not 1 <= colors.shape[1] <= 3):
        raise ValueError(f"expected colors (N, 1..3), got {tuple(colors.shape)}")
    d = 0 if colors is None else colors.shape[1]
    for name, tensor, shape in (
        ("means", means, (n, 3)),
        ("quats_wxyz", quats_wxyz, (n, 4)),
        ("scales", scales, (n, 3)),
        ("opacities", opacities, (n,)),
        ("colors", colors, (n, d)),
        ("viewmats", viewmats, (c, 4, 4)),
        ("Ks", intrinsics, (c, 3, 3)),
        ("backgrounds", backgrounds, (c, d)),
    ):
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"expected {name} {shape}, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"expected {name} of floats, got {tensor.dtype}")
        if tensor.device != means.device:
            raise ValueError(
                f"expected {name} on {means.device} like means, got it on {tensor.device}"
            )
    if c < 1:
        raise ValueError("expected at least one camera, got viewmats of length 0")


def check_cameras(
    viewmats: Tensor, intrinsics: Tensor, backgrounds: Tensor | None, width: int, height: int
) -> None:
    """Check the numbers of the cameras.

    Raises:
        ValueError: One is not finite, or a size or focal length is not positive.
    """
    if width < 1 or height < 1:
        raise ValueError(f"expected a positive image size, got {width}x{height}")
    for name, tensor in (("viewmats", viewmats), ("Ks", intrinsics), ("backgrounds", backgrounds)):
        if tensor is not None and not torch.isfinite(tensor).all():
            raise ValueError(f"expected finite {name}, got a NaN or an infinity")
    focal = intrinsics.detach()[:, [0, 1], [0, 1]]
    if not (focal > 0).all():
        raise ValueError(f"expected positive focal lengths in Ks, got {focal.min().item()}")


def finite_rows(*tensors: Tensor | None) -> Tensor:
    """Say for each Gaussian whether all its numbers are finite, (N,) bool."""
    return torch.stack(
        [torch.isfinite(t).reshape(len(t), -1).all(1) for t in tensors if t is not None]
    ).all(0)
