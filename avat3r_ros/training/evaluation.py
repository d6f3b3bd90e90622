"""Scores on people the network has never seen, beside what they have to beat.

network         the trained network
base guess      the same references without the network: the rig moves the photos' pixels
frozen neutral  the network's resting face, whatever the driver does
cloud           the coloured position maps, motionless (the paper's starting point)
"""

import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.network import Avat3r
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.metrics import mean_distance_mm, moving_points, psnr, ssim
from avat3r_ros.training.people import TrainingPerson, make_person
from avat3r_ros.training.references import Prior
from avat3r_ros.types import Gaussians

METHODS = ("network", "base guess", "frozen neutral", "cloud")


def evaluate_network(
    network: Avat3r,
    seeds: Iterable[int],
    *,
    prior: Prior = "fitted",
    template: HeadTemplate | None = None,
) -> dict[str, Any]:
    """Score a network.

    Args:
        network: In evaluation mode.
        seeds: People; members of `HELD_OUT_SEEDS`.
        prior: How their references are made.
        template: Head template; the shipped one if None.

    Returns:
        For each of `METHODS` the means over people: `psnr` (dB) and `ssim` inside the mask, and
        `moving_mm` and `all_mm` (mean distance of reference points from their true place in the
        target expressions; of those that truly move, and of all). And the seeds.
    """
    template = template or HeadTemplate.load()
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    seeds = list(seeds)
    for seed in tqdm(seeds, desc="evaluate", unit=" people"):
        one = make_person(seed, network.config, prior, template)
        for method, scores in score_person(network, one, template).items():
            rows[method].append(scores)
    means = {
        method: {name: statistics.fmean(row[name] for row in scores) for name in scores[0]}
        for method, scores in rows.items()
    }
    return {"people": seeds, "prior": prior, **means}


@torch.no_grad()
def score_person(
    network: Avat3r, one: TrainingPerson, template: HeadTemplate
) -> dict[str, dict[str, float]]:
    """Scores of all methods on one person's targets."""
    views, targets = one.person.views, one.person.targets
    prefix = network.encode(views, base=one.base)
    cloud_config = replace(network.config, motion_prior="none")
    cloud = build_base_guess(views, cloud_config, template).gaussians
    neutral = network.decode(prefix, torch.zeros(network.config.code_length))
    sums: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    pixels = one.base.pixel_indices[one.points]
    before = one.person.photographed_positions(pixels)
    for code in torch.unique(targets.codes, dim=0):
        shown = (targets.codes == code).all(-1).nonzero()[:, 0]
        truth = one.person.true_positions(pixels, code[None])[0]
        moving = moving_points(truth, before)
        moved = {
            "network": network.decode(prefix, code),
            "base guess": prefix.base_gaussians(code),
            "frozen neutral": neutral,
            "cloud": cloud,
        }
        # The cloud has the same pixels in image order.
        rows = {method: one.points for method in METHODS} | {
            "cloud": torch.searchsorted(torch.sort(one.base.pixel_indices).values, pixels)
        }
        for method, gaussians in moved.items():
            means = gaussians.means[rows[method]]
            scores = _picture_scores(gaussians, one, shown)
            scores["all_mm"] = float(mean_distance_mm(means, truth))
            if bool(moving.any()):
                scores["moving_mm"] = float(mean_distance_mm(means, truth, moving))
            sums[method].append(scores)
    return {
        method: {
            name: statistics.fmean(row[name] for row in scores if name in row)
            for name in ("psnr", "ssim", "moving_mm", "all_mm")
        }
        for method, scores in sums.items()
    }


def _picture_scores(
    gaussians: Gaussians, one: TrainingPerson, shown: torch.Tensor
) -> dict[str, float]:
    targets = one.person.targets
    rgb = render_gaussians(gaussians, targets.cameras[shown]).rgb.clamp(0, 1)
    images, masks = targets.images[shown], targets.masks[shown]
    return {
        "psnr": float(psnr(rgb, images, masks).mean()),
        "ssim": float(ssim(rgb, images, masks).mean()),
    }
