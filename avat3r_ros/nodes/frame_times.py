"""When one frame passed each stage of its way, and how long the ways between took.

    captured ── tracked ── received ── animated ── rendered ─┬─ published
    camera      tracker    renderer                          └─ encoded ── sent compressed

All moments are seconds of the wall clock of the machine that passed the stage: `captured` is the
header's stamp, `tracked` the moment at which the middleware sent the expression, the others are the
renderer's own. Between machines they are as good as the clocks agree; what is not plausible is left
out instead of shown.
"""

import time
from dataclasses import dataclass, fields, replace

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from avat3r_ros.nodes.diagnostics import StageTimes

MAX_SANE_S = 10.0
"""A way that seems to take longer, or less than no time, was timed by two clocks that disagree."""


@dataclass(frozen=True)
class FrameTimes:
    """Moments of one frame, seconds since 1970; NaN where a stage is not reached or not known."""

    captured_s: float = np.nan
    tracked_s: float = np.nan
    received_s: float = np.nan
    animated_s: float = np.nan
    rendered_s: float = np.nan
    published_s: float = np.nan

    def now(self, stage: str) -> "FrameTimes":
        """The same frame, which has passed `stage` ("animated" ...) at this moment."""
        return replace(self, **{f"{stage}_s": time.time()})

    def ways_s(self) -> dict[str, float]:
        """Seconds between neighbouring stages that are known, and over all; sane ones only."""
        known = [(name, at_s) for name, at_s in self.items() if np.isfinite(at_s)]
        pairs = list(zip(known, known[1:], strict=False))
        if len(known) > 2:
            pairs.append((known[0], known[-1]))
        ways = {f"{a} to {b}": end_s - start_s for (a, start_s), (b, end_s) in pairs}
        return {way: seconds for way, seconds in ways.items() if 0.0 <= seconds < MAX_SANE_S}

    def record(self, times: StageTimes) -> None:
        """Add the ways to a node's statistics."""
        for way, seconds in self.ways_s().items():
            times.record(way, seconds)

    def items(self) -> list[tuple[str, float]]:
        """Stage names and moments, in the order of the way."""
        return [(f.name.removesuffix("_s"), getattr(self, f.name)) for f in fields(self)]


def arrived(captured_s: float, info: dict | None) -> FrameTimes:
    """A code that has just come in.

    Args:
        captured_s: Its header's stamp.
        info: The middleware's message info; None for a code handed over inside the process, which
            takes no time.
    """
    if info is None:
        return FrameTimes(captured_s=captured_s).now("tracked").now("received")
    sent_ns = info.get("source_timestamp", 0)
    tracked_s = 1e-9 * sent_ns if sent_ns > 0 else np.nan
    return FrameTimes(captured_s=captured_s, tracked_s=tracked_s).now("received")


def msg_from_frame_times(times: FrameTimes, stamp: Time) -> DiagnosticArray:
    """Pack the moments of one frame for `~/frame_times`, with the image's own stamp."""
    values = [KeyValue(key=n, value=f"{s:.6f}") for n, s in times.items() if np.isfinite(s)]
    status = DiagnosticStatus(name="avat3r: frame times, seconds", values=values)
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def frame_times_from_msg(msg: DiagnosticArray) -> FrameTimes:
    """Inverse of `msg_from_frame_times`.

    Raises:
        ValueError: Not such a message.
    """
    known = {name for name, _ in FrameTimes().items()}
    try:
        values = {v.key: float(v.value) for v in msg.status[0].values}
    except (IndexError, ValueError) as error:
        raise ValueError(f"expected the moments of one frame, got {msg.status}") from error
    if not set(values) <= known:
        raise ValueError(f"expected stages of {sorted(known)}, got {sorted(values)}")
    return FrameTimes(**{f"{name}_s": value for name, value in values.items()})
