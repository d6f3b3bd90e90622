"""From image tokens and a code to changes of every kept pixel: what the network does each frame.

    code ─► expression tokens ─► cross-attention of the image tokens ─► upsampler ──┬─► changes
    code - reference's code ─► coefficients x bilinear basis (made once per person) ┘

Letters: V views, T kept tokens, P kept pixels, C codes, S expression tokens, D width, E code
length, K basis components.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avat3r_ros.model.changes import ATTRIBUTES
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.layers import (
    CrossAttentionBlock,
    ExpressionEncoder,
    SelfAttentionBlock,
    block_arithmetic,
)
from avat3r_ros.model.pixel_decoder import PixelDecoder, pixel_inputs, pixel_places
from avat3r_ros.model.prefix import Prefix
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.model.upsampler import GrmUpsampler, PatchDecoder, coarser_pixels, patch_slots

BASIS_ATTRIBUTES = {"position": 3, "color": 3}


class ExpressionPath(nn.Module):
    """Changes per pixel that follow the code; the last layers are zero.

    Args:
        config: Sizes and switches.
    """

    def __init__(self, config: Avat3rConfig) -> None:
        super().__init__()
        self.config = c = config
        code_inputs = c.code_length * (2 if c.condition_on_reference_codes else 1)
        self.expression_encoder = ExpressionEncoder(
            code_inputs, c.expression_hidden, c.expression_tokens, c.width, c.code_norm
        )
        self.cross_attention = nn.ModuleList(
            CrossAttentionBlock(c.width, c.num_heads) for _ in range(c.cross_attention_layers)
        )
        between = c.cross_attention_layers - 1 if c.layout == "interleaved" else 0
        self.self_attention = nn.ModuleList(
            SelfAttentionBlock(c.width, c.num_heads) for _ in range(between)
        )
        self.upsampler: PatchDecoder | PixelDecoder | GrmUpsampler
        if c.upsampler == "grm":
            self.upsampler = GrmUpsampler(
                c.width, c.num_heads, c.patch_size, c.upsampler_window, c.upsampler_min_width,
                ATTRIBUTES,
            )  # fmt: skip
        else:
            self.upsampler = self._decoder(ATTRIBUTES)
        if c.expression_basis:
            self.basis_coefficients = nn.Linear(c.code_length, c.expression_basis, bias=False)
            self.basis_decoder = self._decoder(
                {name: n * c.expression_basis for name, n in BASIS_ATTRIBUTES.items()}
            )

    def _decoder(self, channels: dict[str, int]) -> PatchDecoder | PixelDecoder:
        c = self.config
        if c.upsampler == "pixel":
            return PixelDecoder(c.width, c.decoder_features, channels)
        return PatchDecoder(c.width, c.patch_size, channels)

    def output_layers(self) -> list[nn.Linear]:
        """Return the layers that start at zero."""
        heads = list(self.upsampler.heads.values())
        if self.config.expression_basis:
            heads += list(self.basis_decoder.heads.values())
        return heads

    def prefix(
        self,
        tokens: Float[Tensor, "t d"],
        base: BaseGuess,
        motion: RigMotion | None,
        num_views: int,
        still: Float[Tensor, "p 14"] | None,
    ) -> Prefix:
        """Keep what frames need of a person.

        Args:
            tokens: `TokenEncoder`'s, all V * grid_size^2 of them.
            base: Base guess on the tokens' device.
            motion: Its rig.
            num_views: V.
            still: Changes that are the same in every expression.
        """
        c = self.config
        views = torch.arange(num_views, device=tokens.device).repeat_interleave(c.grid_size**2)
        pixels = base.pixel_indices
        slots = places = basis = pixel_features = None
        if c.upsampler == "pixel":
            needed, places = pixel_places(pixels, base.reference_size, c.grid_size)
            tokens, views = tokens[needed], views[needed]
            known = pixel_inputs(
                base.gaussians, base.num_pixels, base.reference_size / c.image_size
            )
            pixel_features = self.upsampler.from_pixels(known)
            if c.expression_basis:
                of_basis = self.basis_decoder.from_pixels(known)
                basis = self.basis_decoder(tokens[None], places, of_basis)[0]
        else:
            # Finer references have several pixels where these decoders have one.
            pixels = coarser_pixels(pixels, base.reference_size, c.image_size)
            # Patches need only tokens with a kept pixel; windows of "grm" need all of them.
            needed, slots = patch_slots(pixels, c.image_size, c.patch_size)
            if c.expression_basis:
                basis = self.basis_decoder(tokens[None, needed], slots)[0]
            if c.upsampler == "linear":
                tokens, views = tokens[needed], views[needed]
            else:
                slots = pixels
        return Prefix(
            base=base,
            motion=motion,
            num_views=num_views,
            tokens=tokens,
            token_views=views,
            slots=slots,
            basis=None if basis is None else basis.unflatten(-1, (6, c.expression_basis)),
            places=places,
            pixel_features=pixel_features,
            still=still,
        )

    def forward(
        self, prefix: Prefix, codes: Float[Tensor, "c e"], block_dtype: torch.dtype
    ) -> Float[Tensor, "c p 14"]:
        """Return raw changes of one person in C expressions.

        Raises:
            ValueError: The prefix holds no tokens.
        """
        if prefix.tokens is None:
            raise ValueError("this prefix holds the base guess only: it was not made by a network")
        changes = self._attended_changes(prefix, codes, block_dtype)
        if prefix.basis is None:
            return changes
        moved = self._basis_changes(prefix, codes)
        position, rest = changes.split([3, sum(ATTRIBUTES.values()) - 3], -1)
        shape, color, opacity = rest.split([7, 3, 1], -1)
        return torch.cat([position + moved[..., :3], shape, color + moved[..., 3:], opacity], -1)

    def _expression_tokens(
        self, prefix: Prefix, codes: Tensor
    ) -> tuple[Tensor, Bool[Tensor, "t k"] | None]:
        """Expression tokens (C, S or V*S, D), and which of them each image token may see."""
        if not self.config.condition_on_reference_codes:
            return self.expression_encoder(codes), None
        references = prefix.base.codes[: prefix.num_views]
        target = codes[:, None].expand(-1, prefix.num_views, -1)
        tokens = self.expression_encoder(torch.cat([target, target - references], -1))
        views = torch.arange(prefix.num_views, device=codes.device)
        views = views.repeat_interleave(self.config.expression_tokens)
        assert prefix.token_views is not None
        return tokens.flatten(1, 2), prefix.token_views[:, None] == views

    def _attended_changes(
        self, prefix: Prefix, codes: Tensor, block_dtype: torch.dtype
    ) -> Float[Tensor, "c p 14"]:
        """Raw changes through cross-attention and upsampler."""
        expression, mask = self._expression_tokens(prefix, codes)
        assert prefix.tokens is not None
        tokens = prefix.tokens.expand(len(codes), -1, -1)
        with block_arithmetic(codes.device, block_dtype):
            for i, block in enumerate(self.cross_attention):
                if i and len(self.self_attention):
                    tokens = self.self_attention[i - 1](tokens)
                tokens = block(tokens, expression, mask)
            if isinstance(self.upsampler, GrmUpsampler):
                return self.upsampler(tokens, prefix.slots, self.config.grid_size).float()
        if isinstance(self.upsampler, PixelDecoder):
            return self.upsampler(tokens, prefix.places, prefix.pixel_features)
        return self.upsampler(tokens, prefix.slots)

    def _basis_changes(self, prefix: Prefix, codes: Tensor) -> Float[Tensor, "c p 6"]:
        """Bilinear changes: per-pixel components times coefficients of the code difference."""
        assert prefix.basis is not None
        difference = codes[:, None] - prefix.base.codes[: prefix.num_views]  # (C, V, E)
        coefficients = self.basis_coefficients(difference)  # (C, V, K)
        # All views' coefficients for every pixel are cheaper than a gather of them per pixel.
        by_view = prefix.basis.flatten(0, 1) @ coefficients.flatten(0, 1).T  # (P*6, C*V)
        by_view = by_view.view(*prefix.basis.shape[:2], len(codes), -1)
        rows = prefix.base.code_rows[: len(prefix.basis)].long()
        picked = by_view.gather(-1, rows[:, None, None, None].expand(-1, *by_view.shape[1:3], 1))[
            ..., 0
        ]  # (P, 6, C)
        return picked.permute(2, 0, 1)
