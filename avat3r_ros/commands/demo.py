"""`avat3r demo`: the whole chain on a synthetic operator, as separate processes over DDS."""

import argparse
import pathlib


def run(args: argparse.Namespace) -> int:
    """Capture, build, drive, score; leave pictures, a video, the avatar and a report."""
    try:
        from avat3r_ros.nodes.demo_session import run_demo
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"the ROS 2 parts are missing ({error.name}): source your ROS 2 workspace, or run "
            "`make demo`, which installs the ROS 2 wheels into .venv"
        ) from error
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    return run_demo(folder, smoke=args.smoke)
