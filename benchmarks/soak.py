"""Half an hour of telepresence: memory of every process, states, and the time between frames.

    .venv/bin/python benchmarks/soak.py [me.avat3r] [--minutes 30] [--single-process] [-o out/soak]

The real graph. The operator is a short video, painted once, so that painting costs nothing later;
the viewer moves all the time. Every few minutes the tracker is switched off for some seconds: HOLD,
NEUTRAL, PLACEHOLDER and, after its return, LIVE must be seen, and no other state at other times.
Leaves soak.json and soak.png.
"""

import argparse
import contextlib
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from _machine import machine

os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 200))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import rclpy  # noqa: E402
from avat3r.msg import RendererStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402

from avat3r_ros.capture.video import VideoWriter  # noqa: E402
from avat3r_ros.charts import Span, timeline_picture  # noqa: E402
from avat3r_ros.data.operator import SyntheticOperator  # noqa: E402
from avat3r_ros.files import write_json  # noqa: E402
from avat3r_ros.geometry import look_at_head  # noqa: E402
from avat3r_ros.nodes import supervisor  # noqa: E402
from avat3r_ros.nodes.conversions import msg_from_viewer_from_body  # noqa: E402
from avat3r_ros.nodes.latency_session import SEED, operators_avatar  # noqa: E402
from avat3r_ros.nodes.presence import State  # noqa: E402
from avat3r_ros.nodes.qos import LATCHED  # noqa: E402
from avat3r_ros.nodes.silence_session import STATE_COLORS  # noqa: E402
from avat3r_ros.nodes.spinning import spinning  # noqa: E402
from avat3r_ros.pictures import write_png  # noqa: E402

WARM_UP_S, START_TIMEOUT_S = 120.0, 120.0
"""Growth is counted from then on: caches and the middleware's shared memory fill up first."""

SAMPLE_S, BIN_S = 5.0, 10.0
"""Between two looks at the memory; width of the bins of the picture's frame intervals."""

AWAY_S, BACK_S = 7.0, 3.0
"""How long the operator is away, which the placeholder needs 5.4 s of, and what a return takes."""

MAX_GROWTH_MB, MAX_P99_PERIODS = 10.0, 1.5
CLIP_S, VIEWER_HZ = 8.0, 60.0
EXPECTED = [State.HOLD, State.NEUTRAL, State.PLACEHOLDER, State.LIVE]


@dataclass
class Log:
    """What was seen, in seconds since the graph was LIVE.

    Attributes:
        frames: Arrival of each image.
        states: (time, state) at each change.
        away: (start, end) of each time without operator.
        memory_mb: Process -> (time, resident, of it anonymous memory).
        load: (time, load of the machine).
    """

    frames: list[float] = field(default_factory=list)
    states: list[tuple[float, State]] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    memory_mb: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    load: list[tuple[float, float]] = field(default_factory=list)


class Audience(Node):
    """Moves the viewer, counts frames, notes states, and switches the tracker."""

    def __init__(self) -> None:
        super().__init__("soak")
        self.log, self.start_s = Log(), time.monotonic()
        self.create_subscription(
            Image, "rendered/image_raw", self._on_image, qos_profile_sensor_data
        )
        status = "avatar_renderer/status"
        self.create_subscription(RendererStatus, status, self._on_status, LATCHED)
        self._pose = self.create_publisher(PoseStamped, "viewer_pose", qos_profile_sensor_data)
        self._enable = self.create_client(SetBool, "expression_tracker/enable")
        self.create_timer(1 / VIEWER_HZ, self._move)

    def now_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start_s

    @property
    def state(self) -> State | None:
        """Newest state."""
        return self.log.states[-1][1] if self.log.states else None

    def begin(self) -> None:
        """Forget what was before and count time from here."""
        state, self.log, self.start_s = self.state, Log(), time.monotonic()
        self.log.states.append((0.0, state))

    def track(self, enabled: bool) -> None:
        """Switch the tracker.

        Raises:
            RuntimeError: It does not answer.
        """
        done = self._enable.call_async(SetBool.Request(data=enabled))
        end_s = time.monotonic() + 5.0
        while not done.done():
            if time.monotonic() > end_s:
                raise RuntimeError("the tracker does not answer")
            time.sleep(0.01)

    def _on_image(self, _: Image) -> None:
        self.log.frames.append(self.now_s())

    def _on_status(self, msg: RendererStatus) -> None:
        if State(msg.state) != self.state:
            self.log.states.append((self.now_s(), State(msg.state)))

    def _move(self) -> None:
        viewer = look_at_head(0.3 * np.sin(0.8 * time.monotonic()), 0.0, 0.6)
        msg = PoseStamped(pose=msg_from_viewer_from_body(viewer))
        msg.header.stamp = self.get_clock().now().to_msg()
        self._pose.publish(msg)


