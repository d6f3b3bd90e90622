"""From tokens to per-pixel attributes with a small network per pixel.

    tokens ─► features ─► between the four nearest tokens of the pixel ─┐
    the pixel's colour, place, normal, size ─► features ────────────────┴─► GELU ─► attributes

Tokens say what is where in the large, and change smoothly from one to the next; the pixel knows its
own colour and place. It has a hundredth of the weights of a linear map from tokens to patches and
learns as much faster, and no patch borders show.

Letters: B codes, T tokens, P kept pixels, D width, F features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from avat3r_ros.geometry import matrices_from_quats_wxyz
from avat3r_ros.model.layers import zeros_linear
from avat3r_ros.model.upsampler import coarser_pixels
from avat3r_ros.types import Gaussians

PIXEL_INPUTS = 3 + 3 + 3 + 2
"""Colour, place, normal, opacity, logarithm of size."""

CHUNK = 2048
"""Pixels decoded together where no gradient is wanted; 64 features of each are half a megabyte."""

TOKEN_DROPOUT = 0.3
"""Share of the tokens' features left out in training. Without it, positions are learned by heart:
of 100 people's corrections, half the size was better for people not among them."""

_POSITION_SCALE, _SIZE_UNIT_M = 10.0, 0.001


@dataclass(frozen=True)
class PixelPlaces:
    """Where pixels lie between tokens.

    Attributes:
        tokens: The four nearest tokens of each pixel.
        weights: Their bilinear weights; tokens without a kept pixel weigh nothing.
    """

    tokens: Int[Tensor, "p 4"]
    weights: Float[Tensor, "p 4"]

    def subset(self, pixels: Int[Tensor, "k"]) -> tuple["PixelPlaces", Int[Tensor, "t"]]:
        """Keep some pixels; also return the tokens that are still needed, and count from those."""
        used, tokens = torch.unique(self.tokens[pixels], return_inverse=True)
        return PixelPlaces(tokens, self.weights[pixels]), used


def pixel_places(
    pixels: Int[Tensor, "p"], image_size: int, grid_size: int
) -> tuple[Int[Tensor, "t"], PixelPlaces]:
    """Find the tokens that hold kept pixels, and every pixel's place among them.

    Args:
        pixels: Kept pixels in the flattened (V, H, W) grid.
        image_size: H = W.
        grid_size: Tokens along one side of a view.
    """
    side, patch_size = grid_size, image_size / grid_size
    view, y, x = pixels // image_size**2, pixels // image_size % image_size, pixels % image_size
    own = coarser_pixels(pixels, image_size, side)
    needed = torch.unique(own)
    row = torch.full((int(view.max()) * side**2 + side**2,), -1, device=pixels.device)
    row[needed] = torch.arange(len(needed), device=pixels.device)
    tokens, weights = [], []
    across, down = ((v.float() + 0.5) / patch_size - 0.5 for v in (x, y))
    left, top = across.floor(), down.floor()
    for dy in (0, 1):
        for dx in (0, 1):
            column, line = left + dx, top + dy
            weight = (1 - (across - column).abs()) * (1 - (down - line).abs())
            inside = (column >= 0) & (column < side) & (line >= 0) & (line < side)
            token = (view * side + line.long().clamp(0, side - 1)) * side
            at = row[token + column.long().clamp(0, side - 1)]
            tokens.append(torch.where(at >= 0, at, row[own]))
            weights.append(weight * (inside & (at >= 0)))
    total = torch.stack(weights, -1)
    return needed, PixelPlaces(
        torch.stack(tokens, -1), total / total.sum(-1, keepdim=True).clamp(min=1e-6)
    )


def pixel_inputs(base: Gaussians, num_pixels: int, fineness: float = 1.0) -> Float[Tensor, "p c"]:
    """What is known of every pixel's Gaussian before the network has changed it.

    Args:
        base: The base guess.
        num_pixels: P, the first of them.
        fineness: Side of the references over that of the images the network was made for. Finer
            references have smaller Gaussians; the network is told of the size it knows.
    """
    normals = matrices_from_quats_wxyz(base.quats_wxyz[:num_pixels])[..., 2]
    return torch.cat(
        [
            base.colors[:num_pixels] * 2 - 1,
            base.means[:num_pixels] * _POSITION_SCALE,
            normals,
            base.opacities[:num_pixels, None],
            (base.scales[:num_pixels, :1] * fineness / _SIZE_UNIT_M).log(),
        ],
        -1,
    )


class PixelDecoder(nn.Module):
    """Attributes of each pixel from the tokens around it and from itself; the last layers are zero.

    Args:
        width: D.
        features: F.
        channels: Name -> channels of each attribute.
    """

    def __init__(self, width: int, features: int, channels: dict[str, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.from_tokens = nn.Linear(width, features)
        self.from_pixels = nn.Linear(PIXEL_INPUTS, features)
        self.heads = nn.ModuleDict(
            {name: zeros_linear(features, count) for name, count in channels.items()}
        )

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        places: PixelPlaces,
        pixel_features: Float[Tensor, "p f"],
    ) -> Float[Tensor, "b p c"]:
        """Decode.

        Args:
            tokens: Those that `places` counts.
            places: Of the kept pixels.
            pixel_features: What `from_pixels` makes of `pixel_inputs`; once per person.
        """
        features = nn.functional.dropout(
            self.from_tokens(self.norm(tokens)), TOKEN_DROPOUT, self.training
        )
        if not torch.is_grad_enabled() and features.is_cpu and features.dtype == torch.float32:
            return self._decode_in_chunks(features, places, pixel_features)
        between = torch.stack([between_tokens(one, places, slice(None)) for one in features])
        hidden = nn.functional.gelu(between + pixel_features)
        return torch.cat([head(hidden) for head in self.heads.values()], -1)

    def _decode_in_chunks(
        self,
        features: Float[Tensor, "b t f"],
        places: PixelPlaces,
        pixel_features: Float[Tensor, "p f"],
    ) -> Float[Tensor, "b p c"]:
        """Decode some pixels after the other, so that their features stay in the cache.

        Four times as fast on one core; the sums differ in the last bit.
        """
        heads = self.heads.values()
        weight = torch.cat([head.weight for head in heads]).T.contiguous()
        bias = torch.cat([head.bias for head in heads])
        changes = features.new_empty(len(features), len(pixel_features), len(bias))
        for one, out in zip(features, changes, strict=True):
            for begin in range(0, len(out), CHUNK):
                chunk = slice(begin, begin + CHUNK)
                hidden = between_tokens(one, places, chunk).add_(pixel_features[chunk])
                torch.addmm(bias, nn.functional.gelu(hidden), weight, out=out[chunk])
        return changes


def between_tokens(features: Float[Tensor, "t f"], places: PixelPlaces, rows: slice) -> Tensor:
    """Bilinear mean of tokens' features at some of the pixels."""
    return nn.functional.embedding_bag(
        places.tokens[rows],
        features,
        per_sample_weights=places.weights[rows].to(features.dtype),
        mode="sum",
    )
