"""How good pictures and positions are: PSNR, SSIM, millimetres of moving points."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MOVING_FROM_M = 0.002
"""Points that truly move farther than this between two expressions are moving points."""

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


def psnr(
    image: Float[Tensor, "*b 3 h w"],
    target: Float[Tensor, "*b 3 h w"],
    mask: Float[Tensor, "*b 1 h w"] | None = None,
) -> Float[Tensor, "*b"]:
    """Peak signal-to-noise ratio of images in [0, 1], decibels; infinite if equal.

    Args:
        image: Clamped to [0, 1] first.
        target: What it should be.
        mask: Weight of each pixel; all count the same if None. An empty mask gives nan.
    """
    squared = (image.clamp(0, 1) - target).square().mean(-3, keepdim=True)
    weight = torch.ones_like(squared) if mask is None else mask
    error = (squared * weight).sum((-3, -2, -1)) / weight.sum((-3, -2, -1))
    return -10 * error.log10()


def ssim_map(
    image: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """Structural similarity at every pixel, mean over colours, differentiable.

    Gaussian window of 11 pixels, constants for images in [0, 1]; outside the image is black.
    Source: Wang et al., "Image quality assessment: from error visibility to structural
    similarity", 2004, equation 13.
    """
    stacked = torch.cat([image, target, image * image, target * target, image * target])
    # Two products with banded matrices: on a CPU far cheaper than convolutions of one channel.
    down, across = (_blur_matrix(size, image) for size in image.shape[-2:])
    blurred = down @ stacked @ across.T
    mean_a, mean_b, aa, bb, ab = blurred.chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * ((aa - mean_a**2) + (bb - mean_b**2) + c2)
    return (top / bottom).mean(1, keepdim=True)


def _blur_matrix(size: int, like: Tensor) -> Float[Tensor, "n n"]:
    """Matrix that blurs a column of pixels with the window; what lies outside counts as 0."""
    rows = torch.arange(size, dtype=like.dtype, device=like.device)
    distance = (rows[:, None] - rows).abs()
    weights = torch.exp(-(distance**2) / (2 * _SSIM_SIGMA**2))
    weights = weights * (distance <= _SSIM_WINDOW // 2)
    return weights / torch.exp(
        -(torch.arange(-(_SSIM_WINDOW // 2), _SSIM_WINDOW // 2 + 1) ** 2) / (2 * _SSIM_SIGMA**2)
    ).sum().to(like)


def ssim(
    image: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 h w"],
    mask: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, "b"]:
    """Mean structural similarity, inside a mask where one is given."""
    values = ssim_map(image.clamp(0, 1), target)
    weight = torch.ones_like(values) if mask is None else mask
    return (values * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def moving_points(
    truth: Float[Tensor, "*b p 3"], before: Float[Tensor, "p 3"]
) -> Bool[Tensor, "*b p"]:
    """Points that truly move from one expression to others."""
    return (truth - before).norm(dim=-1) > MOVING_FROM_M


def mean_distance_mm(
    positions: Float[Tensor, "*b p 3"],
    truth: Float[Tensor, "*b p 3"],
    chosen: Bool[Tensor, "*b p"] | None = None,
) -> Float[Tensor, ""]:
    """Mean distance of points from where they should be, millimetres; nan if none is chosen."""
    distance = (positions - truth).norm(dim=-1) * 1000
    return distance.mean() if chosen is None else distance[chosen].mean()


_PERCEPTUAL_SCALES, _ORIENTATIONS = 3, 4


def perceptual_distance(
    image: Float[Tensor, "b 3 h w"],
    target: Float[Tensor, "b 3 h w"],
    mask: Float[Tensor, "b 1 h w"],
) -> Float[Tensor, "b"]:
    """Distance of local structure that forgives small shifts; 0 for equal pictures.

    The arithmetic is that of LPIPS (Zhang et al., "The unreasonable effectiveness of deep features
    as a perceptual metric", 2018): features of each place brought to unit length, squared
    difference, mean over places and scales. The backbone is a fixed bank without learned weights:
    strength of derivatives in four directions, pooled over 4 x 4 places, of brightness and two
    opponent colours, at three scales, as in a scattering network of first order (Bruna and Mallat,
    2013); a constant beside them says where there is none. So the numbers compare methods here, not
    with published LPIPS. Sides of the pictures are divisible by 16.
    """
    opponents = torch.tensor(
        [[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]], device=image.device
    )
    angles = torch.arange(_ORIENTATIONS) * torch.pi / _ORIENTATIONS
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    bank = torch.stack([a.cos() * sobel + a.sin() * sobel.T for a in angles])
    bank = bank[:, None].repeat(3, 1, 1, 1).to(image.device)
    a, b = (
        torch.einsum("oc,bchw->bohw", opponents, picture.clamp(0, 1) * mask)
        for picture in (image, target)
    )
    distances = []
    for _ in range(_PERCEPTUAL_SCALES):
        weight = _block_means(mask)
        unit = []
        for picture in (a, b):
            slopes = torch.nn.functional.conv2d(picture, bank, padding=1, groups=3).abs()
            strength = torch.nn.functional.pad(_block_means(slopes), (0, 0, 0, 0, 0, 1), value=0.02)
            unit.append(strength / strength.square().sum(1, keepdim=True).sqrt())
        squared = (unit[0] - unit[1]).square().sum(1, keepdim=True)
        total = weight.sum((1, 2, 3)).clamp(min=1e-6)
        distances.append((squared * weight).sum((1, 2, 3)) / total)
        a, b, mask = (_halved(value) for value in (a, b, mask))
    return torch.stack(distances).mean(0)


def _halved(values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
    return 0.25 * sum(values[..., i::2, j::2] for i in (0, 1) for j in (0, 1))


def _block_means(values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/4 w/4"]:
    """Means of 4 x 4 places; on a CPU several times as fast as pooling."""
    return _halved(_halved(values))


def flicker(frames: Float[Tensor, "t 3 h w"]) -> Float[Tensor, ""]:
    """Mean absolute second difference over time where anything is shown, in levels of 255.

    Over a driver who changes evenly, a steady picture has none of it; a frozen one neither.
    """
    shown = (frames.amax((0, 1)) > 0.02).float()
    second = (frames[2:] - 2 * frames[1:-1] + frames[:-2]).abs().mean((0, 1))
    return 255 * (second * shown).sum() / shown.sum().clamp(min=1)


def widened(masks: Float[Tensor, "t 1 h w"], pixels: int) -> Float[Tensor, "t 1 h w"]:
    """Grow masks by so many pixels to all sides."""
    size = 2 * pixels + 1
    for kernel, padding in (((size, 1), (pixels, 0)), ((1, size), (0, pixels))):
        masks = torch.nn.functional.max_pool2d(masks, kernel, 1, padding)
    return masks


def finite_means(rows: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, float]:
    """Mean of each named score over the rows that have a number for it."""
    means = {}
    for name in names:
        values = [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
        if values:
            means[name] = statistics.fmean(values)
    return means
