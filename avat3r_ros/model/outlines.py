"""Bring a base guess inside the outlines of all photos: from aside, heads would be too fat.

Where the fit is a few millimetres wrong, each photo puts its rim somewhere else, and together they
cover more than the head. But a pixel's place is free along its ray, and the other photos say where
on it the head can be at all (the visual hull):

    place, moved to another photo's expression, projected ─► outside its outline?
        ├─ a little nearer or farther on the ray it is inside: it goes there
        └─ nowhere near: it fades with its distance from the outline

Jaw and neck are left alone: there, pictures end at a cut and at collars. Hair that hangs is
elsewhere on a tilted head: one outline alone does not take it away.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros.geometry import project_points, transform_points
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.evidence import rays_to_cameras
from avat3r_ros.model.pixel_maps import smoothed
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.model.template_fill import HAIR_M
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.framing import hangs, height_over_chin_plane
from avat3r_ros.types import Camera, ReferenceViews

OFFSETS_M = tuple(0.003 * k for k in (1, -1, 2, -2, 3, -3))
"""Places on the ray that are tried, towards the camera, the nearest first. Farther ones brought
drawn people 0.01 dB more and tore the crowns of real ones."""

FADE = 0.016
"""What stays this far outside an outline, as a share of the picture's side, is gone."""

SMOOTH = 0.02
"""Shifts are smoothed over this share of the picture's side, or surfaces would break."""

JAW_M = 0.03
"""Below this height over the chin outlines are not trusted: collars, shadows, the neck's cut."""


@torch.no_grad()
def within_outlines(
    base: BaseGuess, motion: RigMotion, views: ReferenceViews, template: HeadTemplate
) -> BaseGuess:
    """Return a base guess whose pixels and template surfaces respect the outlines of all photos.

    Args:
        base: On the CPU.
        motion: Its rig: each photo shows another expression.
        views: References.
        template: Says where the neck is.
    """
    size = views.images.shape[-1]
    count, rows = base.num_pixels, base.code_rows[: base.num_pixels]
    inside = [_distance_inside(mask[0]) for mask in views.masks]
    if views.told is not None:  # where it is not told, heads may go on
        for distance, told in zip(inside, views.told[:, 0], strict=True):
            distance[~told] = distance[~told].clamp(min=0)
    places = [motion.means(base.codes[view]) for view in range(len(inside))]
    hanging = _hanging_hair(base, views, template)

    def depth_of(
        chosen: Int[Tensor, "k"], shift: Float[Tensor, "#k 3"] | float
    ) -> Float[Tensor, "k"]:
        """How far inside the outlines Gaussians are, pixels; their own photo is not asked."""
        found = torch.stack(
            [
                _looked_up(inside[view], views.cameras[view], there[chosen] + shift)
                for view, there in enumerate(places)
            ]
        )
        pixels = chosen < count
        found[rows[chosen[pixels]], pixels.nonzero()[:, 0]] = torch.inf
        found = found.sort(0).values
        return torch.where(hanging[chosen], found[(len(inside) - 1) // 2], found[0])

    depth = depth_of(torch.arange(len(base)), 0.0)
    beyond = (depth < 0).nonzero()[:, 0]
    depth[beyond[~_judged(motion, views, template, beyond)]] = 0.0

    outside = (depth[:count] < 0).nonzero()[:, 0]
    rays = rays_to_cameras(base, views.cameras)
    best, shift = depth[outside], torch.zeros(len(outside))
    for offset in OFFSETS_M:
        found = depth_of(outside, offset * rays[outside])
        better = (found > best) & (best < 0)
        best, shift = torch.where(better, found, best), torch.where(better, offset, shift)
    depth[outside] = best

    shifts = torch.zeros(count)
    shifts[outside] = shift
    shifts = smoothed(shifts[:, None], base, len(inside), SMOOTH)
    means = base.gaussians.means
    means = torch.cat([means[:count] + shifts * rays, means[count:]])
    share = (1 + depth / (FADE * size)).clamp(0, 1)
    gaussians = replace(base.gaussians, means=means, opacities=base.gaussians.opacities * share)
    return replace(base, gaussians=gaussians)


def _hanging_hair(
    base: BaseGuess, views: ReferenceViews, template: HeadTemplate
) -> Bool[Tensor, "n"]:
    """Which Gaussians are pixels of hair that hangs: beside the template, or over hair on it."""
    ids = views.binding.triangle_ids.flatten()[base.pixel_indices]
    hair = ids < 0
    if views.hair_thickness_m is not None:
        hairy = (views.hair_thickness_m > HAIR_M)[template.triangles].any(-1)
        hair |= hairy[ids.clamp(min=0)]
    hanging = torch.zeros(len(base), dtype=torch.bool)
    low = torch.from_numpy(hangs(base.gaussians.means[: base.num_pixels].numpy()))
    hanging[: base.num_pixels] = hair & low
    return hanging


def _judged(
    motion: RigMotion, views: ReferenceViews, template: HeadTemplate, chosen: Int[Tensor, "k"]
) -> Bool[Tensor, "k"]:
    """Whether Gaussians are well above the jaw, and not nearest to the template's neck."""
    resting = motion.means(torch.zeros_like(views.codes[0]))[chosen]
    vertices = template.vertices(views.identity.float())
    _, nearest = cKDTree(vertices).query(resting)
    on_neck = np.isin(nearest, template.region_vertices("neck"))
    chin = template.landmarks(vertices)[CHIN_LANDMARK].numpy()
    height = height_over_chin_plane(resting.numpy(), chin)
    return torch.from_numpy(~on_neck & (height > JAW_M))


def _distance_inside(mask: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Distance inside the outline, pixels; negative outside."""
    inside = (mask > SEEN_MASK).to(torch.uint8).cpu().numpy()
    into = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    out = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return torch.from_numpy(into - out)


def _looked_up(
    inside: Float[Tensor, "h w"], camera: Camera, points: Float[Tensor, "p 3"]
) -> Float[Tensor, "p"]:
    """Distance inside a view's outline where points project; infinite beyond the picture."""
    seen = transform_points(camera.camera_from_head.float(), points)
    pixels = project_points(camera.intrinsics.float(), seen)
    grid = pixels / pixels.new_tensor([camera.width, camera.height]) * 2 - 1
    values = torch.nn.functional.grid_sample(
        inside[None, None], grid[None, None], padding_mode="border", align_corners=False
    )[0, 0, 0]
    shown = (grid.abs() < 1).all(-1) & (seen[:, 2] > 0)
    return torch.where(shown, values, torch.inf)
