"""Viewer pose in to the image that shows it, over ROS, between processes.

    .venv/bin/python benchmarks/viewer_pose.py me.avat3r [--size 512] [--seconds 20] [--stereo]

This process is the headset: it sends 90 poses a second, each another one. It also sends 30 codes a
second of an operator elsewhere; with --tracker it sends images of one who is here instead, and the
tracker works on this machine, too. With prediction off `~/render_pose` is the very pose an image
was drawn for, so each image tells when that pose was sent:

- "pose to image": from sending the pose that an image shows until the image is published, which is
  how old the viewpoint is when it leaves for the display;
- "turn to image": from sending any pose until an image is published that shows it or a later one,
  so the wait for the next frame counts as well.

Without --image, skimage's astronaut is the operator that is tracked. Results:
benchmarks/results/viewer_pose.json.
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import rclpy
from avat3r.msg import Expression
from display_rate import code_at
from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from ros_pipeline import face_image, processor  # chooses a ROS domain of its own
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from avat3r_ros.drivers import FaceSample
from avat3r_ros.geometry import look_at_head
from avat3r_ros.nodes import supervisor
from avat3r_ros.nodes.conversions import expression_from_face, msg_from_viewer_from_body
from avat3r_ros.nodes.expression_driver import face_from_sample
from avat3r_ros.nodes.images import msg_from_image
from avat3r_ros.nodes.paths import node_environment
from avat3r_ros.nodes.qos import EXPRESSION_OFFER
from avat3r_ros.nodes.spinning import spinning
from avat3r_ros.nodes.status_line import GraphWatch

RESULTS = pathlib.Path(__file__).parent / "results" / "viewer_pose.json"
START_S, WARM_UP_S = 90.0, 3.0
OPERATOR_HZ = 30.0
TURN_RAD, TURN_HZ = 0.4, 0.5
STAGES = (
    *(("avatar_renderer", stage) for stage in ("animate", "render", "reproject", "publish")),
    ("expression_tracker", "track"),
)


class Headset:
    """Sends poses; notes which of them each rendered image shows."""

    def __init__(self, node, poses_hz: float, eye: str) -> None:
        self.sent: dict[tuple[float, ...], float] = {}
        self.shown: list[tuple[float, tuple[float, ...]]] = []
        self._node = node
        self._poses = node.create_publisher(PoseStamped, "viewer_pose", qos_profile_sensor_data)
        listen = node.create_subscription
        # Somebody must want the images, or none are made.
        listen(Image, f"rendered/{eye}image_raw", lambda _: None, qos_profile_sensor_data)
        listen(PoseStamped, "avatar_renderer/render_pose", self._on_shown, qos_profile_sensor_data)
        node.create_timer(1 / poses_hz, self._send_pose)

    def _send_pose(self) -> None:
        yaw = TURN_RAD * np.sin(2 * np.pi * TURN_HZ * time.monotonic())
        msg = PoseStamped(pose=msg_from_viewer_from_body(look_at_head(yaw, 0.0, 0.6)))
        msg.header.stamp = self._node.get_clock().now().to_msg()
        self.sent[_place(msg)] = time.time()
        self._poses.publish(msg)

    def _on_shown(self, msg: PoseStamped, info: dict) -> None:
        self.shown.append((1e-9 * info["source_timestamp"], _place(msg)))


class Talker:
    """An operator elsewhere: codes."""

    def __init__(self, node) -> None:
        self._node, self._count = node, 0
        self._codes = node.create_publisher(Expression, "expression", EXPRESSION_OFFER)
        node.create_timer(1 / OPERATOR_HZ, self._send)

    def _send(self) -> None:
        self._count += 1
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id="operator")
        face = face_from_sample(FaceSample(code_at(self._count), np.zeros(3)), 1.0)
        self._codes.publish(expression_from_face(face, header))


class Camera:
    """An operator here: pictures with sensor noise."""

    def __init__(self, node, picture: np.ndarray) -> None:
        self._node, self._count = node, 0
        rng = np.random.default_rng(0)
        shape = picture.shape[:2] + (1,)
        self._pictures = [picture + rng.integers(0, 3, shape, np.uint8) for _ in range(8)]
        self._images = node.create_publisher(Image, "camera/image_raw", qos_profile_sensor_data)
        node.create_timer(1 / OPERATOR_HZ, self._send)

    def _send(self) -> None:
        self._count += 1
        picture = self._pictures[self._count % len(self._pictures)]
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id="camera")
        self._images.publish(msg_from_image(picture, "rgb8", header))


def _place(msg: PoseStamped) -> tuple[float, ...]:
    """Viewer's position to a nanometre: it went through a matrix and back."""
    position = msg.pose.position
    return tuple(round(x, 9) for x in (position.x, position.y, position.z))


