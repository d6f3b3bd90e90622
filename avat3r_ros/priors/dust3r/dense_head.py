"""From tokens of four depths of the network to a point and a confidence for every pixel.

A dense prediction transformer (Ranftl et al., "Vision Transformers for Dense Prediction", ICCV
2021, arXiv 2103.13413): the tokens become feature maps of 4, 2, 1 and 1/2 times the token grid's
resolution, which are joined from coarse to fine. Attribute names are the published checkpoint's.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from avat3r_ros.priors.dust3r.config import Dust3rConfig


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two convolutions added to what goes in; the input itself stays as it is, not rectified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine a feature map."""
        return x + self.conv2(relu(self.conv1(relu(x))))


class Fusion(nn.Module):
    """Join a coarser map with the map of this resolution, and double the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        # The coarsest level has nothing to join; the checkpoint carries its unit all the same.
        self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c h2 w2"]:
        """Return the joined map at twice the resolution."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        return self.out_conv(_double(self.resConfUnit2(x)))


class DenseHead(nn.Module):
    """Tokens of one image of a pair to 3 + 1 values per pixel."""

    def __init__(self, config: Dust3rConfig) -> None:
        super().__init__()
        c, width = config, config.head_width
        inputs = [c.encoder_width, *[c.decoder_width] * 3]
        a, b, d, e = c.head_level_widths
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(inputs[0], a, 1), nn.ConvTranspose2d(a, a, 4, 4)),
                nn.Sequential(nn.Conv2d(inputs[1], b, 1), nn.ConvTranspose2d(b, b, 2, 2)),
                nn.Sequential(nn.Conv2d(inputs[2], d, 1)),
                nn.Sequential(nn.Conv2d(inputs[3], e, 1), nn.Conv2d(e, e, 3, 2, 1)),
            ]
        )
        self.scratch = nn.ModuleDict(
            {
                **{
                    f"layer{i + 1}_rn": nn.Conv2d(level, width, 3, padding=1, bias=False)
                    for i, level in enumerate(c.head_level_widths)
                },
                **{f"refinenet{i + 1}": Fusion(width) for i in range(4)},
            }
        )
        self.head = nn.Sequential(
            nn.Conv2d(width, c.head_last_width, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(c.head_last_width, c.head_last_width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c.head_last_width, 4, 1),
        )

    def forward(
        self, tokens: Sequence[Float[Tensor, "b n _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "b 4 h w"]:
        """Predict raw values.

        Args:
            tokens: After the encoder and after each quarter of the decoder that the head reads.
            grid: Rows and columns of the token grid, h/16 and w/16.
        """
        levels = []
        for i, (level, prepare) in enumerate(zip(tokens, self.act_postprocess, strict=True)):
            features = level.transpose(1, 2).unflatten(2, grid)
            levels.append(self.scratch[f"layer{i + 1}_rn"](prepare(features)))
        x = self.scratch["refinenet4"](levels[3])
        # Half of an odd grid was rounded up.
        x = x[..., : levels[2].shape[2], : levels[2].shape[3]]
        for i in (2, 1, 0):
            x = self.scratch[f"refinenet{i + 1}"](x, levels[i])
        return self.head(x)


def points_and_confidence(
    raw: Float[Tensor, "b 4 h w"],
) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w"]]:
    """Turn raw values into points (the distance is exponential) and a confidence of at least 1."""
    direction, log_confidence = raw[:, :3], raw[:, 3]
    length = direction.norm(dim=1, keepdim=True)
    points = direction / length.clamp(min=1e-8) * torch.expm1(length)
    return points.movedim(1, -1), 1 + log_confidence.exp()
