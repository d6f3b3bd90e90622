"""Finer Gaussians where photos show more than a reference's pixels hold: eyes, lips, brows, hairs.

A reference's pixel is 1.5 mm wide on the face, an iris eight of them; photos of phones show more. A
pixel whose photo differs within it becomes four, each a quarter of its area and in the photo's
own colour there; even skin stays as it is. Only an avatar is so refined: the network has
seen the whole pixels, and what it says of one holds for its four.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.geometry import invert_poses, matrices_from_quats_wxyz, unproject_pixels
from avat3r_ros.model.base_guess import SURE_MASK
from avat3r_ros.model.evidence import rays_to_cameras
from avat3r_ros.model.fine_views import TIMES
from avat3r_ros.model.overlap import overlap_shifts
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Gaussians, ReferenceViews

LEAST_DETAIL = 0.02
"""Root mean square of what four finer pixels differ from theirs by, sRGB: less is not seen."""

NOISE_FACTOR, MAX_SHARE = 1.5, 0.25
"""Photos with noise differ everywhere: what is cut has so many times the usual detail, and is at
most this share of the pixels, those with most of it."""

LEAST_COSINE = 0.4
"""Pixels on surfaces that are seen more aslant stay whole: a quarter of one has no honest place."""

QUARTERS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
"""Centres of the four, in pixels from that of theirs: x, y."""


def with_details(
    base: BaseGuess, views: ReferenceViews, template: HeadTemplate | None
) -> tuple[BaseGuess, Int[Tensor, "n"]]:
    """Cut the pixels in four in which the photos show something.

    Args:
        base: Made from the references, on the CPU.
        views: Without `details` nothing is cut.
        template: Head template of the base guess; None where nothing moves.

    Returns:
        The finer base guess, and the Gaussian that each of its own was.
    """
    rows = torch.arange(len(base))
    if views.details is None:
        return base, rows
    fine = _fine_colors(views, base)  # (P, 4, 3)
    cut = _chosen(base, views, fine)
    counts = torch.ones(len(base), dtype=torch.long)
    counts[cut] = len(QUARTERS)
    rows = rows.repeat_interleave(counts)
    finer = base.repeated(rows)
    if not len(cut):
        return finer, rows
    shifts = _shifts(base, views, cut)  # (C, 4, 3)
    at = (counts.cumsum(0)[cut] - len(QUARTERS))[:, None] + torch.arange(len(QUARTERS))
    g = finer.gaussians
    means, scales, colors = g.means.clone(), g.scales.clone(), g.colors.clone()
    means[at] += shifts
    # Discs of half the size have to move half as far.
    means[at] -= 0.5 * overlap_shifts(base, views.cameras)[cut, None]
    scales[at] *= 0.5
    colors[at] = (colors[at] + fine[cut]).clamp(0, 1)
    gaussians = Gaussians(means, g.quats_wxyz, scales, g.opacities, colors)
    barycentrics = finer.barycentrics.clone()
    if template is not None:
        moving = ((cut >= base.moving_start) & (cut < base.moving_stop)).nonzero()[:, 0]
        moving = moving[base.barycentrics[cut[moving] - base.moving_start].sum(-1) > 0.99]
        barycentrics[at[moving] - finer.moving_start] += _weight_shifts(
            base, views, template, cut[moving], shifts[moving]
        )
    return replace(finer, gaussians=gaussians, barycentrics=barycentrics), rows


def _fine_colors(views: ReferenceViews, base: BaseGuess) -> Float[Tensor, "p 4 3"]:
    """What the four finer pixels of each pixel add to its colour, in the order of `QUARTERS`."""
    assert views.details is not None
    blocks = torch.nn.functional.pixel_unshuffle(views.details.float(), TIMES)  # (V, 3 * 4, H, W)
    flat = blocks.permute(0, 2, 3, 1).reshape(-1, 3, 4)
    return flat[base.pixel_indices].transpose(1, 2)


def _chosen(
    base: BaseGuess, views: ReferenceViews, fine: Float[Tensor, "p 4 3"]
) -> Int[Tensor, "c"]:
    """Pixels to cut, increasing: those with most detail, of those that can be."""
    strength = fine.square().mean((1, 2)).sqrt()
    cuttable = (views.masks.flatten()[base.pixel_indices] > SURE_MASK) & _upright(base, views)
    cuttable &= _amid_others(base, views)
    least = max(LEAST_DETAIL, NOISE_FACTOR * float(strength.median()))
    strength = strength * cuttable
    count = min(int((strength > least).sum()), int(MAX_SHARE * len(strength)))
    return strength.topk(count).indices.sort().values


def _amid_others(base: BaseGuess, views: ReferenceViews) -> Bool[Tensor, "p"]:
    """Pixels whose neighbours are used, too: lips have teeth beside them that the photo shows."""
    unused = torch.ones(views.masks.numel())
    unused[base.pixel_indices.long()] = 0.0
    beside = torch.nn.functional.max_pool2d(unused.view_as(views.masks), 3, 1, 1)
    return beside.flatten()[base.pixel_indices.long()] == 0


def _upright(base: BaseGuess, views: ReferenceViews) -> Bool[Tensor, "p"]:
    """Pixels whose surface is not seen too much aslant."""
    rays = rays_to_cameras(base, views.cameras)
    normals = _normals(base, torch.arange(base.num_pixels), rays)
    return torch.cosine_similarity(rays, normals, dim=-1).abs() > LEAST_COSINE


def _normals(base: BaseGuess, pixels: Tensor, rays: Float[Tensor, "c 3"]) -> Float[Tensor, "c 3"]:
    """Of the discs; round Gaussians lie across their ray."""
    scales = base.gaussians.scales[pixels]
    flat = scales[:, 2] < scales[:, 1]
    discs = matrices_from_quats_wxyz(base.gaussians.quats_wxyz[pixels])[..., 2]
    return torch.where(flat[:, None], discs, torch.nn.functional.normalize(rays, dim=-1))


def _rays(
    base: BaseGuess, views: ReferenceViews, pixels: Tensor, offsets: Float[Tensor, "k 2"]
) -> Float[Tensor, "c k 3"]:
    """Rays at offsets from the centres of pixels, in the head's axes; z is 1 in the camera's."""
    size = base.reference_size
    index = base.pixel_indices[pixels].long()
    view, y, x = index // size**2, index // size % size, index % size
    at = torch.stack([x, y], -1)[:, None] + 0.5 + offsets
    ahead = unproject_pixels(views.cameras.intrinsics.float()[view], at, torch.ones(at.shape[:2]))
    head_from_camera = invert_poses(views.cameras.camera_from_head.float())[view]
    return ahead @ head_from_camera[:, :3, :3].transpose(1, 2)


def _shifts(
    base: BaseGuess, views: ReferenceViews, cut: Int[Tensor, "c"]
) -> Float[Tensor, "c 4 3"]:
    """From a pixel's Gaussian to its quarters', along its surface, metres."""
    means = base.gaussians.means[cut]
    middle = _rays(base, views, cut, torch.zeros(1, 2))
    rays = _rays(base, views, cut, torch.tensor(QUARTERS))
    normals = _normals(base, cut, middle[:, 0])
    view = base.pixel_indices[cut].long() // base.reference_size**2
    centers = invert_poses(views.cameras.camera_from_head.float())[view, :3, 3]
    height = ((means - centers) * normals).sum(-1)[:, None, None]

    def on_surface(directions: Tensor) -> Tensor:
        return directions * height / (directions * normals[:, None]).sum(-1, keepdim=True)

    return on_surface(rays) - on_surface(middle)


def _weight_shifts(
    base: BaseGuess,
    views: ReferenceViews,
    template: HeadTemplate,
    pixels: Int[Tensor, "c"],
    shifts: Float[Tensor, "c 4 3"],
) -> Float[Tensor, "c 4 3"]:
    """What shifts along a triangle change of its weights."""
    rows = base.code_rows[pixels].long()
    triangles = base.triangle_ids[pixels - base.moving_start].long()
    vertices = template.vertices(
        views.identity.float().expand(len(views.codes), -1), views.codes.float()
    )
    corners = vertices[rows[:, None], template.triangles.long()[triangles]]
    edges = (corners[:, 1:] - corners[:, :1]).transpose(1, 2)  # (C, 3, 2)
    of_edges = shifts @ torch.linalg.pinv(edges).transpose(1, 2)  # (C, 4, 2)
    # A sliver's weights say nothing beyond it.
    of_edges = of_edges.clamp(-1, 1)
    return torch.cat([-of_edges.sum(-1, keepdim=True), of_edges], -1)
