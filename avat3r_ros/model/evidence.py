"""What the other photos say of each pixel: does it lie where the position map puts it?

A position map errs by centimetres in hair and at outlines. The pixel's true place is somewhere on
its ray, and the other photos, each in its own expression, tell which places cannot be:

    place on the ray, some millimetres nearer or farther, ──┬─ outside its outline: not there
       moved to another photo's expression, projected ──────┼─ other colours there than the pixel's
                                                            └─ behind what it shows: not seen

The numbers generalise from few people, as they compare and do not recognise. They are made once per
person, and each comes three times: of the pixel, and as means of its surroundings (small, large).

Letters: P kept pixels, T cells, V views, N numbers, C = 3 N of them with the surroundings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.geometry import invert_poses, matrices_from_quats_wxyz, transform_points
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.pixel_decoder import PixelPlaces, between_tokens, pixel_places
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.model.upsampler import coarser_pixels
from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews

OFFSETS_M = (-0.03, -0.015, -0.006, 0.0, 0.006, 0.015, 0.03, 0.045)
"""Places on the ray that are asked about, relative to the position map's, towards the camera. Hair
mostly lies before the surface that the template puts there."""

SURROUNDINGS = (64, 16)
"""Cells along a side of the view whose means are told, too."""

REACH = 0.04
"""Distances to an outline are told up to this share of the picture's side, inwards and outwards."""

OCCLUDED_M = 0.01
"""A place this far behind what another photo shows is hidden there."""

_UNKNOWN_DIFFERENCE = 0.3
"""Colour difference where no other photo sees the place: as of two unrelated pixels."""

_ZONES = (("scalp",), ("ears",), ("neck",), ("lips",), ("brows",), ("skin",))
_PLACE_SCALE, _DEPTH_UNIT_M = 10.0, 0.02

_SWEPT, _LOCAL = 4, 27
NUMBERS = _SWEPT * len(OFFSETS_M) + _LOCAL + len(_ZONES)
"""Numbers about a pixel itself."""

EVIDENCE_INPUTS = NUMBERS * (1 + len(SURROUNDINGS))
"""C"""


@dataclass(frozen=True)
class Evidence:
    """What the references say of the kept pixels.

    Attributes:
        numbers: Of each pixel and, as means, of its surroundings; of order one.
        cells: Means over the largest surroundings themselves.
        places: Where the pixels lie between the cells.
    """

    numbers: Float[Tensor, "p c"]
    cells: Float[Tensor, "t n"]
    places: PixelPlaces

    def subset(self, rows: Int[Tensor, "k"]) -> "Evidence":
        """Keep some pixels; cells still speak for all."""
        places = PixelPlaces(self.places.tokens[rows], self.places.weights[rows])
        return Evidence(self.numbers[rows], self.cells, places)

    def to(self, kind: torch.dtype | torch.device) -> "Evidence":
        """Return the same in another precision or on another device."""
        places = self.places
        if not isinstance(kind, torch.dtype):
            places = PixelPlaces(places.tokens.to(kind), places.weights.to(kind))
        return Evidence(self.numbers.to(kind), self.cells.to(kind), places)


