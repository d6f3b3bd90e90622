"""Pace: the rate holds although every wake-up is late, and nothing is caught up after a pause."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r_ros.nodes.display import Pace

PERIOD_S = 1 / 30


def test_late_wake_ups_do_not_lower_the_rate():
    pace, rng = Pace(), np.random.default_rng(0)
    starts = [10.0]
    for _ in range(300):
        starts.append(pace.next_s(starts[-1], PERIOD_S) + rng.uniform(0.0, 0.008))
    assert np.mean(np.diff(starts)) == pytest.approx(PERIOD_S, rel=1e-3)
    assert np.diff(starts).max() < PERIOD_S + 0.008 + 1e-9


def test_after_a_wait_for_something_new_a_whole_period_follows():
    pace = Pace()
    pace.next_s(10.0, PERIOD_S)
    for start_s in (10.2, 10.2 + 1.6 * PERIOD_S):
        assert pace.next_s(start_s, PERIOD_S) == start_s + PERIOD_S


def test_turns_that_take_too_long_never_begin_twice_in_half_a_period():
    pace, start_s = Pace(), 5.0
    for work_s in np.random.default_rng(1).uniform(0.0, 3 * PERIOD_S, 300):
        following_s = max(start_s + work_s, pace.next_s(start_s, PERIOD_S))
        assert following_s - start_s >= 0.5 * PERIOD_S - 1e-9
        start_s = following_s
