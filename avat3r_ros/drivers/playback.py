"""Plays recorded codes at the speed at which they were recorded."""

from collections.abc import Sequence

import numpy as np

from avat3r_ros.types import FaceState


class Playback:
    """A recording and how far it has been played.

    Args:
        states: As `read_codes` gives them.
        loop: Begin again at the end.

    Attributes:
        paused: Stay at the present frame.
        period_s: Usual time from one frame to the next.

    Raises:
        ValueError: Fewer than two frames, or times that do not grow.
    """

    def __init__(self, states: Sequence[FaceState], *, loop: bool) -> None:
        times_s = np.array([state.stamp_s for state in states])
        steps_s = np.diff(times_s)
        if len(states) < 2 or not (steps_s > 0).all():
            raise ValueError(
                f"expected a recording of at least 2 frames whose times grow, got {len(states)}"
            )
        self._states, self._loop = states, loop
        self._times_s = times_s - times_s[0]
        self.period_s = float(np.median(steps_s))
        self._length_s = float(self._times_s[-1]) + self.period_s
        self.paused = False
        self._position_s = 0.0
        self._now_s: float | None = None

    def at(self, now_s: float) -> FaceState | None:
        """The frame of a moment, None after the end.

        Args:
            now_s: Monotonic; the first call starts the recording.
        """
        if self._now_s is not None and not self.paused:
            self._position_s += now_s - self._now_s
        self._now_s = now_s
        if self._position_s >= self._length_s:
            if not self._loop:
                return None
            self._position_s %= self._length_s
        return self._states[self._index]

    @property
    def lasts_s(self) -> float:
        """How long the frame that `at` gave is the present one."""
        if self.paused:
            return self.period_s
        following = self._index + 1
        end_s = self._times_s[following] if following < len(self._states) else self._length_s
        return float(end_s) - self._position_s

    @property
    def _index(self) -> int:
        return int(np.searchsorted(self._times_s, self._position_s, side="right")) - 1
