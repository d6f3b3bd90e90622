"""From tokens to per-pixel attributes, evaluated only at the pixels that become Gaussians.

Both decoders take the tokens of all views and the kept pixels and return one row of raw attributes
per pixel. The last layer of each attribute has its own weights and starts at zero.

Letters: B codes, V views, G token grid side, T tokens, P kept pixels, D width.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from avat3r_ros.model.layers import SelfAttentionBlock, zeros_linear


def patch_slots(
    pixels: Int[Tensor, "p"], image_size: int, patch_size: int
) -> tuple[Int[Tensor, "t"], Int[Tensor, "p"]]:
    """Find the tokens that hold kept pixels, and each pixel's slot (see `PatchDecoder`)."""
    grid = image_size // patch_size
    view, y, x = (
        pixels // image_size**2,
        pixels // image_size % image_size,
        pixels % image_size,
    )
    token = (view * grid + y // patch_size) * grid + x // patch_size
    inside = (y % patch_size) * patch_size + x % patch_size
    needed, row = torch.unique(token, return_inverse=True)
    return needed, row * patch_size**2 + inside


def coarser_pixels(pixels: Int[Tensor, "p"], size: int, coarser: int) -> Int[Tensor, "p"]:
    """Pixels of a coarser (V, H, W) grid in which the centres of these pixels lie."""
    if size == coarser:
        return pixels
    view, y, x = pixels // size**2, pixels // size % size, pixels % size
    row, column = ((2 * v + 1) * coarser // (2 * size) for v in (y, x))
    return (view * coarser + row) * coarser + column


class PatchDecoder(nn.Module):
    """One linear map from a token to its patch: the cheap decoder. Tokens do not mix.

    Args:
        width: D.
        patch_size: Pixels along a token's side.
        channels: Name -> channels of each attribute.
    """

    def __init__(self, width: int, patch_size: int, channels: dict[str, int]) -> None:
        super().__init__()
        self.patch_pixels = patch_size**2
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict(
            {name: zeros_linear(width, self.patch_pixels * c) for name, c in channels.items()}
        )

    def forward(
        self, tokens: Float[Tensor, "b t d"], slots: Int[Tensor, "p"]
    ) -> Float[Tensor, "b p c"]:
        """Decode.

        Args:
            tokens: Tokens that hold at least one kept pixel.
            slots: `row of the token * patch_pixels + pixel in the patch` of each kept pixel.
        """
        normed = self.norm(tokens)
        return torch.cat(
            [
                head(normed)
                .view(len(tokens), -1, head.out_features // self.patch_pixels)
                .index_select(1, slots)
                for head in self.heads.values()
            ],
            -1,
        )


class WindowedBlock(nn.Module):
    """Self-attention in windows of the raster-flattened tokens of all views, optionally shifted."""

    def __init__(self, width: int, num_heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.block = SelfAttentionBlock(width, num_heads)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Return the tokens, changed."""
        length = tokens.shape[1]
        # Token counts are V * 4^k: the largest common window always divides them.
        window = math.gcd(self.window, length)
        shift = window // 2 if self.shifted else 0
        rolled = tokens.roll(-shift, 1) if shift else tokens
        out = self.block(rolled.reshape(-1, window, tokens.shape[-1])).reshape(tokens.shape)
        return out.roll(shift, 1) if shift else out


class GrmUpsampler(nn.Module):
    """GRM's transformer upsampler: per level twice the resolution and half the width.

    Each level is a linear map with pixel shuffle, then two blocks of windowed attention, the second
    shifted by half a window (GRM, section 3.2 and supplement, table 1). Windows run on across views
    there as here, so results depend slightly on the order of the views.

    Args:
        width: D of the tokens.
        num_heads: Upper bound; narrower levels use the largest number that divides their width.
        patch_size: Resolution to gain; a power of two.
        window: Tokens per attention window.
        min_width: Width below which levels stop halving.
        channels: Name -> channels of each attribute.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        patch_size: int,
        window: int,
        min_width: int,
        channels: dict[str, int],
    ) -> None:
        super().__init__()
        self.expansions, self.blocks = nn.ModuleList(), nn.ModuleList()
        for _ in range(patch_size.bit_length() - 1):
            out_width = max(width // 2, min(min_width, width))
            heads = max(h for h in range(1, num_heads + 1) if out_width % h == 0)
            self.expansions.append(nn.Linear(width, 4 * out_width))
            self.blocks.append(
                nn.Sequential(
                    WindowedBlock(out_width, heads, window, shifted=False),
                    WindowedBlock(out_width, heads, window, shifted=True),
                )
            )
            width = out_width
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: zeros_linear(width, c) for name, c in channels.items()})

    def forward(
        self, tokens: Float[Tensor, "b t d"], pixels: Int[Tensor, "p"], grid_size: int
    ) -> Float[Tensor, "b p c"]:
        """Decode.

        Args:
            tokens: All tokens of all views, raster order.
            pixels: Kept pixels in the flattened (V, H, W) grid.
            grid_size: Tokens along one side of a view.
        """
        batch, side = len(tokens), grid_size
        for expansion, blocks in zip(self.expansions, self.blocks, strict=True):
            grid = expansion(tokens).view(-1, side, side, expansion.out_features).movedim(-1, 1)
            shuffled = nn.functional.pixel_shuffle(grid, 2)
            side *= 2
            tokens = blocks(shuffled.movedim(1, -1).reshape(batch, -1, shuffled.shape[1]))
        normed = self.norm(tokens[:, pixels])
        return torch.cat([head(normed) for head in self.heads.values()], -1)
