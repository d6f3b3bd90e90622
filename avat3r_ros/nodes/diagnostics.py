"""What a node tells about itself on /diagnostics: time per stage, refused messages, health."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

REMEMBERED = 900
"""Measurements kept for each stage: 30 s at 30 per second, enough for a 99th percentile."""

RATE_WINDOW_S = 2.0


class StageTimes:
    """Latency percentiles and rate of each stage; any thread may record."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, deque[float]] = {}
        self._times: dict[str, deque[float]] = {}

    def record(self, stage: str, seconds: float) -> None:
        """Add one measurement."""
        with self._lock:
            self._seconds.setdefault(stage, deque(maxlen=REMEMBERED)).append(seconds)
            self._times.setdefault(stage, deque(maxlen=REMEMBERED)).append(time.monotonic())

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record the time the `with` block takes, unless it raises."""
        start = time.perf_counter()
        yield
        self.record(stage, time.perf_counter() - start)

    def rate_hz(self, stage: str) -> float:
        """Measurements per second over the last RATE_WINDOW_S seconds."""
        since = time.monotonic() - RATE_WINDOW_S
        with self._lock:
            recent = [t for t in self._times.get(stage, ()) if t >= since]
        return len(recent) / RATE_WINDOW_S

    def summary_ms(self) -> dict[str, tuple[float, float, float, float]]:
        """Stage -> (median, 95th and 99th percentile, maximum) in milliseconds."""
        with self._lock:
            measured = {stage: np.array(values) for stage, values in self._seconds.items()}
        return {
            stage: tuple(1e3 * np.quantile(values, [0.5, 0.95, 0.99, 1.0]))
            for stage, values in measured.items()
        }


class Refusals:
    """Counts refused messages by kind, and says when the next one deserves a line in the log.

    Args:
        period_s: At most one line for a kind in this time.
    """

    def __init__(self, period_s: float = 5.0) -> None:
        self.counts: Counter[str] = Counter()
        self.newest = ""
        self._period_s = period_s
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}

    @property
    def total(self) -> int:
        """Refused messages of all kinds."""
        return sum(self.counts.values())

    def add(self, kind: str, reason: str) -> str | None:
        """Count one refusal; the line to log, or None while the kind is throttled."""
        now = time.monotonic()
        with self._lock:
            self.counts[kind] += 1
            self.newest = f"{kind}: {reason}"
            last_s, last_count = self._logged.get(kind, (-np.inf, 0))
            if now - last_s < self._period_s:
                return None
            skipped = self.counts[kind] - last_count - 1
            self._logged[kind] = (now, self.counts[kind])
        return f"refused {kind}: {reason}" + (f" ({skipped} more before)" if skipped else "")


def diagnostic_array(
    stamp, name: str, level: bytes, message: str, times: StageTimes, refusals: Refusals
) -> DiagnosticArray:
    """Assemble the message: one status with a value for each stage and each kind of refusal."""
    values = []
    for stage, (p50, p95, p99, worst) in times.summary_ms().items():
        text = f"p50 {p50:.1f} p95 {p95:.1f} p99 {p99:.1f} max {worst:.1f} ms"
        values.append(KeyValue(key=stage, value=f"{text}, {times.rate_hz(stage):.1f}/s"))
    values += [KeyValue(key=f"refused {k}", value=str(n)) for k, n in refusals.counts.items()]
    status = DiagnosticStatus(
        level=level, name=name, message=message, hardware_id="avat3r", values=values
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array
