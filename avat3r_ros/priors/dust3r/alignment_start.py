"""Where the global alignment begins: with cameras that are known, or from the pairs alone.

Letters: V images, E pairs, S = 2E sides of pairs, P pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.priors.dust3r.pairs import PairPoints

MEAN_PAIR_SCALE = 0.5
"""Geometric mean of the pairs' scales where no camera says how large the world is; as published."""

FOCAL_ITERATIONS = 10

MIN_BASELINE = 0.02
"""Known cameras nearer to each other than this share of the distance to what they see cannot tell
how large it is."""


@dataclass(frozen=True)
class Observations:
    """The pairs on a set of pixels; the first E sides are first images, the others second ones.

    Attributes:
        image: Image each side shows.
        pair: Pair it belongs to.
        points: In the pair's frame.
        weights: log(confidence), 0 outside the mask.
        offsets_px: Pixel centres relative to each image's principal point.
    """

    image: Int[Tensor, "s"]
    pair: Int[Tensor, "s"]
    points: Float[Tensor, "s p 3"]
    weights: Float[Tensor, "s p"]
    offsets_px: Float[Tensor, "v p 2"]


@dataclass(frozen=True)
class Start:
    """First values of everything that the alignment finds.

    Attributes:
        depth: Of each image's pixels, > 0.
        focal_px: Of each image.
        world_from_camera: Poses.
        pair_scales: World units per pair unit.
        pair_rotations: World from pair.
        pair_translations: World units.
    """

    depth: Float[Tensor, "v p"]
    focal_px: Float[Tensor, "v"]
    world_from_camera: Float[Tensor, "v 4 4"]
    pair_scales: Float[Tensor, "e"]
    pair_rotations: Float[Tensor, "e 3 3"]
    pair_translations: Float[Tensor, "e 3"]


def start_from_cameras(
    seen: Observations, focal_px: Float[Tensor, "v"], world_from_camera: Float[Tensor, "v 4 4"]
) -> Start:
    """Begin with known cameras.

    A pair's frame is its first image's camera, so only its scale is open: its points of the second
    image must lie on that image's rays, which is linear in the scale. Cameras too near each other
    cannot tell it; it then comes from another pair with the same first image.

    Raises:
        ValueError: An image has no pair that can tell its scale.
    """
    num_pairs = len(seen.image) // 2
    first, second = seen.image[:num_pairs], seen.image[num_pairs:]
    focal_px, pose = focal_px.to(seen.points), world_from_camera.to(seen.points)
    rotations, centers = pose[:, :3, :3], pose[:, :3, 3]
    ahead = torch.cat(
        [seen.offsets_px / focal_px[:, None, None], torch.ones_like(seen.offsets_px[..., :1])], -1
    )
    rays = torch.nn.functional.normalize(ahead @ rotations.transpose(1, 2), dim=-1)[second]
    turned = seen.points[num_pairs:] @ rotations[first].transpose(1, 2)
    baseline = centers[second] - centers[first]
    a = torch.linalg.cross(rays, turned)
    b = torch.linalg.cross(rays, baseline[:, None].expand_as(rays))
    weights = seen.weights[num_pairs:, :, None]
    scales = (weights * a * b).sum((1, 2)) / (weights * a * a).sum((1, 2)).clamp(min=1e-12)
    distance = scales * _weighted_mean(turned.norm(dim=-1), seen.weights[num_pairs:])
    short = (scales <= 0) | (baseline.norm(dim=-1) < MIN_BASELINE * distance)
    own_depth = _weighted_mean(seen.points[:num_pairs, :, 2], seen.weights[:num_pairs])
    for pair in short.nonzero()[:, 0].tolist():
        others = ((first == first[pair]) & ~short).nonzero()[:, 0]
        if not len(others):
            raise ValueError(
                f"image {int(first[pair]) + 1} shows the head from nearly the same direction as "
                "all others, or what the network saw contradicts the known cameras: DUSt3R cannot "
                "tell how far away it is; use views that differ more, or estimate the cameras "
                "(--dust3r-cameras estimated)"
            )
        scales[pair] = (scales[others] * own_depth[others]).median() / own_depth[pair]
    depth = _depth_of_best_pair(seen, scales)
    return Start(depth, focal_px, pose, scales, rotations[first], centers[first])


