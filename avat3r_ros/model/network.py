"""Avat3r: reference views and an expression code to 3D Gaussians.

    images, position maps, rays ─► patch tokens ─► self-attention over all views' tokens ─┐ encode,
                     pixels with confidence > tau ─► base guess ──────────────────────────┤ once per
                                                     tokens ─► bilinear basis ────────────┘ person
    ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─  Prefix  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
    code ─► expression tokens ─► cross-attention of the tokens ─► upsampler ─► changes ─┐ decode,
    code ─► corrected code ─► rig ─► moved base guess ──────────────────────────────────┼ per frame
    code - reference's code ─► coefficients x bilinear basis ───────────────────────────┘
                                                                          └─► Gaussians

Also once per person, what the other references say of a pixel (evidence.py) makes changes that are
the same in every expression; with `upsampler="none"` there is nothing else but the corrected code.

The corrected code undoes what a tracker gets wrong of every face (it reads smiles at half their
size); all other changes are per pixel. Template Gaussians follow the pixels around them.

Everything the network says is a change to the base guess, and its last layers start at zero: an
untrained network returns the base guess, bit for bit.

Letters: B people, V views, T kept tokens, P kept pixels, N Gaussians, S expression tokens, D width,
E code length, K basis components.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.changes import ATTRIBUTES, POSITION_UNIT_M, apply_changes
from avat3r_ros.model.config import MAX_VIEWS, MIN_VIEWS, Avat3rConfig
from avat3r_ros.model.evidence import Evidence, cross_view_evidence, rays_to_cameras
from avat3r_ros.model.evidence_decoder import EvidenceDecoder
from avat3r_ros.model.fill_motion import moved_fill
from avat3r_ros.model.inputs import INPUT_CHANNELS, shown_patches, shown_tokens
from avat3r_ros.model.layers import (
    CodeCorrection,
    CrossAttentionBlock,
    ExpressionEncoder,
    SelfAttentionBlock,
    grid_features,
)
from avat3r_ros.model.pixel_decoder import PixelDecoder, pixel_inputs, pixel_places
from avat3r_ros.model.prefix import Prefix, make_motion
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.model.upsampler import (
    GrmUpsampler,
    PatchDecoder,
    coarser_pixels,
    patch_slots,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Gaussians, ReferenceViews

BASIS_ATTRIBUTES = {"position": 3, "color": 3}


class Avat3r(nn.Module):
    """The network.

    Args:
        config: Sizes and switches; never changed.
        template: Head template for `motion_prior="template"`; the shipped one if None.

    Attributes:
        block_dtype: Arithmetic of the transformer blocks (bfloat16 pays on GPUs); weights,
            positions and the rig are float32 in any case.
    """

    block_dtype: torch.dtype = torch.float32

    def __init__(self, config: Avat3rConfig, template: HeadTemplate | None = None) -> None:
        super().__init__()
        self.config = config
        self.template = template
        if template is None and config.motion_prior == "template":
            self.template = HeadTemplate.load()
        c = config
        if c.has_tokens:
            self._add_tokens()
        self.upsampler: PatchDecoder | PixelDecoder | GrmUpsampler | None = None
        if c.upsampler != "none":
            self._add_expression_path()
        if c.evidence_features:
            self.evidence_decoder = EvidenceDecoder(c.evidence_features, c.evidence_layers)
        if c.corrects_codes:
            self.code_correction = CodeCorrection(c.code_length, c.code_correction)

    def _add_tokens(self) -> None:
        """From patches to tokens, once per person."""
        c, width = self.config, self.config.width
        side = c.patch_size // c.input_pooling
        self.patch_embedding = nn.Conv2d(INPUT_CHANNELS, width, side, side)
        if c.use_features:
            self.feature_fusion = nn.Linear(width + c.feature_channels, width)
        self.position_embedding = nn.Parameter(torch.empty(1, c.grid_size**2, width))
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        if c.condition_on_reference_codes:
            self.reference_embedding = nn.Linear(c.code_length, width)
        if c.sees_identity:
            self.identity_embedding = nn.Linear(self.template.num_identity, width)
        self.self_attention = nn.ModuleList(
            SelfAttentionBlock(width, c.num_heads) for _ in range(c.self_attention_layers)
        )

    def _add_expression_path(self) -> None:
        """From the code to changes of each frame."""
        c, width = self.config, self.config.width
        code_inputs = c.code_length * (2 if c.condition_on_reference_codes else 1)
        self.expression_encoder = ExpressionEncoder(
            code_inputs, c.expression_hidden, c.expression_tokens, width, c.code_norm
        )
        self.cross_attention = nn.ModuleList(
            CrossAttentionBlock(width, c.num_heads) for _ in range(c.cross_attention_layers)
        )
        if c.upsampler == "grm":
            self.upsampler = GrmUpsampler(
                width, c.num_heads, c.patch_size, c.upsampler_window, c.upsampler_min_width,
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

    def _in_blocks(self) -> AbstractContextManager:
        """Arithmetic of the transformer blocks."""
        if self.block_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.block_dtype)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    def output_layers(self) -> list[nn.Linear]:
        """Return the layers that start at zero; while they are, the output is the base guess."""
        heads = [] if self.upsampler is None else list(self.upsampler.heads.values())
        if self.config.expression_basis:
            heads += list(self.basis_decoder.heads.values())
        if self.config.evidence_features:
            heads += list(self.evidence_decoder.heads.values())
        if self.config.corrects_codes:
            heads.append(self.code_correction.last)
        return heads

    def is_untrained(self) -> bool:
        """Whether the network still returns exactly the base guess."""
        return not any(bool(p.any()) for layer in self.output_layers() for p in layer.parameters())

    # ── once per person ──────────────────────────────────────────────────────────────────────

    def encode(
        self,
        views: ReferenceViews,
        features: Float[Tensor, "v c fh fw"] | None = None,
        base: BaseGuess | None = None,
    ) -> Prefix:
        """Compute everything that does not depend on the expression.

        Args:
            views: 3 to 6 references of the configured size, or finer: the network then sees them
                at its own size, and its changes are spread over the finer pixels.
            features: Feature maps, if the configuration uses them.
            base: The views' base guess, if the caller has it; training builds it once per person.

        Raises:
            ValueError: Number of views, size, code space or features do not fit the configuration.
        """
        return self.encode_many(
            [views],
            None if features is None else [features],
            None if base is None else [base],
        )[0]

    def encode_many(
        self,
        views: Sequence[ReferenceViews],
        features: Sequence[Float[Tensor, "v c fh fw"]] | None = None,
        bases: Sequence[BaseGuess] | None = None,
        motions: Sequence[RigMotion | None] | None = None,
        patches: Sequence[Float[Tensor, "_ i"] | None] | None = None,
        evidence: Sequence[Evidence | None] | None = None,
    ) -> list[Prefix]:
        """Encode B people with the same number of views in one pass; see `encode`.

        Rigs of the base guesses, `patches` and `evidence` are made here where the caller does not
        keep them.
        """
        if len({len(one.images) for one in views}) != 1:
            raise ValueError("expected the same number of views for all people of a batch")
        for one in views:
            self._check(one)
        if bases is None:
            bases = [build_base_guess(one, self.config, self.template) for one in views]
        unknown = [None] * len(views)
        tokens = unknown
        if self.config.has_tokens:
            inputs = zip(views, features or unknown, patches or unknown, strict=True)
            tokens = self._cached_blocks(
                torch.stack([self._tokens(one, f, p) for one, f, p in inputs]),
                torch.stack([self._shown(one) for one in views]),
            )
        prefixes = []
        for all_tokens, base, one, rig, known in zip(
            tokens, bases, views, motions or unknown, evidence or unknown, strict=True
        ):
            base = base.to(self.device)
            rig = rig or make_motion(base, one.identity, self.template, self.config)
            still = None
            if self.config.evidence_features:
                still = self.still_changes(base, one, rig, known)
            prefixes.append(
                self.prefix_from_tokens(all_tokens, base, one.identity, len(one.images), rig, still)
            )
        return prefixes

    def encode_tokens(
        self, views: ReferenceViews, features: Float[Tensor, "v c fh fw"] | None = None
    ) -> Float[Tensor, "t d"] | None:
        """Compute the activations before the first cross-attention alone; None if there are none.

        See `encode`.
        """
        self._check(views)
        if not self.config.has_tokens:
            return None
        return self._cached_blocks(self._tokens(views, features)[None], self._shown(views)[None])[0]

    def still_changes(
        self,
        base: BaseGuess,
        views: ReferenceViews,
        motion: RigMotion | None = None,
        evidence: Evidence | None = None,
    ) -> Float[Tensor, "p 14"]:
        """Compute the changes that last in every expression.

        Args:
            base: Base guess on this network's device.
            views: References.
            motion: The base guess's rig, if the caller has it.
            evidence: What the references say of each kept pixel, if the caller has it.
        """
        if evidence is None:
            motion = motion or make_motion(base, views.identity, self.template, self.config)
            evidence = cross_view_evidence(views, base, motion, self.template)
        return self.evidence_decoder(evidence.to(self.device), rays_to_cameras(base, views.cameras))

    def prefix_from_tokens(
        self,
        tokens: Float[Tensor, "t d"] | None,
        base: BaseGuess,
        identity: Float[Tensor, "k"],
        num_views: int,
        motion: RigMotion | None = None,
        still: Float[Tensor, "p 14"] | None = None,
    ) -> Prefix:
        """Finish a prefix from the tokens of all views: what an avatar file stores.

        Args:
            tokens: Activations before the first cross-attention, all V * grid_size^2 of them; not
                looked at where nothing but the rig follows the expression.
            base: Base guess on this network's device.
            identity: Identity coefficients of the head template.
            num_views: V.
            motion: The base guess's rig, if the caller has it.
            still: `still_changes`, if the configuration has them.

        Raises:
            ValueError: `still` does not fit the configuration.
        """
        c = self.config
        if (still is not None) != (c.evidence_features > 0):
            raise ValueError(
                f"the configuration has evidence_features={c.evidence_features}, got "
                f"{'no ' if still is None else ''}still changes"
            )
        motion = motion or make_motion(base, identity, self.template, c)
        if self.upsampler is None:
            return Prefix(base=base, motion=motion, num_views=num_views, still=still)
        if tokens is None:
            raise ValueError(f"expected tokens for upsampler={c.upsampler!r}, got None")
        token_views = torch.arange(num_views, device=tokens.device).repeat_interleave(
            c.grid_size**2
        )
        pixels = base.pixel_indices
        slots = places = basis = pixel_features = None
        if c.upsampler == "pixel":
            needed, places = pixel_places(pixels, base.reference_size, c.grid_size)
            tokens, token_views = tokens[needed], token_views[needed]
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
                tokens, token_views = tokens[needed], token_views[needed]
            else:
                slots = pixels
        return Prefix(
            base=base,
            motion=motion,
            num_views=num_views,
            tokens=tokens,
            token_views=token_views,
            slots=slots,
            basis=None if basis is None else basis.unflatten(-1, (6, c.expression_basis)),
            places=places,
            pixel_features=pixel_features,
            still=still,
        )

    # ── per frame ────────────────────────────────────────────────────────────────────────────

    def decode(self, prefix: Prefix, code: Float[Tensor, "e"]) -> Gaussians:
        """Return a person's Gaussians in an expression, in the head frame."""
        return self.decode_many(prefix, code[None])[0]

    def decode_many(self, prefix: Prefix, codes: Float[Tensor, "c e"]) -> list[Gaussians]:
        """Decode several codes of one person in one pass."""
        codes = codes.to(self.device)
        lenders = None if prefix.motion is None else prefix.motion.lenders
        corrected = self.corrected(codes)
        decoded = []
        for code, changes in zip(corrected, self._all_changes(prefix, codes), strict=True):
            base = prefix.base_gaussians(code.detach())
            base = replace(base, means=_follow(base.means, prefix, code))
            decoded.append(moved_fill(apply_changes(base, changes), base, lenders))
        return decoded

    def decode_pixel_means(
        self, prefix: Prefix, codes: Float[Tensor, "c e"]
    ) -> Float[Tensor, "c p 3"]:
        """Return where pixels' Gaussians go: `decode_many(...).means[:P]`, at less cost."""
        codes = codes.to(self.device)
        changes = self._all_changes(prefix, codes)[..., :3]
        moved = [
            _follow(prefix.base_means(code.detach()), prefix, code)[: prefix.base.num_pixels]
            for code in self.corrected(codes)
        ]
        return torch.stack(moved) + POSITION_UNIT_M * changes

    def corrected(self, codes: Float[Tensor, "*b e"]) -> Float[Tensor, "*b e"]:
        """Return the codes that the rig follows when the driver's codes are these."""
        return codes + self.code_correction(codes) if self.config.corrects_codes else codes

    def _all_changes(self, prefix: Prefix, codes: Tensor) -> Float[Tensor, "c p 14"]:
        """Raw per-pixel changes through cross-attention, upsampler and bilinear basis."""
        if self.upsampler is None:
            if prefix.still is None:
                raise ValueError("this prefix holds the base guess only: no network made it")
            return prefix.still.expand(len(codes), -1, -1)
        changes = self._changes(prefix, codes)
        if prefix.still is not None:
            changes = changes + prefix.still
        if prefix.basis is None:
            return changes
        moved = self._basis_changes(prefix, codes)
        position, rest = changes.split([3, sum(ATTRIBUTES.values()) - 3], -1)
        shape, color, opacity = rest.split([7, 3, 1], -1)
        return torch.cat([position + moved[..., :3], shape, color + moved[..., 3:], opacity], -1)

    def forward(
        self,
        views: Sequence[ReferenceViews],
        codes: Float[Tensor, "b c e"],
        features: Sequence[Float[Tensor, "v c fh fw"]] | None = None,
        bases: Sequence[BaseGuess] | None = None,
    ) -> list[list[Gaussians]]:
        """Reconstruct B people, each in C expressions: `encode_many`, then `decode_many`."""
        prefixes = self.encode_many(views, features, bases)
        return [
            self.decode_many(prefix, code) for prefix, code in zip(prefixes, codes, strict=True)
        ]

    def _check(self, views: ReferenceViews) -> None:
        c = self.config
        v, _, height, width = views.images.shape
        if not MIN_VIEWS <= v <= MAX_VIEWS:
            raise ValueError(f"expected {MIN_VIEWS} to {MAX_VIEWS} reference views, got {v}")
        if height != width or height < c.image_size:
            raise ValueError(
                f"expected references of {c.image_size}x{c.image_size} or finer, got "
                f"{width}x{height}"
            )
        needs_codes = c.condition_on_reference_codes or c.motion_prior == "template"
        if needs_codes and views.code_space != c.code_space:
            raise ValueError(
                f"expected reference codes in {c.code_space!r}, got {views.code_space!r}"
            )

    def _shown(self, views: ReferenceViews) -> Bool[Tensor, "t"]:
        return shown_tokens(views.masks, self.config.grid_size).to(self.device)

    def _cached_blocks(self, tokens: Tensor, shown: Bool[Tensor, "b t"]) -> Tensor:
        """Self-attention among the tokens that show the head; half of them show background."""
        cached = 1 if self.config.layout == "interleaved" else len(self.self_attention)
        counts = shown.sum(1)
        rows = torch.argsort(~shown, dim=1, stable=True)[:, : int(counts.max())]
        # People of a batch differ in the number of tokens: the surplus is not looked at.
        mask = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
        attention_mask = None if bool(mask.all()) else mask[:, None, None]
        picked = torch.gather(tokens, 1, rows[..., None].expand(-1, -1, tokens.shape[-1]))
        changed = picked
        with self._in_blocks():
            for block in self.self_attention[:cached]:
                changed = block(changed, attention_mask)
        changed = torch.where(mask[..., None], changed, picked)
        return tokens.scatter(1, rows[..., None].expand_as(changed), changed)

    def _tokens(
        self, views: ReferenceViews, features: Tensor | None, patches: Tensor | None = None
    ) -> Tensor:
        """Fused tokens of all views of one person, (V*L, D)."""
        c = self.config
        if c.use_features != (features is not None):
            raise ValueError(
                f"the configuration has use_features={c.use_features}, got "
                f"{'no ' if features is None else ''}feature maps"
            )
        if patches is None:
            patches = shown_patches(views, c)
        shown = self._shown(views)
        # Half of the patches show background: they embed to what zeros embed to.
        weight, bias = self.patch_embedding.weight.flatten(1), self.patch_embedding.bias
        embedded = nn.functional.linear(patches.to(self.device), weight, bias)
        tokens = bias.expand(len(shown), -1).index_put((shown.nonzero()[:, 0],), embedded)
        tokens = tokens.unflatten(0, (len(views.images), -1))  # (V, L, D)
        if features is not None:
            if features.shape[:2] != (len(views.images), c.feature_channels):
                raise ValueError(
                    f"expected features ({len(views.images)}, {c.feature_channels}, h, w), got "
                    f"{tuple(features.shape)}"
                )
            sampled = grid_features(features.to(self.device), c.grid_size)
            tokens = self.feature_fusion(torch.cat([tokens, sampled], -1))
        tokens = tokens + self.position_embedding
        if c.condition_on_reference_codes:
            tokens = tokens + self.reference_embedding(views.codes.to(self.device))[:, None]
        if c.sees_identity:
            tokens = tokens + self.identity_embedding(views.identity.float().to(self.device))
        return tokens.flatten(0, 1)

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

    def _changes(self, prefix: Prefix, codes: Tensor) -> Float[Tensor, "c p 14"]:
        """Raw per-pixel changes through cross-attention and upsampler."""
        if prefix.tokens is None:
            raise ValueError("this prefix holds the base guess only: it was not made by a network")
        expression, mask = self._expression_tokens(prefix, codes)
        tokens = prefix.tokens.expand(len(codes), -1, -1)
        interleaved = self.config.layout == "interleaved"
        with self._in_blocks():
            for i, block in enumerate(self.cross_attention):
                if interleaved and i:
                    tokens = self.self_attention[i](tokens)
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


def _follow(means: Tensor, prefix: Prefix, code: Tensor) -> Tensor:
    """Give centres that the rig put where `code` says a gradient to the code.

    The rig is linear, so a change of exactly zero carries all of it.
    """
    if prefix.motion is None or not code.requires_grad:
        return means
    return means + prefix.motion.displaced(code - code.detach())
