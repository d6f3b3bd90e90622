"""The resting face becomes zero, and the eyes point where the scores say."""

import numpy as np
import pytest

from avat3r_ros.expression import ARKIT_INDEX, arkit_code
from avat3r_ros.tracking.gaze import PITCH_RANGE_RAD, YAW_RANGE_RAD, gaze_from_code
from avat3r_ros.tracking.neutral import MIN_STATES, neutral_from_codes, relative_to_neutral

REST = arkit_code(browDown=0.2, mouthPucker=0.4)


def test_rest_becomes_zero_and_one_stays_one():
    neutral = neutral_from_codes([REST] * 10)
    np.testing.assert_allclose(relative_to_neutral(REST, neutral), 0.0, atol=1e-7)
    full = arkit_code(browDown=1.0, jawOpen=0.5)
    code = relative_to_neutral(full, neutral)
    assert code[ARKIT_INDEX["browDownLeft"]] == 1.0
    assert code[ARKIT_INDEX["jawOpen"]] == 0.5, "scores at rest 0 are untouched"
    assert code[ARKIT_INDEX["mouthPucker"]] == 0.0, "below rest is rest"
    assert code.dtype == np.float32


def test_blinks_during_calibration_do_not_count():
    codes = [REST] * 8 + [np.maximum(REST, arkit_code(eyeBlink=0.9))] * 3
    assert neutral_from_codes(codes)[ARKIT_INDEX["eyeBlinkLeft"]] == 0.0


def test_movement_expressions_and_too_few_images_are_refused():
    moving = [arkit_code(jawOpen=0.05 * i) for i in range(12)]
    with pytest.raises(ValueError, match=r"moved during calibration \(jawOpen\)"):
        neutral_from_codes(moving)
    with pytest.raises(ValueError, match=r"not a face at rest \(mouthSmileLeft, mouthSmileRight"):
        neutral_from_codes([arkit_code(mouthSmile=0.9)] * 10)
    with pytest.raises(ValueError, match=f"at least {MIN_STATES} images .* got 2"):
        neutral_from_codes([REST] * 2)


@pytest.mark.parametrize(
    ("scores", "yaw", "pitch"),
    [
        ({}, 0, 0),
        ({"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, 1, 0),
        ({"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0}, -1, 0),
        ({"eyeLookUp": 0.5}, 0, 0.5),
        ({"eyeLookDown": 1.0}, 0, -1),
        ({"eyeLookOutLeft": 1.0}, 0.5, 0),  # the mean of both eyes
    ],
)
def test_gaze_is_positive_to_the_subjects_left_and_up(scores, yaw, pitch):
    np.testing.assert_allclose(
        gaze_from_code(arkit_code(**scores)),
        (yaw * YAW_RANGE_RAD, pitch * PITCH_RANGE_RAD),
        atol=1e-6,
    )
