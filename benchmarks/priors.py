"""Position maps by back-end, against the truth of synthetic people: errors and time.

    python benchmarks/priors.py
    python benchmarks/priors.py --dust3r-weights FILE --depth-weights FOLDER

Each person has four photos from four directions with known focal length; faces are tracked and the
template is fitted as in a build, mattes are the true ones. The head frame of a fit is its own, and
photos cannot tell a large head from a near one, so the points of a person are first laid on the
truth as a whole, by a similarity found on the face; its scale is listed (true size / fitted size).
A back-end without weights is left out.
"""

import argparse
import json
import time
from collections import defaultdict
from functools import partial

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros.capture.crop import crop_heads
from avat3r_ros.capture.template_fit import FaceObservation, fit_template
from avat3r_ros.data.heads import SyntheticHead, SyntheticView
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import fit_similarity, intrinsics_matrix, look_at_head
from avat3r_ros.pipeline import detect_faces
from avat3r_ros.priors import depth
from avat3r_ros.priors.choice import PositionPrior, position_prior
from avat3r_ros.priors.depth import FACE_REGIONS
from avat3r_ros.priors.depth_models import DepthEstimator
from avat3r_ros.priors.networks import APACHE, Normalisation
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, HeadCrops

PHOTO_SIZE, FOCAL_PX, CROP_SIZE = 512, 800.0, 256
DIRECTIONS_DEG = ((-25, 0), (0, 0), (25, 5), (5, 18))
EXPRESSIONS = ({}, {"mouthSmile": 0.6}, {"jawOpen": 0.4}, {"browInnerUp": 0.7})
STYLES = ("buzz", "short", "medium", "long")
BACKGROUND = 0.45
MIDDLE = np.array([0.0, -0.01, -0.06])


def photos(head: SyntheticHead) -> list[SyntheticView]:
    """Four directions, four expressions."""
    k = torch.tensor(intrinsics_matrix(FOCAL_PX, PHOTO_SIZE / 2, PHOTO_SIZE / 2)).float()
    views = []
    for (yaw, pitch), scores in zip(DIRECTIONS_DEG, EXPRESSIONS, strict=True):
        pose = look_at_head(np.radians(yaw), np.radians(pitch), 0.6, MIDDLE)
        camera = Camera(k, torch.tensor(pose).float(), PHOTO_SIZE, PHOTO_SIZE)
        views.append(head.render(camera, arkit_code(**scores)))
    return views


def crops_of(views: list[SyntheticView], template: HeadTemplate) -> tuple[HeadCrops, np.ndarray]:
    """Crops as a build makes them, and each fit's intrinsics of the whole photo."""
    images = []
    for view in views:
        image = view.image + (1 - view.mask) * BACKGROUND
        images.append((image.movedim(0, -1).clamp(0, 1) * 255).byte().numpy())
    faces = detect_faces(images, [f"view {i + 1}" for i in range(len(images))])
    mattes = [view.mask[0].numpy() for view in views]
    fit = fit_template(
        [FaceObservation(face, PHOTO_SIZE, PHOTO_SIZE, FOCAL_PX) for face in faces],
        template,
        mattes=mattes,
    )
    return crop_heads(images, mattes, fit, template, CROP_SIZE), fit.intrinsics