@torch.no_grad()
def cross_view_evidence(
    views: ReferenceViews,
    base: BaseGuess,
    motion: RigMotion | None,
    template: HeadTemplate | None,
) -> Evidence:
    """Compare every kept pixel with the other references.

    Args:
        views: References.
        base: Their base guess, on the same device.
        motion: Its rig; without one, places are compared as if the face had not moved.
        template: Head template of the bindings; without one, nothing is said of what a pixel shows.

    Returns:
        `EVIDENCE_INPUTS` numbers per kept pixel, `NUMBERS` per cell. A fraction of a second on one
        core.
    """
    device, count = base.gaussians.means.device, base.num_pixels
    maps = _maps(views).to(device)
    own = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])[base.pixel_indices]
    rays = rays_to_cameras(base, views.cameras)
    normals = matrices_from_quats_wxyz(base.gaussians.quats_wxyz[:count])[..., 2]
    outline = torch.ones(len(OFFSETS_M), count, device=device)
    weighted, weights = torch.zeros_like(outline), torch.zeros_like(outline)
    nearest = torch.full_like(outline, _UNKNOWN_DIFFERENCE)
    none = torch.zeros(count, device=device)
    depths, seen, best_facing = none, none, none
    low, high, signed = torch.ones_like(none), -torch.ones_like(none), none[:, None].repeat(1, 3)
    for u in range(len(views.images)):
        there = base.gaussians.means if motion is None else motion.means(base.codes[u])
        to_other = torch.nn.functional.normalize(
            _centers(views.cameras, device)[u] - there[:count], dim=-1
        )
        for k, at in enumerate(_looked_up(views.cameras[u], maps[u], there[:count], rays)):
            inside = at.inside * (base.code_rows[:count] != u)
            outline[k] = torch.where(inside > 0, torch.minimum(outline[k], at.outline), outline[k])
            weight = inside * (at.outline > 0)
            weight = weight * torch.exp(-(at.behind / OCCLUDED_M).clamp(min=0))
            change = at.color - own[:, :3]
            difference = change.abs().mean(-1)
            weighted[k] += weight * difference
            weights[k] += weight
            closer = torch.minimum(nearest[k], difference)
            nearest[k] = torch.where(weight > 0.3, closer, nearest[k])
            if OFFSETS_M[k] == 0.0:
                signed += weight[:, None] * change
                depth = (at.behind / _DEPTH_UNIT_M).clamp(-1, 1) * inside
                depths, seen = depths + depth, seen + inside
                low = torch.where(inside > 0, torch.minimum(low, depth), low)
                high = torch.where(inside > 0, torch.maximum(high, depth), high)
                best_facing = torch.maximum(best_facing, weight * (to_other * normals).sum(-1))
    mean = (weighted + 0.05 * _UNKNOWN_DIFFERENCE) / (weights + 0.05)
    facing = (rays * normals).sum(-1)
    zones, placed = _zones(views, base.pixel_indices, template)
    numbers = torch.cat(
        [
            outline.T,
            4 * mean.T,
            4 * nearest.T,
            weights.T / 2,
            4 * signed / (weights[OFFSETS_M.index(0.0)][:, None] + 0.05),
            (depths / seen.clamp(min=1))[:, None],
            torch.stack([low, high, seen / 3, facing, best_facing, facing - best_facing], -1),
            own[:, 3:4],
            (8 * own[:, 3:4]).clamp(-1, 1),
            views.confidence.to(device).flatten()[base.pixel_indices][:, None],
            4 * own[:, 5:9],
            rays,
            placed,
            own[:, :3] * 2 - 1,
            zones,
        ],
        -1,
    )
    return _with_surroundings(numbers, base)


@dataclass(frozen=True)
class _LookedUp:
    """What a view shows where P places project: see `_maps`.

    Attributes:
        inside: 1 within the picture, 0 outside.
        outline: Distance inside the outline, -1 to 1.
        color: RGB.
        behind: How far the place lies behind what is shown there, metres; 0 where nothing is.
    """

    inside: Tensor
    outline: Tensor
    color: Tensor
    behind: Tensor


def _looked_up(camera: Camera, maps: Tensor, there: Tensor, rays: Tensor) -> Iterator[_LookedUp]:
    """Look up what one view shows of places `OFFSETS_M` along the pixels' rays, in turn."""
    _, h, w = maps.shape
    k = camera.intrinsics.float().to(there)
    pose = camera.camera_from_head.float().to(there)
    start, along = transform_points(pose, there), rays @ pose[:3, :3].T
    for offset in OFFSETS_M:
        points = start + offset * along
        z = points[:, 2].clamp(min=1e-3)
        x = (points[:, 0] * k[0, 0] / z + k[0, 2]) / w * 2 - 1
        y = (points[:, 1] * k[1, 1] / z + k[1, 2]) / h * 2 - 1
        grid = torch.stack([x, y], -1)[None, None]
        sampled = _sample(maps[None, :4], grid, "bilinear")
        shown_z = _sample(maps[None, 4:5], grid, "nearest")[:, 0]
        yield _LookedUp(
            inside=((x.abs() < 1) & (y.abs() < 1)).float(),
            outline=sampled[:, 3],
            color=sampled[:, :3],
            behind=torch.where(shown_z > 0, points[:, 2] - shown_z, 0.0),
        )


