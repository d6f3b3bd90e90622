"""What is installed, and that the many places which name the same thing agree."""

import ast
import os
import pathlib
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

import avat3r_ros

ROOT = pathlib.Path(__file__).resolve().parents[1]
MANIFEST = ET.parse(ROOT / "package.xml").getroot()
NODES = {
    *("avatar_builder", "avatar_renderer", "camera"),
    *("expression_driver", "expression_tracker", "telepresence"),
}


def test_versions_agree():
    version = MANIFEST.findtext("version")
    assert avat3r_ros.__version__ == version
    changelog = (ROOT / "CHANGELOG.rst").read_text()
    released = re.findall(r"^(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert version in released or "Forthcoming" in changelog or "Upcoming" in changelog


def test_every_ros_import_of_the_nodes_is_a_dependency():
    declared = {
        e.text for kind in ("depend", "exec_depend", "build_depend") for e in MANIFEST.iter(kind)
    }
    packages = {"tf2_ros": "tf2_ros_py"}  # module -> package where the names differ
    core = {"avat3r", "avat3r_ros", *sys.stdlib_module_names}
    pip_only = {"torch", "jaxtyping", "rosbags"}
    system = {
        "numpy": "python3-numpy",
        "cv2": "python3-opencv",
        "yaml": "python3-yaml",
        "scipy": "python3-scipy",
        "tqdm": "python3-tqdm",
        "PIL": "python3-pil",
        "imageio": "python3-imageio",
        "skimage": "python3-skimage",
        "builtin_interfaces": "std_msgs",  # comes with every message
    }
    for path in (ROOT / "avat3r_ros" / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top in core | pip_only:
                    continue
                wanted = system.get(top, packages.get(top, top))
                assert wanted in declared, f"{path.name} imports {top}: add {wanted} to package.xml"


def test_every_interface_file_is_generated():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    listed = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', cmake))
    folders = [ROOT / name for name in ("msg", "srv", "action")]
    assert listed == {str(p.relative_to(ROOT)) for d in folders for p in d.iterdir()}


def test_every_node_has_an_executable_and_a_main():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert set(re.search(r"foreach\(node ([\w\s]+)\)", cmake)[1].split()) == NODES
    for node in NODES:
        source = ast.parse((ROOT / "avat3r_ros" / "nodes" / f"{node}.py").read_text())
        assert any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in source.body)


def test_requirements_are_exact():
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                assert re.match(r"[\w.-]+==[\w.]+(; python_version [<>]=? \"3\.\d+\")?$", line), (
                    line
                )


def test_wheel_paths_are_rewritten_to_this_machine():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from fix_wheel_paths import fixed_text
    finally:
        sys.path.pop(0)
    import numpy

    text = (
        'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
        '/tmp/build-env/lib/python3.11/site-packages/numpy/_core/include;/keep/include"'
    )
    fixed = fixed_text(text)
    assert "/opt/python" not in fixed and "/tmp/build-env" not in fixed
    assert numpy.get_include() in fixed and "/keep/include" in fixed
    assert fixed_text(fixed) == fixed


def test_makefile_targets_are_listed_in_help():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):.*##", makefile, re.MULTILINE))
    assert targets == {"help", "env", "test", "demo", "lint", "clean"}
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True)
    assert all(f"make {target}" in shown.stdout for target in targets), shown.stdout + shown.stderr


@pytest.mark.parametrize("script", ["tools/setup_env.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script):
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_missing_system_packages_are_named_in_one_line_to_copy(tmp_path):
    """A user without root on a machine without the graphics libraries that mediapipe loads."""
    for command, output in {"ldconfig": "libc.so.6", "id": "1000"}.items():
        stub = tmp_path / command
        stub.write_text(f"#!/bin/sh\necho {output}\n")
        stub.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        [ROOT / "tools" / "setup_env.sh"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("  sudo apt-get install -y ")
    assert {"libegl1", "libgles2", "libgl1", "libglib2.0-0"} <= set(line.split())


def test_a_wrong_interpreter_is_refused_by_name(tmp_path):
    env = os.environ | {"PYTHON": "/bin/true-python", "VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        [ROOT / "tools" / "setup_env.sh"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1 and "/bin/true-python is not Python 3.10" in done.stderr


def test_nothing_names_a_single_machine():
    """Paths and hosts of whoever built it do not belong in what is shipped."""
    for name in ("Makefile", "setup.py", "CMakeLists.txt", "tools/setup_env.sh", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"/(home|work|root|Users)/", text), name


def test_installed_files():
    """Messages, executables, launch and configuration, where colcon and `make env` put them."""
    pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
    from avat3r_ros.nodes import paths

    try:
        prefix = paths.package_prefix()
    except RuntimeError as error:
        pytest.skip(str(error))
    for node in NODES:
        assert paths.executable(node).stat().st_mode & 0o111
    for part in (
        *("package.xml", "launch/telepresence.launch.py", "config/telepresence.yaml"),
        *("config/fastdds_shm.xml", "config/telepresence.rviz", "msg/Expression.msg"),
    ):
        assert paths.share_file(*part.split("/")).is_file(), part
    assert (prefix / "bin" / "avat3r").stat().st_mode & 0o111
    for script in (prefix / "bin" / "avat3r", paths.executable("camera")):
        runpy.run_path(str(script), run_name="__mp_main__")  # in a worker process: runs nothing
    from avat3r.action import BuildAvatar
    from avat3r.msg import Avatar

    assert BuildAvatar.Goal().num_views == 0 and Avatar.FORMAT == "avat3r"
