"""Codes whose shapes do not add up."""

import numpy as np
import pytest

from avat3r_ros.expression import ARKIT_INDEX, arkit_code
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.correctives import corrected
from avat3r_ros.tracking.head_pose import HeadPoseSolver


@pytest.fixture(scope="module")
def solver():
    return HeadPoseSolver(HeadTemplate.load())


def gap_mm(solver, code, upper, lower):
    landmarks = solver.landmarks_head(code)
    return 1000 * (landmarks[upper] - landmarks[lower])[1]


def test_a_closed_lid_stays_where_it_is(solver):
    """Whatever else is read of a closed eye; it would hang 4 mm lower."""
    closed = arkit_code(eyeBlink=1.0)
    read = arkit_code(eyeBlink=1.0, eyeLookDown=0.8, eyeSquint=0.6)
    lids = gap_mm(solver, closed, 159, 145)
    assert gap_mm(solver, read, 159, 145) < lids - 3
    assert gap_mm(solver, corrected(read), 159, 145) == pytest.approx(lids)


def test_lids_close_steadily_while_the_eye_looks_down(solver):
    steps = [arkit_code(eyeBlink=b, eyeLookDown=0.7 * b + 0.2) for b in np.linspace(0, 1, 21)]
    gaps = [gap_mm(solver, corrected(code), 159, 145) for code in steps]
    assert (np.diff(gaps) < 0).all()


def test_open_eyes_and_each_side_alone():
    down = arkit_code(eyeBlink=0.3, eyeLookDown=0.8)
    np.testing.assert_array_equal(corrected(down), down)
    wink = corrected(arkit_code(eyeBlinkLeft=1.0, eyeSquint=0.5))
    assert wink[ARKIT_INDEX["eyeSquintLeft"]] == 0
    assert wink[ARKIT_INDEX["eyeSquintRight"]] == np.float32(0.5)


@pytest.mark.parametrize("jaw", [0.0, 0.3, 1.0])
def test_lips_meet_and_no_more(solver, jaw):
    pressed = corrected(arkit_code(jawOpen=jaw, mouthClose=1.0))
    rest = gap_mm(solver, np.zeros(52), 13, 14)
    assert gap_mm(solver, pressed, 13, 14) == pytest.approx(rest, abs=0.5)


def test_the_code_given_stays():
    given = arkit_code(eyeBlink=1.0, eyeLookDown=1.0)
    before = given.copy()
    corrected(given)
    np.testing.assert_array_equal(given, before)
