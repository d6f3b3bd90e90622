"""Listens to a running graph and keeps what the demo scores: who showed what, when, how late.

Subscribes: the driver's image_raw, expression and ~/truth; the avatar; the renderer's image_raw,
camera_info and render_pose. Calls the builder's action.
"""

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import rclpy
import torch
from avat3r.action import BuildAvatar
from avat3r.msg import Avatar as AvatarMsg
from avat3r.msg import Expression
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from avat3r_ros.nodes.conversions import (
    Stamp,
    avatar_from_msg,
    face_from_expression,
    intrinsics_from_camera_info,
    stamp_of,
    viewer_from_body_from_msg,
)
from avat3r_ros.nodes.images import image_from_msg
from avat3r_ros.nodes.paths import node_environment
from avat3r_ros.nodes.spinning import spinning
from avat3r_ros.nodes.viewpoint import body_from_turned_head, head_turn
from avat3r_ros.types import Avatar, Camera, FaceState

DRIVER_MEMORY = 90
"""Driver frames remembered until the renderer has shown theirs: 3 s at 30 Hz."""

JPEG_QUALITY = 97
"""Of frames kept in memory; raw ones would need about 2 MB each."""

PAIR_PERIOD_S = 0.1
"""Least time between kept pairs, to leave the cores to the graph."""


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


def encode(image: np.ndarray) -> bytes:
    """Keep an RGB uint8 frame as JPEG."""
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def camera_of(body_camera: Camera, face: FaceState) -> Camera:
    """The renderer's camera relative to a head that is turned like the driver's; a batch of one."""
    turned = body_from_turned_head(head_turn(face.camera_from_head))
    pose = body_camera.camera_from_head.double() @ torch.from_numpy(turned)
    return replace(
        body_camera,
        intrinsics=body_camera.intrinsics[None],
        camera_from_head=pose.float()[None],
    )


DISCOVERY_S = 1.5
"""Within this time other nodes on the network are heard of."""


@contextlib.contextmanager
def listening() -> Iterator["DemoRecorder"]:
    """A recorder that is spun by a thread of its own while the block runs."""
    os.environ.update(node_environment())  # the DDS profile that lets large images through
    rclpy.init()
    recorder = DemoRecorder()
    with spinning(recorder):
        yield recorder


