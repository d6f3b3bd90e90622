"""The base guess: Gaussians that are already a head, before any network has changed them.

    ReferenceViews ── pixels with confidence > tau ──► one Gaussian each, lying on the surface ──┐
    HeadTemplate ──── surfaces no reference shows ───► template Gaussians (template_fill.py) ────┤
                                                                                                 ▼
                              order: pixels that stay | pixels that move | template that moves | …
                                                                                                 ▼
                              what lies outside other photos' outlines moves or fades (outlines.py)
                                                                                                 ▼
                         pixels move so that they appear where their photo shows them (overlap.py)

`motion_prior="none"` is the paper's coloured position cloud: round, motionless, pixels only.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros.geometry import (
    invert_poses,
    pixel_centers,
    transform_points,
    triangle_normals,
    unproject_pixels,
)
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.outlines import within_outlines
from avat3r_ros.model.overlap import PIXEL_SIGMA, overlap_shifts
from avat3r_ros.model.pixel_choice import misread_pixels
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion, facing_quats_wxyz
from avat3r_ros.model.template_fill import (
    TemplateGaussians,
    fill_unseen_surfaces,
    unfolding_triangles,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Gaussians, ReferenceViews

EDGE_SHRINK = 0.6
"""Discs of pixels that touch the background are this much smaller, or silhouettes grow fat."""

FLATNESS = 0.2
"""Thickness of a disc relative to a pixel's footprint."""

MAX_FORESHORTENING = 3.0
"""A footprint on a tilted surface is at most this much longer than wide."""

STILL_BELOW_M = 5e-5
"""Triangles that no blendshape moves this far are static (0.05 mm is far below one pixel)."""

FADE_DISTANCE_M = 0.02
"""Points off the template follow its nearest point less with distance, and not at all from here."""

SURE_MASK, RIM = 0.95, 0.024
"""Pixels of the matte below the first show background, too; they take the colour of the nearest
pixel that does not, out to this share of the picture."""

STATIC, CARRIED, DEFORMING = 0, 1, 2


def build_base_guess(
    views: ReferenceViews,
    config: Avat3rConfig,
    template: HeadTemplate | None,
    *,
    neck: bool = False,
) -> BaseGuess:
    """Place the Gaussians of one person: `guess_with_rig` without the rig."""
    return guess_with_rig(views, config, template, neck=neck)[0]


def guess_with_rig(
    views: ReferenceViews,
    config: Avat3rConfig,
    template: HeadTemplate | None,
    *,
    neck: bool = False,
) -> tuple[BaseGuess, RigMotion | None]:
    """Place the Gaussians of one person, and make the rig that moves them.

    Args:
        views: References on the CPU.
        config: `motion_prior`, the skips and the confidence threshold are read.
        template: The head template `views.binding` refers to; not needed without a motion prior.
        neck: Go on below the references' cut. True pictures of made-up people end there, so that
            training and its scores do without.

    Raises:
        ValueError: No pixel is left above the threshold, or the template is missing.
    """
    if config.motion_prior == "template" and template is None:
        raise ValueError("motion_prior='template' needs the head template, got None")
    keep = (views.confidence > config.confidence_threshold) & (views.masks > SEEN_MASK)
    if config.motion_prior == "template":
        assert template is not None
        keep &= ~misread_pixels(views, template)
    pixels = keep.flatten().nonzero()[:, 0]
    if not len(pixels):
        raise ValueError(
            f"no reference pixel has confidence above {config.confidence_threshold} inside the "
            "mask: nothing to build from"
        )
    view_rows = pixels // views.masks[0].numel()
    means = _gather(views.position_maps, pixels)
    footprints = _footprints(views, means, view_rows)
    if not config.position_skip:
        means = _ray_anchors(views).flatten(0, 2)[pixels]
    colors = _gather(_unmixed_colors(views), pixels)
    if not config.color_skip:
        colors = torch.full_like(colors, 0.5)
    confidence = views.confidence.flatten()[pixels].clamp(0, 1)
    opacities = 0.99 * views.masks.flatten()[pixels].clamp(0, 1) * (0.5 + 0.5 * confidence)
    quats = torch.zeros(len(pixels), 4)
    quats[:, 0] = 1.0
    footprints = footprints * torch.where(_at_edge(views).flatten()[pixels], EDGE_SHRINK, 1.0)
    scales = (PIXEL_SIGMA * footprints)[:, None].expand(-1, 3).clone()

    if config.motion_prior == "none":
        return BaseGuess(
            gaussians=Gaussians(means, quats, scales, opacities, colors),
            code_rows=view_rows,
            codes=views.codes.float().clone(),
            pixel_indices=pixels,
            moving_start=0,
            deforming_start=0,
            moving_stop=0,
            triangle_ids=torch.zeros(0, dtype=torch.long),
            barycentrics=torch.zeros(0, 3),
            fading=torch.zeros(0, dtype=torch.long),
            reference_size=views.images.shape[-1],
        ), None

    assert template is not None
    triangle_ids = views.binding.triangle_ids.flatten()[pixels].long()
    barycentrics = views.binding.barycentrics.reshape(-1, 3)[pixels].float()
    on_template = triangle_ids >= 0
    hair = hair_over_vertices(views, template)
    vertices_by_row = hair + template.vertices(
        views.identity.float().expand(len(views.codes), -1), views.codes.float()
    )
    _lay_on_surface(
        views, template, vertices_by_row, means, view_rows, triangle_ids, footprints, quats, scales
    )
    _bind_strays(template, vertices_by_row, means, view_rows, triangle_ids, barycentrics)
    moves = movement_per_triangle(template) >= STILL_BELOW_M
    kinds = torch.where(
        moves[triangle_ids.clamp(min=0)] & (barycentrics.sum(-1) > 0.02),
        torch.where(on_template, DEFORMING, CARRIED),
        STATIC,
    )
    seen = Gaussians(means, quats, scales, opacities, colors)
    # Only pixels that are safely inside the matte lend their colour to surfaces nobody sees.
    inside = (views.masks.flatten()[pixels] > 0.95) & on_template
    fill = fill_unseen_surfaces(
        views,
        template,
        seen,
        triangle_ids,
        barycentrics,
        inside,
        keep[:, 0],
        float(footprints.median()),
        hair,
        neck,
    )
    folds = unfolding_triangles(template, views.identity.float())
    base = _assemble(
        views, seen, view_rows, pixels, triangle_ids, barycentrics, kinds, fill, moves, folds
    )
    motion = RigMotion.of_person(base, views.identity, template)
    if not config.position_skip:
        return base, motion
    base = within_outlines(base, motion, views, template)
    base = _without_overlap(base, views)
    return base, motion.with_places(base)


