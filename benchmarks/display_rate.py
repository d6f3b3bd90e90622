"""Frames a display gets: compiled animation, drawing, stereo, and reprojection with its quality.

    python benchmarks/display_rate.py me.avat3r [--size 512] [--frames 60] [--json FILE]

Every frame has another expression and another viewer. Times are processor time of all threads, best
tenth and median, which other load on the machine changes least; wall clock stands beside it. The
avatar needs a compiled animation (`avat3r compile`); the full path is measured on the same file.
Without --json the figures go to benchmarks/results/display_rate.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros import geometry
from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.expression import arkit_code
from avat3r_ros.rendering import FrameRenderer, layer_camera, reproject
from avat3r_ros.types import Camera

RESULTS = Path(__file__).parent / "results" / "display_rate.json"
HEAD_CENTER = np.array([0.0, -0.02, -0.06])
FOV_RAD, IPD_M, OVERSCAN = 0.56, 0.063, 0.08
TARGET_MONO_HZ, TARGET_PAIRS_HZ, TARGET_WARP_MS = 60.0, 30.0, 2.0


def code_at(index: int) -> np.ndarray:
    """Speech, a smile and blinks."""
    return arkit_code(
        jawOpen=0.3 + 0.3 * np.sin(index / 2),
        mouthSmile=0.3 + 0.3 * np.sin(index / 11),
        eyeBlink=float(index % 12 == 0),
    )


def viewer_at(time_s: float) -> np.ndarray:
    """A viewer who looks and leans about: up to 80 degrees/s and 0.4 m/s."""
    yaw = 0.35 * np.sin(2 * np.pi * 0.6 * time_s) + 0.05 * np.sin(2 * np.pi * 1.9 * time_s)
    pitch = 0.15 * np.sin(2 * np.pi * 0.45 * time_s + 1)
    distance = 0.6 + 0.08 * np.sin(2 * np.pi * 0.5 * time_s)
    return geometry.look_at_head(yaw, pitch, distance, HEAD_CENTER)


def cameras(viewer_from_head: np.ndarray, size: int, eyes: int) -> Camera:
    focal = size / (2 * np.tan(FOV_RAD / 2))
    k = geometry.intrinsics_matrix(focal, size / 2, size / 2)
    poses = []
    for offset in (-0.5 * IPD_M, 0.5 * IPD_M) if eyes == 2 else (0.0,):
        pose = viewer_from_head.copy()
        pose[0, 3] -= offset
        poses.append(pose)
    return Camera(
        torch.tensor(np.stack([k] * eyes), dtype=torch.float32),
        torch.tensor(np.stack(poses), dtype=torch.float32),
        size,
        size,
    )


def measure(work: Callable[[int], object], frames: int) -> dict[str, float]:
    """Milliseconds of one call: processor time and wall clock, best tenth and median."""
    walls, processors = [], []
    for index in range(frames + 3):
        wall, processor = time.perf_counter(), time.process_time()
        work(index)
        walls.append(1e3 * (time.perf_counter() - wall))
        processors.append(1e3 * (time.process_time() - processor))
    return {
        f"{name}_{kind}_ms": float(np.quantile(values[3:], share))
        for name, values in (("cpu", processors), ("wall", walls))
        for kind, share in (("best", 0.1), ("median", 0.5))
    }


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.mean((a.astype(float) - b) ** 2), 1e-9) / 255**2))


def quality(animator: Animator, size: int, frames: int) -> dict[str, dict[str, float]]:
    """Drawings warped by what the viewer moves in a while, against true ones: PSNR in dB."""
    renderer, found = FrameRenderer("cpu", num_threads=1), {}
    for late_ms in (17, 33, 67):
        warped_db, old_db = [], []
        for index in range(frames):
            gaussians, time_s = animator.animate(code_at(index)), 0.13 * index
            before = cameras(viewer_at(time_s), size, 1)
            after = cameras(viewer_at(time_s + 1e-3 * late_ms), size, 1)
            truth = renderer.render_u8(gaussians, after).copy()
            layer = renderer.render_layer(gaussians, layer_camera(before, overscan=OVERSCAN))
            warped_db.append(psnr_db(reproject(layer, after).images, truth))
            old_db.append(psnr_db(reproject(layer, before).images, truth))
        found[f"{late_ms} ms"] = {
            "warped_db": float(np.mean(warped_db)),
            "worst_db": float(np.min(warped_db)),
            "not_warped_db": float(np.mean(old_db)),
        }
    return found


def measure_view(
    compiled: Animator, full: Animator, size: int, frames: int, eyes: int, threads: int
) -> dict[str, dict[str, float]]:
    """Print and return the rows of one or two eyes on some threads."""
    torch.set_num_threads(threads)
    renderer = FrameRenderer("cpu", num_threads=threads)
    resting = compiled.animate(code_at(1))
    wide = layer_camera(cameras(viewer_at(0.0), size, eyes), overscan=OVERSCAN)
    layer, moved = renderer.render_layer(resting, wide), cameras(viewer_at(0.03), size, eyes)

    def view(index: int) -> Camera:
        return cameras(viewer_at(index / 60), size, eyes)

    asked_hz = {(1, 1): TARGET_MONO_HZ, (2, 2): TARGET_PAIRS_HZ}.get((eyes, threads))
    works = {
        "compiled + drawing": lambda i: renderer.render_u8(compiled.animate(code_at(i)), view(i)),
        "full path + drawing": lambda i: renderer.render_u8(full.animate(code_at(i)), view(i)),
        "drawing alone": lambda i: renderer.render_u8(resting, view(i)),
        "layer for reprojection": lambda i: renderer.render_layer(resting, wide),
        "reprojection": lambda i: reproject(layer, moved, num_threads=threads),
    }
    targets = {"reprojection": f"asked {TARGET_WARP_MS * eyes:g} ms"}
    if asked_hz is not None:
        targets["compiled + drawing"] = f"asked {asked_hz:g} frames/s"
    rows = {}
    for what, work in works.items():
        name = f"{'stereo' if eyes == 2 else 'mono'}, {threads} thread(s): {what}"
        r = rows[name] = measure(work, frames)
        print(
            f"{name:44} {r['cpu_best_ms']:9.2f} {r['cpu_median_ms']:7.2f} {r['wall_best_ms']:10.2f}"
            f" {r['wall_median_ms']:7.2f} {1e3 / r['wall_best_ms']:9.1f}  {targets.get(what, '')}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", help=".avat3r file with a compiled animation")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--frames", type=int, default=60, help="frames per row")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    print_machine(facts)
    avatar = load_avatar(args.avatar)
    compiled, full = Animator(avatar, path="compiled"), Animator(avatar, path="full")
    print(f"{compiled.num_gaussians} Gaussians compiled, {full.num_gaussians} full; {args.size} px")
    print(f"{'':44} cpu: best  median wall: best  median  frames/s")
    rows = {}
    for eyes, threads in ((1, 1), (2, 1), (2, 2)):
        rows |= measure_view(compiled, full, args.size, args.frames, eyes, threads)
    torch.set_num_threads(1)
    found = quality(compiled, args.size, 12)
    for late, q in found.items():
        print(
            f"viewer {late} later: warped {q['warped_db']:.1f} dB against a true render (worst "
            f"{q['worst_db']:.1f}), as it was {q['not_warped_db']:.1f} dB"
        )
    args.json.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": facts, "size": args.size, "rows": rows, "reprojection_psnr": found}
    args.json.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
