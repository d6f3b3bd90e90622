"""Moments of a frame: what lies between them, what is not plausible, and the message."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray

from avat3r_ros.nodes.diagnostics import StageTimes
from avat3r_ros.nodes.frame_times import (
    FrameTimes,
    arrived,
    frame_times_from_msg,
    msg_from_frame_times,
)


def test_ways_lie_between_neighbours_that_are_known_and_over_all():
    times = FrameTimes(captured_s=10.0, tracked_s=10.02, rendered_s=10.05)
    ways = times.ways_s()
    assert list(ways) == ["captured to tracked", "tracked to rendered", "captured to rendered"]
    np.testing.assert_allclose(list(ways.values()), [0.02, 0.03, 0.05], atol=1e-9)


@pytest.mark.parametrize("captured_s", [1000.0, -1000.0])
def test_a_clock_that_disagrees_is_left_out_and_the_rest_stays(captured_s):
    times = FrameTimes(captured_s=captured_s, tracked_s=0.0, received_s=0.004)
    assert times.ways_s() == {"tracked to received": pytest.approx(0.004)}


def test_the_middleware_says_when_a_code_was_sent():
    times = arrived(1.0, {"source_timestamp": 2_500_000_000})
    assert times.tracked_s == pytest.approx(2.5) and times.received_s > 1e9
    handed_over = arrived(1.0, None)
    assert handed_over.received_s - handed_over.tracked_s < 1.0 and handed_over.tracked_s > 1e9
    assert np.isnan(arrived(1.0, {"source_timestamp": 0}).tracked_s)


def test_percentiles_are_kept_per_way():
    stages = StageTimes()
    for late_s in np.linspace(0.010, 0.020, 101):
        FrameTimes(captured_s=1.0, tracked_s=1.0 + late_s).record(stages)
    p50, p95, p99, worst = stages.summary_ms()["captured to tracked"]
    np.testing.assert_allclose([p50, p95, p99, worst], [15.0, 19.5, 19.9, 20.0], atol=1e-6)


def test_the_message_brings_back_what_was_packed():
    times = FrameTimes(captured_s=1234.5, rendered_s=1234.75)
    msg = msg_from_frame_times(times, Time(sec=1234))
    assert msg.header.stamp.sec == 1234
    back = frame_times_from_msg(msg)
    assert back.captured_s == 1234.5 and back.rendered_s == 1234.75 and np.isnan(back.tracked_s)
    with pytest.raises(ValueError, match="moments of one frame"):
        frame_times_from_msg(DiagnosticArray())
