"""`avat3r telepresence`: the launch file's graph on machines without `ros2 launch`."""

import argparse


def run(args: argparse.Namespace) -> int:
    """Start the nodes as processes and wait for Ctrl-C."""
    try:
        from avat3r_ros.nodes.supervisor import run_telepresence
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"the ROS 2 parts are missing ({error.name}): source your ROS 2 workspace, or run "
            "`make env` to install the ROS 2 wheels into .venv"
        ) from error
    return run_telepresence(args)
