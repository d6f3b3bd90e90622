"""Where the installed package's files are, with ROS 2 sourced or not."""

import os
import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

PACKAGE = "avat3r"


def package_prefix() -> Path:
    """The prefix that holds share/avat3r and lib/avat3r.

    Raises:
        RuntimeError: The package is not installed; the message has the remedy.
    """
    try:
        return Path(get_package_prefix(PACKAGE))
    except (PackageNotFoundError, OSError):  # OSError: AMENT_PREFIX_PATH is not set
        if (Path(sys.prefix) / "share" / PACKAGE).is_dir():
            return Path(sys.prefix)
        raise RuntimeError(
            f"the ROS package {PACKAGE} is not installed: run `make env`, or build it with colcon "
            "and source install/setup.bash"
        ) from None


def share_file(*parts: str) -> Path:
    """Path of a file of share/avat3r, given its folders and name."""
    return package_prefix() / "share" / PACKAGE / Path(*parts)


def executable(node: str) -> Path:
    """The executable of a node."""
    return package_prefix() / "lib" / PACKAGE / node


def node_environment() -> dict[str, str]:
    """Environment for node processes: ours, the package's prefix, DDS profile, BLAS threads.

    A profile the user has set stays.
    """
    env = dict(os.environ)
    prefix = str(package_prefix())
    known = [p for p in env.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if prefix not in known:
        env["AMENT_PREFIX_PATH"] = os.pathsep.join([prefix, *known])
    profile = str(share_file("config", "fastdds_shm.xml"))
    # Jazzy and older read the first name, Kilted and newer the second.
    env.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", profile)
    env.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", profile)
    # Several nodes share the cores: BLAS threads that wait for each other slow the fit tenfold.
    env.setdefault("OPENBLAS_NUM_THREADS", "1")
    return env
