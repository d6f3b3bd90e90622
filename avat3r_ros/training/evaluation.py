"""Scores on people the network has never seen, beside what they have to beat.

network         the trained network
base guess      the same references without the network: the rig moves the photos' pixels
frozen neutral  the network's resting face, whatever the driver does
cloud           the coloured position maps, motionless (the paper's starting point)

All are driven by the same codes: with `prior="tracked"` those that the tracker reads of a driver's
picture, as in use.
"""

import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from avat3r_ros.geometry import project_points, transform_points
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.network import Avat3r
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.pictures import uint8_image
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.metrics import mean_distance_mm, moving_points, psnr, ssim
from avat3r_ros.training.people import TrainingPerson, make_person
from avat3r_ros.training.references import Prior
from avat3r_ros.types import Camera, Gaussians

METHODS = ("network", "base guess", "frozen neutral", "cloud")

SCORES = ("psnr", "psnr_moved", "ssim", "akd_px", "moving_mm", "all_mm")
"""Decibels and similarity inside the mask; landmark distance in pixels; millimetres (below)."""


def evaluate_network(
    network: Avat3r,
    seeds: Iterable[int],
    *,
    prior: Prior = "tracked",
    template: HeadTemplate | None = None,
) -> dict[str, Any]:
    """Score a network.

    Args:
        network: In evaluation mode.
        seeds: People; members of `HELD_OUT_SEEDS`.
        prior: How their references are made.
        template: Head template; the shipped one if None.

    Returns:
        For each of `METHODS` the means over people: `psnr` (dB) and `ssim` inside the mask,
        `psnr_moved` (where points that truly move are seen),
        `akd_px` (mean distance of landmarks found in the rendering and in the true picture), and
        `moving_mm` and `all_mm` (mean distance of reference points from their true place in the
        target expressions; of those that truly move, and of all). And the seeds.
    """
    template = template or HeadTemplate.load()
    return score_people(
        network,
        (make_person(seed, network.config, prior, template) for seed in seeds),
        template,
    ) | {"prior": prior}


def score_people(
    network: Avat3r, people: Iterable[TrainingPerson], template: HeadTemplate
) -> dict[str, Any]:
    """Score a network on people who are made already; see `evaluate_network`."""
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    seeds = []
    with FaceTracker(smoothing=None, max_faces=1, running_mode="image") as tracker:
        for one in tqdm(people, desc="evaluate", unit=" people"):
            seeds.append(one.seed)
            for method, scores in score_person(network, one, template, tracker).items():
                rows[method].append(scores)
    return {"people": seeds} | {
        method: {
            name: round(statistics.fmean(row[name] for row in scores if name in row), 4)
            for name in SCORES
            if any(name in row for row in scores)
        }
        for method, scores in rows.items()
    }


@torch.no_grad()
def score_person(
    network: Avat3r,
    one: TrainingPerson,
    template: HeadTemplate,
    tracker: FaceTracker | None = None,
) -> dict[str, dict[str, float]]:
    """Scores of all methods on one person's targets; `akd_px` only with a tracker."""
    prefix = network.encode(one.views, base=one.base)
    resting = network.decode(prefix, torch.zeros(network.config.code_length))
    sums: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    cloud, cloud_points = _cloud(network, one, template)
    for row, code in enumerate(one.codes):
        shown = (one.shown == row).nonzero()[:, 0]
        truth = one.before + one.moved[row]
        moving = moving_points(truth, one.before)
        faces = None if tracker is None else _landmarks(one.targets.images[shown], tracker)
        for method, gaussians, points in (
            ("network", network.decode(prefix, code), one.points),
            ("base guess", prefix.base_gaussians(code), one.points),
            ("frozen neutral", resting, one.points),
            ("cloud", cloud, cloud_points),
        ):
            rgb = render_gaussians(gaussians, one.targets.cameras[shown]).rgb.clamp(0, 1)
            images, masks = one.targets.images[shown], one.targets.masks[shown]
            scores = {
                "psnr": float(psnr(rgb, images, masks).mean()),
                "ssim": float(ssim(rgb, images, masks).mean()),
                "all_mm": float(mean_distance_mm(gaussians.means[points], truth)),
            }
            if bool(moving.any()):
                region = _moved_region(truth[moving], one.targets.cameras[shown]) * masks
                scores["psnr_moved"] = float(psnr(rgb, images, region).nanmean())
                scores["moving_mm"] = float(
                    mean_distance_mm(gaussians.means[points], truth, moving)
                )
            if faces is not None:
                distance = _landmark_distance(faces, _landmarks(rgb, tracker))
                if np.isfinite(distance):
                    scores["akd_px"] = distance
            sums[method].append(scores)
    return {
        method: {
            name: statistics.fmean(score[name] for score in scores if name in score)
            for name in SCORES
            if any(name in score for score in scores)
        }
        for method, scores in sums.items()
    }


def _cloud(
    network: Avat3r, one: TrainingPerson, template: HeadTemplate
) -> tuple[Gaussians, Tensor]:
    """The coloured position maps, and their Gaussians at `one.points`' pixels."""
    config = replace(network.config, motion_prior="none")
    base: BaseGuess = build_base_guess(one.views, config, template)
    pixels = one.base.pixel_indices[one.points]
    return base.gaussians, torch.searchsorted(base.pixel_indices, pixels)


def _moved_region(points: Float[Tensor, "p 3"], cameras: Camera) -> Float[Tensor, "t 1 h w"]:
    """Pixels onto which points fall, without gaps of a few pixels between them."""
    regions = torch.zeros(len(cameras.intrinsics), 1, cameras.height, cameras.width)
    for row, region in enumerate(regions):
        camera = cameras[row]
        seen = transform_points(camera.camera_from_head, points)
        x, y = project_points(camera.intrinsics, seen).floor().long().unbind(-1)
        inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        region[0, y[inside], x[inside]] = 1.0
    closed = torch.nn.functional.max_pool2d(regions, 5, 1, 2)
    return -torch.nn.functional.max_pool2d(-closed, 3, 1, 1)


def _landmarks(
    images: Float[Tensor, "t 3 h w"], tracker: FaceTracker
) -> list[Float[np.ndarray, "478 2"] | None]:
    """Where the tracker sees the face; None where it sees none."""
    faces = [tracker.track(uint8_image(image.numpy()), 0.0) for image in images]
    return [face.landmarks_px if face.detected else None for face in faces]


def _landmark_distance(truth: list[np.ndarray | None], seen: list[np.ndarray | None]) -> float:
    """Mean distance of 468 landmarks, pixels; nan where no picture has a face in both."""
    distances = [
        np.linalg.norm(a[:468] - b[:468], axis=1).mean()
        for a, b in zip(truth, seen, strict=True)
        if a is not None and b is not None
    ]
    return float(np.mean(distances)) if distances else float("nan")
