"""LIVE, HOLD, NEUTRAL, PLACEHOLDER; old codes are never replayed."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes.presence import OperatorPresence, PresenceConfig, State

CODE = np.array([1.0, 0.5], np.float32)


def observed_at_zero():
    presence = OperatorPresence()
    presence.observe(CODE, stamp_s=100.0, now_s=0.0)
    return presence


@pytest.mark.parametrize(
    ("silence_s", "state"),
    [
        (0.0, State.LIVE),
        (0.21, State.LIVE),
        (0.23, State.HOLD),
        (1.49, State.HOLD),
        (1.51, State.NEUTRAL),
        (4.99, State.NEUTRAL),
        (5.01, State.PLACEHOLDER),
    ],
)
def test_silence_decides_the_state(silence_s, state):
    presence = observed_at_zero().at(silence_s)
    assert presence.state == state
    assert presence.silence_s == pytest.approx(silence_s)


def test_before_the_first_code_there_is_a_placeholder_and_nothing_to_show():
    presence = OperatorPresence().at(3.0)
    assert presence.state == State.PLACEHOLDER
    assert presence.code is None and presence.stamp_s is None


def test_hold_keeps_code_and_stamp():
    presence = observed_at_zero().at(1.0)
    np.testing.assert_array_equal(presence.code, CODE)
    assert presence.stamp_s == 100.0


def test_neutral_eases_from_the_last_code_to_rest_without_a_jump():
    presence = observed_at_zero()
    times = np.linspace(1.5, 2.2, 50)
    values = np.array([presence.at(t).code[0] for t in times])
    assert values[0] == pytest.approx(1.0) and values[-1] == 0.0
    steps = np.diff(values)
    assert (steps <= 0).all() and steps.min() > -0.06
    assert presence.at(2.0).stamp_s is None


def test_a_stamp_that_is_not_newer_is_refused_and_changes_nothing():
    presence = observed_at_zero()
    for stamp_s in (99.9, 100.0):
        with pytest.raises(ValueError, match="not after the last one"):
            presence.observe(CODE * 0, stamp_s, now_s=0.1)
    np.testing.assert_array_equal(presence.at(0.1).code, CODE)


def test_codes_that_were_stuck_on_the_way_are_not_replayed():
    presence = observed_at_zero()  # this sender's clock is 100 s ahead of ours
    with pytest.raises(ValueError, match="later than others"):
        presence.observe(CODE * 0, stamp_s=100.1, now_s=2.0)
    assert presence.at(2.0).state == State.NEUTRAL
    presence.observe(CODE * 0, stamp_s=101.9, now_s=2.0)
    assert presence.at(2.0).state == State.LIVE


def test_a_restarted_source_with_an_earlier_clock_is_accepted_after_the_placeholder():
    presence = observed_at_zero()
    with pytest.raises(ValueError):
        presence.observe(CODE, stamp_s=1.0, now_s=4.9)
    presence.observe(CODE, stamp_s=1.0, now_s=5.1)
    assert presence.at(5.1).state == State.LIVE


def test_times_must_be_in_order():
    with pytest.raises(ValueError, match="hold_after_s < neutral_after_s"):
        PresenceConfig(hold_after_s=2.0, neutral_after_s=1.0)


def test_states_are_those_of_the_message():
    from avat3r.msg import RendererStatus

    assert {s.name: s.value for s in State} == {
        name: getattr(RendererStatus, name) for name in ("LIVE", "HOLD", "NEUTRAL", "PLACEHOLDER")
    }