def report(headset: Headset, seconds: float) -> dict[str, object]:
    """Percentiles of both times over what was shown."""
    shown = [(at, headset.sent[place]) for at, place in headset.shown if place in headset.sent]
    if len(shown) < 30:
        raise SystemExit(f"only {len(shown)} of {len(headset.shown)} images show a pose of ours")
    published_s, taken_s = np.array(shown).T
    newest_s = np.maximum.accumulate(taken_s)
    sent_s = np.array(sorted(headset.sent.values()))
    sent_s = sent_s[(sent_s > published_s[0]) & (sent_s <= newest_s[-1])]
    answers_s = published_s[np.searchsorted(newest_s, sent_s)] - sent_s
    return {
        "pose_to_image_ms": _percentiles(published_s - taken_s),
        "turn_to_image_ms": _percentiles(answers_s),
        "images_per_second": round(len(headset.shown) / seconds, 1),
        "images_of_other_poses": len(headset.shown) - len(shown),
    }


def _percentiles(values_s: np.ndarray) -> dict[str, float]:
    p50, p95, p99 = 1e3 * np.quantile(values_s, [0.5, 0.95, 0.99])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "p99": round(float(p99), 1)}


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Start the graph, wait for the avatar, then measure."""
    node = rclpy.create_node("headset")
    processes = supervisor.NodeProcesses(args.params)
    nodes = supervisor.telepresence_nodes(avatar=args.avatar, size=args.size, stereo=args.stereo)
    asked = {"viewer.predict": False, "quality.reproject": args.reproject}
    asked["max_rate_hz"] = args.max_rate
    nodes[-1] = replace(nodes[-1], parameters={**nodes[-1].parameters, **asked})
    try:
        for command in nodes[1:] if args.tracker else nodes[2:]:  # this process is the camera
            processes.start(command)
        with spinning(node):
            headset = Headset(node, args.rate, "left/" if args.stereo else "")
            if args.tracker:
                Camera(node, face_image(args.image, 640, 480))
            else:
                Talker(node)
            _wait(processes, START_S, lambda: len(headset.shown) >= 30)
            _wait(processes, WARM_UP_S)
            headset.shown.clear()
            watch = GraphWatch(node)
            _wait(processes, args.seconds)
            medians = {stage: watch.median_ms(name, stage) for name, stage in STAGES}
    finally:
        processes.stop()
    return report(headset, args.seconds) | {"stage_medians_ms": medians}


def _wait(
    processes: supervisor.NodeProcesses, seconds: float, done: Callable[[], bool] = lambda: False
) -> None:
    """Let the graph run, and say so if a node dies."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and not done():
        processes.check()
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", help=".avat3r file")
    parser.add_argument("--tracker", action="store_true", help="the operator is here, too")
    parser.add_argument("--image", help="picture of the operator")
    parser.add_argument("--size", type=int, default=512, help="rendered image side")
    parser.add_argument("--stereo", action="store_true")
    parser.add_argument("--rate", type=float, default=90.0, help="poses sent per second")
    parser.add_argument("--max-rate", type=float, default=60.0, help="images per second at most")
    parser.add_argument("--reproject", default="auto", choices=("auto", "always", "off"))
    parser.add_argument("--params", help="ROS parameter file; the shipped one if absent")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()

    os.environ.update(node_environment())
    rclpy.init()
    settings = {"machine": f"{processor()}, {os.cpu_count()} cores", "load": os.getloadavg()[0]}
    result = settings | vars(args) | measure(args)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
