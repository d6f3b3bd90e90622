"""What a single photo is worth: lifted, plain, and beside four photos, on held-out drawn people.

    python benchmarks/lift.py [--people 8] [-o FOLDER]

Each person is photographed from in front and turned by 30 degrees; each of the two photos alone
becomes an avatar, with the lift and without (its own pixels and the template's), and so do four
photos, the upper bound. Scores are taken on pictures of the head from other sides, in the photo's
expression, in the head's box: PSNR where the demo's pictures are judged, too (the true head and 8
pixels around it, but not where its neck goes on), and the distance of MediaPipe's landmarks. True
and fitted heads differ by a rigid motion and their size, which the template's vertices tell.
"""

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros.animation import Animator
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.demo.scoring import judged_pixels
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import fit_similarity, intrinsics_matrix, look_at_head
from avat3r_ros.lift.choice import Lift
from avat3r_ros.model import load_network
from avat3r_ros.pictures import contact_sheet, uint8_image, write_png
from avat3r_ros.pipeline import BuildResult, build_avatar_from_images
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.face_scores import landmark_distance, tracked
from avat3r_ros.training.metrics import psnr
from avat3r_ros.types import Camera

SIZE, PHOTO_SIZE = 256, 640
FOUR_DEG = ((-25, 0), (0, 0), (25, 5), (3, 18))
TARGETS_DEG = {
    "near": ((-20, 8), (20, -6)),
    "to 45": ((-45, 0), (45, 5)),
    "behind": ((-100, 5), (180, 0)),
}
SHEET_DEG = ((-60, 0), (-30, 0), (0, 0), (30, 0), (60, 0), (0, 25), (0, -20), (180, 0))
MIDDLE = np.array([0.0, 0.0, -0.07])
CODE = arkit_code(mouthSmile=0.25)
NOTHING = Lift("nothing", lambda crops, template: crops)
"""Leaves the base guess from the photo's own pixels."""


def camera(yaw_deg: float, pitch_deg: float, size: int, focal: float, distance_m: float) -> Camera:
    """A camera that looks at the head."""
    k = intrinsics_matrix(focal * size, size / 2, size / 2)
    pose = look_at_head(*np.radians([yaw_deg, pitch_deg]), distance_m, MIDDLE)
    return Camera(torch.tensor(k).float(), torch.tensor(pose).float(), size, size)


def photograph(head: SyntheticHead, yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """A photo with shoulders before a grey wall."""
    view = camera(yaw_deg, pitch_deg, PHOTO_SIZE, 1.4, 0.75)
    picture = head.paint_portrait(view, CODE)
    image = np.full((PHOTO_SIZE, PHOTO_SIZE, 3), 0.5, np.float32)
    rgba = picture.rgba
    image[picture.window] = rgba[..., :3] + image[picture.window] * (1 - rgba[..., 3:])
    return (image.clip(0, 1) * 255).astype(np.uint8)


def true_views(head: SyntheticHead, directions: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of the head alone, and where others are compared with them."""
    images, judged = [], []
    for angles in directions:
        one = camera(*angles, SIZE, 2.2, 0.8)
        view = head.render(one, CODE)
        images.append(view.image)
        judged.append(torch.from_numpy(judged_pixels(head, one, CODE, view.mask[0].numpy())))
    return torch.stack(images), torch.stack(judged)[:, None]


def predicted_views(
    result: BuildResult, head: SyntheticHead, directions: tuple, template: HeadTemplate
) -> torch.Tensor:
    """The avatar's pictures from the same places."""
    face = np.unique(template.triangles[template.region_mask("skin", "lips")].numpy())
    fitted = template.vertices(result.views.identity)[face].double().numpy()
    scale, rotation, shift = fit_similarity(head.mesh.rest[face].astype(float), fitted)
    if_true = np.eye(4)
    if_true[:3, :3], if_true[:3, 3] = rotation, shift / scale
    cameras = []
    for angles in directions:
        one = camera(*angles, SIZE, 2.2, 0.8)
        pose = one.camera_from_head.double().numpy()
        pose[:3, 3] /= scale  # a smaller head nearer by looks the same
        cameras.append(
            dataclasses.replace(one, camera_from_head=torch.tensor(pose @ if_true).float())
        )
    gaussians = Animator(result.avatar).animate(CODE)
    return torch.stack([render_gaussians(gaussians, one).rgb[0] for one in cameras])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--start", type=int, default=700, help="first person's seed")
    parser.add_argument("-o", "--output", help="folder for scores.json and contact sheets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    print_machine(facts)
    template, trained = HeadTemplate.load(), load_network("tiny")
    scores = defaultdict(lambda: defaultdict(list))
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        for seed in range(args.start, args.start + args.people):
            head = SyntheticHead(seed, template)
            four = [photograph(head, *angles) for angles in FOUR_DEG]
            turned = photograph(head, 30, 0)
            methods = {
                "one photo, plain": ([four[1]], {"lift": NOTHING}),
                "one photo, lifted": ([four[1]], {}),
                "one photo, lifted, shipped weights": ([four[1]], {"network": trained}),
                "turned 30, plain": ([turned], {"lift": NOTHING}),
                "turned 30, lifted": ([turned], {}),
                "four photos": (four, {}),
            }
            truth = {name: true_views(head, angles) for name, angles in TARGETS_DEG.items()}
            true_faces = {name: tracked(images, tracker) for name, (images, _) in truth.items()}
            sheet = [("truth", [uint8_image(i.numpy()) for i in true_views(head, SHEET_DEG)[0]])]
            for name, (photos, options) in methods.items():
                started = time.process_time()
                result = build_avatar_from_images(photos, **{"trained": False} | options)
                scores[name]["build, s"].append(time.process_time() - started)
                for where, angles in TARGETS_DEG.items():
                    images, judged = truth[where]
                    seen = predicted_views(result, head, angles, template)
                    scores[name][f"PSNR {where}, dB"].append(
                        float(psnr(seen, images, judged).mean())
                    )
                    if where != "behind":
                        scores[name][f"landmarks {where}, px"].append(
                            landmark_distance(true_faces[where], tracked(seen, tracker))
                        )
                pictures = predicted_views(result, head, SHEET_DEG, template)
                sheet.append((name, [uint8_image(p.numpy()) for p in pictures]))
            if args.output:
                write_png(contact_sheet(sheet, 160), Path(args.output) / f"person_{seed}.png")
    means = {
        name: {score: round(float(np.nanmean(values)), 2) for score, values in row.items()}
        for name, row in scores.items()
    }
    columns = list(next(iter(means.values())))
    print(f"\n{args.people} people\n| | {' | '.join(columns)} |\n| --- |" + " --- |" * len(columns))
    for name, row in means.items():
        print(f"| {name} | {' | '.join(str(row[c]) for c in columns)} |")
    if args.output:
        figures = {"machine": facts, "people": args.people, "start": args.start, "means": means}
        (Path(args.output) / "scores.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
