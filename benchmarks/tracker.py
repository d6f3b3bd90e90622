"""Times of the face tracker on 640x480 images of a moving face.

    python benchmarks/tracker.py [--images 300] [--json FILE]

The face is a photo that shifts and scales a little from image to image, as a webcam sees it; making
the images is not timed. `best` is the fastest tenth, what an undisturbed core gives: on a shared
machine the median can be a multiple of it. `cpu` is the processor time of one image. A one-face
tracker is shown as well: with two faces allowed and one present, MediaPipe looks for the second one
in every image.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
from _machine import machine, print_machine
from skimage.data import astronaut

from avat3r_ros.tracking import FaceTracker

WIDTH, HEIGHT = 640, 480
TARGET_HZ = 60.0
WARM_UP = 20


def moving_face(count: int) -> list[np.ndarray]:
    """A face about 200 px wide that sways, nods and comes closer."""
    photo = astronaut()
    images = []
    for i in range(count):
        scale = 2.2 * (1 + 0.05 * np.sin(i / 17))
        x, y = 8 * np.sin(i / 9), 5 * np.sin(i / 13)
        matrix = np.float32([[scale, 0, 320 - 224 * scale + x], [0, scale, 240 - 122 * scale + y]])
        images.append(cv2.warpAffine(photo, matrix, (WIDTH, HEIGHT)))
    return images


def measure(images: list[np.ndarray], max_faces: int) -> dict[str, float]:
    seconds, cpu_seconds = [], []
    with FaceTracker(max_faces=max_faces) as tracker:
        for i, image in enumerate(images):
            start, cpu_start = time.perf_counter(), time.process_time()
            state = tracker.track(image, i / 30)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
            assert state.detected, f"face lost in image {i}"
    ms = 1e3 * np.array(seconds[WARM_UP:])
    return {
        "best_ms": float(np.quantile(ms, 0.1)),
        "median_ms": float(np.median(ms)),
        "cpu_ms": float(np.median(1e3 * np.array(cpu_seconds[WARM_UP:]))),
        "p95_ms": float(np.quantile(ms, 0.95)),
        "mean_hz": float(1e3 / ms.mean()),
        "best_hz": float(1e3 / np.quantile(ms, 0.1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, help="images per case")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    facts = machine()
    print_machine(facts)
    images = moving_face(args.images + WARM_UP)
    results = {}
    print(f"{WIDTH}x{HEIGHT}, target {TARGET_HZ:.0f} images/s")
    print("max_faces   best ms  median ms     p95 ms     cpu ms   images/s (mean, undisturbed)")
    for max_faces in (2, 1):
        r = results[f"max_faces={max_faces}"] = measure(images, max_faces)
        print(
            f"{max_faces:9d} {r['best_ms']:9.1f} {r['median_ms']:10.1f} {r['p95_ms']:10.1f} "
            f"{r['cpu_ms']:10.1f}   "
            f"{r['mean_hz']:.0f}, {r['best_hz']:.0f}"
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
