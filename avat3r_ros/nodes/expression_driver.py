"""Expressions from a phone, a headset, another program or a recording, instead of a tracker's.

    UDP datagram ──► [listen thread] ──┐
    face_weights ──► [listen thread] ──┼──► expression
    code file, bag ──► [play thread] ──┘

Services: ~/enable, ~/pause (recordings). drivers/ has the formats. Every source gets a frame_id of
its own, so that the renderer's rule of one driver holds for two phones as for two trackers.
"""

import re
import socket
import threading
import time
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from avat3r_ros import geometry
from avat3r_ros.code_file import read_codes
from avat3r_ros.drivers import FaceSample, FaceSource, FaceWeights, OscFace, Playback
from avat3r_ros.expression import ARKIT_52
from avat3r_ros.nodes.bag import read_bag
from avat3r_ros.nodes.conversions import expression_from_face, stamp_s_from_msg
from avat3r_ros.nodes.driver_config import (
    FACE_WEIGHTS,
    RECORDING,
    ROSBAG,
    UDP_SOURCES,
    DriverConfig,
)
from avat3r_ros.nodes.expression_topics import ExpressionPublisher
from avat3r_ros.nodes.managed import ManagedNode, run
from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.tracking.gaze import gaze_from_code
from avat3r_ros.types import FaceState

PLACE_M = np.array([0.0, 0.0, 0.6])
"""Where a head without a known place is put: in front of the camera. Only its turn is used."""

LOOK_S = 0.1
"""How often a listener looks whether it shall stop."""

GATHER_S = 0.003
"""OSC programs send the values of one face in many datagrams: wait this long for the next one."""

MAX_GATHER_S = 0.02
"""How long they are gathered at most: a flood must not keep codes from being published."""

SILENT_S = 1.0


