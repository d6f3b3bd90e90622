"""Takes the operator away in every way that happens, and writes down what the audience sees.

    this process: camera and display ─┬─► expression_tracker ─► avatar_renderer ─┬─► this process
                                      └── stops, sends walls, sets its clock ────┘

Tracker and renderer are real processes over DDS; they are stopped, killed and started again. Each
scenario begins LIVE, lasts until the placeholder is due, and ends with the operator's return.
"""

import contextlib
import io
import pathlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import rclpy
from avat3r.msg import Avatar, RendererStatus
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.charts import Span, timeline_picture
from avat3r_ros.files import write_json
from avat3r_ros.nodes.conversions import msg_from_avatar, stamp_s_from_msg
from avat3r_ros.nodes.images import image_from_msg, msg_from_image
from avat3r_ros.nodes.presence import PresenceConfig, State
from avat3r_ros.nodes.qos import LATCHED
from avat3r_ros.nodes.spinning import spinning
from avat3r_ros.nodes.supervisor import NodeProcesses, listen_as_nodes_do, telepresence_nodes
from avat3r_ros.pictures import write_png

RATE_HZ = 20.0
"""Of the camera that this process plays."""

SIZE = 128
"""Side of the rendered picture, pixels."""

START_TIMEOUT_S, RETURN_TIMEOUT_S = 120.0, 30.0
LOOK_PX = 32

STATE_COLORS = {
    State.LIVE: (120, 200, 120),
    State.HOLD: (255, 196, 80),
    State.NEUTRAL: (150, 180, 230),
    State.PLACEHOLDER: (190, 190, 190),
}


@dataclass
class Log:
    """What happened and what was seen, in seconds since the start.

    Attributes:
        states: (time, state) at each change.
        frames: (time, stamp of the driving image, small grey picture).
        events: (time, what was done to the operator).
    """

    states: list[tuple[float, State]] = field(default_factory=list)
    frames: list[tuple[float, float, np.ndarray]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)

    def states_between(self, start_s: float, end_s: float) -> list[tuple[float, State]]:
        """Changes inside an interval."""
        return [(at_s, state) for at_s, state in self.states if start_s <= at_s < end_s]


