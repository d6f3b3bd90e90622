"""The rim of a matte loses the background, and nothing else."""

import cv2
import numpy as np
import pytest

from avat3r_ros.capture.rim import without_background, without_spill

HAIR, BLUE = np.array([0.35, 0.25, 0.2]), np.array([0.2, 0.4, 1.0])
SIZE = 200


def photo(blur_px=3.0, behind=BLUE):
    """A disc of strands before a wall, out of focus: image and true matte."""
    row, column = np.mgrid[:SIZE, :SIZE]
    disc = (np.hypot(row - 100, column - 100) < 60).astype(np.float32)
    matte = cv2.GaussianBlur(disc, (0, 0), blur_px)[..., None]
    strands = HAIR * (1 + 0.2 * np.sin(row / 2))[..., None]
    return (matte * strands + (1 - matte) * behind).astype(np.float32), matte[..., 0]


def wide(matte):
    """What a network makes of it: whole, and a little too large."""
    return cv2.dilate((matte > 0.5).astype(np.float32), np.ones((5, 5)))


def test_a_matte_that_is_too_wide_shrinks_to_the_head():
    image, true = photo()
    given = wide(true)
    found = without_background(image, given, network_px=4.0)
    assert np.abs(found - true).mean() < 0.5 * np.abs(given - true).mean()
    assert (found <= given).all(), "nothing is added"
    assert (found[true > 0.97] > 0.95).all(), "strands are whole"


def test_the_wall_does_not_colour_the_rim():
    image, true = photo()
    clean = without_spill(image, true)
    rim = (true > 0.5) & (true < 0.95)
    tinted = (image[rim, 2] - image[rim, 0]).mean()
    assert tinted > 0, "otherwise there was nothing to clean"
    assert (clean[rim, 2] - clean[rim, 0]).mean() < 0.5 * (HAIR[2] - HAIR[0])
    deep = true > 0.999
    assert np.abs(clean - image)[deep].mean() < 0.005, "what the wall does not reach stays"


def test_hair_in_shade_loses_the_walls_hue_and_stays_dark():
    row, column = np.mgrid[:SIZE, :SIZE]
    shade = np.where(np.hypot(row - 100, column - 100) > 54, 0.35, 1.0)[..., None]
    image, true = photo()
    image = (image - (1 - shade) * true[..., None] * HAIR).clip(0, 1).astype(np.float32)
    clean = without_spill(image, true)
    rim = (true > 0.5) & (true < 0.75)
    assert (image[rim, 2] > image[rim, 0]).all(), "otherwise there was nothing to clean"
    assert (clean[rim, 2] < clean[rim, 0]).mean() > 0.9
    assert clean[rim].mean() < 0.6 * HAIR.mean()


@pytest.mark.parametrize("behind", [HAIR, 1.1 * HAIR])
def test_where_head_and_wall_look_alike_nothing_is_told(behind):
    image, true = photo(behind=behind)
    given = wide(true)
    assert np.abs(without_background(image, given, 4.0) - given).max() < 0.07
    assert np.abs(without_spill(image, true) - image).max() < 0.07, "less than among strands"


def test_a_matte_without_an_outline_stays():
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    for matte in (np.zeros((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)):
        np.testing.assert_array_equal(without_background(image, matte, 4.0), matte)
        np.testing.assert_array_equal(without_spill(image, matte), image)
