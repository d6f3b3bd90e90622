"""`avat3r doctor`: what this machine has, and the remedy for what it lacks."""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
from collections.abc import Callable

from avat3r_ros import __version__

OK, MISSING, OPTIONAL = "ok", "MISSING", "-"


def run(args: argparse.Namespace) -> int:
    """Print one line per part; status 1 when a part that every use needs is missing."""
    if args.download:
        return _download(args.download, args.accept_licence)
    print(f"avat3r {__version__}, Python {platform.python_version()}, {platform.platform()}")
    failed = False
    for title, check in CHECKS.items():
        try:
            state, text = check()
        except Exception as error:  # a broken part must not hide the others
            state, text = MISSING, f"{type(error).__name__}: {error}"
        failed |= state == MISSING
        print(f"  {title:<18} {state:<8} {text}")
    return int(failed)


def _download(name: str, accept_licence: bool) -> int:
    from tqdm import tqdm

    from avat3r_ros.model_files import MODEL_FILES, download_model, licence_notice

    print(licence_notice(name))
    if not accept_licence:
        print("nothing was downloaded; add --accept-licence if you agree")
        return 1
    size = MODEL_FILES[name].size_bytes
    with tqdm(desc=name, total=size, unit="B", unit_scale=True, leave=False) as bar:
        path = download_model(name, accept_licence=True, progress=bar.update)
    print(f"saved {path}")
    return 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        return OK, f"torch {torch.__version__}, {torch.cuda.get_device_name()}"
    return OK, f"torch {torch.__version__}, CPU only ({os.cpu_count()} cores); no CUDA device found"


def _native() -> tuple[str, str]:
    from avat3r_ros.native import instruction_sets, library

    library()
    return OK, f"CPU rasterizer loaded: {', '.join(instruction_sets())}"


def _gsplat() -> tuple[str, str]:
    import torch

    version = _version("gsplat")
    if version and torch.cuda.is_available():
        return OK, f"gsplat {version}"
    if version:
        return OPTIONAL, f"gsplat {version} installed but unused without a CUDA device"
    return OPTIONAL, "not installed; with a CUDA device: pip install gsplat==1.5.3 (needs nvcc)"


def _compiler() -> tuple[str, str]:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found:
        return OK, found
    return OPTIONAL, "none; only needed to rebuild the native library: apt-get install g++"


def _ros() -> tuple[str, str]:
    if importlib.util.find_spec("rclpy") is None:
        return OPTIONAL, "no rclpy; source your ROS 2 workspace, or run `make env`"
    distro = os.environ.get("ROS_DISTRO", "wheels in this environment")
    if importlib.util.find_spec("avat3r") is None:
        return MISSING, f"rclpy ({distro}) but no avat3r messages: colcon build, or `make env`"
    launcher = (
        "with ros2 launch" if shutil.which("ros2") else "no ros2 command: avat3r telepresence"
    )
    return OK, f"rclpy ({distro}), avat3r messages; {launcher}"


def _model(name: str) -> Callable[[], tuple[str, str]]:
    def check() -> tuple[str, str]:
        from avat3r_ros.model_files import find_model

        return OK, str(find_model(name))

    return check


def _dust3r() -> tuple[str, str]:
    from avat3r_ros.model_files import find_model

    try:
        return OK, str(find_model("dust3r"))
    except FileNotFoundError:
        return OPTIONAL, "none; non-commercial weights for --position-maps dust3r: docs/priors.md"


def _weights() -> tuple[str, str]:
    folder = pathlib.Path(__file__).parents[1] / "weights"
    presets = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if presets:
        return OK, ", ".join(presets)
    return OPTIONAL, "no trained weights here; avatars use the untrained base guess"


def _camera() -> tuple[str, str]:
    devices = sorted(str(path) for path in pathlib.Path("/dev").glob("video*"))
    if devices:
        return OK, ", ".join(devices)
    return OPTIONAL, "none found; use --source synthetic or a video file"


CHECKS: dict[str, Callable[[], tuple[str, str]]] = {
    "torch": _torch,
    "native library": _native,
    "gsplat": _gsplat,
    "compiler": _compiler,
    "ROS 2": _ros,
    "face landmarker": _model("face_landmarker"),
    "hand landmarker": _model("hand_landmarker"),
    "segmenter": _model("selfie_segmenter"),
    "DUSt3R": _dust3r,
    "trained weights": _weights,
    "camera": _camera,
}
