"""Transformer blocks with rotary encodings of a token's row and column.

Letters: B images, N tokens of an image, M tokens of the other image, D width, A attention heads.
Attribute names are those of the published checkpoint's tensors.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

NORM_EPS = 1e-6


def rotary_tables(
    rows: int, columns: int, head_width: int, base: float, device: torch.device
) -> Float[Tensor, "2 n 2 half"]:
    """Cosines and sines that turn queries and keys by their place in the token grid.

    The channels of a head are two halves, turned by row and by column; in each half channel k and
    channel k + half/2 form a plane that turns by place * base^(-2k / half). (Su et al., "RoFormer",
    arXiv 2104.09864, for one dimension.)
    """
    half = head_width // 2
    frequencies = base ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    row, column = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    angles = torch.stack([row.flatten(), column.flatten()], -1)[..., None] * frequencies
    angles = torch.cat([angles, angles], -1)  # (N, 2, half)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(tokens: Float[Tensor, "b a n d"], tables: Float[Tensor, "2 n 2 h"]) -> Tensor:
    """Turn queries or keys by `rotary_tables`, in float32 whatever their own precision."""
    cosines, sines = tables
    halves = tokens.float().unflatten(-1, (2, -1))
    first, second = halves.chunk(2, -1)
    turned = halves * cosines + torch.cat([-second, first], -1) * sines
    return turned.flatten(-2).to(tokens.dtype)


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, A, N, D/A)


class SelfAttention(nn.Module):
    """Tokens of an image attend to one another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"], tables: Tensor) -> Float[Tensor, "b n d"]:
        """Return what each token gathers."""
        q, k, v = (_split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        gathered = scaled_dot_product_attention(rotate(q, tables), rotate(k, tables), v)
        return self.proj(gathered.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Tokens of one image attend to those of the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], other: Float[Tensor, "b m d"], tables: Tensor
    ) -> Float[Tensor, "b n d"]:
        """Return what each token of `x` gathers from `other`."""
        q = rotate(_split_heads(self.projq(x), self.heads), tables)
        k = rotate(_split_heads(self.projk(other), self.heads), tables)
        v = _split_heads(self.projv(other), self.heads)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform each token."""
        return self.fc2(gelu(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each with its norm before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Float[Tensor, "b n d"], tables: Tensor) -> Float[Tensor, "b n d"]:
        """Update the tokens."""
        x = x + self.attn(self.norm1(x), tables)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, attention to the other image, MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.norm3 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width)
        self.norm_y = nn.LayerNorm(width, NORM_EPS)

    def forward(
        self, x: Float[Tensor, "b n d"], other: Float[Tensor, "b n d"], tables: Tensor
    ) -> Float[Tensor, "b n d"]:
        """Update the tokens `x` of one image, given those of the other."""
        x = x + self.attn(self.norm1(x), tables)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(other), tables)
        return x + self.mlp(self.norm3(x))
