"""Global alignment: the points of all pairs brought into one world.

Each pair has its own frame and scale. Wanted are a depth map and a camera per image and a
similarity per pair, such that every pair's points, moved by its similarity, lie on the points of
its images: the sum of log(confidence) * distance over pairs and pixels is smallest (Wang et al.,
"DUSt3R", arXiv 2312.14132, section 3.4).

    pairs ─► start ─► Adam on a grid of pixels ─► cameras, similarities ─► depth of every pixel

The last step is exact: with cameras and similarities given, each pixel's depth is a problem of one
unknown. Letters: V images, E pairs, S = 2E sides of pairs, P pixels (row by row).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avat3r_ros.geometry import matrices_from_quats_wxyz, pixel_centers, quats_wxyz_from_matrices
from avat3r_ros.priors.dust3r.alignment_start import (
    MEAN_PAIR_SCALE,
    Observations,
    Start,
    start_from_cameras,
    start_from_pairs,
)
from avat3r_ros.priors.dust3r.pairs import PairPoints

FOCAL_RATE = 0.05
"""Logarithms of focal lengths learn this much slower than those of depths; as published."""

DEPTH_ITERATIONS = 10
"""Reweightings of each pixel's depth; the last one changes it by less than 1e-4 of its value."""


@dataclass(frozen=True)
class AlignmentConfig:
    """How long and how densely to optimise.

    Attributes:
        iterations: Adam steps (as published).
        learning_rate: At the start (as published); falls along a cosine.
        final_learning_rate: At the end (as published).
        max_grid: Cameras and similarities are found on at most this many pixels along a side. More
            is slower and hardly better: a pair's similarity has 7 unknowns. Ours.
    """

    iterations: int = 300
    learning_rate: float = 0.01
    final_learning_rate: float = 1e-6
    max_grid: int = 48


@dataclass(frozen=True)
class KnownCameras:
    """Cameras the alignment must keep.

    Attributes:
        focal_px: Focal length of each image, the same along x and y.
        world_from_camera: Poses, OpenCV axes.
    """

    focal_px: Float[Tensor, "v"]
    world_from_camera: Float[Tensor, "v 4 4"]

    def to(self, device: torch.device | str) -> "KnownCameras":
        """Return the cameras on another device."""
        return KnownCameras(self.focal_px.to(device), self.world_from_camera.to(device))


@dataclass(frozen=True)
class Scene:
    """Images in one world.

    Attributes:
        depth: Along the optical axis, of each pixel.
        confidence: The best any pair has for the pixel, at least 1.
        focal_px: Of each image.
        principal_points: Of each image, pixels, centres at +0.5.
        world_from_camera: Poses, OpenCV axes.
    """

    depth: Float[Tensor, "v h w"]
    confidence: Float[Tensor, "v h w"]
    focal_px: Float[Tensor, "v"]
    principal_points: Float[Tensor, "v 2"]
    world_from_camera: Float[Tensor, "v 4 4"]

    def to(self, device: torch.device | str) -> "Scene":
        """Return the scene on another device."""
        return Scene(**{name: value.to(device) for name, value in vars(self).items()})

    def points(self) -> Float[Tensor, "v h w 3"]:
        """World point of each pixel."""
        height, width = self.depth.shape[1:]
        offsets = pixel_centers(width, height).to(self.depth) - self.principal_points[:, None, None]
        xy = offsets / self.focal_px[:, None, None, None]
        rays = torch.cat([xy, torch.ones_like(xy[..., :1])], -1) * self.depth[..., None]
        pose = self.world_from_camera[:, None]
        return rays @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]


def align_pairs(
    pairs: PairPoints,
    principal_points: Float[Tensor, "v 2"],
    cameras: KnownCameras | None = None,
    *,
    masks: Float[Tensor, "v h w"] | None = None,
    config: AlignmentConfig | None = None,
) -> Scene:
    """Bring the points of all pairs into one world.

    Args:
        pairs: What the network said; every image must be first in some pair.
        principal_points: Of each image, pixels, centres at +0.5.
        cameras: Poses and focal lengths, if known: the world is then theirs. If None they are
            found; the world's frame and scale are then arbitrary.
        masks: In [0, 1]; pixels that count. All if None.
        config: The optimisation; as published if None.

    Raises:
        ValueError: An image is first in no pair, or the known cameras cannot tell the scale.
    """
    config = config or AlignmentConfig()
    num_images = len(principal_points)
    if set(pairs.pairs[:, 0].tolist()) != set(range(num_images)):
        raise ValueError(
            f"expected each of {num_images} images first in some pair, got pairs "
            f"{pairs.pairs.tolist()}"
        )
    height, width = pairs.confidence_first.shape[1:]
    step = math.ceil(max(height, width) / config.max_grid)
    grid = _observations(pairs, principal_points, masks, step)
    if cameras is not None:
        start = start_from_cameras(grid, cameras.focal_px, cameras.world_from_camera)
    else:
        start = start_from_pairs(grid, pairs)
    world = _World(start, cameras_known=cameras is not None)
    _optimise(world, grid, config)
    with torch.no_grad():
        every_pixel = _observations(pairs, principal_points, masks, 1)
        depth = world.best_depth(every_pixel)
        confidence = torch.cat([pairs.confidence_first, pairs.confidence_second])
        return Scene(
            depth.view(-1, height, width),
            torch.stack([confidence[every_pixel.image == i].amax(0) for i in range(num_images)]),
            world.log_focal.exp(),
            principal_points.to(depth),
            world.world_from_camera(),
        )


