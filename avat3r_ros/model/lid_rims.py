"""Rims of lids look as the photos show them.

The rim between lid and eye is narrower than a pixel, so that it is filled; and where a fit's lid is
a pixel or two beside the photo's, a rim in the colour of skin lies across the iris: a thin line,
and an eye that looks narrower than it is. Whatever of it stands in a photo's own picture before the
photo's pixels takes their colour.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.geometry import pixels_under, transform_points
from avat3r_ros.model.template_colors import surface_points
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

BEFORE_M = 0.0015
"""What is so little behind a photo's pixels, or before them, is seen between them."""


def with_shown_rims(
    colors: Float[Tensor, "n 3"],
    views: ReferenceViews,
    template: HeadTemplate,
    kept: Bool[Tensor, "v h w"],
    folds: Bool[Tensor, "f"],
    faces: Int[Tensor, "n"],
    weights: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    """Return colours of template Gaussians, those of lids' rims as the photos show them.

    Args:
        colors: Of places on the template.
        views: References.
        template: Their head template.
        kept: Pixels that became Gaussians.
        folds: Triangles of the upper lids, which an open eye folds; they are no rims.
        faces: Triangles of the places.
        weights: Barycentrics.
    """
    on_rim = (template.region_mask("lid_left", "lid_right") & ~folds)[faces].nonzero()[:, 0]
    heads = template.vertices(views.identity.float().expand(len(views.codes), -1), views.codes)
    shown, trust = colors[on_rim], torch.zeros(len(on_rim))
    for view, vertices in enumerate(heads):
        points = surface_points(vertices.float(), template, faces[on_rim], weights[on_rim])
        x, y, in_picture = pixels_under(views.cameras[view], points)
        pose = views.cameras[view].camera_from_head.float()
        seen = views.position_maps[view, :, y, x].T.float()
        behind = transform_points(pose, points)[:, 2] - transform_points(pose, seen)[:, 2]
        claim = views.confidence[view, 0, y, x].float()
        better = in_picture & kept[view, y, x] & (behind < BEFORE_M) & (claim > trust)
        shown = torch.where(better[:, None], views.images[view, :, y, x].T.float(), shown)
        trust = torch.where(better, claim, trust)
    colors = colors.clone()
    colors[on_rim] = shown
    return colors
