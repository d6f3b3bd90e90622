"""Expressions from a phone, another program or a recording, in place of expression_tracker.

Publishes: expression. Services: ~/enable, ~/pause (recording). Listens on UDP; drivers/ has the
formats. Every source gets a frame_id of its own, so that the renderer's rule of one driver holds
for two phones as for two trackers.
"""

import socket
import threading
import time
from dataclasses import dataclass

import numpy as np
from avat3r.msg import Expression
from diagnostic_msgs.msg import DiagnosticStatus
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from avat3r_ros import geometry
from avat3r_ros.code_file import read_codes
from avat3r_ros.drivers import (
    FaceSample,
    FaceSource,
    LiveLinkFace,
    OscFace,
    Playback,
    live_link_face,
    osc_face,
)
from avat3r_ros.expression import ARKIT_52
from avat3r_ros.nodes.conversions import expression_from_face
from avat3r_ros.nodes.managed import ManagedNode, run
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.nodes.qos import EXPRESSION_OFFER
from avat3r_ros.tracking.gaze import gaze_from_code
from avat3r_ros.types import FaceState

RECORDING = "recording"
SOURCES = {"live_link_face": (LiveLinkFace, live_link_face.PORT), "osc": (OscFace, osc_face.PORT)}
DRIVERS = (*SOURCES, RECORDING)

PLACE_M = np.array([0.0, 0.0, 0.6])
"""Where a head without a known place is put: in front of the camera. Only its turn is used."""

LOOK_S = 0.1
"""How often a listener looks whether it shall stop."""

GATHER_S = 0.003
"""OSC programs send the values of one face in many datagrams: wait this long for the next one."""

MAX_GATHER_S = 0.02
"""How long they are gathered at most: a flood must not keep codes from being published."""

SILENT_S = 1.0


@dataclass(frozen=True)
class DriverConfig:
    """Parameters of the expression driver.

    Attributes:
        driver: "live_link_face" (UDP packets of the iPhone app), "osc" (UDP) or "recording" (a file
            of `avat3r track`).
        address: Of this machine, where packets are taken; 0.0.0.0 takes them from every network
            that can reach it, 127.0.0.1 only from programs here.
        port: UDP port; 0 is the usual one, 11111 for Live Link Face, 9000 for OSC.
        sender: IP address of the only sender whose packets are taken; empty takes all. UDP senders
            can be forged: keep the port away from networks you do not trust.
        head_unit_deg: Degrees of a head angle of 1: 57.29578 for radians, 1 for degrees, 180 for
            shares of half a turn.
        frame_id: Of the expressions; empty gives each source one of its own, by its name.
        recording: Code file that is played.
        loop: Start the recording again at its end.
    """

    driver: str = "live_link_face"
    address: str = "0.0.0.0"
    port: int = ranged(0, 0, 65535)
    sender: str = ""
    head_unit_deg: float = ranged(57.29578, 0.01, 360.0)
    frame_id: str = ""
    recording: str = ""
    loop: bool = True

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise ValueError(f"expected a driver of {DRIVERS}, got {self.driver!r}")
        if self.driver == RECORDING and not self.recording:
            raise ValueError("expected a code file in `recording`, as `avat3r track` writes it")


class ExpressionDriverNode(ManagedNode):
    """See the module."""

    def __init__(self, **options: object) -> None:
        super().__init__("expression_driver", {"": DriverConfig}, **options)
        self._enabled = True
        self._heard_s = -np.inf
        self._source: FaceSource | None = None
        self._playback: Playback | None = None
        self._socket: socket.socket | None = None

    def configure(self) -> None:
        """Read parameters and the recording, and create the interface."""
        self._config: DriverConfig = self.config()
        self._source = self._playback = None
        if self._config.driver == RECORDING:
            states = read_codes(self._config.recording)
            self._playback = Playback(states, loop=self._config.loop)
        else:
            self._source = SOURCES[self._config.driver][0]()
        self._publisher = self.create_lifecycle_publisher(
            Expression, "expression", EXPRESSION_OFFER
        )
        self._services_made = [
            self.create_service(SetBool, "~/enable", self._on_enable),
            self.create_service(SetBool, "~/pause", self._on_pause),
        ]

    def activate(self) -> None:
        """Start listening or playing."""
        if self._playback is not None:
            self.start_worker("play", self._play)
            return
        port = self._config.port or SOURCES[self._config.driver][1]
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
        self.destroy_lifecycle_publisher(self._publisher)
        for service in self._services_made:
            self.destroy_service(service)

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
        if time.monotonic() - self._heard_s < SILENT_S:
            return DiagnosticStatus.OK, f"{self._config.driver}: faces come"
        if self._playback is not None:
            return DiagnosticStatus.OK, f"{self._config.recording} has ended"
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

    def _play(self, stop: threading.Event) -> None:
        while not stop.is_set():
            face = self._playback.at(time.monotonic())
            if face is None:
                self.get_logger().info(f"{self._config.recording} has ended")
                return
            if self._enabled:
                self._publish(face, RECORDING)
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
