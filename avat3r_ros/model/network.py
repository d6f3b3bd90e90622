"""Avat3r: reference views and an expression code to 3D Gaussians.

    pixels with confidence > tau ─► base guess ─────────────────────────────────────────┐ encode,
    what other references say of them (evidence.py) ─► changes in every expression ─────┤ once per
    images, position maps, rays ─► tokens of all views (token_encoder.py) ──────────────┘ person
    ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─  Prefix  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─
    code ─► rig ─► moved base guess ────────────────────────────────────────────────────┐ decode,
    code, tokens ─► changes that follow the code (expression_path.py) ──────────────────┤ per frame
                                                                          Gaussians ◄───┘

With `upsampler="none"` there are neither tokens nor changes that follow the code.

All changes are per pixel. Template Gaussians follow the pixels around them.

Everything the network says is a change to the base guess, and its last layers start at zero: an
untrained network returns the base guess, bit for bit.

Letters: B people, V views, T tokens, P kept pixels, N Gaussians, C codes, D width, E code length.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.changes import POSITION_UNIT_M, apply_changes
from avat3r_ros.model.config import MAX_VIEWS, MIN_VIEWS, Avat3rConfig
from avat3r_ros.model.evidence import Evidence, cross_view_evidence, rays_to_cameras
from avat3r_ros.model.evidence_decoder import EvidenceDecoder
from avat3r_ros.model.expression_path import ExpressionPath
from avat3r_ros.model.fill_motion import moved_fill
from avat3r_ros.model.prefix import Prefix, make_motion
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.model.token_encoder import TokenEncoder
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Gaussians, ReferenceViews


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
            self.token_encoder = TokenEncoder(
                c, 0 if self.template is None else self.template.num_identity
            )
            self.expression_path = ExpressionPath(c)
        if c.evidence_features:
            self.evidence_decoder = EvidenceDecoder(c.evidence_features, c.evidence_layers)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    def output_layers(self) -> list[nn.Linear]:
        """Return the layers that start at zero; while they are, the output is the base guess."""
        heads = self.expression_path.output_layers() if self.config.has_tokens else []
        if self.config.evidence_features:
            heads += list(self.evidence_decoder.heads.values())
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
            tokens = self.token_encoder(
                views, features or unknown, patches or unknown, self.block_dtype
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
        return self.token_encoder([views], [features], [None], self.block_dtype)[0]

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
        if not c.has_tokens:
            return Prefix(base=base, motion=motion, num_views=num_views, still=still)
        if tokens is None:
            raise ValueError(f"expected tokens for upsampler={c.upsampler!r}, got None")
        return self.expression_path.prefix(tokens, base, motion, num_views, still)

    # ── per frame ────────────────────────────────────────────────────────────────────────────

    def decode(self, prefix: Prefix, code: Float[Tensor, "e"]) -> Gaussians:
        """Return a person's Gaussians in an expression, in the head frame."""
        return self.decode_many(prefix, code[None])[0]

    def decode_many(self, prefix: Prefix, codes: Float[Tensor, "c e"]) -> list[Gaussians]:
        """Decode several codes of one person in one pass."""
        codes = codes.to(self.device)
        return [
            self._changed(prefix, prefix.base_gaussians(code), changes)
            for code, changes in zip(codes, self._changes(prefix, codes), strict=True)
        ]

    def decode_moved(self, prefix: Prefix, code: Float[Tensor, "e"], moved: Gaussians) -> Gaussians:
        """`decode`, where the caller has `prefix.base_gaussians(code)`."""
        return self._changed(prefix, moved, self._changes(prefix, code[None])[0])

    @staticmethod
    def _changed(prefix: Prefix, moved: Gaussians, changes: Float[Tensor, "p 14"]) -> Gaussians:
        lenders = None if prefix.motion is None else prefix.motion.lenders
        return moved_fill(apply_changes(moved, changes), moved, lenders)

    def decode_pixel_means(
        self, prefix: Prefix, codes: Float[Tensor, "c e"]
    ) -> Float[Tensor, "c p 3"]:
        """Return where pixels' Gaussians go: `decode_many(...).means[:P]`, at less cost."""
        codes = codes.to(self.device)
        changes = self._changes(prefix, codes)[..., :3]
        moved = [prefix.base_means(code)[: prefix.base.num_pixels] for code in codes]
        return torch.stack(moved) + POSITION_UNIT_M * changes

    def _changes(self, prefix: Prefix, codes: Tensor) -> Float[Tensor, "c p 14"]:
        """Raw changes of the pixels: those that follow the code and those that stay."""
        if self.config.has_tokens:
            changes = self.expression_path(prefix, codes, self.block_dtype)
            return changes if prefix.still is None else changes + prefix.still
        if prefix.still is None:
            raise ValueError("this prefix holds the base guess only: no network made it")
        return prefix.still.expand(len(codes), -1, -1)

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