def paint_operator(path: pathlib.Path, fps: float) -> None:
    """Some seconds of the operator's performance as a video."""
    operator = SyntheticOperator(SEED)
    with VideoWriter(path, 640, 480, fps) as writer:
        for i in range(int(CLIP_S * fps)):
            writer.write(operator.frame(8.0 + i / fps))  # behind the turns of the capture


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and its anonymous part (what can leak)."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {
        line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Vm", "Rs"))
    }
    return int(values["VmRSS"]) / 1024, int(values["RssAnon"]) / 1024


@contextlib.contextmanager
def running(nodes: list) -> Iterator[tuple[supervisor.NodeProcesses, Audience]]:
    """The graph with its audience."""
    supervisor.listen_as_nodes_do()
    rclpy.init()
    audience = Audience()
    processes = supervisor.NodeProcesses()
    with spinning(audience):
        try:
            for node in nodes:
                processes.start(node)
            yield processes, audience
        finally:
            processes.stop()


def wait_live(audience: Audience, check: Callable[[], None]) -> None:
    """Wait until the operator is seen."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while audience.state != State.LIVE:
        check()
        if time.monotonic() > end_s:
            raise RuntimeError(f"the renderer is {audience.state}, not LIVE, after the start")
        time.sleep(0.1)
    time.sleep(3.0)


def soak(nodes: list, seconds: float, every_s: float) -> Log:
    """Run the graph and watch it."""
    with running(nodes) as (processes, audience):
        wait_live(audience, processes.check)
        audience.begin()
        log, sampled_s, gone_s = audience.log, -SAMPLE_S, None
        while audience.now_s() < seconds:
            time.sleep(0.1)
            processes.check()
            now_s = audience.now_s()
            if now_s - sampled_s >= SAMPLE_S:
                sampled_s = now_s
                log.load.append((now_s, os.getloadavg()[0]))
                for node in nodes:
                    sample = (now_s, *memory_mb(processes.process(node.name).pid))
                    log.memory_mb.setdefault(node.name, []).append(sample)
            due_s = (len(log.away) + 1) * every_s
            if gone_s is None and due_s <= now_s < seconds - AWAY_S - BACK_S:
                audience.track(False)
                gone_s = now_s
            if gone_s is not None and now_s - gone_s >= AWAY_S:
                audience.track(True)
                log.away.append((gone_s, audience.now_s()))
                gone_s = None
        return log


def growth_mb(samples: list[tuple[float, float, float]], column: int) -> float:
    """Growth from the warm-up to the end by the median slope of all pairs (Theil and Sen)."""
    values = np.array(samples)
    values = values[values[:, 0] >= min(WARM_UP_S, 0.4 * values[-1, 0])]
    first, second = np.triu_indices(len(values), 1)
    rise, run = (values[second] - values[first])[:, [column, 0]].T
    return float(np.median(rise / run) * (values[-1, 0] - values[0, 0]))


def judge(log: Log, render_hz: float) -> dict:
    """What the run was like, and whether it is good enough."""
    missed, expected_spans = [], []
    for start_s, end_s in log.away:
        expected_spans.append((start_s, end_s + BACK_S))
        seen = [s for t, s in log.states if start_s <= t < end_s + BACK_S]
        if seen != EXPECTED:
            missed.append({"at_s": round(start_s, 1), "seen": [s.name for s in seen]})
    unasked = [
        {"at_s": round(t, 2), "state": s.name, "for_s": round(following - t, 2)}
        for (t, s), (following, _) in zip(
            log.states, [*log.states[1:], (log.frames[-1], State.LIVE)], strict=True
        )
        if s != State.LIVE and not any(a <= t < b for a, b in expected_spans)
    ]
    intervals_ms = 1e3 * np.diff(log.frames)
    p50, p95, p99 = np.quantile(intervals_ms, [0.5, 0.95, 0.99])
    growth = {
        name: {"resident": round(growth_mb(s, 1), 2), "anonymous": round(growth_mb(s, 2), 2)}
        for name, s in log.memory_mb.items()
    }
    total = sum(g["resident"] for g in growth.values())
    limit_ms = MAX_P99_PERIODS * 1e3 / render_hz
    good = {
        f"memory {total:+.1f} MB (< {MAX_GROWTH_MB:g})": total < MAX_GROWTH_MB,
        f"{len(log.away)} absences, {len(missed)} with missed states": not missed,
        f"{len(unasked)} states unasked for": not unasked,
        f"frame interval p99 {p99:.1f} ms (<= {limit_ms:.0f})": p99 <= limit_ms,
    }
    return {
        "verdict": ("good: " if all(good.values()) else "NOT GOOD: ")
        + "; ".join(text if fine else f"[{text}]" for text, fine in good.items()),
        "minutes": round(log.frames[-1] / 60, 1),
        "growth_mb": growth,
        "last_mb": {name: round(s[-1][1], 1) for name, s in log.memory_mb.items()},
        "missed": missed,
        "unasked": unasked,
        "frames": len(log.frames),
        "interval_ms": {
            **{"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
            **{"max": round(float(intervals_ms.max()), 1)},
        },
        "load": {
            "median": round(float(np.median([v for _, v in log.load])), 2),
            "max": max(v for _, v in log.load),
        },
    }


def picture(log: Log, report: dict) -> np.ndarray:
    """States, memory of each process, frame intervals and load over time."""
    end_s = log.frames[-1]
    changes = [*log.states, (end_s, State.LIVE)]
    spans = [
        Span(start, stop, state.name, STATE_COLORS[state])
        for (start, state), (stop, _) in zip(changes, changes[1:], strict=False)
    ]
    curves = {}
    for name, samples in log.memory_mb.items():
        values = np.array(samples)
        middle = float(np.median(values[:, 1]))
        shown = ((values[:, 1] - middle) / (2 * MAX_GROWTH_MB) + 0.5).clip(0, 1)
        label = f"{name.removeprefix('expression_')}\n{middle:.0f} ± {MAX_GROWTH_MB:g} MB"
        curves[label] = list(zip(values[:, 0].tolist(), shown.tolist(), strict=True))
    arrivals = np.array(log.frames)
    edges = np.arange(0.0, end_s, BIN_S)
    worst = [
        (float(at_s), float(np.quantile(np.diff(inside), 0.99) / 0.1))
        for at_s in edges
        if len(inside := arrivals[(arrivals >= at_s) & (arrivals < at_s + BIN_S)]) > 2
    ]
    curves["frame interval\np99, 0-100 ms"] = [(t, min(v, 1.0)) for t, v in worst]
    curves["machine's load\n0-8"] = [(t, min(v / 8, 1.0)) for t, v in log.load]
    return timeline_picture({"state": spans}, curves, [], f"Soak: {report['verdict']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", nargs="?", help=".avat3r file; the operator's own if absent")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--camera-hz", type=float, default=15.0, help="rate of the operator")
    parser.add_argument("--render-hz", type=float, default=30.0, help="rate of the renderer")
    parser.add_argument("--size", type=int, default=512, help="rendered image side")
    parser.add_argument("--away-every", type=float, default=180.0, help="seconds, of the absences")
    parser.add_argument("--single-process", action="store_true")
    parser.add_argument("-o", "--output", default="out/soak", help="folder for the results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        paint_operator(folder / "operator.mp4", args.camera_hz)
        avatar = args.avatar or operators_avatar(folder)
        nodes = supervisor.telepresence_nodes(
            source=str(folder / "operator.mp4"), avatar=avatar, size=args.size
        )
        rate = {"max_rate_hz": args.render_hz, "quality.target_hz": args.render_hz}
        nodes[-1] = replace(nodes[-1], parameters={**nodes[-1].parameters, **rate})
        if args.single_process:
            nodes = supervisor.in_one_process(nodes)
        log = soak(nodes, 60 * args.minutes, args.away_every)
    report = {**judge(log, args.render_hz), "settings": vars(args), "machine": machine()}
    out = pathlib.Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    seen = {name: values for name, values in vars(log).items() if name != "frames"}
    write_json(out / "soak.json", {**report, "log": seen})
    write_png(picture(log, report), out / "soak.png")
    print(json.dumps(report, indent=2))
    print(report["verdict"])


if __name__ == "__main__":
    main()
