"""`avat3r latency`: how long from a change before the camera to the same change on the display.

    flashing operator ─► camera ─► tracker ─► renderer ─► this process, the display
          └───── moments of change (monotonic clock) ─────────┘

The graph is the real one, each node a process. The measurement looks at pixels alone: the
operator's mouth jumps at known moments, and a displayed frame shows the change when its picture has
come half of the way from the shut to the open mouth. What stamps say stands beside it.
Exposure of a real camera and scan-out of a real display are not in it.
"""

import pathlib
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from avat3r_ros.avatar_file import save_avatar
from avat3r_ros.charts import histogram_picture
from avat3r_ros.files import write_json
from avat3r_ros.nodes.conversions import stamp_s_from_msg
from avat3r_ros.nodes.flashing import changes_between, is_open, settled
from avat3r_ros.nodes.frame_times import MAX_SANE_S, FrameTimes, frame_times_from_msg
from avat3r_ros.nodes.images import image_from_msg
from avat3r_ros.nodes.spinning import spinning
from avat3r_ros.nodes.status_line import GraphWatch
from avat3r_ros.nodes.supervisor import (
    NodeProcesses,
    in_one_process,
    listen_as_nodes_do,
    telepresence_nodes,
)
from avat3r_ros.pictures import write_png

SEED = 0
"""The operator, also of the demo: the face tracker reads this one well."""

VIEW_TIMES_S = (0.5, 2.5, 4.9, 6.6)
"""Moments of the operator's script that show front, left, right and raised head."""

LOOK_PX = 64
"""Displayed frames are compared at this size: mouths are large, sensor noise averages out."""

SETTLE_S = 0.4
"""After this long the tracker's smoothing has reached the new expression."""

START_TIMEOUT_S = 120.0
COMPUTED = {
    "tracking": ("expression_tracker", "track"),
    "animation": ("avatar_renderer", "animate"),
    "drawing": ("avatar_renderer", "render"),
}
"""Stages that compute, with the nodes that time them; the rest hands things on."""

FIRST_SEEN, HALF_SEEN = 0.1, 0.5
"""Share of the change in the picture that counts as the first sign of it, and as the change."""


@dataclass(frozen=True)
class Displayed:
    """A frame that arrived at the display.

    Attributes:
        at_s: When, monotonic seconds.
        stamp_age_s: Time since the stamp of its driving image.
        look: The picture, small, (LOOK_PX, LOOK_PX) grey.
    """

    at_s: float
    stamp_age_s: float
    look: np.ndarray


