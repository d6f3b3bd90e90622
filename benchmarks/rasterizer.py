"""Times of the native rasterizers on a head-like scene at 512x512.

    python benchmarks/rasterizer.py [--rounds 40] [--avatar me.avat3r] [--json FILE]

Cases are interleaved, a few milliseconds each, so that a busy moment of a shared machine hits all
of them alike. `best` and `median` are wall times of the call from Python; `cpu` is the least
processor time of the calling thread: with one thread the whole work, without the turns that other
programs took. Targets are held against it.

The scene: Gaussians spread evenly over a head-sized bumpy ellipsoid, each as wide as its distance
to the next and a quarter as thick, in Morton order (neighbours in space are neighbours in memory,
as in an avatar, whose Gaussians come pixel by pixel from its references). `--avatar` adds a real
one, smiling and with its mouth open.

The second table splits the image to bytes on one core into its stages, by wall time.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros import geometry, native
from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.expression import arkit_code

SIZE = 512
EYES_RAD = (0.25, 0.35)
DISTANCE_M = 0.6
AXES_M = np.array([0.075, 0.115, 0.095])  # half width, height, depth of the head

# Milliseconds on one core, by Gaussians and instruction set; meant for an idle, recent processor.
FORWARD_TARGETS_MS = {
    (65536, "avx512"): 6,
    (65536, "avx2"): 9,
    (262144, "avx512"): 13,
    (262144, "avx2"): 17,
}
BACKWARD_TARGET = 5.0  # times the forward pass
MESH_TARGET_MS = 5


def head_scene(num: int, yaws_rad: tuple[float, ...] = (0.3,), seed: int = 0) -> native.SplatScene:
    """Build `num` Gaussians on a head-like surface, seen from 0.6 m, filling 80 % of the height."""
    rng = np.random.default_rng(seed)
    # Spherical Fibonacci points are even on the unit sphere, and nearly so on the ellipsoid.
    i = np.arange(num) + 0.5
    y, azimuth = 1 - 2 * i / num, np.pi * (1 + 5**0.5) * i
    ring = np.sqrt(1 - y * y)
    unit = np.stack([ring * np.cos(azimuth), y, ring * np.sin(azimuth)], -1)
    normals = unit / AXES_M
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = unit * AXES_M
    bumps = 0.003 * np.sin(60 * points[:, 0]) * np.sin(50 * points[:, 1])
    points += normals * (bumps + rng.normal(size=num) * 5e-4)[:, None]

    order = morton_order(points)
    points, normals = points[order], normals[order]
    spacing = np.sqrt(surface_area(AXES_M) / num)
    scales = spacing * np.exp(rng.normal(size=(num, 3)) * 0.25) * [1, 1, 0.25]
    shade = 0.4 + 0.6 * np.clip(normals @ [0.3, 0.4, 0.86], 0, 1)
    colors = np.clip([0.75, 0.55, 0.45] + rng.normal(size=(num, 3)) * 0.05, 0, 1) * shade[:, None]
    tangents = np.cross(normals, rng.normal(size=(num, 3)))
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    rotations = np.stack([tangents, np.cross(normals, tangents), normals], -1)

    return seen(
        _tensor(points),
        geometry.quats_wxyz_from_matrices(_tensor(rotations)).contiguous(),
        _tensor(scales),
        _tensor(rng.normal(0.9, 0.08, num).clip(0.02, 0.999)),
        _tensor(colors),
        yaws_rad=yaws_rad,
        centre=np.zeros(3),
    )


def avatar_scene(path: Path, yaws_rad: tuple[float, ...] = (0.3,)) -> native.SplatScene:
    """Pose the avatar of a file and look at the middle of its face."""
    gaussians = Animator(load_avatar(path)).animate(arkit_code(jawOpen=0.4, mouthSmile=0.3))
    return seen(
        *(
            getattr(gaussians, name).float().contiguous()
            for name in ("means", "quats_wxyz", "scales", "opacities", "colors")
        ),
        yaws_rad=yaws_rad,
        centre=np.array([0.0, -0.005, -0.09]),
    )


def seen(
    *tensors: torch.Tensor, yaws_rad: tuple[float, ...], centre: np.ndarray
) -> native.SplatScene:
    """Look at Gaussians (the first fields of a SplatScene) from one camera for each yaw."""
    focal = 0.8 * SIZE * DISTANCE_M / (2 * AXES_M[1])
    intrinsics = np.array([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]])
    poses = np.stack([geometry.look_at_head(yaw, 0.1, DISTANCE_M, centre) for yaw in yaws_rad])
    return native.SplatScene(
        *tensors,
        viewmats=_tensor(poses),
        intrinsics=_tensor(np.repeat(intrinsics[None], len(poses), 0)),
        width=SIZE,
        height=SIZE,
    )


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def surface_area(axes: np.ndarray, p: float = 1.6) -> float:
    """Area of an ellipsoid (Knud Thomsen's formula, 1 %)."""
    a, b, c = axes**p
    return float(4 * np.pi * ((a * b + a * c + b * c) / 3) ** (1 / p))


def morton_order(points: np.ndarray) -> np.ndarray:
    """Indices that sort points along a Z-order curve of 1024 cells a side."""
    cells = (points - points.min(0)) / np.ptp(points, axis=0) * 1023
    code = np.zeros(len(points), np.int64)
    for bit, axis in itertools.product(range(10), range(3)):
        code |= (cells[:, axis].astype(np.int64) >> bit & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def make_cases(
    sizes: tuple[int, ...], avatar: Path | None, cores: int
) -> dict[tuple, Callable[[], object]]:
    """Name every measured call by (what, Gaussians, instruction set, threads)."""
    cases: dict[tuple, Callable[[], object]] = {}
    image = torch.empty(2, SIZE, SIZE, 3, dtype=torch.uint8)
    channels, alphas = torch.empty(1, SIZE, SIZE, 3), torch.empty(1, SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(1, SIZE, SIZE, 3, generator=generator)
    live, training = native.SplatWorkspace(), native.SplatWorkspace()
    pairs = [(head_scene(num), head_scene(num, EYES_RAD)) for num in sizes]
    if avatar is not None:
        pairs.append((avatar_scene(avatar), avatar_scene(avatar, EYES_RAD)))
    for mono, stereo in pairs:
        num = len(mono.means)
        for name in native.instruction_sets():
            for threads in sorted({1, cores}):
                options = {"num_threads": threads, "instruction_set": name}

                def to_bytes(scene=mono, options=options):
                    return live.forward(scene, image_bytes=image[:1], **options)

                def both_eyes(scene=stereo, options=options):
                    live.forward(scene, image_bytes=image, **options)

                def forward(scene=mono, options=options):
                    training.forward(
                        scene, channels=channels, alphas=alphas, keep_for_backward=True, **options
                    )

                def backward(scene=mono, options=options):
                    training.backward(scene, gradient, None, **options)

                cases["image to bytes", num, name, threads] = to_bytes
                cases["stereo to bytes", num, name, threads] = both_eyes
                cases["forward, kept", num, name, threads] = forward
                cases["backward", num, name, threads] = backward
    cases["mesh, 10k triangles", 10082, "-", 1] = mesh_case()
    return cases


def mesh_case() -> Callable[[], object]:
    """A closed head-sized surface of 10 082 triangles, both sides drawn."""
    n = 72
    polar, azimuth = np.meshgrid(
        np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, n), indexing="ij"
    )
    unit = np.stack(
        [np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1
    )
    vertices = (unit * AXES_M).reshape(-1, 3).astype(np.float32)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1], i[1:, :-1], i[:-1, 1:], i[1:, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])
    triangles = triangles.reshape(-1, 3).astype(np.int32)
    focal = 0.8 * SIZE * DISTANCE_M / (2 * AXES_M[1])
    intrinsics = np.array([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1.0]])
    pose = geometry.look_at_head(0.3, 0.1, DISTANCE_M)
    return lambda: native.rasterize_mesh(vertices, triangles, intrinsics, pose, SIZE, SIZE)


