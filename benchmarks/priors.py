"""Cameras and position maps from photos, by back-end, against the truth of drawn people.

    python benchmarks/priors.py [--ict-facekit ict_facekit.npz] [--people 8]
        [--dust3r-weights FILE] [--depth-weights FOLDER] [-o FILE]

Photos become crops as in a build: faces are tracked and the template is fitted, with the focal
length known and unknown; only the mattes are the true ones. Without --ict-facekit the people are
those of the training data: the template itself, bent. With it they come from another head model,
which the fit does not know. Template only, unless weights of others are given.

Photos hardly tell a large head from a near one, so errors stand here twice: as they are (the fitted
head moved onto the true one), and with the size given (and scaled). Camera centres are those of
cameras 60 cm away.
"""

import argparse
import json
import time
from collections import defaultdict
from functools import partial

import numpy as np
import torch
from _machine import machine, print_machine
from _phone_photos import PARTS, PhonePhotos, phone_photos
from scipy.spatial.transform import Rotation

from avat3r_ros.capture.crop import crop_heads
from avat3r_ros.capture.template_fit import FaceObservation, TemplateFit, fit_template
from avat3r_ros.geometry import fit_similarity, invert_pose
from avat3r_ros.pipeline import detect_faces
from avat3r_ros.priors import depth
from avat3r_ros.priors.choice import PositionPrior, position_prior
from avat3r_ros.priors.depth_models import DepthEstimator
from avat3r_ros.priors.networks import APACHE, Normalisation
from avat3r_ros.rig import HeadTemplate, LandmarkBias
from avat3r_ros.types import FaceState, HeadCrops, ReferenceViews

CROP_SIZE = 256
CAMERA_SCORES = ("rotation, degrees", "centre, cm", "centre, size given, cm", "size, %", "focal, %")


def fitted(
    photos: PhonePhotos, faces: list[FaceState], template: HeadTemplate, *, focal_known: bool
) -> TemplateFit:
    """Fit as a build does."""
    focal = float(photos.intrinsics[0, 0]) if focal_known else None
    observations = [
        FaceObservation(face, image.shape[1], image.shape[0], focal)
        for face, image in zip(faces, photos.images, strict=True)
    ]
    return fit_template(
        observations,
        template,
        mattes=photos.mattes,
        images=photos.images,
        landmark_bias=LandmarkBias.load(),
    )


