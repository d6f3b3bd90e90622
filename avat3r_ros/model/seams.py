"""Seams between photos: where one photo's pixels end and another's begin, their colours meet.

Each part of the skin is taken from the photos that show it best. Photos are taken in different
light, even after one gain for each, and a cheek of two photos has an outline down its middle, or
ripples where their pixels lie among each other. There, all are moved towards one mean colour, which
changes over slowly from what one photo shows to what the other does:

    each photo's mean colour at every vertex ──┐
    its share of the kept pixels, blurred ─────┴─► mean ─► what a photo lacks to it ─► its pixels

Details stay, as only means around vertices are moved.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.template_colors import (
    SKIN,
    groups_of_pixels,
    summed_at_vertices,
    surface_groups,
    vertex_adjacency,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

BLURS = 12
"""Steps from a vertex to its neighbours over which photos change over. More: wider."""

MAX_DIFFERENCE = 0.2
"""Photos that differ by more at a vertex show different things there, as hair beside a cheek."""

MIN_PIXELS = 0.5
"""A photo shows a vertex from this many pixels around it on."""


def without_seams(
    views: ReferenceViews, config: Avat3rConfig, template: HeadTemplate | None
) -> ReferenceViews:
    """Return the same references, the colours of their skin moved so that they meet.

    For base guess and network alike, before either sees them: a network that is told how photos
    differ would turn seams inside out that only the base guess is without.

    Args:
        views: References on the CPU.
        config: Their network's; without a motion prior the references stay as they are.
        template: The head template `views.binding` refers to; not needed without a motion prior.
    """
    if config.motion_prior == "none" or template is None:
        return views
    kept = ((views.confidence > config.confidence_threshold) & (views.masks > SEEN_MASK))[:, 0]
    triangles, count = template.triangles.long(), len(template.neutral)
    on_skin = (groups_of_pixels(views, template) == SKIN) & (views.masks[:, 0] > 0.95)
    images = views.images.float().permute(0, 2, 3, 1)
    places = []
    totals = []
    for view, on in enumerate(on_skin):
        corners = triangles[views.binding.triangle_ids[view][on].long()]
        weights = views.binding.barycentrics[view][on].float()
        places.append((corners, weights))
        ones, of_kept = torch.ones(len(corners), 1), kept[view][on][:, None].float()
        values = torch.cat([images[view][on], ones, of_kept], -1)
        totals.append(summed_at_vertices(count, corners, weights, values))
    total = torch.stack(totals)
    mean, pixels, share = total[..., :3], total[..., 3:4], total[..., 4]
    mean = mean / pixels.clamp(min=1e-6)
    best = mean[share.argmax(0), torch.arange(count)]
    alike = ((mean - best).abs().amax(-1) < MAX_DIFFERENCE) & (pixels[..., 0] > MIN_PIXELS)

    blur = _blur(triangles[surface_groups(template) == SKIN], count)
    part = (share / share.sum(0).clamp(min=1e-6)).T.numpy()
    for _ in range(BLURS):
        part = blur @ part
    part = torch.from_numpy(part).T * alike
    part = part / part.sum(0).clamp(min=1e-6)
    lacks = ((part[..., None] * mean).sum(0) - mean) * alike[..., None]
    met = images.clone()
    for view, (corners, weights) in enumerate(places):
        change = torch.from_numpy(blur @ lacks[view].numpy())
        met[view][on_skin[view]] += (change[corners] * weights[..., None]).sum(1)
    return replace(views, images=met.clamp(0, 1).permute(0, 3, 1, 2).contiguous())


def _blur(triangles: Tensor, count: int) -> csr_matrix:
    """Half a vertex, half the mean of its neighbours."""
    adjacency = vertex_adjacency(count, triangles)
    degree = np.asarray(adjacency.sum(1))[:, 0]
    neighbors = diags(0.5 / np.maximum(degree, 1)) @ adjacency
    return (neighbors + diags(np.where(degree > 0, 0.5, 1.0))).astype(np.float32).tocsr()
