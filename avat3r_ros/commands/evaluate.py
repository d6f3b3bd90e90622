"""`avat3r evaluate`: weights on made-up people, or an avatar on photos it has not seen."""

import argparse
import json
import logging
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from avat3r_ros import __version__
from avat3r_ros.animation import Animator
from avat3r_ros.capture.photos import Photo, load_photo
from avat3r_ros.model import Avat3r, load_network, preset
from avat3r_ros.pictures import contact_sheet, uint8_image, write_png
from avat3r_ros.pipeline import BuildResult, build_avatar_from_photos, crop_targets, detect_faces
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.evaluation import PersonResult, score_people
from avat3r_ros.training.face_scores import landmark_distance, tracked
from avat3r_ros.training.metrics import psnr, ssim
from avat3r_ros.training.people import TrainingPerson, make_person
from avat3r_ros.training.people_files import PeopleFolder
from avat3r_ros.training.references import FaceNotFoundError
from avat3r_ros.training.report import PAGE, text_table, write_report

logger = logging.getLogger(__name__)

PHOTO_SCORES = ("psnr_db", "ssim", "landmark_distance_px")

QUICK_PEOPLE, QUICK_OPTIMISE_S = 3, 10.0
"""What `--quick` looks at: enough to see that nothing is broken, too few to rank weights by."""


def run(args: argparse.Namespace) -> int:
    """Evaluate on photos where some are given, else on made-up people."""
    if bool(args.references) != bool(args.targets):
        raise ValueError("expected both --references and --targets, or neither of them")
    return _on_photos(args) if args.references else _on_people(args)


def _on_people(args: argparse.Namespace) -> int:
    """Write `report.html`, `scores.json` and `people.png` into the output folder."""
    if args.quick:
        args.people, args.optimise_seconds = QUICK_PEOPLE, QUICK_OPTIMISE_S
    if args.people < 1 or args.pictures < 0:
        raise ValueError(
            f"expected --people >= 1 and --pictures >= 0, got {args.people} and {args.pictures}"
        )
    torch.set_num_threads(1)  # tensors are small, and times of the optimisation can be compared
    template = HeadTemplate.load()
    if args.untrained:
        network = Avat3r(preset(args.preset), template).eval()
    else:
        network = load_network(args.preset, template=template)
    started = time.process_time()
    results: list[PersonResult] = []
    try:
        for result in score_people(
            network,
            _held_out(args.people, network, args.people_folder, template),
            template,
            optimise_s=args.optimise_seconds,
            num_pictures=args.pictures,
        ):
            results.append(result)
    except KeyboardInterrupt:
        if not results:
            raise
        logger.warning("stopped: the report is of the %d people so far", len(results))
    if not results:
        raise ValueError(f"no face was found in the photos of any of {args.people} people")
    about = {
        "weights": "untrained" if args.untrained else args.preset,
        "people": f"{len(results)} of the seeds 0 to {args.people - 1}, never trained on",
        "references and codes": "as in use: photos and driver are tracked, the template is fitted",
        "optimised for": f"{args.optimise_seconds:g} s of processor time",
        "processor time": f"{time.process_time() - started:.0f} s",
        "avat3r": __version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    data = write_report(results, args.output, about)
    print(text_table(data["scores"]))
    print(f"look at {pathlib.Path(args.output) / PAGE}")
    return 0


def _held_out(
    count: int, network: Avat3r, folder: str | None, template: HeadTemplate
) -> Iterator[TrainingPerson]:
    """People with the first held-out seeds; kept in a folder where one is given.

    A seed in whose photos the tracker finds no face is passed over, as no avatar could be built.
    """
    kept = None if folder is None else PeopleFolder(folder, network.config, "tracked")
    for seed in range(count):
        if kept is not None and kept.path(seed).is_file():
            yield kept.load(seed)
            continue
        try:
            one = make_person(seed, network.config, "tracked", template)
        except FaceNotFoundError as error:
            logger.warning("person %d is left out: %s", seed, error)
            continue
        if kept is not None:
            kept.save(one)
        yield one


def _on_photos(args: argparse.Namespace) -> int:
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
    mean = {score: float(np.nanmean([row[score] for row in rows])) for score in PHOTO_SCORES}
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
            seen = tracked(torch.stack([target, prediction]), tracker)
            rows.append(
                {
                    "target": photo.path.name,
                    "psnr_db": float(psnr(prediction, target, mask)),
                    "ssim": float(ssim(prediction[None], target[None], mask[None])),
                    "landmark_distance_px": landmark_distance(seen[:1], seen[1:]),
                }
            )
            for column, image in zip(
                shown, (target, prediction, (target - prediction).abs()), strict=True
            ):
                column.append(uint8_image(image.numpy()))
    captions = ("target photo", "avatar, same camera and expression", "absolute difference")
    return rows, list(zip(captions, shown, strict=True))