def _without_overlap(base: BaseGuess, views: ReferenceViews) -> BaseGuess:
    means = base.gaussians.means.clone()
    means[: base.num_pixels] += overlap_shifts(base, views.cameras)
    return replace(base, gaussians=replace(base.gaussians, means=means))


def hair_over_vertices(views: ReferenceViews, template: HeadTemplate) -> Float[Tensor, "nv 3"]:
    """How far the surface that pixels lie on stands off the template: hair, metres."""
    if views.hair_thickness_m is None:
        return torch.zeros_like(template.neutral)
    normals = template.coarse_normals(views.identity.float()).float()
    return views.hair_thickness_m.float()[:, None] * normals


def movement_per_triangle(template: HeadTemplate) -> Float[Tensor, "f"]:
    """Farthest that any single blendshape at 1 moves a corner of each triangle, metres."""
    per_vertex = template.expression_basis.norm(dim=-1).amax(0)
    return per_vertex[template.triangles.long()].amax(-1)


def _gather(maps: Tensor, pixels: Tensor) -> Tensor:
    """Values of (V, C, H, W) maps at flattened pixels, (P, C)."""
    return maps.float().permute(0, 2, 3, 1).reshape(-1, maps.shape[1])[pixels]


def _unmixed_colors(views: ReferenceViews) -> Float[Tensor, "v 3 h w"]:
    """Colours without the background that soft outlines let in: dark or bright dots from aside."""
    images, masks = views.images.float(), views.masks[:, 0].float()
    unmixed = (images / masks[:, None].clamp(min=SEEN_MASK)).clamp(0, 1)
    for row, mask in enumerate(masks):
        sure = mask >= SURE_MASK
        if bool(sure.any()):
            distance, nearest = distance_transform_edt(~sure.numpy(), return_indices=True)
            y, x = torch.from_numpy(nearest).long()
            near = torch.from_numpy(distance <= RIM * mask.shape[-1])
            unmixed[row] = torch.where(near, unmixed[row][:, y, x], unmixed[row])
    return unmixed


def _footprints(views: ReferenceViews, means: Tensor, view_rows: Tensor) -> Tensor:
    """Side of a pixel at the depth of each Gaussian, metres."""
    pose = views.cameras.camera_from_head.float()[view_rows]
    depth = (pose[:, 2, :3] * means).sum(-1) + pose[:, 2, 3]
    focal = views.cameras.intrinsics.float()[view_rows]
    return depth.clamp(min=1e-3) / (0.5 * (focal[:, 0, 0] + focal[:, 1, 1]))


def _at_edge(views: ReferenceViews) -> Bool[Tensor, "v 1 h w"]:
    """Pixels with a background pixel above, below, left or right of them."""
    background = torch.nn.functional.pad((views.masks <= SEEN_MASK).float(), (1, 1, 1, 1))
    across = torch.maximum(background[..., 1:-1, :-2], background[..., 1:-1, 2:])
    along = torch.maximum(background[..., :-2, 1:-1], background[..., 2:, 1:-1])
    return torch.maximum(across, along) > 0


