"""Reference views whose pixels another back-end has moved off the fitted head."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.types import Camera, ReferenceViews, SurfaceBinding

BINDING_TOLERANCE_M = 0.03
"""A pixel farther from the fitted head than this does not lie on the triangle drawn there."""


def moved_views(
    drawn: ReferenceViews,
    cameras: Camera,
    positions: Float[Tensor, "v 3 h w"],
    confidence: Float[Tensor, "v 1 h w"],
) -> ReferenceViews:
    """Give the template's reference views other positions, and unbind pixels that went far.

    Args:
        drawn: From `template.position_maps`.
        cameras: That see the new positions at their pixels.
        positions: Head frame, metres; anything outside the matte.
        confidence: In [0, 1]; anything outside the matte.
    """
    inside = drawn.masks > 0
    on = drawn.binding.triangle_ids >= 0
    on &= (positions - drawn.position_maps).norm(dim=1) < BINDING_TOLERANCE_M
    return replace(
        drawn,
        cameras=cameras,
        position_maps=torch.where(inside, positions, 0.0),
        confidence=torch.where(inside, confidence, 0.0),
        binding=SurfaceBinding(
            torch.where(on, drawn.binding.triangle_ids, -1),
            drawn.binding.barycentrics * on[..., None],
        ),
    )
