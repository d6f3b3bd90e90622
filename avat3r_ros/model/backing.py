"""A second layer right under the pixels, one Gaussian a triangle: gaps between pixels show skin.

Pixels are a grid of small discs. Between them a tenth of the light comes from behind, more where
the rig stretches them or where they are seen at an angle that their photo did not show, and what is
behind is the far side of the head: dots and hatching. Here a gap shows the mean colour of the
pixels around it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.geometry import triangle_normals
from avat3r_ros.model.template_colors import summed_at_vertices

SPREAD = 2.0
"""Half axes, in standard deviations of the triangle's area: at a corner, where six triangles meet,
94 % of what is behind is hidden."""

MIN_WIDTH = 0.5
"""Least half axis relative to the greater one: slivers hide nothing."""

MAX_AREA_M2 = 6.0e-5
"""Greater triangles, those of the scalp, are cut in four: large discs blur and stand out."""

DEPTH, MAX_DEPTH_M = 1.2, 0.002
"""How far under the pixels, in half axes: nearer, large discs cover pixels seen at an angle."""

FEW_PIXELS = 1.0
"""Fewer pixels around a triangle leave its colour to the fill's."""

_WHOLE, _QUARTERS = (
    [[1 / 3] * 3],
    [[2 / 3, 1 / 6, 1 / 6], [1 / 6, 2 / 3, 1 / 6], [1 / 6, 1 / 6, 2 / 3]],
)


def backing_places(
    areas_m2: Float[Tensor, "f"], chosen: Bool[Tensor, "f"]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n 3"]]:
    """Triangles and barycentrics of the middles of triangles, or of their quarters."""
    large = chosen & (areas_m2 > MAX_AREA_M2)
    faces = torch.cat([chosen.nonzero()[:, 0], large.nonzero()[:, 0].repeat_interleave(3)])
    whole = torch.tensor(_WHOLE).expand(int(chosen.sum()), 3)
    return faces, torch.cat([whole, torch.tensor(_QUARTERS).repeat(int(large.sum()), 1)])


def covering_discs(
    corners: Float[Tensor, "n 3 3"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Longest direction of discs that hide triangles, their half axes and their depth, metres.

    Args:
        corners: Of the triangles; a disc is for a quarter of a large one.
    """
    from_middle = corners - corners.mean(1, keepdim=True)
    # The covariance of an even triangle is a twelfth of the corners' scatter.
    values, vectors = torch.linalg.eigh(from_middle.transpose(1, 2) @ from_middle / 12)
    greater, less = (SPREAD * values[:, k].clamp(min=0).sqrt() for k in (2, 1))
    half_axes = torch.stack([greater, torch.maximum(less, MIN_WIDTH * greater)], -1)
    large = 0.5 * triangle_normals(corners).norm(dim=-1) > MAX_AREA_M2
    half_axes[large] *= 0.5
    return vectors[..., 2], half_axes, (DEPTH * half_axes.mean(-1)).clamp(max=MAX_DEPTH_M)


def colors_around(
    triangles: Int[Tensor, "f 3"],
    pixel_triangles: Int[Tensor, "p"],
    pixel_weights: Float[Tensor, "p 3"],
    pixel_colors: Float[Tensor, "p 3"],
    faces: Int[Tensor, "n"],
    others: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    """Mean colours of the pixels around some triangles.

    Args:
        triangles: All triangles of the template.
        pixel_triangles: Triangle of each pixel, -1 off the template.
        pixel_weights: Barycentrics.
        pixel_colors: Of the pixels.
        faces: Triangles to colour.
        others: Their colours where there are few pixels.
    """
    on = pixel_triangles >= 0
    counted = torch.nn.functional.pad(pixel_colors[on], (0, 1), value=1.0)
    of_corners = summed_at_vertices(
        int(triangles.max()) + 1, triangles[pixel_triangles[on]], pixel_weights[on], counted
    )
    total = of_corners[triangles[faces]].sum(1)
    return (total[:, :3] + FEW_PIXELS * others) / (total[:, 3:] + FEW_PIXELS)