def _ray_anchors(views: ReferenceViews) -> Float[Tensor, "v h w 3"]:
    """Point of every pixel's ray that is nearest to the head's origin."""
    v, _, h, w = views.images.shape
    cameras = views.cameras
    head_from_camera = invert_poses(cameras.camera_from_head.float())
    pixels = pixel_centers(w, h).reshape(1, -1, 2).expand(v, -1, -1)
    ahead = unproject_pixels(cameras.intrinsics.float(), pixels, torch.ones(v, h * w))
    centers = head_from_camera[:, None, :3, 3]
    rays = torch.nn.functional.normalize(
        transform_points(head_from_camera, ahead) - centers, dim=-1
    )
    return (centers - rays * (centers * rays).sum(-1, keepdim=True)).view(v, h, w, 3)


def _lay_on_surface(
    views: ReferenceViews,
    template: HeadTemplate,
    vertices_by_row: Tensor,
    means: Tensor,
    view_rows: Tensor,
    triangle_ids: Tensor,
    footprints: Tensor,
    quats: Tensor,
    scales: Tensor,
) -> None:
    """Turn the Gaussians on the template into discs on their triangle, in place.

    A pixel's footprint on a tilted surface is stretched along the tilt; without it the sides of the
    head, seen at an angle, would fall apart into dots.
    """
    on = (triangle_ids >= 0).nonzero()[:, 0]
    corners = vertices_by_row[view_rows[on, None], template.triangles.long()[triangle_ids[on]]]
    normals = torch.nn.functional.normalize(triangle_normals(corners), dim=-1)
    # A degenerate triangle has no normal; such a Gaussian keeps its round shape.
    valid = normals.norm(dim=-1) > 0.5
    on, normals = on[valid], normals[valid]
    centers = invert_poses(views.cameras.camera_from_head.float())[view_rows[on], :3, 3]
    to_camera = torch.nn.functional.normalize(centers - means[on], dim=-1)
    cosine = (to_camera * normals).sum(-1).abs()
    quats[on] = facing_quats_wxyz(normals, to_camera)
    size = PIXEL_SIGMA * footprints[on]
    scales[on, 0] = size / cosine.clamp(min=1 / MAX_FORESHORTENING)
    scales[on, 1] = size
    scales[on, 2] = FLATNESS * footprints[on]


def _bind_strays(
    template: HeadTemplate,
    vertices_by_row: Tensor,
    means: Tensor,
    view_rows: Tensor,
    triangle_ids: Tensor,
    barycentrics: Tensor,
) -> None:
    """Let points off the template follow its nearest triangle, faded with distance, in place."""
    triangles = template.triangles.long()
    for row, vertices in enumerate(vertices_by_row):
        stray = ((triangle_ids < 0) & (view_rows == row)).nonzero()[:, 0]
        if not len(stray):
            continue
        tree = cKDTree(vertices[triangles].mean(1).numpy())
        distance, nearest = tree.query(means[stray].numpy(), distance_upper_bound=FADE_DISTANCE_M)
        near = torch.from_numpy(np.isfinite(distance))
        weight = 1 - torch.from_numpy(distance).float()[near] / FADE_DISTANCE_M
        triangle_ids[stray[near]] = torch.from_numpy(nearest)[near]
        barycentrics[stray] = 0.0
        barycentrics[stray[near]] = (weight / 3)[:, None].expand(-1, 3)


def _assemble(
    views: ReferenceViews,
    seen: Gaussians,
    view_rows: Int[Tensor, "p"],
    pixels: Int[Tensor, "p"],
    triangle_ids: Tensor,
    barycentrics: Tensor,
    kinds: Tensor,
    fill: TemplateGaussians,
    moves: Tensor,
    folds: Tensor,
) -> BaseGuess:
    """Sort into: pixels static | pixels carried | pixels deforming | fill deforming | fill static.

    The sorts are stable, so the pixels of one kind stay in image order.
    """
    pixel_order = torch.argsort(kinds, stable=True)
    fill_moves = moves[fill.triangle_ids]
    fill_order = torch.argsort((~fill_moves).int(), stable=True)
    num_static, num_carried = int((kinds == STATIC).sum()), int((kinds == CARRIED).sum())
    stop = len(pixels) + int(fill_moves.sum())

    def join(of_pixels: Tensor, of_fill: Tensor) -> Tensor:
        return torch.cat([of_pixels[pixel_order], of_fill[fill_order]])

    moving = slice(num_static, stop)
    bound_to = join(triangle_ids, fill.triangle_ids)
    fading = folds[bound_to.clamp(min=0)]
    fading[: num_static + num_carried] = False
    fading[stop:] = False
    return BaseGuess(
        gaussians=Gaussians(
            **{
                name: join(getattr(seen, name), getattr(fill.gaussians, name))
                for name in Gaussians.__dataclass_fields__
            }
        ),
        code_rows=join(view_rows, fill.code_rows + len(views.codes)),
        codes=torch.cat([views.codes.float(), fill.codes]),
        pixel_indices=pixels[pixel_order],
        moving_start=num_static,
        deforming_start=num_static + num_carried,
        moving_stop=stop,
        triangle_ids=bound_to[moving],
        barycentrics=join(barycentrics, fill.barycentrics)[moving],
        fading=fading.nonzero()[:, 0],
        reference_size=views.images.shape[-1],
    )
