"""What is known of one person before any expression: the network's cache and the base guess."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.pixel_decoder import PixelPlaces
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Gaussians


@dataclass(frozen=True)
class Prefix:
    """Everything about one person that does not depend on the target expression.

    Attributes:
        base: Base guess.
        motion: Its rig; None without a motion prior.
        num_views: V; the first V rows of `base.codes` are the references' codes.
        tokens: Activations before the first cross-attention, of the tokens that are still needed;
            None for the base guess alone.
        token_views: View of each token.
        slots: Where the decoder finds each kept pixel.
        basis: Per-pixel bilinear components of position and colour, raw units; None if off.
        places: Where the "pixel" decoder finds each kept pixel; None with other decoders.
        pixel_features: What that decoder makes of each kept pixel itself.
        still: Changes that are the same in every expression; None if there are none.
    """

    base: BaseGuess
    motion: RigMotion | None
    num_views: int
    tokens: Float[Tensor, "t d"] | None = None
    token_views: Int[Tensor, "t"] | None = None
    slots: Int[Tensor, "p"] | None = None
    basis: Float[Tensor, "p 6 k"] | None = None
    places: PixelPlaces | None = None
    pixel_features: Float[Tensor, "p f"] | None = None
    still: Float[Tensor, "p 14"] | None = None

    def base_gaussians(self, code: Float[Tensor, "e"]) -> Gaussians:
        """Return the base guess in an expression, without the network."""
        return self.base.gaussians if self.motion is None else self.motion.gaussians(code)

    def base_means(self, code: Float[Tensor, "e"]) -> Float[Tensor, "n 3"]:
        """Return the centres of `base_gaussians(code)` alone."""
        return self.base.gaussians.means if self.motion is None else self.motion.means(code)


def make_motion(
    base: BaseGuess,
    identity: Float[Tensor, "k"],
    template: HeadTemplate | None,
    config: Avat3rConfig,
) -> RigMotion | None:
    """Build a person's rig for a base guess; None without a motion prior."""
    if config.motion_prior == "none":
        return None
    if template is None:
        raise ValueError("motion_prior='template' needs the head template, got None")
    return RigMotion.of_person(base, identity, template)


def subset_prefix(prefix: Prefix, indices: Int[Tensor, "k"]) -> Prefix:
    """Keep some Gaussians of a prefix, in their order: geometry losses need only a sample.

    Args:
        prefix: Made by a network or not.
        indices: Gaussians to keep, strictly increasing. Template Gaussians among them
            follow the pixels that are left.
    """
    base = prefix.base.subset(indices)
    pixels = indices[: base.num_pixels]
    tokens, token_views, places = prefix.tokens, prefix.token_views, prefix.places
    if places is not None and tokens is not None and token_views is not None:
        places, used = places.subset(pixels)
        tokens, token_views = tokens[used], token_views[used]
    return replace(
        prefix,
        base=base,
        motion=None if prefix.motion is None else prefix.motion.for_base(base),
        tokens=tokens,
        token_views=token_views,
        slots=None if prefix.slots is None else prefix.slots[pixels],
        basis=None if prefix.basis is None else prefix.basis[pixels],
        places=places,
        pixel_features=None if prefix.pixel_features is None else prefix.pixel_features[pixels],
        still=None if prefix.still is None else prefix.still[pixels],
    )
