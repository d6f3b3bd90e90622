"""What the network's raw numbers do to the Gaussians of the base guess."""

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.model.rig_motion import compose_quats_wxyz
from avat3r_ros.types import Gaussians

ATTRIBUTES = {"position": 3, "log_scale": 3, "rotation": 4, "color": 3, "opacity": 1}
"""Raw outputs per pixel, in this order."""

POSITION_UNIT_M = 0.01
"""One unit of raw position output; makes all raw outputs of order one."""

MAX_LOG_SCALE_CHANGE = 2.0


def apply_changes(base: Gaussians, changes: Float[Tensor, "p 14"]) -> Gaussians:
    """Apply raw changes to the first P Gaussians; changes of zero return `base` bit for bit."""
    position, log_scale, rotation, color, opacity = changes.split(list(ATTRIBUTES.values()), -1)
    num_pixels = len(changes)

    def first(values: Tensor) -> Tensor:
        return values[:num_pixels]

    def joined(changed: Tensor, values: Tensor) -> Tensor:
        return torch.cat([changed, values[num_pixels:]])

    # sigmoid(logit(o) + x), written so that x = 0 gives o without rounding.
    o = first(base.opacities)
    opacities = o / (o + (1 - o) * torch.exp(-opacity[:, 0]))
    growth = log_scale.clamp(-MAX_LOG_SCALE_CHANGE, MAX_LOG_SCALE_CHANGE).exp()
    return Gaussians(
        means=joined(first(base.means) + POSITION_UNIT_M * position, base.means),
        quats_wxyz=joined(compose_quats_wxyz(first(base.quats_wxyz), rotation), base.quats_wxyz),
        scales=joined(first(base.scales) * growth, base.scales),
        opacities=joined(opacities, base.opacities),
        colors=joined(first(base.colors) + color, base.colors),
    )
