"""Template Gaussians follow the pixels around them.

The network moves pixels to where the person's surface really is; teeth, lids and whatever else no
reference shows would stay with the fitted template and tear off. They take the mean change of
position of the pixels near them on the resting head.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros.types import Gaussians

LENDERS = 8
"""Pixels that a template Gaussian follows."""

THINNING = 16
"""One in so many pixels lends: they are 1 mm apart, and eight neighbours would all be the same."""

_NEAR_M = 0.004
"""Pixels count by the inverse of their distance, and equally within this one."""


@dataclass(frozen=True)
class Lenders:
    """Which pixels each template Gaussian follows, and their weights."""

    rows: Int[Tensor, "n l"]
    weights: Float[Tensor, "n l"]


def nearest_pixels(resting: Float[Tensor, "m 3"], lend: Bool[Tensor, "p"]) -> Lenders | None:
    """Find the pixels that each template Gaussian follows; None where there is none.

    Args:
        resting: Centres on the resting head, pixels first, metres.
        lend: Which of the P pixels may be followed.
    """
    others = len(resting) - len(lend)
    lenders = lend.nonzero()[:, 0].cpu()
    if not others or not len(lenders):
        return None
    lenders = lenders[:: THINNING if len(lenders) > THINNING * LENDERS else 1]
    points = resting.detach().cpu().numpy()
    count = min(LENDERS, len(lenders))
    distance, nearest = cKDTree(points[lenders.numpy()]).query(points[len(lend) :], k=count)
    weights = 1 / torch.from_numpy(distance).float().view(others, count).clamp(min=_NEAR_M)
    return Lenders(
        lenders[torch.from_numpy(nearest).view(others, count)].to(resting.device),
        (weights / weights.sum(-1, keepdim=True)).to(resting.device),
    )


def moved_fill(changed: Gaussians, base: Gaussians, lenders: Lenders | None) -> Gaussians:
    """Move the template Gaussians of `changed` like the pixels they follow moved from `base`."""
    if lenders is None:
        return changed
    count = len(base) - len(lenders.rows)
    moved = changed.means[:count] - base.means[:count]
    follow = torch.nn.functional.embedding_bag(
        lenders.rows, moved, per_sample_weights=lenders.weights, mode="sum"
    )
    return replace(changed, means=torch.cat([changed.means[:count], base.means[count:] + follow]))
