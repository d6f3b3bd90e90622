"""Where the viewer will be when a picture is seen: poses as they come, carried on in time.

    viewer_pose, TF ──observe()──► newest pose and its motion ──at(display time)──► render thread

A picture shows where the viewer was when its pose was measured. The way from there to the display
takes tens of milliseconds in which the viewer goes on moving, so the newest pose is carried on with
the screw motion (constant velocity in SE(3)) of the last few poses: never far, never through a
jump, and not for long after the poses have stopped. No ROS here: times are seconds of one clock.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from avat3r_ros.geometry import invert_pose, pose_from_twist, twist_from_pose
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.nodes.viewpoint import HEAD_CENTER

MAX_CLOCK_AGE_S = 0.5
"""Stamps between this old and MAX_AHEAD_S ahead are on our clock; others come from another one."""

MAX_AHEAD_S = 0.1

CLOCK_DRIFT = 1e-3
"""Seconds per second that another clock may drift from ours; far more than quartz does."""

JUMP_SLACK_M, JUMP_SLACK_RAD = 0.02, 0.05
"""Jitter that is no jump, however close in time two poses are."""


@dataclass(frozen=True)
class ViewerConfig:
    """Parameters of the viewer's motion. All defaults are ours.

    Attributes:
        predict: Carry the newest pose on to the time of display; off takes it as it is.
        horizon_s: How far a pose is carried on at most; farther follows faster, and overshoots more
            where the viewer stops.
        display_delay_s: Time from publishing an image until it is seen (transport, decoding, half a
            display period); poses are predicted that much farther.
        window_s: The motion is taken from poses of this span; longer is calmer and turns later.
        stale_after_s: Without poses for this long, the viewer eases back to the last one.
        max_speed_m_s: A faster change is a jump: it is taken at once, and nothing is predicted
            across it.
        max_turn_deg_s: Likewise, for rotation.
        max_delay_s: A pose that took this much longer than the fastest one is refused as old.
        restart_after_s: After this silence, stamps may start anew.
        min_distance_m: Eyes nearer to the middle of the head than this are inside it: refused.
        max_distance_m: Viewers farther away than this are refused.
    """

    predict: bool = True
    horizon_s: float = ranged(0.06, 0.0, 0.3)
    display_delay_s: float = ranged(0.01, 0.0, 0.2)
    window_s: float = ranged(0.04, 0.005, 0.5)
    stale_after_s: float = ranged(0.15, 0.02, 5.0)
    max_speed_m_s: float = ranged(4.0, 0.1, 100.0)
    max_turn_deg_s: float = ranged(720.0, 10.0, 10000.0)
    max_delay_s: float = ranged(0.3, 0.01, 10.0)
    restart_after_s: float = ranged(1.0, 0.1, 60.0)
    min_distance_m: float = ranged(0.14, 0.0, 1.0)
    max_distance_m: float = ranged(20.0, 1.0, 1000.0)


class _Sample(NamedTuple):
    time_s: float
    body_from_viewer: Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class _Motion:
    """Replaced as a whole, so that another thread may read it while poses come in."""

    samples: tuple[_Sample, ...] = ()

    @cached_property
    def twist(self) -> Float[np.ndarray, "6"]:
        """Change per second, found when asked: poses may come faster than pictures."""
        return _steady_twist(self.samples)


class ViewerMotion:
    """Follows one stream of poses. One thread observes, another one may ask."""

    def __init__(self, config: ViewerConfig | None = None, eye_offset_m: float = 0.0) -> None:
        """Args: eye_offset_m: Of each eye from the pose's origin, to both sides, along x."""
        self._config = config if config is not None else ViewerConfig()
        self._eye_offset_m = eye_offset_m
        self._motion = _Motion()
        self._forget_clock()

    def _forget_clock(self) -> None:
        self._stamp_s = self._arrival_s = -np.inf
        self._fastest_s = np.inf

    def observe(
        self, body_from_viewer: Float[np.ndarray, "4 4"], stamp_s: float, arrival_s: float
    ) -> None:
        """Take a pose that arrived now.

        Args:
            body_from_viewer: Viewer's optical frame in the avatar's head frame at rest, finite.
            stamp_s: When it was measured, on our clock or another one; 0 where it is not known.
            arrival_s: Our time.

        Raises:
            ValueError: Inside the head or too far away; a stamp that is not after the last one; a
                pose that was stuck on its way. The last good one stays.
        """
        config = self._config
        if refusal := self._misplaced(body_from_viewer):
            raise ValueError(refusal)
        if not 0 <= arrival_s - self._arrival_s < config.restart_after_s:
            self._forget_clock()  # a new stream, or our own clock was set back
            self._motion = _Motion()
        stamp_s = stamp_s or arrival_s
        if stamp_s <= self._stamp_s:
            raise ValueError(
                f"stamp {stamp_s:.3f} s is not after the last one, {self._stamp_s:.3f} s"
            )
        # Clocks may differ by a constant, so delays are compared with the smallest one seen.
        delay_s = arrival_s - stamp_s
        since_s = arrival_s - self._arrival_s if np.isfinite(self._arrival_s) else 0.0
        fastest_s = min(delay_s, self._fastest_s + CLOCK_DRIFT * since_s)
        if delay_s - fastest_s > config.max_delay_s:
            raise ValueError(f"arrived {delay_s - fastest_s:.2f} s later than others")
        self._stamp_s, self._arrival_s, self._fastest_s = stamp_s, arrival_s, fastest_s
        own_clock = -MAX_AHEAD_S <= fastest_s <= MAX_CLOCK_AGE_S
        sample = _Sample(stamp_s if own_clock else stamp_s + fastest_s, body_from_viewer)
        self._motion = self._continued(sample)

    def at(self, time_s: float) -> Float[np.ndarray, "4 4"] | None:
        """body_from_viewer at a time, usually a little in the future; None before the first."""
        motion, config = self._motion, self._config
        if not motion.samples:
            return None
        newest = motion.samples[-1]
        silence_s = time_s - newest.time_s
        if not config.predict or silence_s <= 0 or len(motion.samples) < 2:
            return newest.body_from_viewer
        remaining = 2.0 - silence_s / config.stale_after_s  # 1 until stale, then down to 0
        lead_s = min(silence_s, config.horizon_s) * min(1.0, max(0.0, remaining))
        predicted = newest.body_from_viewer @ pose_from_twist(lead_s * motion.twist)
        return newest.body_from_viewer if self._misplaced(predicted) else predicted

    def moving(self, time_s: float) -> bool:
        """Whether poses are coming in: the last one is not stale."""
        samples = self._motion.samples
        return bool(samples) and time_s - samples[-1].time_s < self._config.stale_after_s

    def _misplaced(self, body_from_viewer: Float[np.ndarray, "4 4"]) -> str:
        """Why a viewer cannot be there; empty if it can."""
        origin, right = body_from_viewer[:3, 3], body_from_viewer[:3, 0]
        sides = (-self._eye_offset_m, self._eye_offset_m)
        nearest_m = min(np.linalg.norm(origin + side * right - HEAD_CENTER) for side in sides)
        low, high = self._config.min_distance_m, self._config.max_distance_m
        if nearest_m < low:
            return (
                f"the viewer is inside the head: expected eyes at least {low:g} m from its middle, "
                f"got {nearest_m:.3f} m"
            )
        if not nearest_m <= high:
            return f"expected a viewer within {high:g} m of the head, got {nearest_m:.3g} m"
        return ""

    def _continued(self, sample: _Sample) -> _Motion:
        """The motion with one more pose."""
        config, samples = self._config, self._motion.samples
        if samples:
            step_s = sample.time_s - samples[-1].time_s
            step = twist_from_pose(invert_pose(samples[-1].body_from_viewer) @ sample[1])
            turn_rad, way_m = np.linalg.norm(step[:3]), np.linalg.norm(step[3:])
            max_turn_rad = np.radians(config.max_turn_deg_s) * step_s
            if (
                step_s <= 0
                or way_m > config.max_speed_m_s * step_s + JUMP_SLACK_M
                or turn_rad > max_turn_rad + JUMP_SLACK_RAD
            ):
                samples = ()
        recent = (s for s in samples if sample.time_s - s.time_s <= config.window_s)
        # At a low rate, the window holds nothing else: the last pose must do.
        samples = (*(tuple(recent) or samples[-1:]), sample)
        return _Motion(samples)


def _steady_twist(samples: tuple[_Sample, ...]) -> Float[np.ndarray, "6"]:
    """Least-squares motion per second through the newest of the poses."""
    newest = samples[-1]
    if len(samples) < 2:
        return np.zeros(6)
    times = np.array([s.time_s - newest.time_s for s in samples[:-1]])
    viewer_from_body = invert_pose(newest.body_from_viewer)
    twists = np.stack([twist_from_pose(viewer_from_body @ s[1]) for s in samples[:-1]])
    return times @ twists / (times @ times)