class Display(Node):
    """Keeps small copies of what would be shown, and what the renderer says about its frames."""

    def __init__(self) -> None:
        super().__init__("latency_display")
        self.frames: list[Displayed] = []
        self.times: list[FrameTimes] = []
        listen = self.create_subscription
        listen(Image, "rendered/image_raw", self._on_image, qos_profile_sensor_data)
        listen(
            DiagnosticArray, "avatar_renderer/frame_times", self._on_times, qos_profile_sensor_data
        )

    def _on_image(self, msg: Image) -> None:
        at_s, age_s = time.monotonic(), time.time() - stamp_s_from_msg(msg.header.stamp)
        grey = image_from_msg(msg)[..., 1]
        look = cv2.resize(grey, (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA)
        self.frames.append(Displayed(at_s, age_s, look))

    def _on_times(self, msg: DiagnosticArray) -> None:
        self.times.append(frame_times_from_msg(msg))


def progress_of_change(frames: list[Displayed]) -> np.ndarray:
    """How far each frame is from the shut (0) to the open mouth (1).

    What shut and open look like comes from frames that were displayed when nothing had changed for
    a while; each frame is projected onto the difference.

    Raises:
        RuntimeError: The picture does not follow the operator.
    """
    looks = np.stack([f.look for f in frames]).astype(np.float32)
    calm = np.array([settled(f.at_s, SETTLE_S) for f in frames])
    opened = np.array([is_open(f.at_s) for f in frames])
    if min((calm & opened).sum(), (calm & ~opened).sum()) < 5:
        raise RuntimeError("too few frames were displayed to tell an open mouth from a shut one")
    shut_look, open_look = looks[calm & ~opened].mean(0), looks[calm & opened].mean(0)
    axis = open_look - shut_look
    if np.abs(axis).max() < 4.0:
        raise RuntimeError(
            "the rendered mouth does not follow the operator's: the pictures of open and shut "
            f"differ by {np.abs(axis).max():.1f} of 255 at most"
        )
    return ((looks - shut_look) * axis).sum((1, 2)) / (axis**2).sum()


def glass_to_glass_s(
    frames: list[Displayed], progress: np.ndarray, share: float
) -> tuple[list[float], int]:
    """Time from each change of the operator to the first displayed frame that shows it.

    Args:
        frames: In the order of arrival.
        progress: See `progress_of_change`.
        share: Of the change that must be seen.

    Returns:
        Seconds, and how many changes were never seen before the next one came.
    """
    arrivals = np.array([f.at_s for f in frames])
    changes = changes_between(arrivals[0] + SETTLE_S, arrivals[-1] - SETTLE_S)
    took, missed = [], 0
    for (moment, opens), (following, _) in zip(changes, changes[1:], strict=False):
        inside = np.flatnonzero((arrivals >= moment) & (arrivals < following))
        towards = progress[inside] if opens else 1.0 - progress[inside]
        # The last frame below the share, not the first above it: noise must not end the wait.
        below = np.flatnonzero(towards < share)
        first = below[-1] + 1 if len(below) else 0
        if first < len(inside):
            took.append(float(arrivals[inside[first]] - moment))
        else:
            missed += 1
    return took, missed


def operators_avatar(folder: pathlib.Path, *, compiled: bool = True) -> str:
    """Build the flashing operator's own avatar, with its compiled animation or without."""
    from avat3r_ros.data.operator import SyntheticOperator
    from avat3r_ros.pipeline import build_avatar_from_images

    operator = SyntheticOperator(SEED)
    images = [operator.frame(at_s) for at_s in VIEW_TIMES_S]
    path = folder / "operator.avat3r"
    save_avatar(build_avatar_from_images(images, trained=False, compiled=compiled).avatar, path)
    return str(path)


def run_latency(
    *,
    folder: pathlib.Path,
    avatar: str = "",
    seconds: float = 40.0,
    size: int = 512,
    fps: float = 30.0,
    params: str | None = None,
    single_process: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Measure, and write `latency.json` and `latency.png` into `folder`.

    Args:
        folder: Made if absent.
        avatar: .avat3r file that is driven; the operator's own is built if empty.
        seconds: How long to measure after everything has started.
        size: Side of the rendered image, pixels.
        fps: Of the operator's camera.
        params: ROS parameter file; the shipped one if None.
        single_process: All nodes in one process instead of one for each.
        say: Gets lines about the progress.

    Returns:
        The report, as in the file.

    Raises:
        RuntimeError: A node died or nothing was displayed in time, or the picture does not follow.
        ValueError: Fewer than 5 seconds are too short for percentiles.
    """
    if not seconds >= 5.0:
        raise ValueError(f"expected at least 5 seconds to measure, got {seconds}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="avat3r-latency-") as scratch:
        if not avatar:
            say("building the operator's avatar ...")
            avatar = operators_avatar(pathlib.Path(scratch))
        processes = NodeProcesses(params)
        nodes = telepresence_nodes(source="flashing", avatar=avatar, size=size)
        own = {"fps": fps, "seed": SEED}
        nodes[0] = replace(nodes[0], parameters={**nodes[0].parameters, **own})  # the camera
        if single_process:
            nodes = in_one_process(nodes)
        try:
            for node in nodes:
                processes.start(node)
            frames, times, computed = _watch(processes, seconds, say)
        finally:
            processes.stop()
    report = make_report(frames, times)
    report["medians_ms"] = _medians(report["image_in_to_image_out_ms"], computed)
    report["machine"] = {"platform": platform.platform(), "processor": _processor()}
    report["settings"] = {
        **{"size": size, "camera_fps": fps, "seconds": seconds},
        "single_process": single_process,
    }
    write_json(folder / "latency.json", report)
    where = "one process" if single_process else "separate processes over DDS"
    write_png(_picture(frames, times, where), folder / "latency.png")
    return report


def make_report(frames: list[Displayed], times: list[FrameTimes]) -> dict:
    """Percentiles in milliseconds from the pixels, from the stamps, and of each way."""
    progress = progress_of_change(frames)
    half, missed = glass_to_glass_s(frames, progress, HALF_SEEN)
    first, _ = glass_to_glass_s(frames, progress, FIRST_SEEN)
    span_s = frames[-1].at_s - frames[0].at_s
    return {
        "glass_to_glass_ms": _percentiles(half),
        "first_sign_ms": _percentiles(first),
        "stamp_to_display_ms": _percentiles(_stamp_ages(frames)),
        "image_in_to_image_out_ms": _percentiles(_ways(times).get("captured to published", [])),
        "ways_ms": {way: _percentiles(values) for way, values in _ways(times).items()},
        "changes": len(half) + missed,
        "changes_missed": missed,
        "displayed_per_second": round((len(frames) - 1) / span_s, 1),
        "new_expressions_per_second": round(len(times) / span_s, 1),
    }


def _watch(
    processes: NodeProcesses, seconds: float, say: Callable[[str], None]
) -> tuple[list[Displayed], list[FrameTimes], dict[str, float]]:
    """Be the display for `seconds` after the first live frame.

    Returns:
        Its frames, their times, and the median milliseconds of stages that compute.
    """
    listen_as_nodes_do()
    rclpy.init()
    display = Display()
    watch = GraphWatch(display)

    with spinning(display):
        say("starting the graph ...")
        end_s = time.monotonic() + START_TIMEOUT_S
        while len(display.times) < 30:
            processes.check()
            if time.monotonic() > end_s:
                raise RuntimeError(f"no driven frames were displayed within {START_TIMEOUT_S:g} s")
            time.sleep(0.1)
        say(f"measuring for {seconds:g} s ...")
        display.frames.clear()
        display.times.clear()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            processes.check()
            time.sleep(0.2)
        stages = {name: watch.median_ms(*stage) for name, stage in COMPUTED.items()}
        computed = {name: ms for name, ms in stages.items() if ms is not None}
        return list(display.frames), list(display.times), computed


def _medians(image_in_to_image_out: dict, computed: dict[str, float]) -> dict[str, float]:
    """What computes, and the rest of the way: messages, their transport, threads that wake."""
    if not image_in_to_image_out["count"]:
        return computed
    rest = image_in_to_image_out["p50"] - sum(computed.values())
    return computed | {"everything else": round(rest, 1)}


def _stamp_ages(frames: list[Displayed]) -> list[float]:
    """Ages of frames on arrival, each expression once: a repeated frame only grows older."""
    captured = {round(f.at_s - f.stamp_age_s, 4): f.stamp_age_s for f in reversed(frames)}
    return [age_s for age_s in captured.values() if 0.0 <= age_s < MAX_SANE_S]


def _ways(times: list[FrameTimes]) -> dict[str, list[float]]:
    ways: dict[str, list[float]] = {}
    for frame in times:
        for way, seconds in frame.ways_s().items():
            ways.setdefault(way, []).append(seconds)
    return ways


def _percentiles(values_s: list[float]) -> dict[str, float]:
    if not values_s:
        return {"count": 0}
    p50, p95, p99 = 1e3 * np.quantile(values_s, [0.5, 0.95, 0.99])
    return {
        "p50": round(float(p50), 1),
        "p95": round(float(p95), 1),
        "p99": round(float(p99), 1),
        "count": len(values_s),
    }


def _picture(frames: list[Displayed], times: list[FrameTimes], where: str) -> np.ndarray:
    progress = progress_of_change(frames)
    ways = _ways(times)
    series = {
        "glass to glass, half of the change seen": glass_to_glass_s(frames, progress, HALF_SEEN)[0],
        "glass to glass, first sign": glass_to_glass_s(frames, progress, FIRST_SEEN)[0],
        "stamp to display": _stamp_ages(frames),
        "captured to tracked": ways.get("captured to tracked", []),
        "tracked to published": [
            f.published_s - f.tracked_s
            for f in times
            if 0.0 <= f.published_s - f.tracked_s < MAX_SANE_S
        ],
    }
    scaled = {name: 1e3 * np.asarray(values) for name, values in series.items()}
    return histogram_picture(scaled, f"avat3r latency: {where}", "ms")


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