class ExpressionDriverNode(ManagedNode):
    """See the module."""

    def __init__(self, **options: object) -> None:
        super().__init__("expression_driver", {"": DriverConfig}, **options)
        self._enabled = True
        self._heard_s = -np.inf
        self._source: FaceSource | None = None
        self._weights: FaceWeights | None = None
        self._playback: Playback | None = None
        self._socket: socket.socket | None = None
        self._inbox: NewestMessage | None = None

    def configure(self) -> None:
        """Read parameters and the recording, and create the interface."""
        self._config: DriverConfig = self.config()
        self._source = self._weights = self._playback = self._inbox = None
        config = self._config
        if config.driver == RECORDING:
            self._playback = Playback(read_codes(config.recording), loop=config.loop)
        elif config.driver == ROSBAG:
            states, left_out = read_bag(config.recording, config.bag_topic)
            self._playback = Playback(states, loop=config.loop)
            for line in left_out:
                self.get_logger().warning(f"{config.recording}: {line}")
        elif config.driver == FACE_WEIGHTS:
            self._weights = FaceWeights()
            self._inbox = NewestMessage(self, JointState, "face_weights")
        else:
            self._source = UDP_SOURCES[config.driver][0]()
        self._publisher = ExpressionPublisher(self)
        self._services_made = [
            self.create_service(SetBool, "~/enable", self._on_enable),
            self.create_service(SetBool, "~/pause", self._on_pause),
        ]

    def activate(self) -> None:
        """Start listening or playing."""
        if self._playback is not None:
            self.start_worker("play", self._play)
        if self._inbox is not None:
            self.start_worker("listen", partial(self._inbox.serve, self._on_weights))
        if self._source is None:
            return
        port = self._config.port or UDP_SOURCES[self._config.driver][1]
        self._socket = _listening_socket(self._config.address, port)
        self.get_logger().info(f"{self._config.driver}: listening on UDP {self.address}")
        self.start_worker("listen", self._listen)

    def deactivate(self) -> None:
        """Leave the port to others."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def cleanup(self) -> None:
        """Remove the interface."""
        self._publisher.close()
        for service in self._services_made:
            self.destroy_service(service)
        if self._inbox is not None:
            self._inbox.close()
        self._inbox = None

    def wake_workers(self) -> None:
        """End the wait for weights."""
        if self._inbox is not None:
            self._inbox.wake()

    @property
    def address(self) -> str:
        """Where it listens, "host:port"; empty while it does not."""
        if self._socket is None:
            return ""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    def health(self) -> tuple[bytes, str]:
        """Warn while no faces come."""
        if not self.is_active:
            return super().health()
        if not self._enabled:
            return DiagnosticStatus.OK, "disabled by ~/enable"
        if self._playback is not None and self._playback.paused:
            return DiagnosticStatus.OK, "paused"
        senders = 0 if self._inbox is None else self._inbox.num_publishers
        if senders > 1:
            return DiagnosticStatus.WARN, f"{senders} publishers of {self._inbox.topic}"
        if time.monotonic() - self._heard_s < SILENT_S:
            return DiagnosticStatus.OK, f"{self._config.driver}: faces come"
        if self._playback is not None:
            return DiagnosticStatus.OK, f"{self._config.recording} has ended"
        if self._inbox is not None:
            return DiagnosticStatus.WARN, f"no face comes on {self._inbox.topic}"
        text = f"{self._config.driver}: no face comes to UDP {self.address}"
        if isinstance(self._source, OscFace) and self._source.unknown:
            text += f"; {self._source.unknown} is no name of a blend shape"
        return DiagnosticStatus.WARN, text

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response):
        self._enabled = request.data
        response.success = True
        response.message = "driving" if request.data else "idle; no expressions are published"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response):
        if self._playback is None:
            response.message = f"only a recording can be paused, this is {self._config.driver}"
            return response
        self._playback.paused = request.data
        response.success = True
        response.message = "the face stays as it is" if request.data else "playing"
        return response

    def _on_weights(self, msg: JointState) -> None:
        if not self._enabled:
            return
        unknown = len(self._weights.unknown)
        source = re.sub(r"\W", "_", msg.header.frame_id[:64], flags=re.ASCII)
        try:
            with self.times.measure("parse"):
                stamp_s = stamp_s_from_msg(msg.header.stamp)
                sample = self._weights.take(msg.name, msg.position, source, stamp_s)
        except ValueError as error:
            self.refuse("face weights", f"from {source or 'nobody'}: {error}")
            return
        finally:
            if len(self._weights.unknown) > unknown:
                names = ", ".join(sorted(self._weights.unknown))
                self.get_logger().warning(f"names that are no face weights: {names}")
        face = face_from_sample(sample, self._config.head_unit_deg)
        self._publish(face, f"{FACE_WEIGHTS}_{source}" if source else FACE_WEIGHTS)

    def _play(self, stop: threading.Event) -> None:
        while not stop.is_set():
            face = self._playback.at(time.monotonic())
            if face is None:
                self.get_logger().info(f"{self._config.recording} has ended")
                return
            if self._enabled:
                self._publish(face, self._config.driver)
            stop.wait(self._playback.lasts_s)

    def _listen(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._take_datagrams(stop)
            for name, sample in self._source.newest().items():
                if self._enabled:
                    face = face_from_sample(sample, self._config.head_unit_deg)
                    self._publish(face, f"{self._config.driver}_{name}")

    def _take_datagrams(self, stop: threading.Event) -> None:
        """Wait for a datagram and take those that are there; of whole faces the newest counts."""
        # Only faces in parts are worth waiting for.
        gather_s = GATHER_S if isinstance(self._source, OscFace) else 0.0
        self._socket.settimeout(LOOK_S)
        end_s = np.inf
        while time.monotonic() < end_s:
            try:
                data, sender = self._socket.recvfrom(65535)
            except (TimeoutError, BlockingIOError):
                return
            except OSError as error:  # the network is gone; it may come back
                self.refuse("socket", error)
                stop.wait(LOOK_S)
                return
            self._take_one(data, sender[0])
            self._socket.settimeout(gather_s)
            end_s = min(end_s, time.monotonic() + MAX_GATHER_S)

    def _take_one(self, data: bytes, host: str) -> None:
        if self._config.sender and host != self._config.sender:
            self.refuse("sender", f"{host} is not {self._config.sender}")
            return
        try:
            with self.times.measure("parse"):
                self._source.take(data, host, time.monotonic())
        except ValueError as error:
            self.refuse("packet", f"from {host}: {error}")

    def _publish(self, face: FaceState, source: str) -> None:
        frame_id = self._config.frame_id or source
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=frame_id)
        expression = expression_from_face(face, header)
        self.local.give("expression", expression)
        self._publisher.publish(expression)
        self._heard_s = time.monotonic()


def face_from_sample(sample: FaceSample, head_unit_deg: float) -> FaceState:
    """What a tracker would have said, for a camera straight in front of the unturned head."""
    code = np.zeros(len(ARKIT_52), np.float32) if sample.code is None else sample.code
    return FaceState(
        stamp_s=0.0,
        detected=sample.code is not None,
        confidence=float(sample.code is not None),
        code=code,
        gaze=gaze_from_code(code),
        camera_from_head=camera_from_turned_head(head_unit_deg * np.asarray(sample.head)),
        landmarks_px=np.zeros((0, 2), np.float32),
        num_faces=int(sample.code is not None),
    )


def camera_from_turned_head(head_deg: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """Pose of a head in front of the camera; see `FaceSample.head` for the angles."""
    turn = Rotation.from_euler("YXZ", head_deg, degrees=True).as_matrix()
    return geometry.pose_matrix(geometry.CAMERA_FROM_HEAD_AXES @ turn, PLACE_M)


def _listening_socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise OSError(f"cannot listen on UDP {address}:{port}: {error}") from error
    return made


def main(args: list[str] | None = None) -> int:
    """Run the node as a process of its own."""
    return run(ExpressionDriverNode, args)
