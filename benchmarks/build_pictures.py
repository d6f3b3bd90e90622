"""Builds of every kind of input, each with its report page, and one picture of each to judge it by.

    python benchmarks/build_pictures.py -o FOLDER [--photos a.jpg b.jpg c.jpg]... [--single FILE]...
        [--video FILE]... [--ict-facekit ict_facekit.npz]

Without anything given: four drawn phone photos, the astronaut of scikit-image and a drawn marble
head as single photos, and a drawn person's video. What is given is built besides. Nothing is
downloaded. FOLDER gets NAME.avat3r, NAME_report/report.html and NAME.png: photos with the fitted
head over them, mattes, and the avatar from eight directions.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from _phone_photos import phone_photos

from avat3r_ros.capture.video import VideoWriter
from avat3r_ros.cli import main as avat3r
from avat3r_ros.commands.build_report import DIRECTIONS_DEG
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.pictures import contact_sheet, write_png
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

VIDEO_S, VIDEO_FPS = 9.0, 6.0
"""The operator's capture script: turns to both sides, chin up and down."""


def marble_head(seed: int, size: int = 640) -> np.ndarray:
    """A statue before a dark wall, RGB uint8: a drawn head in veined stone, eyes and hair too."""
    head = SyntheticHead(seed, HeadTemplate.load(), style="buzz")
    k = torch.tensor(intrinsics_matrix(1.4 * size, size / 2, size / 2)).float()
    pose = look_at_head(np.radians(12), np.radians(4), 0.7, np.array([0.0, -0.01, -0.06]))
    view = head.render(Camera(k, torch.tensor(pose).float(), size, size), arkit_code())
    grey = view.image.mean(0).numpy()
    shown = view.mask[0].numpy() > 0.5
    grey = (grey / np.quantile(grey[shown], 0.98)).clip(0, 1) ** 0.6
    points = view.position_map.movedim(0, -1).numpy()[shown]
    veins = np.zeros_like(grey)
    noise = value_noise(points, 0.03, np.random.default_rng(seed))
    veins[shown] = np.exp(-((noise / 0.15) ** 2))
    stone = np.array([0.93, 0.91, 0.86]) * (0.25 + 0.7 * grey * (1 - 0.3 * veins))[..., None]
    mask = view.mask[0].numpy()[..., None]
    return ((stone * mask + 0.15 * (1 - mask)).clip(0, 1) * 255).astype(np.uint8)


def film(path: Path, seed: int) -> Path:
    """A drawn person turning the head before a webcam."""
    operator = SyntheticOperator(seed)
    with VideoWriter(path, operator.width, operator.height, VIDEO_FPS) as writer:
        for frame in range(int(VIDEO_S * VIDEO_FPS)):
            writer.write(operator.frame(frame / VIDEO_FPS))
    return path


def drawn_inputs(folder: Path, ict_facekit: str | None) -> dict[str, list[str]]:
    """Arguments of `avat3r build` by name, their files written."""
    folder.mkdir(parents=True, exist_ok=True)
    phone = next(phone_photos(1, HeadTemplate.load(), ict_facekit, start=940))
    files = {f"phone{i + 1}": image for i, image in enumerate(phone.images)}
    files |= {"astronaut": skimage.data.astronaut(), "marble": marble_head(3)}
    paths = {name: folder / f"{name}.png" for name in files}
    for name, image in files.items():
        write_png(image, paths[name])
    return {
        "phone photos": [str(path) for name, path in paths.items() if name.startswith("phone")],
        "astronaut": [str(paths["astronaut"])],
        "marble": [str(paths["marble"])],
        "video": ["--video", str(film(folder / "operator.mp4", 5))],
    }


def picture(report: Path) -> np.ndarray:
    """One sheet of what a report page shows."""

    def row(pattern: str) -> list[np.ndarray]:
        return [read(path) for path in sorted(report.glob(pattern))]

    around = [read(report / f"avatar_{yaw}_{pitch}.png") for yaw, pitch in DIRECTIONS_DEG]
    return contact_sheet(
        [
            ("photos", row("view*_photo.png")),
            ("the fitted head over them", row("view*_head.png")),
            ("mattes", row("view*_matte.png")),
            ("the avatar from -60, -30, 0, 30, 60 degrees, above, below, behind", around),
        ]
    )


def read(path: Path) -> np.ndarray:
    """A picture, RGB."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True, help="folder")
    parser.add_argument("--photos", nargs="+", action="append", default=[], help="of one person")
    parser.add_argument("--single", action="append", default=[], help="a single photo or painting")
    parser.add_argument("--video", action="append", default=[])
    parser.add_argument("--ict-facekit", help="ict_facekit.npz: draw the phone photos from it")
    parser.add_argument("--given-only", action="store_true", help="leave the drawn inputs out")
    args = parser.parse_args()
    folder = Path(args.output)
    inputs = {} if args.given_only else drawn_inputs(folder / "inputs", args.ict_facekit)
    inputs |= {f"photos of {Path(group[0]).stem}": group for group in args.photos}
    inputs |= {Path(path).stem: [path] for path in args.single}
    inputs |= {Path(path).stem: ["--video", path] for path in args.video}
    failed = 0
    for name, given in inputs.items():
        name = name.replace(" ", "_")
        report = folder / f"{name}_report"
        for old in report.glob("*.png"):  # an earlier build may have had more views
            old.unlink()
        started = time.process_time()
        options = ["-o", str(folder / f"{name}.avat3r"), "--report", str(report), "--no-compile"]
        if avat3r(["build", *given, *options]):
            failed += 1
            continue
        write_png(picture(report), folder / f"{name}.png")
        print(f"{folder / name}.png: {time.process_time() - started:.0f} s of processor time")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
