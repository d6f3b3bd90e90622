"""LIVE, HOLD, NEUTRAL, PLACEHOLDER; old codes are never replayed."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes.presence import (
    CLOCK_SET_S,
    OperatorPresence,
    PresenceConfig,
    SecondSourceError,
    State,
)

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


@pytest.mark.parametrize("silence_s", [1.0, 5.1, 3600.0])
def test_what_a_stopped_sender_had_in_its_hands_is_never_shown(silence_s):
    """It goes on with the code it was about to send when it was stopped."""
    presence = observed_at_zero()
    with pytest.raises(ValueError, match="later than others"):
        presence.observe(CODE * 0, 100.0 + PERIOD_S, silence_s + 0.2)
    presence.observe(CODE, 100.0 + silence_s + 0.25, silence_s + 0.25)
    assert presence.at(silence_s + 0.25).state == State.LIVE


def test_a_source_restarted_with_an_earlier_clock_is_accepted_once_it_keeps_pace():
    presence = observed_at_zero()
    accepted = stream(presence, 5.1, 7.0, offset_s=-4.0)
    assert 5.1 + CLOCK_SET_S <= accepted[0] < 5.1 + CLOCK_SET_S + 0.1


def test_times_must_be_in_order():
    with pytest.raises(ValueError, match="hold_after_s < neutral_after_s"):
        PresenceConfig(hold_after_s=2.0, neutral_after_s=1.0)


def test_states_are_those_of_the_message():
    from avat3r.msg import RendererStatus

    assert {s.name: s.value for s in State} == {
        name: getattr(RendererStatus, name) for name in ("LIVE", "HOLD", "NEUTRAL", "PLACEHOLDER")
    }


PERIOD_S = 1 / 30


def stream(presence, start_s, end_s, offset_s=100.0, code=CODE, source=""):
    """Send codes at 30 Hz, stamped by a clock `offset_s` ahead; returns times of the accepted."""
    accepted = []
    for now_s in np.arange(start_s, end_s, PERIOD_S):
        try:
            presence.observe(code, now_s + offset_s, now_s, source)
        except ValueError:
            continue
        accepted.append(now_s)
    return accepted


def test_the_placeholder_fades_in_over_the_neutral_face():
    presence = observed_at_zero()
    veils = np.array([presence.at(t).veil for t in np.linspace(4.9, 5.6, 60)])
    assert veils[0] == 0 and veils[-1] == 1 and (np.diff(veils) >= 0).all()
    assert np.diff(veils).max() < 0.1
    assert presence.at(5.2).easing and not presence.at(5.5).easing


@pytest.mark.parametrize("silence_s", [0.5, 2.0, 3.0, 5.2, 60.0])
def test_the_way_back_to_live_has_no_jump(silence_s):
    presence = observed_at_zero()
    before = presence.at(silence_s)
    newcomer = np.array([0.0, 1.0], np.float32)
    for now_s in np.arange(silence_s, silence_s + 1.0, PERIOD_S):
        presence.observe(newcomer, now_s + 100.0, now_s)
        seen = presence.at(now_s)
        assert seen.state == State.LIVE
        assert np.abs(seen.code - before.code).max() < 0.25 and abs(seen.veil - before.veil) < 0.15
        before = seen
    np.testing.assert_array_equal(before.code, newcomer)
    assert before.veil == 0 and not before.easing


def test_without_easing_every_change_is_whole_at_once():
    presence = OperatorPresence(PresenceConfig(ease_s=0.0, fade_s=0.0, return_s=0.0))
    presence.observe(CODE, stamp_s=100.0, now_s=0.0)
    for silence_s, state, code, veil in (
        (0.0, State.LIVE, CODE, 0.0),
        (1.5, State.NEUTRAL, 0 * CODE, 0.0),
        (5.0, State.PLACEHOLDER, 0 * CODE, 1.0),
    ):
        seen = presence.at(silence_s)
        assert (seen.state, seen.veil, seen.easing) == (state, veil, False)
        np.testing.assert_array_equal(seen.code, code)
    presence.observe(CODE, stamp_s=160.0, now_s=60.0)
    np.testing.assert_array_equal(presence.at(60.0).code, CODE)
    assert presence.at(60.0).veil == 0.0


def test_the_first_operator_appears_from_the_placeholder():
    presence = observed_at_zero()
    assert presence.at(0.0).veil == 1.0 and 0.0 < presence.at(0.2).veil < 1.0
    stream(presence, PERIOD_S, 0.6)
    assert presence.at(0.6).veil == 0.0


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 1.5, -1.5, -0.3])
def test_after_a_jump_of_the_senders_clock_codes_are_taken_again_before_neutral(jump_s):
    presence = OperatorPresence()
    stream(presence, 0.0, 2.0)
    accepted = stream(presence, 2.0, 5.0, offset_s=100.0 + jump_s)
    assert accepted[0] < 2.0 + CLOCK_SET_S + 0.1
    assert max(np.diff(accepted)) < 2 * PERIOD_S, "no gap later either"


def test_a_burst_of_old_codes_is_never_taken_for_a_new_clock():
    presence = OperatorPresence()
    stream(presence, 0.0, 2.0)
    # Sixty codes of the last two seconds come at once, and once more half a second later.
    for now_s in (4.0, 4.5):
        for stamp_s in np.arange(100.0, 102.0, PERIOD_S):
            with pytest.raises(ValueError):
                presence.observe(CODE * 0, stamp_s, now_s)
    np.testing.assert_array_equal(presence.at(2.0).code, CODE)


def test_clocks_may_drift_apart_for_hours():
    presence = OperatorPresence()
    for now_s in np.arange(0.0, 4 * 3600.0, 1.0):
        presence.observe(CODE, now_s * (1 - 200e-6), now_s)  # 2.9 s behind in the end


def test_who_drives_goes_on_and_the_other_waits_for_silence():
    presence = OperatorPresence()
    stream(presence, 0.0, 1.0, source="webcam")
    for now_s in (1.0, 2.4):
        with pytest.raises(SecondSourceError, match="'phone' while 'webcam' drives"):
            presence.observe(CODE * 0, 7.0, now_s, "phone")
    presence.observe(CODE * 0, 7.1, 2.6, "phone")
    assert presence.source == "phone"
    with pytest.raises(SecondSourceError):
        presence.observe(CODE, 102.7, 2.7, "webcam")


def test_a_named_driver_is_the_only_one():
    presence = OperatorPresence(PresenceConfig(driver="phone"))
    with pytest.raises(SecondSourceError, match="presence.driver"):
        presence.observe(CODE, 1.0, 0.0, "webcam")
    presence.observe(CODE, 1.0, 0.0, "phone")
