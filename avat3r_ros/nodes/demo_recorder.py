"""Listens to a running graph and keeps what the demo scores: who showed what, when, how late.

Subscribes: the driver's image_raw, expression and ~/truth; the avatar; the renderer's image_raw,
camera_info and render_pose. Calls the builder's action.
"""

import collections
import threading
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from avat3r.action import BuildAvatar
from avat3r.msg import Avatar as AvatarMsg
from avat3r.msg import Expression
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from avat3r_ros.nodes.conversions import (
    avatar_from_msg,
    camera_from_body_from_viewer,
    face_from_expression,
    intrinsics_from_camera_info,
)
from avat3r_ros.nodes.images import image_from_msg
from avat3r_ros.types import Avatar, Camera, FaceState

DRIVER_MEMORY = 90
"""Driver frames remembered until the renderer has shown theirs: 3 s at 30 Hz."""

JPEG_QUALITY = 97
"""Of frames kept in memory; raw ones would need about 2 MB each."""

Stamp = tuple[int, int]


def _stamp(msg: object) -> Stamp:
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def _seconds(stamp: Stamp) -> float:
    return stamp[0] + 1e-9 * stamp[1]


@dataclass
class Recording:
    """What was heard; pictures are JPEG bytes.

    Attributes:
        drivers: Driver frames of the capture phase, by stamp in seconds.
        pairs: Stamp, driver frame and rendered frame with that stamp.
        faces: What the tracker published, by stamp.
        truths: The operator's real code by stamp.
        latencies_s: Seconds from acquisition to arrival here, by topic.
        rendered: Arrival times of all rendered frames while recording, seconds.
    """

    drivers: dict[float, bytes] = field(default_factory=dict)
    pairs: list[tuple[Stamp, bytes, bytes]] = field(default_factory=list)
    faces: dict[Stamp, FaceState] = field(default_factory=dict)
    truths: dict[Stamp, np.ndarray] = field(default_factory=dict)
    latencies_s: dict[str, list[float]] = field(
        default_factory=lambda: {"tracked": [], "rendered": []}
    )
    rendered: list[float] = field(default_factory=list)


def decode(picture: bytes) -> np.ndarray:
    """RGB uint8 of a kept frame."""
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _encode(image: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


class DemoRecorder(Node):
    """Passive listener; the demo switches `keep_drivers` and `recording`.

    Args:
        topics: Names of "driver", "expression", "truth", "avatar", "view", "view_info",
            "render_pose" and the action "build".
        pair_period_s: Least time between kept pairs, to leave the cores to the graph.

    Attributes:
        kept: What was heard while `keep_drivers` and `recording` were set.
        avatar: The newest published avatar.
        camera: The viewer's camera, relative to the avatar's body (its head at rest).
    """

    def __init__(self, topics: dict[str, str], pair_period_s: float = 0.1) -> None:
        super().__init__("demo_recorder")
        self.keep_drivers = False
        self.recording = False
        self.kept = Recording()
        self.avatar: Avatar | None = None
        self.camera: Camera | None = None
        self.tracker_alive = threading.Event()
        self.renderer_alive = threading.Event()
        self.avatar_arrived = threading.Event()
        self._pair_period_s = pair_period_s
        self._intrinsics: CameraInfo | None = None
        self._drivers: collections.OrderedDict[Stamp, np.ndarray] = collections.OrderedDict()
        self._last_pair_s = 0.0
        self._shown: Stamp | None = None
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        listen = self.create_subscription
        sensor = qos_profile_sensor_data
        listen(Image, topics["driver"], self._on_driver, sensor)
        listen(Expression, topics["expression"], self._on_expression, sensor)
        listen(Expression, topics["truth"], self._on_truth, sensor)
        listen(AvatarMsg, topics["avatar"], self._on_avatar, latched)
        listen(Image, topics["view"], self._on_view, sensor)
        listen(CameraInfo, topics["view_info"], self._on_view_info, sensor)
        listen(PoseStamped, topics["render_pose"], self._on_render_pose, sensor)
        self.builder = ActionClient(self, BuildAvatar, topics["build"])

    def _late_s(self, stamp: Stamp) -> float:
        return self.get_clock().now().nanoseconds * 1e-9 - _seconds(stamp)

    def _on_driver(self, msg: Image) -> None:
        stamp = _stamp(msg)
        if self.keep_drivers:
            self.kept.drivers[_seconds(stamp)] = _encode(image_from_msg(msg))
        if self.recording:
            self._drivers[stamp] = msg
            while len(self._drivers) > DRIVER_MEMORY:
                self._drivers.popitem(last=False)

    def _on_expression(self, msg: Expression) -> None:
        self.tracker_alive.set()
        if self.recording and msg.detected:
            stamp = _stamp(msg)
            self.kept.latencies_s["tracked"].append(self._late_s(stamp))
            self.kept.faces[stamp] = face_from_expression(msg)

    def _on_truth(self, msg: Expression) -> None:
        if self.recording:
            self.kept.truths[_stamp(msg)] = face_from_expression(msg).code

    def _on_avatar(self, msg: AvatarMsg) -> None:
        self.avatar = avatar_from_msg(msg)
        self.avatar_arrived.set()

    def _on_view_info(self, msg: CameraInfo) -> None:
        self._intrinsics = msg

    def _on_render_pose(self, msg: PoseStamped) -> None:
        info = self._intrinsics
        if info is None:
            return
        intrinsics = intrinsics_from_camera_info(info, info.width, info.height)
        pose = camera_from_body_from_viewer(msg.pose)
        self.camera = Camera(
            intrinsics=torch.tensor(intrinsics, dtype=torch.float32),
            camera_from_head=torch.tensor(pose, dtype=torch.float32),
            width=info.width,
            height=info.height,
        )

    def _on_view(self, msg: Image) -> None:
        self.renderer_alive.set()
        if not self.recording:
            return
        now_s = self.get_clock().now().nanoseconds * 1e-9
        self.kept.rendered.append(now_s)
        stamp = _stamp(msg)
        if stamp == self._shown:
            return
        self._shown = stamp
        if stamp not in self.kept.faces:
            return
        self.kept.latencies_s["rendered"].append(self._late_s(stamp))
        driver = self._drivers.get(stamp)
        if driver is not None and now_s - self._last_pair_s >= self._pair_period_s:
            self._last_pair_s = now_s
            pictures = (_encode(image_from_msg(m)) for m in (driver, msg))
            self.kept.pairs.append((stamp, *pictures))