class DemoRecorder(Node):
    """Passive listener; the demo switches `keep_drivers` and `recording`.

    Attributes:
        kept: What was heard while `keep_drivers` and `recording` were set.
        avatar: The newest published avatar.
        camera: The viewer's camera, relative to the avatar's body (its head at rest).
    """

    def __init__(self) -> None:
        super().__init__("demo_recorder")
        self.keep_drivers = False
        self.recording = False
        self.kept = Recording()
        self.avatar: Avatar | None = None
        self.camera: Camera | None = None
        self.seconds: dict[str, float] = {}
        self.stages: dict[str, dict[str, float]] = {}
        self.stage, self.progress = "", 0.0
        self.avatar_arrived = threading.Event()
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
        listen(Image, "camera/image_raw", self._on_driver, sensor)
        listen(Expression, "expression", self._on_expression, sensor)
        listen(Expression, "camera/truth", self._on_truth, sensor)
        listen(AvatarMsg, "avatar", self._on_avatar, latched)
        listen(Image, "rendered/image_raw", self._on_view, sensor)
        listen(CameraInfo, "rendered/camera_info", self._on_view_info, sensor)
        listen(PoseStamped, "avatar_renderer/render_pose", self._on_render_pose, sensor)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._builder = ActionClient(self, BuildAvatar, "avatar_builder/build")
        self._camera_state = self.create_client(ChangeState, "camera/change_state")

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep how long a step took in `seconds`."""
        start_s = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start_s

    def wait_for(
        self,
        what: str,
        ready: Callable[[], bool],
        timeout_s: float,
        check: Callable[[], None],
    ) -> None:
        """Wait until `ready()`; `check()` raises when a node has died meanwhile.

        Raises:
            RuntimeError: It took longer than `timeout_s`.
        """
        end_s = time.monotonic() + timeout_s
        while not ready():
            check()
            if time.monotonic() > end_s:
                raise RuntimeError(f"{what} did not appear within {timeout_s:g} s")
            time.sleep(0.05)

    def refuse_company(self) -> None:
        """Make sure that the graph which is about to start will be alone.

        Raises:
            RuntimeError: Somebody publishes expressions or rendered images already.
        """
        time.sleep(DISCOVERY_S)
        if self.count_publishers("expression") or self.count_publishers("rendered/image_raw"):
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            raise RuntimeError(
                f"another avat3r graph runs in ROS domain {domain} and would mix with this one; "
                "stop it, or keep them apart: ROS_DOMAIN_ID=17 avat3r demo"
            )

    def graph_ready(self) -> bool:
        """Whether builder, tracker, renderer and camera can be talked to."""
        return (
            self._builder.server_is_ready()
            and self._camera_state.service_is_ready()
            and self.count_publishers("expression") > 0
            and self.count_publishers("rendered/image_raw") > 0
        )

    def request_build(self) -> Future:
        """Ask the builder for an avatar from the camera topic; the future holds its result."""
        result: Future = Future()

        def on_result(future) -> None:
            result.set_result(future.result().result)

        def on_accepted(future) -> None:
            handle = future.result()
            if handle.accepted:
                handle.get_result_async().add_done_callback(on_result)
            else:
                refused = BuildAvatar.Result(message="the builder refused the request")
                result.set_result(refused)

        def send() -> None:
            goal = BuildAvatar.Goal(owner="synthetic operator")
            self._builder.send_goal_async(goal, self._on_feedback).add_done_callback(on_accepted)

        # By the thread that takes answers: rclpy drops one that comes before it has noted the goal.
        self.executor.create_task(send)
        return result

    def check_build(self, result: Future) -> None:
        """Raise a RuntimeError with the builder's own words if there is no avatar."""
        if not result.result().success:
            raise RuntimeError(f"no avatar was built: {result.result().message}")

    def activate_camera(self) -> None:
        """Let the operator begin: configure and activate the camera node."""
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            done = self._camera_state.call_async(request)
            end_s = time.monotonic() + 20.0
            while not done.done() and time.monotonic() < end_s:
                time.sleep(0.01)
            if not (done.done() and done.result().success):
                raise RuntimeError("the camera node could not be activated; see its log above")

    def _on_feedback(self, msg: object) -> None:
        feedback = msg.feedback
        wanted = feedback.wanted_views[0] if feedback.wanted_views else ""
        self.stage = wanted or feedback.stage
        self.progress = feedback.progress

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        if self.recording:
            for status in msg.status:
                node = status.name.rsplit("/", 1)[-1]
                self.stages[node] = {item.key: item.value for item in status.values}

    def _late_s(self, stamp: Stamp) -> float:
        return self.get_clock().now().nanoseconds * 1e-9 - _seconds(stamp)

    def _on_driver(self, msg: Image) -> None:
        stamp = stamp_of(msg)
        if self.keep_drivers:
            self.kept.drivers[_seconds(stamp)] = encode(image_from_msg(msg))
        if self.recording:
            self._drivers[stamp] = msg
            while len(self._drivers) > DRIVER_MEMORY:
                self._drivers.popitem(last=False)

    def _on_expression(self, msg: Expression) -> None:
        if self.recording and msg.detected:
            stamp = stamp_of(msg)
            self.kept.latencies_s["tracked"].append(self._late_s(stamp))
            self.kept.faces[stamp] = face_from_expression(msg)

    def _on_truth(self, msg: Expression) -> None:
        if self.recording:
            self.kept.truths[stamp_of(msg)] = face_from_expression(msg).code

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
        pose = viewer_from_body_from_msg(msg.pose)
        self.camera = Camera(
            intrinsics=torch.tensor(intrinsics, dtype=torch.float32),
            camera_from_head=torch.tensor(pose, dtype=torch.float32),
            width=info.width,
            height=info.height,
        )

    def _on_view(self, msg: Image) -> None:
        if not self.recording:
            return
        now_s = self.get_clock().now().nanoseconds * 1e-9
        self.kept.rendered.append(now_s)
        stamp = stamp_of(msg)
        if stamp == self._shown:
            return
        self._shown = stamp
        if stamp not in self.kept.faces:
            return
        self.kept.latencies_s["rendered"].append(self._late_s(stamp))
        driver = self._drivers.get(stamp)
        if driver is not None and now_s - self._last_pair_s >= PAIR_PERIOD_S:
            self._last_pair_s = now_s
            pictures = (encode(image_from_msg(m)) for m in (driver, msg))
            self.kept.pairs.append((stamp, *pictures))
