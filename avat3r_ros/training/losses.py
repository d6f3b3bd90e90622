"""What training minimises.

    geometry:    |means - truth| of sampled points in many expressions           (no rendering)
    photometric: 0.8 L1 + 0.2 (1 - SSIM) of rendered targets, coverage, and mild regularity
    perceptual:  late, as in the paper: local structure, which L1 alone leaves soft

PSNR does not show whether a face animates, and a photometric loss alone finds colours before
motion: geometry comes first and stays.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avat3r_ros.training.metrics import perceptual_distance, ssim_map
from avat3r_ros.types import Gaussians

_HUBER_M = 0.01
"""Distances beyond this count linearly: a pixel on the wrong side of an edge must not dominate."""

_MOVING_GAIN, _MOVING_SCALE_M = 2.0, 0.003
"""Points that truly move get up to this much extra weight, half of it at this displacement."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a larger one makes its term matter more.

    Attributes:
        geometry: Mean Huber distance in centimetres.
        l1: Mean absolute difference of rendered and target colours (0.8 as in the paper).
        ssim: 1 - SSIM (0.2 as in the paper).
        coverage: Mean absolute difference of rendered alpha and target mask.
        perceptual: `metrics.perceptual_distance` in the mask.
        growth: Mean squared change of log scale.
        fading: Mean squared change of opacity.
    """

    geometry: float = 0.2
    l1: float = 0.8
    ssim: float = 0.2
    coverage: float = 0.2
    perceptual: float = 0.3
    growth: float = 0.002
    fading: float = 0.02

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"expected {name} >= 0, got {getattr(self, name)}")


def geometry_loss(
    means: Float[Tensor, "c p 3"],
    truth: Float[Tensor, "c p 3"],
    displacement: Float[Tensor, "c p 3"],
) -> Float[Tensor, ""]:
    """Weighted mean Huber distance, centimetres.

    Args:
        means: Predicted positions of P points in C expressions, metres.
        truth: True ones.
        displacement: True displacement from the expression of the point's reference.
    """
    distance = (means - truth).square().sum(-1).add(1e-10).sqrt()
    huber = torch.where(
        distance < _HUBER_M, distance.square() / (2 * _HUBER_M), distance - _HUBER_M / 2
    )
    moved = displacement.norm(dim=-1)
    weight = 1 + _MOVING_GAIN * moved / (moved + _MOVING_SCALE_M)
    return 100 * (weight * huber).sum() / weight.sum()


def photometric_losses(
    rgb: Float[Tensor, "t 3 h w"],
    alpha: Float[Tensor, "t 1 h w"],
    images: Float[Tensor, "t 3 h w"],
    masks: Float[Tensor, "t 1 h w"],
    background: Float[Tensor, "3"],
    counted: Bool[Tensor, "t 1 h w"] | None = None,
    *,
    perceptual: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """Compare rendered targets with the truth over one background colour.

    Args:
        rgb: Rendered over `background`.
        alpha: Rendered coverage.
        images: Targets, already multiplied by their masks.
        masks: Target coverage.
        background: RGB; varied between steps, so that holes and halos cannot hide in black.
        counted: Pixels that are compared; all if None.
        perceptual: Compare local structure, too; sides are divisible by 16.
    """
    target = images + (1 - masks) * background[:, None, None]
    # Means over the head's area, not the image's: pictures with small heads count as much.
    weight = torch.ones_like(masks) if counted is None else counted.to(masks)
    area = (weight * masks).mean().clamp(min=0.05)
    terms = {
        "l1": (weight * (rgb - target).abs()).mean() / area,
        "ssim": (weight * (1 - ssim_map(rgb, target))).mean() / area,
        "coverage": (weight * (alpha - masks).abs()).mean() / area,
    }
    if perceptual:
        terms["perceptual"] = perceptual_distance(rgb, target, weight * masks).mean()
    return terms


def regularity_losses(changed: Gaussians, base: Gaussians) -> dict[str, Float[Tensor, ""]]:
    """Keep sizes and opacities near the base guess where pictures do not ask for more."""
    return {
        "growth": (changed.scales / base.scales).log().square().mean(),
        "fading": (changed.opacities - base.opacities).square().mean(),
    }


def total_loss(terms: dict[str, Float[Tensor, ""]], weights: LossWeights) -> Float[Tensor, ""]:
    """Weighted sum of the terms that are there."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