def measure(
    cases: dict[tuple, Callable[[], object]], rounds: int
) -> tuple[dict[tuple, np.ndarray], dict[tuple, np.ndarray]]:
    """Time every case, one call each in turn.

    Returns:
        Wall and processor milliseconds, (2, rounds); and the best of each stage (project, sort,
        blend) where the call says, (3,).
    """
    times = {case: np.zeros((2, rounds)) for case in cases}
    stages: dict[tuple, np.ndarray] = {}
    for i in range(-1, rounds):  # the first round grows the buffers
        for case, call in cases.items():
            wall, cpu = time.perf_counter(), time.thread_time()
            stats = call()
            if i >= 0:
                times[case][:, i] = time.perf_counter() - wall, time.thread_time() - cpu
            if i >= 0 and isinstance(stats, native.SplatStats):
                stage = np.array([stats.project_ms, stats.sort_ms, stats.blend_ms])
                stages[case] = np.minimum(stages.get(case, np.inf), stage)
    return {case: seconds * 1e3 for case, seconds in times.items()}, stages


def target(case: tuple, times: dict[tuple, np.ndarray]) -> float | None:
    what, num, name, threads = case
    if what == "mesh, 10k triangles":
        return MESH_TARGET_MS
    if threads != 1:
        return None
    if what == "image to bytes":
        return FORWARD_TARGETS_MS.get((num, name))
    if what == "backward":
        return BACKWARD_TARGET * times["forward, kept", num, name, threads][1].min()
    return None


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sizes", type=int, nargs="+", default=[65536, 262144])
    parser.add_argument("--avatar", type=Path, help="also draw this avatar")
    parser.add_argument("--json", type=Path, help="also write machine and times to this file")
    options = parser.parse_args(arguments)
    facts = machine()
    print_machine(facts)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    cases = make_cases(tuple(options.sizes), options.avatar, cores)
    times, stages = measure(cases, options.rounds)
    print()
    print(f"{SIZE}x{SIZE}, milliseconds, {options.rounds} interleaved rounds")
    print(f"{'':20} Gaussians     ISA threads    best  median     cpu  target")
    rows = []
    for case, (wall, cpu) in times.items():
        what, num, name, threads = case
        limit, least = target(case, times), cpu.min()
        verdict = "" if limit is None else f"{limit:7.1f} {'met' if least <= limit else 'MISSED'}"
        print(
            f"{what:20} {num:9} {name:>7} {threads:7} {wall.min():7.2f} {np.median(wall):7.2f} "
            f"{least:7.2f} {verdict}"
        )
        rows.append(
            {
                **{"what": what, "gaussians": num, "instruction_set": name, "threads": threads},
                **{"best_ms": wall.min(), "median_ms": float(np.median(wall)), "cpu_ms": least},
                "target_ms": limit,
                "stages_ms": stages[case].tolist() if case in stages else None,
            }
        )
    print()
    print("image to bytes on one core, best milliseconds of each stage")
    print("Gaussians     ISA  project  into tiles  depth sort and blend")
    for (_, num, name, threads), (project, sort, blend) in stages.items():
        if threads == 1:
            print(f"{num:9} {name:>7} {project:8.2f} {sort:11.2f} {blend:21.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": facts, "times": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