def _observations(
    pairs: PairPoints, principal_points: Tensor, masks: Tensor | None, step: int
) -> Observations:
    """Both sides of all pairs on the middle pixel of each step x step cell."""
    height, width = pairs.confidence_first.shape[1:]
    rows, columns = (slice(min(step // 2, n - 1), None, step) for n in (height, width))
    image = torch.cat([pairs.pairs[:, 0], pairs.pairs[:, 1]])
    points = torch.cat([pairs.points_first, pairs.points_second])[:, rows, columns]
    weights = torch.cat([pairs.confidence_first, pairs.confidence_second])[:, rows, columns].log()
    if masks is not None:
        weights = weights * masks[:, rows, columns].to(weights)[image]
    pixels = pixel_centers(width, height)[rows, columns].reshape(1, -1, 2).to(points)
    return Observations(
        image=image,
        pair=torch.arange(len(pairs.pairs), device=image.device).repeat(2),
        points=points.flatten(1, 2),
        weights=weights.flatten(1),
        offsets_px=pixels - principal_points.to(points)[:, None],
    )


class _World(nn.Module):
    """All unknowns, in the units Adam moves them in."""

    def __init__(self, start: Start, cameras_known: bool) -> None:
        super().__init__()
        self.cameras_known = cameras_known

        def unknown(value: Tensor, free: bool = True) -> nn.Parameter:
            return nn.Parameter(value.detach().clone(), requires_grad=free)

        pose, free = start.world_from_camera, not cameras_known
        self.log_depth = unknown(start.depth.log())
        self.log_focal = unknown(start.focal_px.log(), free)
        self.camera_quats = unknown(quats_wxyz_from_matrices(pose[:, :3, :3]), free)
        self.camera_centers = unknown(_signed_log(pose[:, :3, 3]), free)
        self.pair_quats = unknown(quats_wxyz_from_matrices(start.pair_rotations))
        self.pair_translations = unknown(_signed_log(start.pair_translations))
        self.pair_log_scales = unknown(start.pair_scales.log())

    def world_from_camera(self) -> Float[Tensor, "v 4 4"]:
        pose = torch.eye(4).to(self.log_focal).repeat(len(self.log_focal), 1, 1)
        pose[:, :3, :3] = matrices_from_quats_wxyz(self.camera_quats)
        pose[:, :3, 3] = _signed_exp(self.camera_centers)
        return pose

    def rays(self, seen: Observations) -> Float[Tensor, "v p 3"]:
        """World direction of each pixel, of the length that goes with a depth of 1."""
        xy = seen.offsets_px / self.log_focal.exp()[:, None, None]
        camera = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
        return camera @ matrices_from_quats_wxyz(self.camera_quats).transpose(1, 2)

    def pair_points(self, seen: Observations) -> Float[Tensor, "s p 3"]:
        """Where each side of each pair puts its pixels in the world."""
        log_scales = self.pair_log_scales
        if not self.cameras_known:
            # The world would shrink to a point, which costs nothing, if its size were free.
            log_scales = log_scales - log_scales.mean() + math.log(MEAN_PAIR_SCALE)
        turn = matrices_from_quats_wxyz(self.pair_quats) * log_scales.exp()[:, None, None]
        shift = _signed_exp(self.pair_translations)
        return seen.points @ turn[seen.pair].transpose(1, 2) + shift[seen.pair, None]

    def cost(self, seen: Observations) -> Float[Tensor, ""]:
        """Mean weighted distance of either side, added."""
        points = self.rays(seen) * self.log_depth.exp()[..., None]
        points = points + _signed_exp(self.camera_centers)[:, None]
        distance = (points[seen.image] - self.pair_points(seen)).norm(dim=-1)
        return 2 * (seen.weights * distance).mean()

    def best_depth(self, seen: Observations) -> Float[Tensor, "v p"]:
        """Depth at which each pixel's point is nearest to what all pairs say of it.

        The weighted sum of distances by reweighted least squares; along a ray, each step is one
        division. A pixel nobody has confidence in gets the mean of what was said.
        """
        rays = self.rays(seen)
        offsets = self.pair_points(seen) - _signed_exp(self.camera_centers)[seen.image, None]
        along = (offsets * rays[seen.image]).sum(-1)
        square = rays.square().sum(-1)

        def per_image(values: Tensor) -> Tensor:
            return torch.zeros_like(square).index_add_(0, seen.image, values)

        weights = seen.weights + 1e-6
        used = weights
        for _ in range(DEPTH_ITERATIONS):
            depth = per_image(used * along) / (per_image(used) * square)
            distance = (offsets - rays[seen.image] * depth[seen.image][..., None]).norm(dim=-1)
            used = weights / distance.clamp(min=1e-6 * float(depth.abs().median()))
        return depth


def _optimise(world: _World, seen: Observations, config: AlignmentConfig) -> None:
    rates = {
        name: config.learning_rate * (FOCAL_RATE if name == "log_focal" else 1)
        for name, value in world.named_parameters()
        if value.requires_grad
    }
    parameters = dict(world.named_parameters())
    optimizer = torch.optim.Adam([{"params": [parameters[n]]} for n in rates], betas=(0.9, 0.9))
    with torch.enable_grad():
        for step in range(config.iterations):
            cosine = 0.5 * (1 + math.cos(math.pi * step / config.iterations))
            for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
                last = config.final_learning_rate
                group["lr"] = last + (rate - last) * cosine
            optimizer.zero_grad()
            world.cost(seen).backward()
            optimizer.step()


def _signed_log(x: Tensor) -> Tensor:
    """Fine steps near 0, coarse ones far out."""
    return x.sign() * x.abs().log1p()


def _signed_exp(x: Tensor) -> Tensor:
    """Inverse of `_signed_log`."""
    return x.sign() * x.abs().expm1()
