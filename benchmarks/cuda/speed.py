"""Frames per second of the whole path on a GPU: animation, images, stereo, code to bytes.

    python benchmarks/cuda/speed.py [--preset tiny] [--frames 200] [--json FILE]
    python benchmarks/cuda/speed.py --preset debug --device cpu --frames 3    # a trial

The person is synthetic; the network's weights are random in the output layers too, so nothing is
left out. Rows: building the avatar and compiling its animation (once per person), animation by the
full and by the compiled path, images of 512x512 and stereo pairs of 1024x1024 from Gaussians that
are already posed, and `code to bytes`: what a frame of the live renderer costs without ROS. Needs
gsplat on CUDA (see parity.py for its first use).
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from _machine import machine, print_machine  # noqa: E402
from _timing import RESULTS, chosen_device, repeated, write_result  # noqa: E402
from animation import randomised, synthetic_references  # noqa: E402

from avat3r_ros.animation import Animator, CompileConfig, compile_avatar  # noqa: E402
from avat3r_ros.animation.codes import compile_codes  # noqa: E402
from avat3r_ros.geometry import intrinsics_matrix, look_at_head  # noqa: E402
from avat3r_ros.model import Avat3r, build_avatar, preset  # noqa: E402
from avat3r_ros.rendering import FrameRenderer  # noqa: E402
from avat3r_ros.rig import HeadTemplate  # noqa: E402
from avat3r_ros.types import Camera  # noqa: E402

TARGETS = {"full": 62.0, "compiled": 500.0, "stereo 2x1024x1024": 250.0}
"""Per second: `full` for the paper preset, the others for any."""


def cameras(size: int, count: int) -> Camera:
    """Eyes side by side, 63 mm apart at 0.6 m, with the head filling the picture."""
    focal = size * 0.8 * 0.6 / 0.23
    yaws = (np.arange(count) - (count - 1) / 2) * 0.063 / 0.6
    poses = np.stack([look_at_head(yaw, 0.0, 0.6, np.array([0.0, 0.0, -0.08])) for yaw in yaws])
    intrinsics = intrinsics_matrix(focal, size / 2, size / 2)
    return Camera(
        intrinsics=torch.from_numpy(np.repeat(intrinsics[None], count, 0)).float(),
        camera_from_head=torch.from_numpy(poses).float(),
        width=size,
        height=size,
    )


def seconds(work: Any) -> tuple[float, Any]:
    """Wall time of one call, and its result."""
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--json", type=Path, default=RESULTS / "speed.json")
    args = parser.parse_args()
    device = chosen_device(parser, args.device, "--preset debug --device cpu --frames 3")
    facts = machine()
    print_machine(facts)

    network = randomised(Avat3r(preset(args.preset)).eval())
    views = synthetic_references(network.config.image_size, HeadTemplate.load())
    build_s, avatar = seconds(lambda: build_avatar(views, network))
    compile_s, compiled = seconds(lambda: compile_avatar(avatar, CompileConfig(), network=network))
    result: dict[str, Any] = {
        "machine": facts,
        "preset": args.preset,
        "once_s": {"build": build_s, "compile": compile_s},
        "rows": {},
        "targets_per_s": TARGETS,
    }
    codes = itertools.cycle(compile_codes("arkit_52", max(args.frames, 8), seed=1))
    rows = result["rows"]

    def measure(name: str, work: Any) -> None:
        rows[name] = repeated(name, work, device, args.frames)

    renderer, eye = FrameRenderer(), cameras(512, 1)
    for path, source in (("full", avatar), ("compiled", compiled)):
        animator = Animator(source, path=path, device=device)

        def frame(animator: Animator = animator) -> None:
            renderer.render_u8(animator.animate(next(codes)), eye)

        result[f"gaussians, {path}"] = animator.num_gaussians
        measure(path, lambda animator=animator: animator.animate(next(codes)))
        measure(f"code to bytes 512x512, {path}", frame)

    posed = animator.animate(next(codes))
    for name, camera in (
        ("image 512x512", cameras(512, 1)),
        ("stereo 2x512x512", cameras(512, 2)),
        ("stereo 2x1024x1024", cameras(1024, 2)),
    ):
        measure(name, lambda camera=camera: renderer.render_u8(posed, camera))
    if device.type == "cuda":
        result["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    write_result(result, args.json)


if __name__ == "__main__":
    main()