def truth_on_crops(
    views: list[SyntheticView],
    crops: HeadCrops,
    photo_intrinsics: np.ndarray,
    template: HeadTemplate,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """True point of each crop pixel (V, H, W, 3), and which pixels show which part."""
    in_face = template.region_mask(*FACE_REGIONS).numpy()
    points, parts = [], {"face": [], "ears, neck, bare scalp": [], "hair": []}
    column, row = np.meshgrid(np.arange(CROP_SIZE) + 0.5, np.arange(CROP_SIZE) + 0.5)
    for i, view in enumerate(views):
        k = crops.cameras.intrinsics[i].numpy()
        # Crops only move and scale the photo: the same ray has the same slope in both.
        photo = photo_intrinsics[i]
        x = (column - k[0, 2]) / k[0, 0] * photo[0, 0] + photo[0, 2]
        y = (row - k[1, 2]) / k[1, 1] * photo[1, 1] + photo[1, 2]
        inside = (x >= 0) & (x < PHOTO_SIZE) & (y >= 0) & (y < PHOTO_SIZE)
        at = (y.clip(0, PHOTO_SIZE - 1).astype(int), x.clip(0, PHOTO_SIZE - 1).astype(int))
        kept = inside & (crops.masks[i, 0].numpy() > 0.9)
        points.append(view.position_map.movedim(0, -1).numpy()[at])
        triangles = view.binding.triangle_ids.numpy()[at]
        on_template = kept & (triangles >= 0)
        face = on_template & in_face[triangles.clip(0)]
        on_person = kept & (view.surface.triangle_ids.numpy()[at] >= 0)
        for name, where in zip(
            parts, (face, on_template & ~face, on_person & ~on_template), strict=True
        ):
            parts[name].append(where)
    return np.stack(points), {name: np.stack(where) for name, where in parts.items()}


def errors_mm(
    positions: np.ndarray, truth: np.ndarray, face: np.ndarray
) -> tuple[np.ndarray, float]:
    """Distance of each pixel's point from the truth, and how much larger the true head is."""
    scale, rotation, shift = fit_similarity(truth[face], positions[face])
    return 1000 * np.linalg.norm(scale * positions @ rotation.T + shift - truth, axis=-1), scale


def perfect_depth(truth: np.ndarray) -> PositionPrior:
    """What a depth network could give at best: the truth up to scale and offset."""
    values = []
    for (yaw, pitch), points in zip(DIRECTIONS_DEG, truth, strict=True):
        pose = look_at_head(np.radians(yaw), np.radians(pitch), 0.6, MIDDLE)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--dust3r-weights")
    parser.add_argument("--depth-weights")
    parser.add_argument("-o", "--output", help="also write the figures as JSON")
    args = parser.parse_args()
    facts = machine()
    print_machine(facts)
    template = HeadTemplate.load()
    chosen = backends(args)
    found = defaultdict(lambda: defaultdict(list))
    for person in range(args.people):
        views = photos(SyntheticHead(900 + person, template, style=STYLES[person % len(STYLES)]))
        crops, intrinsics = crops_of(views, template)
        truth, parts = truth_on_crops(views, crops, intrinsics, template)
        chosen["depth, if the network were perfect"] = perfect_depth(truth)
        for name, prior in chosen.items():
            started = time.process_time()
            maps = prior(crops, template)
            found[name]["seconds"].append([time.process_time() - started])
            positions = maps.position_maps.movedim(1, -1).numpy()
            errors, scale = errors_mm(positions, truth, parts["face"])
            found[name]["scale"].append([scale])
            for part, where in parts.items():
                found[name][part].append(errors[where])
    print(f"\n{args.people} people, 4 photos each; millimetres: median and 90th percentile")
    figures = {
        name: {
            part: [round(float(q), 2) for q in np.quantile(np.concatenate(values), (0.5, 0.9))]
            for part, values in results.items()
        }
        for name, results in found.items()
    }
    parts = [part for part in figures["template"] if part not in ("seconds", "scale")]
    print(f"| back-end | {' | '.join(parts)} | scale | processor time |")
    print("| --- |" + " --- |" * (len(parts) + 2))
    for name, figure in figures.items():
        cells = [f"{figure[part][0]:.1f}, {figure[part][1]:.1f}" for part in parts]
        cells += [f"{figure['scale'][0]:.2f}, {figure['scale'][1]:.2f}"]
        print(f"| {name} | {' | '.join(cells)} | {figure['seconds'][0]:.1f} s |")
    if args.output:
        with open(args.output, "w") as file:
            json.dump({"machine": facts, "people": args.people, "figures": figures}, file, indent=2)


if __name__ == "__main__":
    main()