def truth_on_crops(
    photos: PhonePhotos, crops: HeadCrops, fit: TemplateFit
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """True point of each crop pixel (V, H, W, 3), and which pixels show which part."""
    points, shown = [], []
    column, row = np.meshgrid(np.arange(CROP_SIZE) + 0.5, np.arange(CROP_SIZE) + 0.5)
    for i, image in enumerate(photos.images):
        k, photo = crops.cameras.intrinsics[i].numpy(), fit.intrinsics[i]
        # Crops only move and scale the photo: the same ray has the same slope in both.
        x = (column - k[0, 2]) / k[0, 0] * photo[0, 0] + photo[0, 2]
        y = (row - k[1, 2]) / k[1, 1] * photo[1, 1] + photo[1, 2]
        height, width = image.shape[:2]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        at = (y.clip(0, height - 1).astype(int), x.clip(0, width - 1).astype(int))
        kept = inside & (crops.masks[i, 0].numpy() > 0.9)
        points.append(photos.positions[i][at])
        shown.append(np.where(kept, photos.parts[i][at], -1))
    parts = {name: np.stack(shown) == value for name, value in PARTS.items()}
    return np.stack(points), parts


def camera_errors(
    photos: PhonePhotos,
    fit: TemplateFit,
    views: ReferenceViews,
    truth: np.ndarray,
    face: np.ndarray,
) -> dict[str, list[float]]:
    """Scores of the cameras of one person, by name (`CAMERA_SCORES`)."""
    positions = views.position_maps.movedim(1, -1).numpy()[face].astype(float)
    rotations = fit.camera_from_head[:, :3, :3]
    true_rotations = photos.camera_from_head[:, :3, :3]
    pairs = [(i, j) for i in range(len(rotations)) for j in range(i)]
    turned = [
        (rotations[i] @ rotations[j].T) @ (true_rotations[i] @ true_rotations[j].T).T
        for i, j in pairs
    ]
    centres = np.stack([invert_pose(pose)[:3, 3] for pose in fit.camera_from_head])
    true_centres = np.stack([invert_pose(pose)[:3, 3] for pose in photos.camera_from_head])
    to_60_cm = 60 / np.linalg.norm(photos.camera_from_head[:, :3, 3], axis=1)
    similar = fit_similarity(truth[face].astype(float), positions)
    scores = {
        "rotation, degrees": np.degrees(Rotation.from_matrix(np.stack(turned)).magnitude()),
        "size, %": [100 * abs(similar[0] - 1)],
        "focal, %": [100 * abs(fit.intrinsics[0, 0, 0] / photos.intrinsics[0, 0] - 1)],
    }
    rigid = rigid_fit(truth[face].astype(float), positions)
    for name, (scale, rotation, shift) in (
        ("centre, cm", rigid), ("centre, size given, cm", similar),
    ):  # fmt: skip
        moved = scale * centres @ rotation.T + shift
        scores[name] = np.linalg.norm(moved - true_centres, axis=1) * to_60_cm
    return {name: [float(v) for v in values] for name, values in scores.items()}


def rigid_fit(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """`fit_similarity` without the scale."""
    rotation = fit_similarity(a, b)[1]
    return 1.0, rotation, a.mean(0) - rotation @ b.mean(0)


def map_errors_mm(
    positions: np.ndarray, truth: np.ndarray, face: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel's point from the truth: as it is, and with the size given."""
    results = []
    for align in (rigid_fit, fit_similarity):
        scale, rotation, shift = align(truth[face].astype(float), positions[face].astype(float))
        error = scale * positions @ rotation.T + shift - truth
        results.append(1000 * np.linalg.norm(error, axis=-1))
    return results[0], results[1]


def perfect_depth(photos: PhonePhotos, truth: np.ndarray) -> PositionPrior:
    """What a depth network could give at best: the truth up to scale and offset."""
    values = []
    for pose, points in zip(photos.camera_from_head, truth, strict=True):
        z = points @ pose[2, :3] + pose[2, 3]
        values.append(torch.from_numpy(np.where((points != 0).any(-1), 1 / z, 0.0))[None].float())
    network = DepthEstimator(
        "perfect", True, CROP_SIZE, CROP_SIZE, Normalisation((0.0,) * 3, (1.0,) * 3), APACHE,
        lambda images: values.pop(0), torch.device("cpu"),
    )  # fmt: skip
    return PositionPrior("perfect", None, partial(depth.position_maps, estimator=network))


def backends(args: argparse.Namespace) -> dict[str, PositionPrior]:
    """Those whose weights are given."""
    chosen = {"template": position_prior("template")}
    if args.dust3r_weights:
        for name, known in (("dust3r", True), ("dust3r, estimated cameras", False)):
            chosen[name] = position_prior("dust3r", args.dust3r_weights, cameras_known=known)
    if args.depth_weights:
        chosen["depth"] = position_prior("depth", args.depth_weights)
    return chosen


def quantiles(values: list) -> list[float]:
    """Median and 90th percentile."""
    return [round(float(q), 2) for q in np.quantile(np.concatenate(values), (0.5, 0.9))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--start", type=int, default=900, help="first person's seed")
    parser.add_argument("--ict-facekit", help="ict_facekit.npz: people of another head model")
    parser.add_argument("--dust3r-weights")
    parser.add_argument("--depth-weights")
    parser.add_argument("-o", "--output", help="also write the figures as JSON")
    args = parser.parse_args()
    facts = machine()
    print_machine(facts)
    template = HeadTemplate.load()
    chosen = backends(args)
    cameras = defaultdict(lambda: defaultdict(list))
    maps = defaultdict(lambda: defaultdict(list))
    for photos in phone_photos(args.people, template, args.ict_facekit, args.start):
        faces = detect_faces(photos.images, [f"photo {i + 1}" for i in range(len(photos.images))])
        for focal_known in (True, False):
            started = time.process_time()
            fit = fitted(photos, faces, template, focal_known=focal_known)
            seconds = time.process_time() - started
            crops = crop_heads(photos.images, photos.mattes, fit, template, CROP_SIZE)
            truth, parts = truth_on_crops(photos, crops, fit)
            case = f"focal {'known' if focal_known else 'unknown'}"
            priors = dict(chosen)
            if focal_known:
                priors["depth, if the network were perfect"] = perfect_depth(photos, truth)
            for name, prior in priors.items():
                views = prior(crops, template)
                if name == "template":
                    errors = camera_errors(photos, fit, views, truth, parts["face"])
                    for score, values in errors.items():
                        cameras[case][score].append(values)
                    cameras[case]["fit, s"].append([seconds])
                positions = views.position_maps.movedim(1, -1).numpy()
                as_is, sized = map_errors_mm(positions, truth, parts["face"])
                for part, where in parts.items():
                    maps[f"{name}, {case}"][part].append(as_is[where])
                    maps[f"{name}, {case}"][f"{part}, size given"].append(sized[where])
    kind = "another head model" if args.ict_facekit else "the template, bent"
    print(f"\n{args.people} people ({kind}), 4 photos each; median, 90th percentile")
    figures = {
        kind: {name: {score: quantiles(v) for score, v in scores.items()} for name, scores in t}
        for kind, t in (("cameras", cameras.items()), ("position maps, mm", maps.items()))
    }
    for title, rows in figures.items():
        columns = list(next(iter(rows.values())))
        print(f"\n| {title} | {' | '.join(columns)} |\n| --- |" + " --- |" * len(columns))
        for name, scores in rows.items():
            cells = [f"{scores[c][0]:.1f}, {scores[c][1]:.1f}" for c in columns]
            print(f"| {name} | {' | '.join(cells)} |")
    if args.output:
        with open(args.output, "w") as file:
            json.dump({"machine": facts, "people": args.people, **figures}, file, indent=2)


if __name__ == "__main__":
    main()
