"""What cameras lose."""

import numpy as np
import pytest

from avat3r_ros.data.camera_quality import JPEG_QUALITY, NOISE, CameraQuality, random_quality

RNG = np.random.default_rng(0)
CHECKERS = np.kron(np.indices((24, 32)).sum(0) % 2, np.ones((4, 4)))[..., None].repeat(3, -1)
CHECKERS = 0.2 + 0.6 * CHECKERS
GRAIN = RNG.normal(size=CHECKERS.shape)


def test_a_good_camera_adds_a_little_noise_and_nothing_else():
    photo = CameraQuality(noise=0.01).taken(CHECKERS, GRAIN)
    assert photo.dtype == np.uint8 and photo.shape == CHECKERS.shape
    assert (photo / 255 - CHECKERS).std() == pytest.approx(0.01, rel=0.1)


def test_a_coarse_camera_loses_what_is_small_and_keeps_the_size():
    photo = CameraQuality(resolution=0.25, noise=0.0).taken(CHECKERS, GRAIN)
    assert photo.shape == CHECKERS.shape
    assert photo.std() > 30, "one of its pixels for each square: all of them stay"
    coarser = CameraQuality(resolution=0.125, noise=0.0).taken(CHECKERS, GRAIN)
    assert coarser.std() < 3 and abs(coarser.mean() / 255 - 0.5) < 0.01


def test_jpeg_leaves_its_traces_and_the_colours():
    red = CHECKERS * np.array([1.0, 0.6, 0.5])
    clean, saved = (CameraQuality(noise=0.0, jpeg=jpeg).taken(red, GRAIN) for jpeg in (None, 30))
    assert (clean != saved).any()
    np.testing.assert_allclose(clean.mean((0, 1)), saved.mean((0, 1)), atol=4)


def test_half_of_the_cameras_are_good():
    qualities = [random_quality(np.random.default_rng(seed)) for seed in range(200)]
    good = [quality == CameraQuality() for quality in qualities]
    assert 0.4 < np.mean(good) < 0.6
    bad = [quality for quality in qualities if quality != CameraQuality()]
    assert all(0.3 <= q.resolution <= 1 and NOISE[0] <= q.noise <= NOISE[1] for q in bad)
    assert all(JPEG_QUALITY[0] <= q.jpeg < JPEG_QUALITY[1] for q in bad)