def start_from_pairs(seen: Observations, pairs: PairPoints) -> Start:
    """Begin without cameras: images are joined one by one, each by its most confident pair.

    The world is the frame of the best pair, in units that make the pairs' mean scale
    `MEAN_PAIR_SCALE`. A pair scores the product of the mean confidences of its two images.
    """
    num_pairs = len(seen.image) // 2
    first, second = seen.image[:num_pairs], seen.image[num_pairs:]
    scores = pairs.confidence_first.mean((1, 2)) * pairs.confidence_second.mean((1, 2))
    order = scores.argsort(descending=True).tolist()
    best = order[0]
    placed = {
        int(first[best]): seen.points[best],
        int(second[best]): seen.points[num_pairs + best],
    }
    num_images = len(seen.offsets_px)
    while len(placed) < num_images:
        # The best pair of one image that has its place and one that has not.
        pair = next(e for e in order if (int(first[e]) in placed) != (int(second[e]) in placed))
        known, new = pair, num_pairs + pair
        if int(first[pair]) not in placed:
            known, new = new, known
        scale, rotation, translation = weighted_similarity(
            placed[int(seen.image[known])], seen.points[known], seen.weights[known]
        )
        placed[int(seen.image[new])] = scale * seen.points[new] @ rotation.T + translation
    world = torch.stack([placed[i] for i in range(num_images)])

    both = torch.cat([seen.points[:num_pairs], seen.points[num_pairs:]], 1)
    weights = torch.cat([seen.weights[:num_pairs], seen.weights[num_pairs:]], 1)
    scales, rotations, translations = weighted_similarity(
        torch.cat([world[first], world[second]], 1), both, weights
    )
    unit = MEAN_PAIR_SCALE / scales.log().mean().exp()
    world, scales, translations = unit * world, unit * scales, unit * translations
    chosen = torch.tensor([next(e for e in order if int(first[e]) == i) for i in range(num_images)])
    chosen = chosen.to(first)
    # An image's own points in its own camera's frame give that camera.
    _, turn, center = weighted_similarity(world, seen.points[chosen], seen.weights[chosen])
    pose = torch.eye(4).to(world).repeat(num_images, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = turn, center
    focal_px = _focal(seen.points[chosen], seen.offsets_px, seen.weights[chosen])
    return Start(_depth_of_best_pair(seen, scales), focal_px, pose, scales, rotations, translations)


def weighted_similarity(
    a: Float[Tensor, "*b n 3"], b: Float[Tensor, "*b n 3"], weights: Float[Tensor, "*b n"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """Scale, rotation and translation with a ~ scale * rotation @ b + translation, batched.

    Weighted least squares (Umeyama 1991, as `geometry.fit_similarity`).
    """
    share = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    mean_a, mean_b = ((share[..., None] * x).sum(-2, keepdim=True) for x in (a, b))
    centered_a, centered_b = a - mean_a, b - mean_b
    covariance = (share[..., None] * centered_a).transpose(-1, -2) @ centered_b
    u, singular, vt = torch.linalg.svd(covariance)
    signs = torch.ones_like(singular)
    signs[..., 2] = torch.linalg.det(u @ vt).sign()
    rotation = (u * signs[..., None, :]) @ vt
    spread = (share[..., None] * centered_b**2).sum((-1, -2)).clamp(min=1e-12)
    scale = (singular * signs).sum(-1) / spread
    turned = scale[..., None] * (rotation @ mean_b[..., 0, :, None])[..., 0]
    return scale, rotation, mean_a[..., 0, :] - turned


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (weights * values).sum(-1) / weights.sum(-1).clamp(min=1e-12)


def _depth_of_best_pair(seen: Observations, scales: Tensor) -> Float[Tensor, "v p"]:
    """Depth of each image in the pair that trusts its first image most."""
    num_pairs = len(scales)
    trust = seen.weights[:num_pairs].mean(1)
    depths = []
    for image in range(len(seen.offsets_px)):
        own = (seen.image[:num_pairs] == image).nonzero()[:, 0]
        pair = own[trust[own].argmax()]
        depth = seen.points[pair, :, 2] * scales[pair]
        depths.append(depth.clamp(min=1e-2 * float(depth.abs().median())))
    return torch.stack(depths)


def _focal(
    points: Float[Tensor, "v p 3"], offsets_px: Float[Tensor, "v p 2"], weights: Tensor
) -> Float[Tensor, "v"]:
    """Focal length that projects an image's own points to its own pixels.

    The weighted sum of distances in the image, by reweighted least squares (Weiszfeld).
    """
    slopes = points[..., :2] / points[..., 2:].clamp(min=1e-6)
    slopes = torch.where((points[..., 2] > 1e-6)[..., None], slopes, 0)
    used = weights
    for _ in range(FOCAL_ITERATIONS):
        along = (used * (slopes * offsets_px).sum(-1)).sum(-1)
        focal = along / (used * slopes.square().sum(-1)).sum(-1).clamp(min=1e-12)
        distance = (offsets_px - focal[:, None, None] * slopes).norm(dim=-1)
        used = weights / distance.clamp(min=1e-6)
    return focal.clamp(min=1.0)
