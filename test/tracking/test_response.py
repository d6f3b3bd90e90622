"""Scores of the landmarker become shares of the full movement."""

import numpy as np
import pytest

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX, arkit_code
from avat3r_ros.tracking.response import BLINK_TO_BROW, TYPICAL_REACH, ResponseRange


def test_every_unit_reaches_one_at_its_typical_reach():
    response = ResponseRange()
    for name, reach in TYPICAL_REACH.items():
        code = response.stretch(arkit_code(**{name: reach}))
        assert code[ARKIT_INDEX[name]] == pytest.approx(1.0), name
        assert np.count_nonzero(code) == 1, name


def test_units_without_a_typical_reach_stay():
    others = {name: 0.4 for name in ARKIT_52 if name not in TYPICAL_REACH}
    code = ResponseRange().stretch(arkit_code(**others))
    np.testing.assert_array_equal(code, arkit_code(**others))


def test_reach_grows_with_what_was_seen_and_is_forgotten():
    response = ResponseRange()
    before = response.reach
    response.learn(arkit_code(browInnerUp=0.7, jawOpen=0.2))
    grown = response.reach
    assert grown[ARKIT_INDEX["browInnerUp"]] == pytest.approx(0.7)
    np.testing.assert_array_equal(
        np.delete(grown, ARKIT_INDEX["browInnerUp"]), np.delete(before, ARKIT_INDEX["browInnerUp"])
    )
    code = response.stretch(arkit_code(browInnerUp=0.35))
    assert code[ARKIT_INDEX["browInnerUp"]] == pytest.approx(0.35 + 0.3 / 4)
    response.forget()
    np.testing.assert_array_equal(response.reach, before)


def test_small_scores_are_not_amplified():
    """Jitter at rest must not become twitching brows."""
    jitter = arkit_code(browInnerUp=0.03, eyeBlink=0.05, mouthSmile=0.03)
    code = ResponseRange().stretch(jitter)
    assert (code <= 1.25 * jitter).all()


def test_closed_lids_do_not_raise_the_brow_of_their_side():
    left, right = ARKIT_INDEX["browOuterUpLeft"], ARKIT_INDEX["browOuterUpRight"]
    code = ResponseRange().stretch(arkit_code(eyeBlinkLeft=0.4, browOuterUp=0.2))
    without_blink = ResponseRange().stretch(arkit_code(browOuterUp=0.2))
    lower = ResponseRange().stretch(arkit_code(browOuterUp=0.2 - BLINK_TO_BROW * 0.4))
    assert code[right] == without_blink[right]
    assert code[left] == pytest.approx(lower[left], abs=1e-6)
    winking = ResponseRange().stretch(arkit_code(eyeBlinkLeft=1.0, browOuterUpLeft=0.1))
    assert winking[left] == 0.0


def test_codes_stay_in_range():
    rng = np.random.default_rng(0)
    response = ResponseRange()
    for scores in rng.uniform(0, 1, (20, 52)).astype(np.float32):
        response.learn(scores)
        code = response.stretch(scores)
        assert code.dtype == np.float32
        assert code.min() >= 0
        assert code.max() <= 1
