"""Sizes of the network; the defaults are those of the published checkpoint."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dust3rConfig:
    """Sizes of `Dust3r`. Defaults: `DUSt3R_ViTLarge_BaseDecoder_512_dpt`.

    Attributes:
        patch_size: Side of the square of pixels that becomes one token.
        encoder_width: Channels of the encoder's tokens.
        encoder_layers: Its blocks.
        encoder_heads: Its attention heads.
        decoder_width: Channels of the decoders' tokens.
        decoder_layers: Blocks of each of the two decoders; a multiple of 4, because the head reads
            after every quarter of them.
        decoder_heads: Their attention heads.
        head_level_widths: Channels of the head's four resolutions, finest first.
        head_width: Channels in which the head joins them.
        head_last_width: Channels before the head's output.
        rope_base: Base of the rotary position encoding's frequencies.
        image_size: Long side of the images the published weights were trained on, pixels.
    """

    patch_size: int = 16
    encoder_width: int = 1024
    encoder_layers: int = 24
    encoder_heads: int = 16
    decoder_width: int = 768
    decoder_layers: int = 12
    decoder_heads: int = 12
    head_level_widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    head_width: int = 256
    head_last_width: int = 128
    rope_base: float = 100.0
    image_size: int = 512

    def __post_init__(self) -> None:
        for part in ("encoder", "decoder"):
            width, heads = getattr(self, f"{part}_width"), getattr(self, f"{part}_heads")
            # Each head's channels are halved between y and x, and each half holds pairs.
            if width % (4 * heads):
                raise ValueError(
                    f"expected {part}_width to be a multiple of 4 x {part}_heads, got {width} and "
                    f"{heads}"
                )
        if self.decoder_layers < 4 or self.decoder_layers % 4:
            raise ValueError(
                f"expected decoder_layers to be a multiple of 4, got {self.decoder_layers}"
            )
        if self.patch_size != 16:
            raise ValueError(
                f"expected patch_size 16, got {self.patch_size}: the head's strides are made for it"
            )

    @property
    def head_layers(self) -> tuple[int, int, int, int]:
        """Which of [encoder, decoder block 1, ...] the head reads, finest resolution first."""
        n = self.decoder_layers
        return (0, n // 2, 3 * n // 4, n)
