"""`avat3r evaluate`: build from some photos of a person, predict others, score the result."""

import argparse
import json
import pathlib

import numpy as np
from tqdm import tqdm

from avat3r_ros.animation import Animator
from avat3r_ros.capture.photos import Photo, load_photo
from avat3r_ros.pictures import contact_sheet, uint8_image, write_png
from avat3r_ros.pipeline import BuildResult, build_avatar_from_photos, crop_targets, detect_faces
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.metrics import psnr, ssim

SCORES = ("psnr_db", "ssim", "landmark_distance_px")


def run(args: argparse.Namespace) -> int:
    """Write `scores.json` and `side_by_side.png` into the output folder."""
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    result = build_avatar_from_photos(
        [load_photo(path) for path in args.references],
        preset=args.preset,
        trained=not args.untrained,
    )
    targets = [load_photo(path) for path in args.targets]
    rows, pictures = score_targets(result, targets)
    mean = {score: float(np.nanmean([row[score] for row in rows])) for score in SCORES}
    report = {"references": args.references, "targets": rows, "mean": mean}
    partial = folder / "scores.json.part"
    partial.write_text(json.dumps(report, indent=2) + "\n")
    partial.replace(folder / "scores.json")
    write_png(contact_sheet(pictures, 256), folder / "side_by_side.png")
    for row in rows:
        print(
            f"{row['target']}: PSNR {row['psnr_db']:.2f} dB, SSIM {row['ssim']:.3f}, "
            f"landmarks {row['landmark_distance_px']:.2f} px"
        )
    print(f"look at {folder / 'side_by_side.png'}; scores in {folder / 'scores.json'}")
    return 0


def score_targets(
    result: BuildResult, targets: list[Photo]
) -> tuple[list[dict], list[tuple[str, list[np.ndarray]]]]:
    """Render the avatar as each target photo shows it, and compare inside the matte.

    The targets' cameras are fitted with the avatar's identity fixed, their codes come from the
    tracker. PSNR and SSIM are taken inside the target's matte on black; the landmark distance is
    the mean over 468 MediaPipe landmarks, in pixels of the crop, NaN where the tracker finds no
    face in the rendering.

    Returns:
        One row of scores per target, and captioned picture rows (target, prediction, difference).
    """
    faces = detect_faces([photo.image for photo in targets], [photo.path.name for photo in targets])
    crops = crop_targets(targets, faces, result)
    animator = Animator(result.avatar)
    rows = []
    shown: tuple[list, list, list] = ([], [], [])
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        for i, (photo, face) in enumerate(
            tqdm(list(zip(targets, faces, strict=True)), desc="targets")
        ):
            target, mask = crops.images[i], crops.masks[i]
            view = render_gaussians(animator.animate(face.code), crops.cameras[i : i + 1])
            prediction = view.rgb[0].clamp(0, 1) * mask
            seen = [
                tracker.track(np.ascontiguousarray(uint8_image(image.numpy())), 0.0)
                for image in (target, prediction)
            ]
            distance = float("nan")
            if all(state.detected for state in seen):
                difference = seen[0].landmarks_px[:468] - seen[1].landmarks_px[:468]
                distance = float(np.linalg.norm(difference, axis=1).mean())
            rows.append(
                {
                    "target": photo.path.name,
                    "psnr_db": float(psnr(prediction, target, mask)),
                    "ssim": float(ssim(prediction[None], target[None], mask[None])),
                    "landmark_distance_px": distance,
                }
            )
            for column, image in zip(
                shown, (target, prediction, (target - prediction).abs()), strict=True
            ):
                column.append(uint8_image(image.numpy()))
    captions = ("target photo", "avatar, same camera and expression", "absolute difference")
    return rows, list(zip(captions, shown, strict=True))
