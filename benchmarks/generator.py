"""Speed of synthetic people: operator frames, training views, people and samples, on one core.

python benchmarks/generator.py [--json out.json]
"""

import argparse
import json
import statistics
import time

import cv2
import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.data.sampling import training_sample
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model import preset
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.people import make_person
from avat3r_ros.types import Camera


def time_ms(call, repeats: int) -> dict[str, float]:
    """Median and best time of a call; the best is what an idle machine would do."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": statistics.median(times), "best_ms": min(times)}


def head_camera(size: int) -> Camera:
    pose = look_at_head(0.3, 0.05, 0.6, np.array([0.0, -0.01, -0.06]))
    return Camera(
        torch.tensor(intrinsics_matrix(1.6 * size, size / 2, size / 2)).float(),
        torch.tensor(pose).float(),
        size,
        size,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    facts = machine()
    print_machine(facts)

    template = HeadTemplate.load()
    start = time.perf_counter()
    operator = SyntheticOperator(0, 640, 480, template)
    print(f"first person of a process, texels included: {time.perf_counter() - start:.1f} s")
    times = iter(np.arange(10_000) * 0.033)
    code = arkit_code(jawOpen=0.4, mouthSmile=0.3)
    bald = SyntheticHead(1, template, style="bald")
    long_haired = SyntheticHead(2, template, style="long")
    rows = {
        "operator frame 640x480": (lambda: operator.frame(next(times)), args.repeats),
        "view with truth 256x256, bald": (
            lambda: bald.render(head_camera(256), code),
            args.repeats,
        ),
        "view with truth 256x256, long hair": (
            lambda: long_haired.render(head_camera(256), code),
            args.repeats,
        ),
        "view with truth 512x512, long hair": (
            lambda: long_haired.render(head_camera(512), code),
            max(3, args.repeats // 3),
        ),
        "new person": (lambda: SyntheticHead(int(time.time_ns() % 10_000), template), 3),
        "training sample, 4 photos + 8 targets": (lambda: training_sample(5, template), 2),
        "training person with fit and base guess": (
            lambda: make_person(5, preset("tiny"), "fitted", template),
            2,
        ),
    }
    figures = {}
    print(f"{'':42}{'median':>10}{'best':>10}")
    for name, (call, repeats) in rows.items():
        figures[name] = time_ms(call, repeats)
        print(f"{name:42}{figures[name]['median_ms']:>7.1f} ms{figures[name]['best_ms']:>7.1f} ms")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": facts, "figures": figures}, file, indent=2)


if __name__ == "__main__":
    main()