def _centers(cameras: Camera, device: torch.device) -> Float[Tensor, "v 3"]:
    """Places of the cameras, head frame."""
    return invert_poses(cameras.camera_from_head.float().to(device))[:, :3, 3]


def rays_to_cameras(base: BaseGuess, cameras: Camera) -> Float[Tensor, "p 3"]:
    """Unit vector from each kept pixel's place towards its own camera, head frame."""
    means = base.gaussians.means[: base.num_pixels]
    rows = base.code_rows[: base.num_pixels].long()
    return torch.nn.functional.normalize(_centers(cameras, means.device)[rows] - means, dim=-1)


def _maps(views: ReferenceViews) -> Float[Tensor, "v 9 h w"]:
    """Colour, distance inside the outline, depth, and how the colour differs from that around."""
    v, _, h, w = views.images.shape
    images = views.images.float()
    reach = REACH * w
    outlines = []
    for mask in views.masks[:, 0]:
        inside = (mask > SEEN_MASK).to(torch.uint8).cpu().numpy()
        into = torch.from_numpy(cv2.distanceTransform(inside, cv2.DIST_L2, 3))
        out = torch.from_numpy(cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3))
        outlines.append(((into - out) / reach).clamp(-1, 1))
    outline = torch.stack(outlines)[:, None].to(images)
    points = views.position_maps.float().flatten(2).transpose(1, 2)
    z = transform_points(views.cameras.camera_from_head.float(), points)[..., 2].view(v, 1, h, w)
    z = torch.where(views.masks > SEEN_MASK, z, 0.0)
    side = 2 * round(0.02 * w) + 1

    def around(values: Tensor) -> Tensor:
        planes = values.flatten(0, 1).cpu().numpy()
        border = cv2.BORDER_CONSTANT
        means = [cv2.boxFilter(p, -1, (side, side), borderType=border) for p in planes]
        return torch.from_numpy(np.stack(means)).view(values.shape).to(values)

    seen = views.masks > SEEN_MASK
    share = around(seen.float()).clamp(min=1e-3)
    mean = around(images * seen) / share
    brightness = images.mean(1, keepdim=True)
    spread = around((brightness - mean.mean(1, keepdim=True)).abs() * seen) / share
    return torch.cat([images, outline, z, images - mean, spread], 1)


def _sample(maps: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Values of one view's (1, C, H, W) maps at (1, 1, P, 2) places, (P, C)."""
    return torch.nn.functional.grid_sample(
        maps, grid, mode=mode, padding_mode="border", align_corners=False
    )[0, :, 0].T


def _zones(
    views: ReferenceViews, pixels: Tensor, template: HeadTemplate | None
) -> tuple[Tensor, Tensor]:
    """What part of the head a pixel shows, and where that is on the mean head (and whether)."""
    device = pixels.device
    zones = torch.zeros(len(pixels), len(_ZONES), device=device)
    placed = torch.zeros(len(pixels), 4, device=device)
    if template is None:
        return zones, placed
    triangles = views.binding.triangle_ids.to(device).flatten()[pixels].long()
    on = (triangles >= 0).nonzero()[:, 0]
    triangles = triangles[on]
    names = [tuple(REGIONS).index(name) for (name,) in _ZONES]
    region = template.triangle_regions.to(device).long()[triangles]
    zones[on] = (region[:, None] == torch.tensor(names, device=device)).float()
    places = template.neutral[template.triangles.long()].mean(1).to(device) * _PLACE_SCALE
    placed[on, :3] = places[triangles].float()
    placed[on, 3] = 1.0
    return zones, placed


def _with_surroundings(numbers: Tensor, base: BaseGuess) -> Evidence:
    """Append means over the kept pixels of the cells around, coarser and coarser."""
    size, parts = base.reference_size, [numbers]
    for side in SURROUNDINGS:
        side = min(side, size)
        needed, places = pixel_places(base.pixel_indices, size, side)
        cells = torch.searchsorted(needed, coarser_pixels(base.pixel_indices, size, side))
        total = numbers.new_zeros(len(needed), numbers.shape[1]).index_add(0, cells, numbers)
        counts = torch.bincount(cells, minlength=len(needed))[:, None]
        parts.append(between_tokens(total / counts, places, slice(None)))
    return Evidence(torch.cat(parts, -1), total / counts, places)
