"""Code spaces: names, order and what is refused."""

import numpy as np
import pytest

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX, arkit_code, validate_code


def test_arkit_has_52_distinct_names_in_mirrored_pairs():
    assert len(ARKIT_52) == len(set(ARKIT_52)) == 52
    for name in ARKIT_52:
        if name.endswith("Left"):
            assert name.removesuffix("Left") + "Right" in ARKIT_INDEX


def test_valid_code_is_copied_and_clipped():
    values = np.full(52, 1.5)
    code = validate_code("arkit_52", values)
    assert code.dtype == np.float32
    assert (code == 1).all()
    assert (values == 1.5).all()


@pytest.mark.parametrize(
    ("space", "values", "message"),
    [
        ("arkit_51", np.zeros(52), "did you mean 'arkit_52'"),
        ("flame", np.zeros(52), "unknown code space"),
        ("arkit_52", np.zeros(51), "52 values, got shape"),
        ("arkit_52", np.zeros((1, 52)), "got shape"),
        ("arkit_52", np.full(52, np.nan), "not finite"),
        ("arkit_52", ["a"] * 52, "expected 52 numbers"),
    ],
)
def test_bad_codes_are_refused(space, values, message):
    with pytest.raises(ValueError, match=message):
        validate_code(space, values)


def test_named_codes():
    code = arkit_code(jawOpen=0.5, eyeBlink=1.0)
    assert code[ARKIT_INDEX["jawOpen"]] == 0.5
    assert code[ARKIT_INDEX["eyeBlinkLeft"]] == code[ARKIT_INDEX["eyeBlinkRight"]] == 1
    assert code.sum() == 2.5
    with pytest.raises(ValueError, match="unknown ARKit"):
        arkit_code(jawOpenn=1)
