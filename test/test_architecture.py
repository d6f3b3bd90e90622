"""Who may import whom, as a table; and the core must live without ROS, MediaPipe and gsplat."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1] / "avat3r_ros"
CORE = {
    *("types", "geometry", "expression", "rig", "native"),
    *("avatar_file", "model_files", "files", "mattes", "parallel"),
}
STAGES = {
    *("capture", "tracking", "priors", "model", "animation", "rendering", "data", "training"),
    *("streaming", "drivers", "lift"),
}

# room -> rooms of ours it may import (itself always allowed)
ALLOWED = {
    "types": set(),
    "expression": set(),
    "native": set(),
    "files": set(),
    "mattes": set(),
    "parallel": set(),
    "model_files": {"files"},
    "geometry": {"types"},
    "rig": {"types", "geometry", "expression"},
    "avatar_file": {"types", "expression", "files"},
    **{stage: CORE for stage in STAGES},
    # An avatar's colours are those with which it looks like its photos when drawn.
    "model": CORE | {"rendering"},
    # The full animation path re-runs the network from its cached prefix; compiling it takes codes
    # as drivers produce them and compares pictures.
    "animation": CORE | {"model", "data", "rendering"},
    # The lift draws the surface on which position maps then place its pictures.
    "lift": CORE | {"priors"},
    # References for training are made by the stages that make them in use, the tracker included.
    "training": CORE | STAGES | {"pictures"},
}
# Everything that is not in the table ties stages together and may import all of them.
OUTSIDE = {"rclpy": {"nodes"}, "mediapipe": {"tracking", "capture"}, "gsplat": {"rendering"}}
ROS_MESSAGES = {"avat3r", "sensor_msgs", "std_msgs", "geometry_msgs", "diagnostic_msgs", "tf2_ros"}


def imports_of(path: pathlib.Path) -> set[str]:
    """Absolute names of all modules a file imports, at any depth."""
    package = ("avat3r_ros", *path.relative_to(ROOT).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py" or p.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path):
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "avat3r_ros" and len(parts) > 1 and room in ALLOWED:
            assert parts[1] == room or parts[1] in ALLOWED[room], f"{room} must not import {name}"
        if parts[0] in OUTSIDE:
            assert room in OUTSIDE[parts[0]], f"{name} may only be imported in {OUTSIDE[parts[0]]}"
        if parts[0] in ROS_MESSAGES:
            assert room == "nodes", f"{name} may only be imported in nodes/"


def test_every_room_of_the_table_exists():
    present = {room_of(path) for path in FILES}
    assert set(ALLOWED) <= present, set(ALLOWED) - present


def test_core_imports_without_ros_mediapipe_and_gsplat():
    """Every ROS-free module imports in a process where the heavy outsiders are blocked.

    Importing loads no native library, and the CPU draws without gsplat.
    """
    modules = sorted(
        ".".join(("avat3r_ros", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for path in FILES
        if room_of(path) != "nodes"
    )
    script = (
        "import importlib, sys\n"
        "for name in ('rclpy', 'mediapipe', 'gsplat', 'avat3r', 'cv_bridge'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "import torch\n"
        "from avat3r_ros import native, rendering\n"
        "assert native.library.cache_info().currsize == 0, 'a library was loaded'\n"
        "rendering.rasterization(torch.zeros(1, 3), torch.ones(1, 4), torch.ones(1, 3),\n"
        "    torch.ones(1), torch.ones(1, 3), torch.eye(4)[None], torch.eye(3)[None], 8, 8)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr[-2000:]
