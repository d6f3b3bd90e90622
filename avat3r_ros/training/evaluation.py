"""Scores on people the network has never seen, beside what they have to beat (methods.py).

All methods are driven by the same codes: with `prior="tracked"` those that the tracker reads of a
driver's picture, as in use.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from avat3r_ros.geometry import pixels_under
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.network import Avat3r
from avat3r_ros.pictures import uint8_image
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.face_scores import (
    UNITS,
    identity_distance,
    landmark_distance,
    likeness,
    likeness_picture,
    share_found,
    tracked,
    unit_errors,
)
from avat3r_ros.training.methods import METHODS, Subject, subjects
from avat3r_ros.training.metrics import (
    finite_means,
    flicker,
    mean_distance_mm,
    moving_points,
    perceptual_distance,
    psnr,
    ssim,
    widened,
)
from avat3r_ros.training.people import TrainingPerson, make_person
from avat3r_ros.training.references import Prior
from avat3r_ros.types import Camera, FaceState

SCORES = {
    "psnr": "PSNR in the head, dB",
    "psnr_around": "PSNR, head and 8 px around, dB",
    "psnr_moved": "PSNR where points move, dB",
    "ssim": "SSIM",
    "perceptual": "perceptual distance",
    "akd_px": "landmarks, px",
    "found": "faces found",
    "expression": "expression error",
    "likeness": "likeness",
    "identity": "identity distance",
    "flicker": "flicker",
    "moving_mm": "moving points, mm",
    "all_mm": "all points, mm",
}
"""Names of the scores and what a table calls them; see `score_people`."""

_RAMP_FRAMES = 9

AROUND_PX = 8
"""Inside the mask alone, heads that are too large cost nothing and outlines that are right lose."""


@dataclass
class PersonResult:
    """What one person gave.

    Attributes:
        seed: Of the person.
        scores: Method -> score -> number.
        units: Method -> unit -> error of each expression.
        faces: Method, and "truth" -> likeness pictures.
        pictures: Method, "references" and "truth" -> the pictures of some expressions.
        views: "truth" and "network" -> all pictures of these expressions, from all cameras.
    """

    seed: int
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    units: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    faces: dict[str, list[np.ndarray]] = field(default_factory=dict)
    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)
    views: dict[str, list[np.ndarray]] = field(default_factory=dict)


def evaluate_network(
    network: Avat3r,
    seeds: Iterable[int],
    *,
    prior: Prior = "tracked",
    template: HeadTemplate | None = None,
) -> dict[str, Any]:
    """Make people and score a network on them, without the costly "optimised".

    Args:
        network: In evaluation mode.
        seeds: People; members of `HELD_OUT_SEEDS`.
        prior: How their references are made.
        template: Head template; the shipped one if None.
    """
    template = template or HeadTemplate.load()
    people = (
        make_person(seed, network.config, prior, template, casual=True, details=True)
        for seed in seeds
    )
    results = list(score_people(network, people, template, optimise_s=0.0))
    return summary(results) | {"prior": prior}


def score_people(
    network: Avat3r,
    people: Iterable[TrainingPerson],
    template: HeadTemplate,
    *,
    optimise_s: float = 0.0,
    num_pictures: int = 0,
) -> Iterator[PersonResult]:
    """Score all methods on people, one after the other.

    Args:
        network: In evaluation mode.
        people: Never trained on.
        template: Head template.
        optimise_s: Processor time per person of "optimised"; 0 leaves it out.
        num_pictures: Expressions of each person of which pictures are kept.

    Yields:
        Per person and method the mean of: `psnr` (dB), `ssim`, `perceptual`
        (`metrics.perceptual_distance`) inside the mask; `psnr_around` in the mask and `AROUND_PX`
        around it, so that what sticks out counts, too (pictures are cut at the neck as true ones);
        `psnr_moved` where points that truly move are seen; `akd_px`, the distance of landmarks
        found in the rendering and in the true picture; `found`, the share of faces the tracker
        still finds in the rendering (the others have no `akd_px` and no `expression`, so a method
        that loses faces is flattered); `expression`, the mean over units of the difference between
        codes read of both; `identity` (`face_scores.identity_distance`) in the first picture of
        each expression; `flicker` (`metrics.flicker`) over a ramp from one expression to another;
        `moving_mm` and `all_mm`, the distance of reference points from their true place (of those
        that truly move, and of all).
    """
    with FaceTracker(smoothing=None, max_faces=1, running_mode="image", full_range=True) as tracker:
        for one in tqdm(people, desc="evaluate", unit=" people"):
            yield score_person(
                network, one, template, tracker, optimise_s=optimise_s, num_pictures=num_pictures
            )


@torch.no_grad()
def score_person(
    network: Avat3r,
    one: TrainingPerson,
    template: HeadTemplate,
    tracker: FaceTracker | None = None,
    *,
    optimise_s: float = 0.0,
    num_pictures: int = 0,
) -> PersonResult:
    """Scores of all methods on one person's targets; see `score_people`.

    Without a tracker there is none of `akd_px`, `found`, `expression` and `identity`, and no faces.
    """
    result = PersonResult(one.seed)
    expressions = [(one.shown == row).nonzero()[:, 0] for row in range(len(one.codes))]
    truths = [one.targets.images[shown] for shown in expressions]
    seen = [None if tracker is None else tracked(truth, tracker) for truth in truths]
    if num_pictures:
        result.pictures["references"] = _bytes(one.views.images)
        # The last picture of an expression is from an unseen side.
        result.pictures["truth"] = _bytes([truth[-1] for truth in truths[:num_pictures]])
        result.views["truth"] = _bytes(torch.cat(truths[:num_pictures]))
    if tracker is not None:
        result.faces["truth"] = _faces([truth[0] for truth in truths], seen)
    for subject in subjects(network, one, template, optimise_s=optimise_s):
        rows = []
        pictures = []
        units: dict[str, list[float]] = {name: [] for name in UNITS}
        for row, (code, shown, truth) in enumerate(
            zip(one.codes, expressions, truths, strict=True)
        ):
            cameras, masks = one.targets.cameras[shown], one.targets.masks[shown]
            necks = None if one.targets.necks is None else one.targets.necks[shown]
            rgb = _cut_at_neck(subject.pictures(code, cameras).clamp(0, 1), masks, necks)
            scores = _picture_scores(rgb, truth, masks) | _point_scores(
                subject, one, row, rgb, cameras, masks
            )
            if tracker is not None:
                faces = tracked(rgb, tracker)
                scores["akd_px"] = landmark_distance(seen[row], faces)
                scores["found"] = share_found(seen[row], faces)
                # The first picture is where the driver's expression was read.
                scores["identity"] = identity_distance(rgb[:1], truth[:1], seen[row][:1])
                errors = unit_errors(seen[row][0], faces[0])
                if errors:
                    scores["expression"] = statistics.fmean(errors.values())
                for name, error in errors.items():
                    units[name].append(error)
            rows.append(scores)
            pictures.append(rgb)
        result.scores[subject.name] = finite_means(rows, SCORES)
        result.scores[subject.name]["flicker"] = _flicker(subject, one)
        result.units[subject.name] = units
        if tracker is not None:
            result.faces[subject.name] = _faces([rgb[0] for rgb in pictures], seen)
        if num_pictures:
            result.pictures[subject.name] = _bytes([rgb[-1] for rgb in pictures[:num_pictures]])
            if subject.name == "network":
                result.views["network"] = _bytes(torch.cat(pictures[:num_pictures]))
    return result


def summary(results: Sequence[PersonResult]) -> dict[str, Any]:
    """Means over people: method -> score, with `likeness` and, under "units", errors by unit.

    `likeness` (`face_scores.likeness`) is told here, as it needs the mean face of all people.
    """
    table: dict[str, Any] = {"people": [result.seed for result in results], "units": {}}
    faces = [face for result in results for face in result.faces.get("truth", [])]
    mean = np.mean(faces, axis=0) if len(results) > 1 and faces else None
    for method in (name for name in METHODS if name in results[0].scores):
        rows = []
        for result in results:
            scores = dict(result.scores[method])
            if mean is not None:
                scores["likeness"] = likeness(result.faces[method], result.faces["truth"], mean)
            rows.append(scores)
        table[method] = finite_means(rows, SCORES)
        errors = {
            unit: [error for result in results for error in result.units[method][unit]]
            for unit in UNITS
        }
        if any(errors.values()):
            table["units"][method] = {
                unit: statistics.fmean(values) for unit, values in errors.items() if values
            }
    return table


def _cut_at_neck(rgb: Tensor, masks: Tensor, necks: Tensor | None) -> Tensor:
    """Pictures without what they show below the cut of the true ones: avatars go on there."""
    if necks is None:
        return rgb
    below = widened((necks > SEEN_MASK).float(), AROUND_PX) * (masks <= SEEN_MASK)
    return rgb * (1 - below)


def _picture_scores(rgb: Tensor, truth: Tensor, masks: Tensor) -> dict[str, float]:
    around = widened((masks > SEEN_MASK).float(), AROUND_PX)
    return {
        "psnr": float(psnr(rgb, truth, masks).mean()),
        "psnr_around": float(psnr(rgb, truth, around).mean()),
        "ssim": float(ssim(rgb, truth, masks).mean()),
        "perceptual": float(perceptual_distance(rgb, truth, masks).mean()),
    }


def _point_scores(
    subject: Subject, one: TrainingPerson, row: int, rgb: Tensor, cameras: Camera, masks: Tensor
) -> dict[str, float]:
    """Pictures and, where there are Gaussians, positions of points that truly move."""
    truth = one.before + one.moved[row]
    moving = moving_points(truth, one.before)
    scores = {}
    if bool(moving.any()):
        region = _moved_region(truth[moving], cameras) * masks
        images = one.targets.images[one.shown == row]
        scores["psnr_moved"] = float(psnr(rgb, images, region).nanmean())
    if subject.gaussians is not None:
        means = subject.gaussians(one.codes[row]).means[subject.points]
        scores["all_mm"] = float(mean_distance_mm(means, truth))
        if bool(moving.any()):
            scores["moving_mm"] = float(mean_distance_mm(means, truth, moving))
    return scores


def _flicker(subject: Subject, one: TrainingPerson) -> float:
    """Over an even ramp from the first expression to the last, from the first driver's camera."""
    ramp = torch.linspace(0, 1, _RAMP_FRAMES)[:, None]
    codes = torch.lerp(one.codes[0], one.codes[-1], ramp)
    camera = one.targets.cameras[:1]
    return float(flicker(torch.cat([subject.pictures(c, camera) for c in codes]).clamp(0, 1)))


def _moved_region(points: Float[Tensor, "p 3"], cameras: Camera) -> Float[Tensor, "t 1 h w"]:
    """Pixels onto which points fall, without gaps of a few pixels between them."""
    regions = torch.zeros(len(cameras.intrinsics), 1, cameras.height, cameras.width)
    for row, region in enumerate(regions):
        x, y, inside = pixels_under(cameras[row], points)
        region[0, y[inside], x[inside]] = 1.0
    closed = torch.nn.functional.max_pool2d(regions, 5, 1, 2)
    return -torch.nn.functional.max_pool2d(-closed, 3, 1, 1)


def _faces(images: Sequence[Tensor], seen: Sequence[list[FaceState]]) -> list[np.ndarray]:
    """Likeness pictures of the expressions whose true face was found."""
    faces = [likeness_picture(image, where[0]) for image, where in zip(images, seen, strict=True)]
    return [face for face in faces if face is not None]


def _bytes(images: Iterable[Tensor]) -> list[np.ndarray]:
    return [uint8_image(image.clamp(0, 1).numpy()) for image in images]
