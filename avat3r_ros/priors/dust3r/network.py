"""The network: two images in, a point and a confidence for each pixel of both out.

    image 1 ─encoder─► tokens ─┐ decoder 1 ─► head 1 ─► points of image 1 ┐ both in the frame
                               ├ attend to each other                     │ of image 1's camera, at
    image 2 ─encoder─► tokens ─┘ decoder 2 ─► head 2 ─► points of image 2 ┘ a scale of their own

The encoder knows nothing of pairs, so it runs once per image however many pairs there are.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from avat3r_ros.priors.dust3r.config import Dust3rConfig
from avat3r_ros.priors.dust3r.dense_head import DenseHead, points_and_confidence
from avat3r_ros.priors.dust3r.layers import NORM_EPS, DecoderBlock, EncoderBlock, rotary_tables
from avat3r_ros.priors.dust3r.pairs import PairPoints


class Dust3r(nn.Module):
    """DUSt3R with the parameter names of the published checkpoint."""

    def __init__(self, config: Dust3rConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or Dust3rConfig()
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, c.encoder_width, c.patch_size, c.patch_size)}
        )
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(c.encoder_width, c.encoder_heads) for _ in range(c.encoder_layers)
        )
        self.enc_norm = nn.LayerNorm(c.encoder_width, NORM_EPS)
        # Only pre-training masked tokens; the checkpoint carries the parameter.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_width))
        self.decoder_embed = nn.Linear(c.encoder_width, c.decoder_width)
        self.dec_blocks, self.dec_blocks2 = (
            nn.ModuleList(
                DecoderBlock(c.decoder_width, c.decoder_heads) for _ in range(c.decoder_layers)
            )
            for _ in range(2)
        )
        self.dec_norm = nn.LayerNorm(c.decoder_width, NORM_EPS)
        self.downstream_head1, self.downstream_head2 = (
            nn.ModuleDict({"dpt": DenseHead(c)}) for _ in range(2)
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.mask_token.device

    def encode(self, images: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v n d"]:
        """Encode each image by itself.

        Args:
            images: RGB in [0, 1]; sides are multiples of the patch size.

        Raises:
            ValueError: A side is not a multiple of the patch size.
        """
        c = self.config
        height, width = images.shape[-2:]
        if height % c.patch_size or width % c.patch_size:
            raise ValueError(
                f"expected sides that are multiples of {c.patch_size}, got {width}x{height}"
            )
        tokens = self.patch_embed["proj"](images * 2 - 1).flatten(2).transpose(1, 2)
        tables = self._tables(height, width, c.encoder_width // c.encoder_heads)
        for block in self.enc_blocks:
            tokens = block(tokens, tables)
        return self.enc_norm(tokens)

    def decode(
        self,
        tokens: Float[Tensor, "v n d"],
        pairs: Int[Tensor, "e 2"],
        height: int,
        width: int,
    ) -> PairPoints:
        """Predict the points of some pairs of encoded images.

        Args:
            tokens: Of all images, from `encode`.
            pairs: Indices of the first and second image of each pair.
            height: Of the images, pixels.
            width: Of the images, pixels.
        """
        c = self.config
        tables = self._tables(height, width, c.decoder_width // c.decoder_heads)
        encoded = [tokens[pairs[:, 0]], tokens[pairs[:, 1]]]
        first, second = (self.decoder_embed(one) for one in encoded)
        levels = [encoded]
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            # Both read the pair as it was before this layer.
            first, second = block1(first, second, tables), block2(second, first, tables)
            levels.append([first, second])
        levels[-1] = [self.dec_norm(first), self.dec_norm(second)]
        grid = (height // c.patch_size, width // c.patch_size)
        # Points are exponential in the head's output: half precision would show as ripples.
        with torch.autocast(tokens.device.type, enabled=False):
            (points1, confidence1), (points2, confidence2) = (
                points_and_confidence(
                    head["dpt"]([levels[i][side].float() for i in c.head_layers], grid)
                )
                for side, head in enumerate((self.downstream_head1, self.downstream_head2))
            )
        return PairPoints(pairs, points1, confidence1, points2, confidence2)

    def _tables(self, height: int, width: int, head_width: int) -> Tensor:
        c = self.config
        return rotary_tables(
            height // c.patch_size, width // c.patch_size, head_width, c.rope_base, self.device
        )
