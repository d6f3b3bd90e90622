"""`avat3r evaluate` on photos: an avatar predicts photos that it was not built from.

Beside it, with the same camera and expression, what it has to beat:

avatar                 built from the other photos
nearest photo on mesh  the fitted mesh, textured by the photo nearest to the left-out camera
all photos on mesh     the fitted mesh, textured by all photos it is built from
nearest photo alone    an avatar of the nearest photo's pixels alone, hair and all
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from avat3r_ros.animation import Animator
from avat3r_ros.capture.photos import Photo, load_photo
from avat3r_ros.files import write_json
from avat3r_ros.model import build_avatar
from avat3r_ros.pictures import contact_sheet, uint8_image, write_png
from avat3r_ros.pipeline import BuildResult, build_avatar_from_photos, crop_targets, detect_faces
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.face_scores import identity_distance, landmark_distance, tracked
from avat3r_ros.training.metrics import finite_means, psnr, ssim
from avat3r_ros.training.textured_mesh import TexturedMesh, nearest_view
from avat3r_ros.types import Avatar, Camera, ReferenceViews

METHODS = ("avatar", "nearest photo on mesh", "all photos on mesh", "nearest photo alone")
SCORES = ("psnr_db", "ssim", "landmark_distance_px", "identity_distance")

LANDMARK_PX = 256
"""Side of a picture in whose pixels landmark distances are given, whatever size is compared."""

Draw = Callable[[Float[Tensor, "e"], Camera], Float[Tensor, "3 h w"]]


def run(args: argparse.Namespace) -> int:
    """Write `scores.json` and `side_by_side.png` into the output folder."""
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    rounds = [(args.references, args.targets)]
    if args.leave_one_out:
        photos = args.leave_one_out
        rounds = [(photos[:i] + photos[i + 1 :], [photos[i]]) for i in range(len(photos))]
    rows, shown = [], []
    for references, targets in tqdm(rounds, desc="avatars"):
        result = build_avatar_from_photos(
            [load_photo(path) for path in references],
            preset=args.preset,
            trained=not args.untrained,
        )
        scored, pictures = score_targets(
            result, [load_photo(path) for path in targets], args.picture_size
        )
        rows += scored
        shown += pictures
    mean = {
        method: dict.fromkeys(SCORES, float("nan"))
        | finite_means([row[method] for row in rows], SCORES)
        for method in METHODS
    }
    report = {
        "references": args.references or args.leave_one_out,
        "left out in turn": bool(args.leave_one_out),
        "picture size, px": args.picture_size,
        "targets": rows,
        "mean": mean,
    }
    write_json(folder / "scores.json", report)
    captions = ("photo that was left out", *METHODS)
    sheet = [(c, [row[i] for row in shown]) for i, c in enumerate(captions)]
    write_png(contact_sheet(sheet, args.picture_size), folder / "side_by_side.png")
    print(_table(rows, mean))
    print(f"look at {folder / 'side_by_side.png'}; scores in {folder / 'scores.json'}")
    return 0


def score_targets(
    result: BuildResult, targets: Sequence[Photo], size: int
) -> tuple[list[dict], list[list[np.ndarray]]]:
    """Draw a person by all `METHODS` as each target photo shows them, and compare in the matte.

    Target and predictions are pictures of `size` pixels, whatever the size of the references.
    The targets' cameras and expressions are fitted with the avatar's identity fixed. Photos differ
    in exposure and white balance: one gain per colour brings each prediction to the target, chosen
    for its best PSNR. PSNR and SSIM are taken inside the target's matte on black; the landmark
    distance is the mean over 468 MediaPipe landmarks, in pixels of a picture of `LANDMARK_PX`, nan
    where the tracker finds no face in the prediction; the identity distance is that of
    `identity_distance`.

    Returns:
        One row per target: its name, the reference nearest to it, and the scores of each method;
        and for each the pictures: target, then one per method.
    """
    faces = detect_faces([photo.image for photo in targets], [photo.path.name for photo in targets])
    crops = crop_targets(targets, faces, result, size)
    draw = _methods(result.views, result.avatar)
    rows, shown = [], []
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        for i, photo in enumerate(targets):
            target, mask, camera = crops.images[i], crops.masks[i], crops.cameras[i]
            row: dict = {"target": photo.path.name}
            pictures = [target]
            for method in METHODS:
                raw = draw[method](crops.codes[i], camera) * mask
                picture = (raw * _gains(raw, target)).clamp(0, 1)
                seen = tracked(torch.stack([target, picture]), tracker)
                row[method] = {
                    "psnr_db": float(psnr(picture, target, mask)),
                    "ssim": float(ssim(picture[None], target[None], mask[None])),
                    "landmark_distance_px": landmark_distance(seen[:1], seen[1:])
                    * (LANDMARK_PX / size),
                    "identity_distance": identity_distance(picture[None], target[None], seen[:1]),
                }
                pictures.append(picture)
            rows.append(row)
            shown.append([uint8_image(picture.numpy()) for picture in pictures])
    return rows, shown


def _methods(views: ReferenceViews, avatar: Avatar) -> dict[str, Draw]:
    template = HeadTemplate.load()

    @cache
    def on_mesh(view: int) -> Draw:
        return TexturedMesh(_one_view(views, view), template).picture

    @cache
    def alone(view: int) -> Draw:
        return partial(_drawn, Animator(build_avatar(_one_view(views, view))))

    def nearest(of_view: Callable[[int], Draw], code: Tensor, camera: Camera) -> Tensor:
        return of_view(nearest_view(views, camera))(code, camera)

    return {
        "avatar": partial(_drawn, Animator(avatar)),
        "nearest photo on mesh": partial(nearest, on_mesh),
        "all photos on mesh": TexturedMesh(views, template).picture,
        "nearest photo alone": partial(nearest, alone),
    }


def _drawn(animator: Animator, code: Tensor, camera: Camera) -> Float[Tensor, "3 h w"]:
    batch = Camera(
        camera.intrinsics[None], camera.camera_from_head[None], camera.width, camera.height
    )
    return render_gaussians(animator.animate(code), batch).rgb[0]


def _one_view(views: ReferenceViews, view: int) -> ReferenceViews:
    """One of the references, trusted wherever it shows anything."""
    one = views[view : view + 1]
    return replace(one, confidence=one.masks)


def _gains(picture: Float[Tensor, "3 h w"], target: Float[Tensor, "3 h w"]) -> Tensor:
    """One factor per colour that brings a picture nearest to its target."""
    both = (picture * target).sum((1, 2), keepdim=True)
    return both / picture.square().sum((1, 2), keepdim=True).clamp(min=1e-6)


def _table(rows: list[dict], mean: dict[str, dict[str, float]]) -> str:
    """Scores of all methods, target by target and on average."""
    width = max(len(row["target"]) for row in [*rows, {"target": "mean"}])
    lines = [" " * width + "".join(f"  {method:>26}" for method in METHODS)]
    for name, scores in [(row["target"], row) for row in rows] + [("mean", mean)]:
        cells = [
            f"{scores[m]['psnr_db']:5.2f} dB {scores[m]['ssim']:.3f} "
            f"{scores[m]['landmark_distance_px']:4.1f} px {scores[m]['identity_distance']:.2f}"
            for m in METHODS
        ]
        lines.append(f"{name:>{width}}" + "".join(f"  {cell:>26}" for cell in cells))
    return "\n".join(lines)
