"""From reference views to image tokens: what the network sees of a person, once per person.

    patches of images, position maps, rays ─► embedding ─┬─► + position, reference's code, identity
                             feature maps ─► fusion ─────┘      └─► self-attention over all views

Letters: B people, V views, L tokens of a view, D width, I inputs of a patch.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.inputs import INPUT_CHANNELS, shown_patches, shown_tokens
from avat3r_ros.model.layers import SelfAttentionBlock, block_arithmetic, grid_features
from avat3r_ros.types import ReferenceViews


class TokenEncoder(nn.Module):
    """Tokens of all views.

    Args:
        config: Sizes and switches.
        num_identity: Length of the identity, for `sees_identity`.
    """

    def __init__(self, config: Avat3rConfig, num_identity: int) -> None:
        super().__init__()
        self.config = c = config
        side = c.patch_size // c.input_pooling
        self.patch_embedding = nn.Conv2d(INPUT_CHANNELS, c.width, side, side)
        if c.use_features:
            self.feature_fusion = nn.Linear(c.width + c.feature_channels, c.width)
        self.position_embedding = nn.Parameter(torch.empty(1, c.grid_size**2, c.width))
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        if c.condition_on_reference_codes:
            self.reference_embedding = nn.Linear(c.code_length, c.width)
        if c.sees_identity:
            self.identity_embedding = nn.Linear(num_identity, c.width)
        # Interleaved blocks after the first look at tokens that the expression has changed.
        blocks = 1 if c.layout == "interleaved" else c.self_attention_layers
        self.self_attention = nn.ModuleList(
            SelfAttentionBlock(c.width, c.num_heads) for _ in range(blocks)
        )

    def forward(
        self,
        views: Sequence[ReferenceViews],
        features: Sequence[Float[Tensor, "v c fh fw"] | None],
        patches: Sequence[Float[Tensor, "_ i"] | None],
        block_dtype: torch.dtype,
    ) -> Float[Tensor, "b t d"]:
        """Encode.

        Args:
            views: References of B people, the same number of views each.
            features: Feature maps of each, if the configuration uses them.
            patches: What `shown_patches` gives of each, where the caller keeps it.
            block_dtype: Arithmetic of the blocks.

        Returns:
            T = V * L tokens of each person.

        Raises:
            ValueError: Features do not fit the configuration.
        """
        tokens = torch.stack(
            [self._embedded(*one) for one in zip(views, features, patches, strict=True)]
        )
        return self._attended(tokens, torch.stack([self._shown(v) for v in views]), block_dtype)

    def _shown(self, views: ReferenceViews) -> Bool[Tensor, "t"]:
        shown = shown_tokens(views.masks, self.config.grid_size)
        return shown.to(self.position_embedding.device)

    def _attended(
        self, tokens: Tensor, shown: Bool[Tensor, "b t"], block_dtype: torch.dtype
    ) -> Tensor:
        """Self-attention among the tokens that show the head; half of them show background."""
        counts = shown.sum(1)
        rows = torch.argsort(~shown, dim=1, stable=True)[:, : int(counts.max())]
        # People of a batch differ in the number of tokens: the surplus is not looked at.
        mask = torch.arange(rows.shape[1], device=rows.device) < counts[:, None]
        attention_mask = None if bool(mask.all()) else mask[:, None, None]
        picked = torch.gather(tokens, 1, rows[..., None].expand(-1, -1, tokens.shape[-1]))
        changed = picked
        with block_arithmetic(tokens.device, block_dtype):
            for block in self.self_attention:
                changed = block(changed, attention_mask)
        changed = torch.where(mask[..., None], changed, picked)
        return tokens.scatter(1, rows[..., None].expand_as(changed), changed)

    def _embedded(
        self, views: ReferenceViews, features: Tensor | None, patches: Tensor | None
    ) -> Float[Tensor, "t d"]:
        """Fused tokens of all views of one person."""
        c = self.config
        device = self.position_embedding.device
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
        embedded = nn.functional.linear(patches.to(device), weight, bias)
        tokens = bias.expand(len(shown), -1).index_put((shown.nonzero()[:, 0],), embedded)
        tokens = tokens.unflatten(0, (len(views.images), -1))  # (V, L, D)
        if features is not None:
            if features.shape[:2] != (len(views.images), c.feature_channels):
                raise ValueError(
                    f"expected features ({len(views.images)}, {c.feature_channels}, h, w), got "
                    f"{tuple(features.shape)}"
                )
            sampled = grid_features(features.to(device), c.grid_size)
            tokens = self.feature_fusion(torch.cat([tokens, sampled], -1))
        tokens = tokens + self.position_embedding
        if c.condition_on_reference_codes:
            tokens = tokens + self.reference_embedding(views.codes.to(device))[:, None]
        if c.sees_identity:
            # The neck's shape, which may follow, is not told.
            identity = views.identity.float()[: self.identity_embedding.in_features]
            tokens = tokens + self.identity_embedding(identity.to(device))
        return tokens.flatten(0, 1)