class OperatorAndAudience(Node):
    """Sends a face as a camera would, and watches the rendered picture and its state.

    Attributes:
        picture: Sent at RATE_HZ; None sends nothing.
        clock_ahead_s: How far the operator's clock is ahead of the true one.
        log: See `Log`.
    """

    def __init__(self, face: np.ndarray, avatar_path: str) -> None:
        super().__init__("silence_session")
        self.picture: np.ndarray | None = face
        self.clock_ahead_s = 0.0
        self.log = Log()
        self._start_s = time.monotonic()
        self._rng = np.random.default_rng(0)
        self._avatar = self.create_publisher(Avatar, "avatar", LATCHED)
        self._avatar.publish(msg_from_avatar(load_avatar(avatar_path), Header()))
        self._images = self.create_publisher(Image, "camera/image_raw", qos_profile_sensor_data)
        self.create_subscription(
            Image, "rendered/image_raw", self._on_frame, qos_profile_sensor_data
        )
        status = "avatar_renderer/status"
        self.create_subscription(RendererStatus, status, self._on_status, LATCHED)
        self.create_timer(1 / RATE_HZ, self._send)

    def now_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    @property
    def state(self) -> State | None:
        """Newest state of the renderer."""
        return self.log.states[-1][1] if self.log.states else None

    def note(self, text: str) -> float:
        """Write down what is done to the operator; returns the time."""
        self.log.events.append((self.now_s(), text))
        return self.log.events[-1][0]

    def _send(self) -> None:
        picture = self.picture  # the session takes it away from another thread
        if picture is None:
            return
        nanoseconds = time.time_ns() + int(1e9 * self.clock_ahead_s)
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = divmod(nanoseconds, 10**9)
        noise = self._rng.integers(0, 3, (*picture.shape[:2], 1), np.uint8)
        self._images.publish(msg_from_image(picture + noise, "rgb8", header))

    def _on_frame(self, msg: Image) -> None:
        grey = image_from_msg(msg)[..., 1]
        look = cv2.resize(grey, (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA)
        self.log.frames.append((self.now_s(), stamp_s_from_msg(msg.header.stamp), look))

    def _on_status(self, msg: RendererStatus) -> None:
        state = State(msg.state)
        if state != self.state:
            self.log.states.append((self.now_s(), state))


@dataclass(frozen=True)
class Outcome:
    """What one scenario did to the picture.

    Attributes:
        name: What was done to the operator.
        states: (state, seconds since it was done), until the operator was given back.
        hold_after_s: From the last image to HOLD on the display's side; None if it stayed LIVE.
        back_after_s: From giving the operator back to LIVE; None if it never left LIVE.
        longest_gap_s: Longest time without any picture.
        oldest_s: Largest age of a picture's stamp when it was first shown as LIVE after the return,
            by the operator's own clock; an old code replayed would show here.
    """

    name: str
    states: list[tuple[str, float]]
    hold_after_s: float | None
    back_after_s: float | None
    longest_gap_s: float
    oldest_s: float


class SilenceSession:
    """Runs scenarios on a started graph.

    Args:
        processes: With tracker and renderer running.
        node: Camera and audience.
        face: What the camera sees of the operator, RGB.
        presence: The renderer's times.
        tracker: Command of the tracker, to start it again.
        camera: Command of the real camera node.
    """

    def __init__(self, processes, node, face, presence, tracker, camera) -> None:
        self._processes, self._node, self._face = processes, node, face
        self._presence, self._tracker, self._camera = presence, tracker, camera
        self._fault_s = presence.placeholder_after_s + presence.fade_s + 0.6

    def scenarios(self) -> dict[str, Callable[[], Iterator[None]]]:
        """Name -> generator that takes the operator away, yields, and gives the operator back."""
        return {
            "face lost": self._face_lost,
            "network gone": self._network_gone,
            "tracker killed": self._tracker_killed,
            "clock +1 h": lambda: self._clock(3600.0),
            "clock -2 h": lambda: self._clock(-7200.0),
            "camera unplugged": self._camera_unplugged,
        }

    def run(self, name: str) -> Outcome:
        """Run one scenario from LIVE to LIVE.

        Raises:
            RuntimeError: The renderer does not come (back) to LIVE.
        """
        node = self._node
        self.wait_live(RETURN_TIMEOUT_S)
        scenario = self.scenarios()[name]()
        with contextlib.closing(scenario):
            next(scenario, None)
            gone_s = node.log.events[-1][0]
            time.sleep(self._fault_s)
            away = [(s.name, round(t - gone_s, 3)) for t, s in node.log.states_between(gone_s, 1e9)]
            next(scenario, None)
            back_s = node.log.events[-1][0]
            self.wait_live(RETURN_TIMEOUT_S)
        returned = [t for t, s in node.log.states_between(back_s, 1e9) if s == State.LIVE]
        time.sleep(1.0)
        shown = [f for f in node.log.frames if gone_s <= f[0]]
        ages = [
            time.time() - (node.now_s() - at_s) + node.clock_ahead_s - stamp_s
            for at_s, stamp_s, _ in shown
            if returned and at_s >= returned[0]
        ]
        hold = [t for state, t in away if state == "HOLD"]
        return Outcome(
            name,
            away,
            hold[0] if hold else None,
            round(returned[0] - back_s, 3) if returned and away else None,
            round(float(np.diff([f[0] for f in shown]).max()), 3),
            round(max(ages, default=0.0), 3),
        )

    def wait_live(self, timeout_s: float) -> None:
        """Wait until the renderer has been LIVE for half a second."""
        end_s, since_s = time.monotonic() + timeout_s, None
        while since_s is None or time.monotonic() - since_s < 0.5:
            if time.monotonic() > end_s:
                raise RuntimeError(
                    f"the renderer is {self._node.state} and was not LIVE within {timeout_s:g} s"
                )
            live = self._node.state == State.LIVE
            since_s = (since_s or time.monotonic()) if live else None
            time.sleep(0.01)

    def _face_lost(self) -> Iterator[None]:
        self._node.picture = np.full_like(self._face, 120)
        self._node.note("leaves the camera's view")
        yield
        self._node.picture = self._face
        self._node.note("is back")
        yield

    def _network_gone(self) -> Iterator[None]:
        """The tracker's machine cannot be reached; it goes on with what it had in its hands."""
        process = self._processes.process("expression_tracker")
        process.send_signal(signal.SIGSTOP)
        self._node.note("network gone")
        yield
        process.send_signal(signal.SIGCONT)
        self._node.note("network is back")
        yield

    def _tracker_killed(self) -> Iterator[None]:
        self._processes.process("expression_tracker").kill()
        self._node.note("tracker killed")
        yield
        self._processes.start(self._tracker)
        self._node.note("tracker started again")
        yield

    def _clock(self, jump_s: float) -> Iterator[None]:
        self._node.clock_ahead_s += jump_s
        self._node.note(f"clock {jump_s:+.0f} s")
        yield
        self._node.note("")
        yield

    def _camera_unplugged(self) -> Iterator[None]:
        """The real camera node, whose device (a file here) goes and comes."""
        from avat3r_ros.capture.video import VideoWriter

        with tempfile.TemporaryDirectory(prefix="avat3r-silence-") as folder:
            path, hidden = pathlib.Path(folder) / "camera.mp4", pathlib.Path(folder) / "hidden.mp4"
            height, width = self._face.shape[:2]
            with VideoWriter(path, width, height, RATE_HZ) as writer:
                for _ in range(8):
                    writer.write(self._face)
            self._node.picture, self._node.clock_ahead_s = None, 0.0
            parameters = {**self._camera.parameters, "source": str(path)}
            process = self._processes.start(replace(self._camera, parameters=parameters))
            self.wait_live(START_TIMEOUT_S)
            path.rename(hidden)
            self._node.note("camera unplugged")
            try:
                yield
                hidden.rename(path)
                self._node.note("camera plugged in")
                yield
            finally:
                process.kill()
                self._node.picture = self._face


@contextlib.contextmanager
def silence_session(
    avatar: str, face: np.ndarray, presence: PresenceConfig, output: io.TextIOBase | None = None
) -> Iterator[tuple[SilenceSession, OperatorAndAudience]]:
    """Start tracker and renderer and wait until the operator is LIVE.

    Args:
        avatar: .avat3r file.
        face: RGB uint8 picture in which the tracker finds a face.
        presence: Times for the renderer.
        output: Gets the nodes' messages; standard error if None.

    Raises:
        RuntimeError: The graph does not become LIVE.
    """
    listen_as_nodes_do()
    rclpy.init()
    node = OperatorAndAudience(face, avatar)
    processes = NodeProcesses(output=output)
    camera, tracker, _, renderer = telepresence_nodes(size=SIZE)
    times = {f"presence.{name}": value for name, value in vars(presence).items()}
    renderer = replace(renderer, parameters={**renderer.parameters, **times})
    with spinning(node):
        try:
            for command in (tracker, renderer):
                processes.start(command)
            session = SilenceSession(processes, node, face, presence, tracker, camera)
            session.wait_live(START_TIMEOUT_S)
            yield session, node
        finally:
            with contextlib.suppress(KeyError, ProcessLookupError):
                processes.process("expression_tracker").send_signal(signal.SIGCONT)
            processes.stop()


def write_results(
    outcomes: list[Outcome], log: Log, presence: PresenceConfig, folder: pathlib.Path
) -> None:
    """Write `silence.json` and the timeline picture `silence.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {"presence": vars(presence), "scenarios": [vars(o) for o in outcomes]}
    write_json(folder / "silence.json", report)
    write_png(timeline(log), folder / "silence.png")


def timeline(log: Log) -> np.ndarray:
    """States, how far the picture is from the placeholder to the live face, and events."""
    end_s = max(log.frames[-1][0], log.states[-1][0])
    changes = [*log.states, (end_s, State.LIVE)]
    spans = [
        Span(start, stop, state.name, STATE_COLORS[state])
        for (start, state), (stop, _) in zip(changes, changes[1:], strict=False)
    ]
    looks = np.stack([look for _, _, look in log.frames]).astype(np.float32)
    arrivals = np.array([at_s for at_s, _, _ in log.frames])
    live = np.zeros(len(arrivals), bool)
    for span in spans:
        if span.text == State.LIVE.name:
            live |= (arrivals > span.start_s + 1.0) & (arrivals < span.end_s - 0.1)
    far = np.abs(looks - np.median(looks[live], 0)).mean((1, 2))
    seen = (1.0 - far / max(float(far.max()), 1e-6)).tolist()
    gaps = (np.diff(arrivals, prepend=arrivals[0]) / 0.5).clip(0, 1).tolist()
    curves = {
        "live face in picture": list(zip(arrivals.tolist(), seen, strict=True)),
        "frame interval, 0-0.5 s": list(zip(arrivals.tolist(), gaps, strict=True)),
    }
    marks = [(at_s, text) for at_s, text in log.events if text]
    return timeline_picture(
        {"state": spans}, curves, marks, "Operator silence: what the audience sees"
    )
