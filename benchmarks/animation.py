"""Building and animating an avatar: encode and decode times, file size, memory.

    python benchmarks/animation.py [--preset tiny] [--frames 40] [--threads 2] [--json FILE]
                                   [--driven 300] [--out DIR]

The person is synthetic, seen by four cameras. `base guess` is an avatar without trained weights,
moved by its rig alone; `full path` is the same with a network whose output layers are random, so
nothing is left out. The compiled rows are the same two avatars through `avat3r compile`. `best` is
the fastest tenth: what undisturbed cores give. `cpu` is processor time of all threads together,
which other load on the machine changes less.

Then both compiled avatars are compared with their full paths over --driven frames of a performance
(0: not at all), and at the five frequent pairs that fare worst; --out takes both as a picture.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _compiled_check import compare
from _machine import machine, print_machine

from avat3r_ros.animation import Animator, CompileConfig, compile_avatar
from avat3r_ros.avatar_file import avatar_from_bytes, avatar_to_bytes
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model import Avat3r, build_avatar, preset
from avat3r_ros.priors.template import position_maps
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Avatar, Camera, HeadCrops, ReferenceViews

TARGET_HZ = 8.0
TARGET_MB = 25.0
TARGET_COMPILED_MS, TARGET_SPEEDUP, TARGET_LOSS_DB = 3.0, 10.0, 0.3
PERSON_SEED = 2
YAWS_PITCHES = ((0.0, 0.0), (-0.6, 0.0), (0.55, 0.05), (0.1, -0.25))


def synthetic_references(size: int, template: HeadTemplate) -> ReferenceViews:
    """Four pictures of one person, filling about half of each crop."""
    head = SyntheticHead(PERSON_SEED, template)
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


def measure(avatar: Avatar, build_s: float, frames: int) -> dict[str, float]:
    """Time loading and animating; the compiled path where the avatar has one."""
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


def timed(make: Callable[[], Avatar]) -> tuple[Avatar, float]:
    """What was made, and the seconds it took."""
    start = time.perf_counter()
    made = make()
    return made, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny", help="network preset")
    parser.add_argument("--frames", type=int, default=40, help="codes per case")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--driven", type=int, default=300, help="frames compared with full path")
    parser.add_argument("--out", type=Path, help="folder for the plot and the pictures")
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
        "path                 Gaussians  build s  load s  file MB  best ms  median ms  cpu ms  "
        "frames/s  peak MB"
    )
    results = {}
    networks = {
        "base guess": Avat3r(config, template),
        "full path": randomised(Avat3r(config, template)),
    }
    compiled = {}
    for name, network in networks.items():
        avatar, build_s = timed(lambda network=network: build_avatar(views, network))
        # The random network travels with its avatar and takes the room of a shipped one's basis.
        settings = CompileConfig(max_mb=40.0)
        fast, compile_s = timed(
            lambda avatar=avatar, network=network, settings=settings: compile_avatar(
                avatar, settings, network=network if avatar.weights_sha256 else None
            )
        )
        compiled[name] = fast
        for label, one, seconds in (
            (name, avatar, build_s),
            (f"{name}, compiled", fast, compile_s),
        ):
            r = results[label] = measure(one, seconds, args.frames)
            print(
                f"{label:20} {r['gaussians']:9d} {r['build_s']:8.2f} {r['load_s']:7.2f} "
                f"{r['file_mb']:8.1f} {r['best_ms']:8.2f} {r['median_ms']:10.2f} "
                f"{r['cpu_ms']:7.2f} {r['mean_hz']:9.1f} {r['peak_memory_mb']:8.0f}"
            )
    for name, fast in compiled.items():
        slow_r, fast_r = results[name], results[f"{name}, compiled"]
        print(
            f"{name}, compiled: {slow_r['cpu_ms'] / fast_r['cpu_ms']:.1f} times the rate by "
            f"processor time, {slow_r['best_ms'] / fast_r['best_ms']:.1f} by wall clock (target "
            f"{TARGET_SPEEDUP:.0f}; {TARGET_COMPILED_MS:.0f} ms)"
        )
        if args.driven:
            out = None if args.out is None else args.out / name.replace(" ", "_")
            head = SyntheticHead(PERSON_SEED, template)
            c = results[f"{name}, compiled"]["check"] = compare(fast, head, args.driven, out)
            print(
                f"  {args.driven} driven frames: {c['psnr_mean_db']:.1f} dB against the full path "
                f"(worst {c['psnr_min_db']:.1f})"
            )
            print(
                f"  against the truth: full path {c['full_against_truth_db']:.2f} dB, compiling "
                f"loses {c['loss_against_truth_db']:.3f} dB (at most {c['largest_loss_db']:.3f}, "
                f"target {TARGET_LOSS_DB})"
            )
            print("  worst pairs: " + ", ".join(f"{n} {e:.2f} mm" for n, e in c["worst_pairs"]))
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
