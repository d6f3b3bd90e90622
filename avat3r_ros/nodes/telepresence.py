"""All nodes of the telepresence graph in one process: composition, as far as rclpy has it.

    camera ──LocalImage──► tracker ──Expression──► renderer        by reference, hand_over.py
                           or expression_driver ──────┘
    avatar_builder                                                 an executor of its own

Nodes, topics, services and parameters are those of the separate processes. What is handed over is
published as well where anybody listens. A node that fails ends all.
"""

import argparse
import sys
import threading
from collections.abc import Sequence

import rclpy
import torch
from rclpy.exceptions import ParameterException
from rclpy.executors import (
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.utilities import remove_ros_args

from avat3r_ros.nodes.avatar_builder import AvatarBuilderNode
from avat3r_ros.nodes.avatar_renderer import AvatarRendererNode
from avat3r_ros.nodes.camera import CameraNode
from avat3r_ros.nodes.expression_driver import ExpressionDriverNode
from avat3r_ros.nodes.expression_tracker import ExpressionTrackerNode
from avat3r_ros.nodes.hand_over import HandOver
from avat3r_ros.nodes.managed import ManagedNode, keep_for_good
from avat3r_ros.nodes.spinning import spin_quietly

CAMERA = "camera"
"""The driver that is seen by camera and tracker."""


def make_nodes(driver: str, *, camera: bool, **options: object) -> list[ManagedNode]:
    """Create the nodes of one process, in the order in which they are started.

    Args:
        driver: "camera", or one of expression_driver's.
        camera: Whether the camera node is one of them; if not, images come by topic.
        **options: Passed to each node.
    """
    topics, classes = ["expression"], [ExpressionDriverNode]
    if driver == CAMERA:
        classes = [ExpressionTrackerNode]
        if camera:
            topics += ["image_raw", "camera_info"]
            classes.insert(0, CameraNode)
    local = HandOver(*topics)
    classes += [AvatarBuilderNode, AvatarRendererNode]
    return [node_class(local=local, **options) for node_class in classes]


def main(args: Sequence[str] | None = None) -> int:
    """Run all nodes until told to stop; 1 when one could not start or failed."""
    parser = argparse.ArgumentParser(prog="telepresence", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--driver", default=CAMERA)
    parser.add_argument("--camera", default="true", choices=("true", "false"))
    words = list(sys.argv if args is None else args)
    chosen = parser.parse_args(remove_ros_args(words)[1:])
    torch.set_num_threads(1)
    rclpy.init(args=words)
    nodes: list[ManagedNode] = []
    try:
        nodes += make_nodes(chosen.driver, camera=chosen.camera == "true")
        return _spin(nodes)
    except (KeyboardInterrupt, ExternalShutdownException):
        return int(any(node.failed for node in nodes))
    except ParameterException as error:
        sys.stderr.write(f"telepresence: {error}\n")
        return 1
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()


def _spin(nodes: list[ManagedNode]) -> int:
    """Start and serve the nodes; building an avatar must not keep the others from being served."""
    live, patient = SingleThreadedExecutor(), MultiThreadedExecutor(num_threads=4)
    for node in nodes:
        (patient if isinstance(node, AvatarBuilderNode) else live).add_node(node)
    if not all(node.autostart() for node in nodes):
        return 1
    keep_for_good()
    thread = threading.Thread(target=spin_quietly, args=(patient,), daemon=True)
    thread.start()
    try:
        spin_quietly(live)
    finally:
        patient.shutdown(timeout_sec=1.0)
        thread.join(timeout=2.0)
    return int(any(node.failed for node in nodes))
