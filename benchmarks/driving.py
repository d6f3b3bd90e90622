"""Does an avatar move as far as the person who drives it? Real videos, one table.

    python benchmarks/driving.py me.avat3r me.mp4 [you.avat3r you.mp4 ...] [-o out/driving]

The tracker reads the video as it would a webcam; the avatar is drawn with each code at the driver's
own head, and the landmarks of both pictures are compared, in shares of the distance between the
outer corners of the eyes:

- slope: how much farther the avatar's part moves when the driver's does; 1 is right.
- error: mean distance between the two.

Leaves driving.json and a picture of each pair: drivers above, avatars below.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from _machine import machine, print_machine
from tqdm import tqdm

from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.capture.video import iter_frames
from avat3r_ros.pictures import contact_sheet, write_png
from avat3r_ros.rendering import FrameRenderer
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.tracking.head_pose import assumed_intrinsics
from avat3r_ros.types import Camera

EYE_CORNERS = (33, 263)
DISTANCES = {
    "mouth opening": ((13, 14),),
    "mouth width": ((61, 291),),
    "lids": ((386, 374), (159, 145)),
    "brows": ((105, 226), (55, 243), (334, 446), (285, 463)),
}
COMPARE_EVERY_S, MAX_COMPARED, PICTURES = 0.125, 100, 10
BACKGROUND = np.full(3, 0.5, np.float32)


def distances(landmarks: np.ndarray) -> dict[str, float]:
    """Of one face, in shares of the distance between its eyes' outer corners."""

    def apart(pair: tuple[int, int]) -> float:
        return float(np.linalg.norm(landmarks[pair[0]] - landmarks[pair[1]]))

    scale = apart(EYE_CORNERS)
    return {name: np.mean([apart(p) for p in pairs]) / scale for name, pairs in DISTANCES.items()}


def face_cut(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The square around a face."""
    centre, side = landmarks.mean(0), 1.6 * np.ptp(landmarks[:, 1])
    to_square = np.array([[1, 0, side / 2 - centre[0]], [0, 1, side / 2 - centre[1]]]) * 240 / side
    return cv2.warpAffine(image, to_square, (240, 240), flags=cv2.INTER_AREA)


def drive(avatar: Path, video: Path, picture: Path) -> dict[str, dict[str, float]]:
    """Slope and error of each of DISTANCES; writes the picture."""
    animator, renderer = Animator(load_avatar(avatar)), FrameRenderer()
    driver, avatars, pairs = [], [], []
    last_s = 0.0
    with FaceTracker(max_faces=1) as live, FaceTracker(running_mode="image") as stills:
        for stamp_s, frame in tqdm(iter_frames(video), desc=video.name, unit="frame"):
            face = live.track(frame, stamp_s)
            if not face.detected or stamp_s < last_s + COMPARE_EVERY_S:
                continue
            last_s = stamp_s
            height, width = frame.shape[:2]
            camera = Camera(
                torch.from_numpy(assumed_intrinsics(width, height)).float()[None],
                torch.from_numpy(face.camera_from_head).float()[None],
                width,
                height,
            )
            drawn = renderer.render_u8(animator.animate(face.code), camera, BACKGROUND)[0].copy()
            seen, shown = (stills.track(image, 0.0) for image in (frame, drawn))
            if seen.detected and shown.detected:
                driver.append(distances(seen.landmarks_px))
                avatars.append(distances(shown.landmarks_px))
                pairs.append([face_cut(x, seen.landmarks_px) for x in (frame, drawn)])
            if len(pairs) == MAX_COMPARED:
                break
    if not pairs:
        raise SystemExit(f"no face was followed in {video}")
    chosen = np.linspace(0, len(pairs) - 1, PICTURES).astype(int)
    rows = zip(*(pairs[i] for i in chosen), strict=True)
    write_png(contact_sheet(list(zip(("driver", "avatar"), rows, strict=True)), 240), picture)
    scores = {}
    for name in DISTANCES:
        a, b = (np.array([one[name] for one in faces]) for faces in (driver, avatars))
        scores[name] = {
            "driver_moves": float(np.ptp(np.quantile(a, [0.05, 0.95]))),
            "slope": float(np.cov(a, b)[0, 1] / a.var(ddof=1)),
            "correlation": float(np.corrcoef(a, b)[0, 1]),
            "error": float(np.abs(a - b).mean()),
        }
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="avatar and video, in turn")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/driving"))
    args = parser.parse_args()
    if len(args.files) % 2:
        parser.error(f"expected an avatar and a video in turn, got {len(args.files)} files")
    args.output.mkdir(parents=True, exist_ok=True)
    facts = machine()
    print_machine(facts)
    results = {}
    for avatar, video in zip(args.files[::2], args.files[1::2], strict=True):
        scores = drive(avatar, video, args.output / f"{video.stem}.png")
        results[video.name] = scores
        print(f"{video.name:24s} {'moves':>7s} {'slope':>7s} {'corr':>7s} {'error':>7s}")
        for name, one in scores.items():
            print(f"  {name:22s}", *(f"{value:7.3f}" for value in one.values()))
    report = {"machine": facts, "videos": results}
    (args.output / "driving.json").write_text(json.dumps(report, indent=1))
    print(f"look at {args.output}/*.png")


if __name__ == "__main__":
    main()
