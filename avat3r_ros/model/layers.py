"""Transformer blocks: pre-norm, GELU, MLP ratio 4 (as in GRM and the author's FlexAvatar code).

Letters: B batch, T tokens, K expression tokens, D width, E code length.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def block_arithmetic(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Return a context in which blocks compute in `dtype`; their weights stay float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


class Attention(nn.Module):
    """Multi-head attention of queries to keys and values of the same width."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "b t d"],
        context: Float[Tensor, "b k d"],
        mask: Bool[Tensor, "t k"] | Bool[Tensor, "b 1 1 k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Attend; `mask` is True where a query may look."""
        q = self.query(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(-2))


def mlp(width: int) -> nn.Sequential:
    """Build the block's token-wise network."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class SelfAttentionBlock(nn.Module):
    """Tokens look at one another."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = mlp(width)

    def forward(
        self, tokens: Float[Tensor, "b t d"], mask: Bool[Tensor, "b 1 1 t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return the tokens, changed; `mask` is True where a token may look."""
        normed = self.attention_norm(tokens)
        tokens = tokens + self.attention(normed, normed, mask)
        return tokens + self.mlp(self.mlp_norm(tokens))


class CrossAttentionBlock(nn.Module):
    """Image tokens look at the expression tokens, each at those of its own view."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = mlp(width)

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        expression: Float[Tensor, "b k d"],
        mask: Bool[Tensor, "t k"] | None,
    ) -> Float[Tensor, "b t d"]:
        """Return the image tokens, changed; `mask` is True where a token may look."""
        tokens = tokens + self.attention(self.attention_norm(tokens), expression, mask)
        return tokens + self.mlp(self.mlp_norm(tokens))


class ExpressionEncoder(nn.Module):
    """Turns a code into a few tokens: `f_exp = reshape(MLP(z_exp))`, two hidden layers, ReLU.

    Weights start so that a code of norm `code_norm` gives tokens of order one, and a code of zero
    gives zero tokens. With PyTorch's default start the biases drown the code: its share of the
    output is some 40 times smaller, and cross-attention hardly learns to look at the expression.
    """

    def __init__(
        self, code_length: int, hidden: int, num_tokens: int, width: int, code_norm: float
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.layers = nn.Sequential(
            nn.Linear(code_length, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_tokens * width),
        )
        first, second, last = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        nn.init.normal_(first.weight, std=1 / code_norm)
        nn.init.kaiming_normal_(second.weight)
        nn.init.kaiming_normal_(last.weight)
        for layer in (first, second, last):
            nn.init.zeros_(layer.bias)

    def forward(self, codes: Float[Tensor, "*b e"]) -> Float[Tensor, "*b s d"]:
        """Return the expression tokens of each code."""
        return self.layers(codes).unflatten(-1, (self.num_tokens, -1))


def zeros_linear(in_features: int, out_features: int) -> nn.Linear:
    """Build a linear layer whose output starts at exactly zero."""
    layer = nn.Linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def grid_features(
    features: Float[Tensor, "v c h w"], grid_size: int
) -> Float[Tensor, "v tokens c"]:
    """Sample feature maps at the centres of a square token grid, bilinearly."""
    centers = (torch.arange(grid_size, device=features.device) + 0.5) / grid_size * 2 - 1
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    grid = torch.stack([x, y], -1).expand(len(features), -1, -1, -1).to(features.dtype)
    sampled = nn.functional.grid_sample(
        features, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.flatten(2).transpose(1, 2)
