"""Bring a base guess inside the outlines of all photos: from aside, heads would be too fat.

Where the fit is a few millimetres wrong, each photo puts its rim somewhere else, and together they
cover more than the head. But a pixel's place is free along its ray, and the other photos say where
on it the head can be at all (the visual hull):

    place, moved to another photo's expression, projected ─► outside its outline?
        ├─ a little nearer or farther on the ray it is inside: it goes there
        └─ nowhere near: it fades with its distance from the outline

Jaw and neck are left alone: there, pictures end at a cut and at collars.
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
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.framing import height_over_chin_plane
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
    places = [motion.means(base.codes[view]) for view in range(len(inside))]
    none = torch.zeros(len(base), dtype=torch.bool)
    depth = torch.full((len(base),), torch.inf)
    for view, there in enumerate(places):
        own = torch.cat([rows == view, none[count:]])
        found = _looked_up(inside[view], views.cameras[view], there)
        depth = torch.where(own, depth, torch.minimum(depth, found))
    beyond = (depth < 0).nonzero()[:, 0]
    depth[beyond[~_judged(motion, views, template, beyond)]] = 0.0

    outside = (depth[:count] < 0).nonzero()[:, 0]
    rays = rays_to_cameras(base, views.cameras)
    best, shift = depth[outside], torch.zeros(len(outside))
    for offset in OFFSETS_M:
        found = torch.full_like(best, torch.inf)
        for view, there in enumerate(places):
            tried = there[outside] + offset * rays[outside]
            at = _looked_up(inside[view], views.cameras[view], tried)
            found = torch.where(rows[outside] == view, found, torch.minimum(found, at))
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
