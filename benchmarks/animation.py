"""Building and animating an avatar: encode and decode times, file size, memory.

    python benchmarks/animation.py [--preset tiny] [--frames 40] [--threads 2] [--json FILE]

The person is synthetic, seen by four cameras. `base guess` is an avatar without trained weights,
moved by its rig alone; `full path` is the same with a network whose output layers are random, so
nothing is left out. `best` is the fastest tenth: what undisturbed cores give. `cpu` is processor
time of all threads together, which other load on the machine changes less.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import avatar_from_bytes, avatar_to_bytes
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model import Avat3r, build_avatar, preset
from avat3r_ros.priors.template import position_maps
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, HeadCrops, ReferenceViews

TARGET_HZ = 8.0
TARGET_MB = 25.0
YAWS_PITCHES = ((0.0, 0.0), (-0.6, 0.0), (0.55, 0.05), (0.1, -0.25))


def synthetic_references(size: int, template: HeadTemplate) -> ReferenceViews:
    """Four pictures of one person, filling about half of each crop."""
    head = SyntheticHead(2, template)
    intrinsics = torch.from_numpy(intrinsics_matrix(size * 0.8 / 0.3, size / 2, size / 2)).float()
    code = arkit_code(mouthSmile=0.1)
    cameras, shots = [], []
    for yaw, pitch in YAWS_PITCHES:
        pose = torch.from_numpy(look_at_head(yaw, pitch, 0.8, np.array([0.0, -0.01, -0.06])))
        cameras.append(Camera(intrinsics, pose.float(), size, size))
        shots.append(head.render(cameras[-1], code))
    crops = HeadCrops(
        images=torch.stack([shot.image for shot in shots]),
        masks=torch.stack([shot.mask for shot in shots]),
        cameras=Camera(
            torch.stack([c.intrinsics for c in cameras]),
            torch.stack([c.camera_from_head for c in cameras]),
            size,
            size,
        ),
        codes=torch.from_numpy(np.stack([code] * len(shots))),
        identity=torch.from_numpy(head.identity),
    )
    return position_maps(crops, template)


def randomised(network: Avat3r) -> Avat3r:
    """Give the output layers small random weights: an untrained network would be skipped."""
    torch.manual_seed(0)
    for layer in network.output_layers():
        torch.nn.init.normal_(layer.weight, std=1e-3)
    return network


def measure(views: ReferenceViews, network: Avat3r, frames: int) -> dict[str, float]:
    start = time.perf_counter()
    avatar = build_avatar(views, network)
    build_s = time.perf_counter() - start
    data = avatar_to_bytes(avatar)
    start = time.perf_counter()
    animator = Animator(avatar_from_bytes(data))
    load_s = time.perf_counter() - start
    seconds, cpu_seconds = [], []
    for i in range(frames + 3):
        code = arkit_code(jawOpen=0.5 + 0.5 * np.sin(i / 3), eyeBlink=float(i % 10 == 0))
        start, cpu_start = time.perf_counter(), time.process_time()
        animator.animate(code)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    ms = 1e3 * np.array(seconds[3:])
    return {
        "gaussians": animator.num_gaussians,
        "build_s": build_s,
        "load_s": load_s,
        "file_mb": len(data) / 1e6,
        "best_ms": float(np.quantile(ms, 0.1)),
        "median_ms": float(np.median(ms)),
        "cpu_ms": float(1e3 * np.quantile(cpu_seconds[3:], 0.1)),
        "mean_hz": float(1e3 / ms.mean()),
        "best_hz": float(1e3 / np.quantile(ms, 0.1)),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny", help="network preset")
    parser.add_argument("--frames", type=int, default=40, help="codes per case")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    facts = machine()
    print_machine(facts)
    template = HeadTemplate.load()
    config = preset(args.preset)
    views = synthetic_references(config.image_size, template)
    print(
        f"preset {config.name}, {len(views.images)} references of {config.image_size}x"
        f"{config.image_size}, {args.threads} thread(s); targets {TARGET_HZ:.0f} frames/s, "
        f"{TARGET_MB:.0f} MB"
    )
    print(
        "path        Gaussians  build s  load s  file MB  best ms  median ms  cpu ms  frames/s  "
        "peak MB"
    )
    results = {}
    networks = {
        "base guess": Avat3r(config, template),
        "full path": randomised(Avat3r(config, template)),
    }
    for name, network in networks.items():
        r = results[name] = measure(views, network, args.frames)
        print(
            f"{name:11} {r['gaussians']:9d} {r['build_s']:8.2f} {r['load_s']:7.2f} "
            f"{r['file_mb']:8.1f} {r['best_ms']:8.1f} {r['median_ms']:10.1f} "
            f"{r['cpu_ms']:7.1f} {r['mean_hz']:9.1f} {r['peak_memory_mb']:8.0f}"
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
