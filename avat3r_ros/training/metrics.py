"""Image and motion scores; images are RGB in [0, 1], channels first, scored inside a mask."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW_PX, SSIM_SIGMA_PX = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""Constants of Wang et al., "Image quality assessment", 2004, for data in [0, 1]."""


def psnr(
    prediction: Float[Tensor, "3 h w"],
    target: Float[Tensor, "3 h w"],
    mask: Float[Tensor, "1 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB; each pixel counts as far as the mask covers it.

    Raises:
        ValueError: The mask is empty.
    """
    squared = (prediction - target).square().mean(0, keepdim=True)
    if mask is None:
        mask = torch.ones_like(squared)
    if not mask.sum() > 0:
        raise ValueError("expected a mask with at least one pixel, got an empty one")
    error = (squared * mask).sum() / mask.sum()
    return -10.0 * torch.log10(error.clamp(min=1e-10))


def ssim_map(
    prediction: Float[Tensor, "*b 3 h w"], target: Float[Tensor, "*b 3 h w"]
) -> Float[Tensor, "*b 3 h w"]:
    """Structural similarity of every pixel's surroundings (Gaussian window), in [-1, 1]."""
    offsets = torch.arange(SSIM_WINDOW_PX, device=prediction.device) - SSIM_WINDOW_PX // 2
    kernel = torch.exp(-offsets.to(prediction.dtype).square() / (2 * SSIM_SIGMA_PX**2))
    kernel = kernel / kernel.sum()

    def blur(images: Tensor) -> Tensor:
        flat = images.reshape(-1, 1, *images.shape[-2:])
        flat = functional.pad(flat, [SSIM_WINDOW_PX // 2] * 4, mode="reflect")
        flat = functional.conv2d(flat, kernel.view(1, 1, 1, -1))
        return functional.conv2d(flat, kernel.view(1, 1, -1, 1)).reshape(images.shape)

    mean_p, mean_t = blur(prediction), blur(target)
    var_p = blur(prediction.square()) - mean_p.square()
    var_t = blur(target.square()) - mean_t.square()
    covariance = blur(prediction * target) - mean_p * mean_t
    luminance = (2 * mean_p * mean_t + SSIM_C1) / (mean_p.square() + mean_t.square() + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_p + var_t + SSIM_C2)
    return luminance * structure


def ssim(
    prediction: Float[Tensor, "3 h w"],
    target: Float[Tensor, "3 h w"],
    mask: Float[Tensor, "1 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean structural similarity inside the mask."""
    values = ssim_map(prediction, target).mean(0, keepdim=True)
    if mask is None:
        return values.mean()
    if not mask.sum() > 0:
        raise ValueError("expected a mask with at least one pixel, got an empty one")
    return (values * mask).sum() / mask.sum()
