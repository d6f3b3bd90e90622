"""Lips, brows and lids: codes that show what the landmarks show, whatever the scores say."""

from dataclasses import replace

import numpy as np
import pytest

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX, arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking.brow_height import BrowHeight
from avat3r_ros.tracking.head_pose import HeadPoseSolver
from avat3r_ros.tracking.landmark_distances import Displacements
from avat3r_ros.tracking.lid_opening import LidOpening
from avat3r_ros.tracking.mouth_opening import PAIRS, MouthOpening

INTRINSICS = intrinsics_matrix(900.0, 330.0, 250.0)
BROWS = [name for name in ARKIT_52 if name.startswith("brow")]


@pytest.fixture(scope="module")
def solver():
    return HeadPoseSolver(HeadTemplate.load())


@pytest.fixture(scope="module")
def mouth(solver):
    return MouthOpening(solver)


@pytest.fixture
def brows(solver):
    return BrowHeight(solver)


def seen(solver, code, yaw_deg=0.0, pitch_deg=0.0, raised_m=None):
    """Landmarks of the template's face in an expression, its pose, the camera."""
    points = solver.landmarks_head(code)
    if raised_m is not None:
        points = points + raised_m
    pose = look_at_head(np.radians(yaw_deg), np.radians(pitch_deg), 0.6)
    pixels = (points @ pose[:3, :3].T + pose[:3, 3]) @ INTRINSICS.T
    return pixels[:, :2] / pixels[:, 2:], pose, INTRINSICS


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (25, 0), (0, 20), (-20, -25)])
def test_gaps_are_measured_in_millimetres_from_any_side(solver, mouth, yaw, pitch):
    truth = arkit_code(jawOpen=0.4)
    rest, moved = solver.landmarks_head(np.zeros(52)), solver.landmarks_head(truth)
    upper, lower = np.array(PAIRS).T
    apart = 1000 * ((moved - rest)[upper] - (moved - rest)[lower])
    measured = mouth.measure(*seen(solver, truth, yaw, pitch))
    assert measured.slant == pytest.approx(-np.tan(np.radians(pitch)), abs=0.2)
    expected = apart[:, 1] + measured.slant * apart[:, 2]
    np.testing.assert_allclose(measured.mm, expected, rtol=0.05, atol=0.3)


@pytest.mark.parametrize("pitch", [-20, 0, 20])
@pytest.mark.parametrize("read", [0.0, 0.15, 0.9])
def test_a_mouth_opens_as_far_as_seen_whatever_was_read(solver, mouth, read, pitch):
    truth = arkit_code(jawOpen=0.45, mouthSmile=0.4)
    code = mouth.correct(
        arkit_code(jawOpen=read, mouthSmile=0.4), mouth.measure(*seen(solver, truth, 0, pitch))
    )
    assert code[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.45, abs=0.06)
    assert code[ARKIT_INDEX["mouthSmileLeft"]] == np.float32(0.4)


def test_closed_lips_stay_closed(solver, mouth):
    """A smile presses the template's lips into each other: nothing that a jaw has to undo."""
    smile = arkit_code(mouthSmile=1.0)
    apart = mouth.measure(*seen(solver, np.zeros(52)))
    touching = replace(apart, mm=apart.mm - 1.5)
    np.testing.assert_allclose(mouth.correct(smile, touching), smile, atol=0.01)
    read_open = arkit_code(jawOpen=0.3)
    assert mouth.correct(read_open, touching)[ARKIT_INDEX["jawOpen"]] < 0.03


def test_codes_stay_within_their_range(solver, mouth):
    wide = mouth.measure(*seen(solver, arkit_code(jawOpen=1.0)))
    wide = replace(wide, mm=1.6 * wide.mm)
    code = mouth.correct(arkit_code(jawOpen=0.5), wide)
    assert code.min() >= 0 and code.max() <= 1 and code[ARKIT_INDEX["jawOpen"]] == 1


def units(code, names):
    return code[[ARKIT_INDEX[name] for name in names]]


