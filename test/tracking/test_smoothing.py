"""One Euro: calm at rest, quick when it moves, and safe with any time step."""

import cv2
import numpy as np
import pytest

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import pose_matrix
from avat3r_ros.tracking.smoothing import OneEuroFilter, PoseFilter, SmoothingConfig, code_filter

DT = 1 / 30


def filtered(samples, dt_s=DT, smoother=None):
    smoother = smoother or OneEuroFilter(2.0, 4.0)
    return np.array([smoother.filter(np.atleast_1d(s), dt_s) for s in samples])


def test_first_sample_passes_and_a_constant_stays():
    out = filtered([0.3] * 20)
    np.testing.assert_allclose(out, 0.3)


def test_hand_computed_second_sample():
    """beta 0: plain low-pass with weight 2 pi fc dt / (2 pi fc dt + 1)."""
    turns = 2 * np.pi * 1.5 * DT
    out = filtered([0.0, 1.0], smoother=OneEuroFilter(1.5, 0.0))
    assert out[1, 0] == pytest.approx(turns / (turns + 1))


def test_noise_at_rest_shrinks():
    noise = 0.006 * np.random.default_rng(0).normal(size=300)
    assert filtered(noise)[20:].std() < 0.65 * noise[20:].std()


def test_a_fast_move_is_followed_within_a_frame():
    times = np.arange(0, 1.5, DT)
    truth = np.clip((times - 0.5) / 0.15, 0, 1)
    out = filtered(truth)[:, 0]
    delay_s = np.interp(0.5, out, times) - np.interp(0.5, truth, times)
    assert 0 <= delay_s < DT, "measured 7 ms"


def test_a_blink_reaches_the_bottom():
    times = np.arange(0, 1.5, DT)
    lids = np.interp(times, [0.5, 0.6, 0.65, 0.8], [0, 0.9, 0.9, 0])
    codes = np.zeros((len(times), 52))
    codes[:, ARKIT_INDEX["eyeBlinkLeft"]] = lids
    codes[:, ARKIT_INDEX["mouthSmileLeft"]] = lids
    smoother = code_filter(SmoothingConfig())
    out = np.array([smoother.filter(code, DT) for code in codes])
    blink, smile = (
        np.abs(out[:, ARKIT_INDEX[name]] - lids).max()
        for name in ("eyeBlinkLeft", "mouthSmileLeft")
    )
    assert out[:, ARKIT_INDEX["eyeBlinkLeft"]].max() > 0.98 * lids.max()
    assert blink < 0.045 < smile, "measured 0.035 and 0.066"


@pytest.mark.parametrize("dt_s", [0.0, -0.1])
def test_a_step_that_is_not_positive_keeps_the_estimate(dt_s):
    smoother, poses = OneEuroFilter(2.0, 4.0), PoseFilter(SmoothingConfig())
    smoother.filter(np.zeros(3), 0.0)
    kept = poses.filter(np.eye(4), 0.0)
    np.testing.assert_array_equal(smoother.filter(np.ones(3), dt_s), np.zeros(3))
    turned = pose_matrix(cv2.Rodrigues(np.array([0.0, 1, 0]))[0], np.ones(3))
    np.testing.assert_array_equal(poses.filter(turned, dt_s), kept)
    assert np.isfinite(smoother.filter(np.ones(3), DT)).all()


def test_reset_forgets():
    smoother = OneEuroFilter(2.0, 4.0)
    smoother.filter(np.zeros(1), DT)
    smoother.reset()
    assert smoother.filter(np.ones(1), DT) == 1.0


def test_result_does_not_depend_on_the_image_rate():
    def ramp(hz):
        times = np.arange(0, 1 + 1e-9, 1 / hz)
        return filtered(times, 1 / hz)[-1, 0]

    assert ramp(30) == pytest.approx(ramp(120), abs=0.02)


def test_poses_stay_rigid_and_converge():
    smoother = PoseFilter(SmoothingConfig())
    smoother.filter(np.eye(4), DT)
    target = pose_matrix(cv2.Rodrigues(np.array([0.2, -0.4, 0.1]))[0], np.array([0.1, 0, 0.6]))
    for _ in range(200):
        pose = smoother.filter(target, DT)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    # OpenCV takes rotations below 1e-5 for none.
    np.testing.assert_allclose(pose, target, atol=2e-5)


def test_rotation_takes_the_short_way_through_half_a_turn():
    def turned(degrees):
        return pose_matrix(cv2.Rodrigues(np.array([0, np.radians(degrees), 0]))[0], np.zeros(3))

    smoother = PoseFilter(SmoothingConfig())
    smoother.filter(turned(175), DT)
    between = smoother.filter(turned(185), DT)
    angle = np.degrees(np.linalg.norm(cv2.Rodrigues(between[:3, :3] @ turned(180)[:3, :3].T)[0]))
    assert angle <= 5.0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"code_min_cutoff_hz": 0.0}, "code_min_cutoff_hz must be positive and finite, got 0.0"),
        ({"blink_beta": -1.0}, "blink_beta must not be negative"),
        ({"reset_gap_s": float("nan")}, "reset_gap_s must be positive"),
    ],
)
def test_settings_outside_their_range_are_refused(setting, said):
    with pytest.raises(ValueError, match=said):
        SmoothingConfig(**setting)
