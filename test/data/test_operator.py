import numpy as np
import pytest

from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.data.performance import CAPTURE_S, PERFORMANCE_S, Performance
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import invert_pose


@pytest.fixture(scope="module")
def operator(template):
    return SyntheticOperator(0, 320, 240, template)


def yaw_and_pitch_of_head(operator, time_s):
    """Where the face points, seen from the camera: + to its subject's left and up."""
    pose = operator.truth(time_s).camera.camera_from_head.double().numpy()
    rest = operator.truth(0.0).camera.camera_from_head.double().numpy()
    forward = (invert_pose(rest) @ pose)[:3, :3] @ [0, 0, 1]
    return np.degrees(np.arctan2(forward[0], forward[2])), np.degrees(np.arcsin(forward[1]))


def test_a_frame_is_a_function_of_the_time(operator):
    frame = operator.frame(1.0)
    assert frame.shape == (240, 320, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, operator.frame(1.0))
    assert np.abs(frame.astype(int) - operator.frame(12.0)).max() > 50


def test_the_capture_turns_the_head_to_all_sides_with_open_eyes(operator):
    times = np.arange(0, CAPTURE_S, 0.1)
    angles = np.array([yaw_and_pitch_of_head(operator, t) for t in times])
    assert angles[:, 0].max() == pytest.approx(25, abs=2)
    assert angles[:, 0].min() == pytest.approx(-25, abs=2)
    assert angles[:, 1].max() == pytest.approx(12, abs=2)
    assert angles[:, 1].min() == pytest.approx(-12, abs=2)
    # Slow enough to be followed and to be sharp.
    assert np.abs(np.diff(angles, axis=0)).max() / 0.1 < 60
    assert max(operator.truth(t).code[ARKIT_INDEX["eyeBlinkLeft"]] for t in times) == 0
    assert {operator.phase(t) for t in times} == {"capture"}


def test_the_performance_shows_every_unit_and_is_smooth():
    performance = Performance(5)
    times = np.arange(CAPTURE_S, CAPTURE_S + PERFORMANCE_S, 0.02)
    codes = np.stack([performance.code(t) for t in times])
    for name in ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "browDownLeft",
                 "mouthSmileLeft", "mouthPucker", "mouthFrownLeft", "mouthFunnel"):  # fmt: skip
        assert codes[:, ARKIT_INDEX[name]].max() > 0.7, name
        assert codes[:, ARKIT_INDEX[name]].min() < 0.15, name
    assert np.isfinite(codes).all()
    assert codes.min() >= 0
    assert codes.max() <= 1
    # A blink closes in 0.08 s: at most 0.02 / 0.08 * 1.5 per sample.
    assert np.abs(np.diff(codes, axis=0)).max() < 0.4
    assert performance.phase(CAPTURE_S) == "performance"


def test_other_seeds_speak_differently_and_the_script_repeats():
    one, other = Performance(1), Performance(2)
    late = CAPTURE_S + PERFORMANCE_S - 3.0
    assert np.abs(one.code(late) - other.code(late)).max() > 0.05
    jaw = ARKIT_INDEX["jawOpen"]
    assert one.code(CAPTURE_S + 0.5)[jaw] == pytest.approx(
        one.code(CAPTURE_S + 0.5 + PERFORMANCE_S)[jaw], abs=1e-6
    )


def test_the_background_stands_still(operator):
    one, other = operator.frame(0.0).astype(int), operator.frame(2.5).astype(int)
    corner = np.s_[:40, :40]
    assert np.abs(one[corner] - other[corner]).max() < 16  # sensor noise, sigma 1.6 each
    assert one[corner].std(axis=(0, 1)).max() < 40


def test_frames_need_pixels(template):
    with pytest.raises(ValueError, match="positive frame size"):
        SyntheticOperator(0, 0, 240, template)