def test_brows_are_measured_from_where_this_person_has_them(solver, brows):
    """High brows, read as lowered ones at rest; then both are raised, which scores hardly see."""
    high = np.zeros((478, 3))
    high[[46, 55, 70, 105, 107, 276, 285, 300, 334, 336], 1] = 0.006
    misread = arkit_code(browDown=0.45)
    at_rest = seen(solver, np.zeros(52), raised_m=high)
    for stamp_s in np.arange(0.0, 30.0, 0.1):
        brows.learn(misread, brows.measure(*at_rest), stamp_s)
    rest = brows.correct(misread, brows.measure(*at_rest))
    assert units(rest, BROWS).max() < 0.1

    truth = arkit_code(browInnerUp=0.8, browOuterUp=0.6)
    raised = brows.measure(*seen(solver, truth, raised_m=high))
    read = arkit_code(browDown=0.4, browInnerUp=0.1, browOuterUp=0.2)
    code = brows.correct(read, raised)
    np.testing.assert_allclose(units(code, BROWS), units(truth, BROWS), atol=0.3)
    assert units(code, ["browInnerUp"]) > 0.5


def test_scores_are_believed_in_the_first_moment(solver, brows):
    raised = arkit_code(browInnerUp=0.7, browOuterUp=0.7)
    moved = brows.measure(*seen(solver, raised))
    brows.learn(raised, moved, 0.0)
    np.testing.assert_allclose(brows.correct(raised, moved), raised, atol=0.1)


def test_a_blink_leaves_the_brows_alone(solver, brows):
    brows.learn(np.zeros(52, np.float32), brows.measure(*seen(solver, np.zeros(52))), 0.0)
    # The eye's corners stay, as real ones do.
    code = brows.correct(arkit_code(eyeBlink=1.0), brows.measure(*seen(solver, np.zeros(52))))
    assert units(code, BROWS).max() == 0


def test_another_person_rests_elsewhere(solver, brows):
    brows.learn(np.zeros(52, np.float32), Displacements(np.full(10, 8.0), 0.0), 0.0)
    brows.forget()
    brows.learn(np.zeros(52, np.float32), Displacements(np.zeros(10), 0.0), 0.05)
    assert (
        units(
            brows.correct(np.zeros(52, np.float32), Displacements(np.zeros(10), 0.0)), BROWS
        ).max()
        < 0.01
    )


@pytest.fixture
def lids(solver):
    return LidOpening(solver)


def opening(lids, code):
    """Of both eyes, mm beyond the template's rest."""
    return lids.predict(code, 0.0).mean()


def test_eyes_that_look_down_stay_open_if_they_are_seen_open(solver, lids):
    """A webcam above the screen: read as looking down, which closes the template's lids."""
    read = arkit_code(eyeLookDown=0.5, eyeBlink=0.05)
    open_wide = lids.measure(*seen(solver, np.zeros(52)))
    open_wide = replace(open_wide, mm=open_wide.mm + 1.5)  # wider than the template's
    for stamp_s in np.arange(0.0, 30.0, 0.1):
        lids.learn(read, open_wide, stamp_s)
    assert opening(lids, read) < -1.8
    assert opening(lids, lids.correct(read, open_wide)) == pytest.approx(0.0, abs=0.6)


@pytest.mark.parametrize("read", [0.5, 1.0])
def test_a_closed_eye_is_closed_whatever_was_read(solver, lids, read):
    for stamp_s in np.arange(0.0, 30.0, 0.1):
        code = np.zeros(52, np.float32)
        lids.learn(code, lids.measure(*seen(solver, code)), stamp_s)
    shut = arkit_code(eyeBlink=0.8)
    score = arkit_code(eyeBlink=read, eyeLookDown=0.8, eyeSquint=0.5)
    code = lids.correct(score, lids.measure(*seen(solver, shut)))
    # What a look down adds comes back where the lids were read closer than they are.
    assert -1.5 < opening(lids, code) - opening(lids, shut) < 0.5


def test_a_wink_is_one_eyes(solver, lids):
    code = np.zeros(52, np.float32)
    lids.learn(code, lids.measure(*seen(solver, code)), 0.0)
    winked = lids.correct(code, lids.measure(*seen(solver, arkit_code(eyeBlinkLeft=0.9))))
    left, right = units(winked, ["eyeBlinkLeft", "eyeBlinkRight"])
    assert left > 0.75 and right < 0.05
