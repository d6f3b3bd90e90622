"""Irises are measured in the photo itself, and tell how large a head is as far as they are seen."""

import cv2
import numpy as np
import pytest

from avat3r_ros.capture.irises import (
    ADULT_LOG_SPREAD,
    EYE_LOG_SIGMA,
    EYE_OPENINGS,
    IRIS_CENTERS,
    IRIS_LOG_SIGMA,
    READ_IRIS_M,
    iris_widths_m,
    log_size_from_irises,
)

FOCAL_PX, DISTANCE_M = 1200.0, 0.6
SIZE = 300
MIDDLES_PX = np.array([[90.0, 150.0], [210.0, 150.0]])
EYE_PX = (32.0, 14.0)
"""Half axes of the opening between the lids."""


def photo(width_m, *, aside_deg=0.0, pupil=0.4, iris=(70, 60, 50), opening=EYE_PX, gleam=False,
          raised_px=0.0):  # fmt: skip
    """Two drawn eyes before a camera, their landmarks, and those of a fitted head there."""
    fine = 8
    image = np.full((SIZE * fine, SIZE * fine, 3), (150, 110, 90), np.uint8)
    landmarks, fitted = np.zeros((478, 2)), np.zeros((478, 3))
    radius = 0.5 * width_m * FOCAL_PX / DISTANCE_M
    cosine = np.cos(np.radians(aside_deg))

    def disc(picture, middle, axes, color):
        corner = tuple(int(round(value * fine)) for value in (*middle, *axes))
        cv2.ellipse(picture, corner[:2], corner[2:], 0, 0, 360, color, -1)

    for middle, center, lids in zip(MIDDLES_PX, IRIS_CENTERS, EYE_OPENINGS, strict=True):
        white = image.copy()
        disc(white, middle, (200, 200), (215, 205, 200))
        center_px = middle - [0, raised_px]
        disc(white, center_px, (radius * cosine, radius), iris)
        disc(white, center_px, (pupil * radius * cosine, pupil * radius), (8, 8, 8))
        if gleam:
            disc(white, middle + [0.45 * radius, -0.2 * radius], (1.5, 1.5), (255, 255, 255))
        mask = np.zeros(image.shape[:2], np.uint8)
        disc(mask, middle, opening, 1)
        image[mask > 0] = white[mask > 0]
        angles = np.linspace(0, 2 * np.pi, len(lids), endpoint=False)
        rim = np.stack([np.cos(angles), np.sin(angles)], 1)
        landmarks[list(lids)] = middle + rim * opening
        landmarks[center] = middle + [1.0, -0.5]  # the tracker is a pixel off
        across = np.array([cosine, 0, np.sin(np.radians(aside_deg))])
        fitted[center] = [*((middle - SIZE / 2) * DISTANCE_M / FOCAL_PX), DISTANCE_M]
        steps = np.array([across, [0, -1, 0], -across, [0, 1, 0]])
        fitted[center + 1 : center + 5] = fitted[center] + 0.006 * steps
    return (
        cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA),
        landmarks,
        fitted,
        FOCAL_PX,
    )


@pytest.mark.parametrize("width_m", [0.0105, 0.0115, 0.0125])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pupil": 0.5, "iris": (165, 140, 120)},
        {"iris": (20, 18, 15)},
        {"gleam": True},
    ],
)
def test_irises_are_measured(width_m, change):
    """Whatever their colour and pupil; worst of these: 2.5 % off."""
    assert iris_widths_m(*photo(width_m, **change)) == pytest.approx([width_m] * 2, rel=0.035)


def test_irises_that_look_aside_are_as_wide():
    assert iris_widths_m(*photo(0.0115, aside_deg=25)) == pytest.approx([0.0115] * 2, rel=0.035)


@pytest.mark.parametrize("width_m", [0.0105, 0.0115, 0.0125])
def test_irises_under_the_upper_lid_are_as_wide(width_m):
    """The tracker's landmark is in the middle of what the lids leave, and chords are shorter."""
    half_hidden = photo(width_m, opening=(32, 8), raised_px=5.0)
    assert iris_widths_m(*half_hidden) == pytest.approx([width_m] * 2, rel=0.05)


@pytest.mark.parametrize(
    "change", [{"opening": (32, 2)}, {"iris": (215, 205, 200), "pupil": 0.0}, {"aside_deg": 40}]
)
def test_hidden_irises_are_not_measured(change):
    """Closed lids, an iris as bright as the white, and eyes turned away."""
    assert iris_widths_m(*photo(0.0115, **change)) == []


def test_tiny_irises_are_not_measured():
    image, landmarks, fitted, focal = photo(0.0115)
    small = cv2.resize(image, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    assert iris_widths_m(small, 0.3 * landmarks, fitted, 0.3 * focal) == []


def test_irises_that_come_out_too_wide_make_the_head_smaller():
    trust = ADULT_LOG_SPREAD**2 / (
        ADULT_LOG_SPREAD**2 + IRIS_LOG_SIGMA**2 + 1.6 * EYE_LOG_SIGMA**2 / 6
    )
    size = log_size_from_irises([1.05 * READ_IRIS_M] * 6, 0.0)
    assert size == pytest.approx(-trust * np.log(1.05), abs=1e-6)


def test_the_size_of_the_fit_itself_does_not_matter():
    """A fit that is 3 % larger is farther away, and irises come out wider by as much."""
    sizes = [log_size_from_irises([0.011 * np.exp(s)] * 4, s) for s in (0.0, 0.03)]
    assert sizes[0] == pytest.approx(sizes[1])
    assert sizes[0] > 0


def test_irises_that_disagree_say_less_and_none_say_nothing():
    agreeing = log_size_from_irises([0.0105] * 4, 0.0)
    disagreeing = log_size_from_irises([0.009, 0.0102, 0.0108, 0.0125], 0.0)
    assert 0 < disagreeing < 0.7 * agreeing
    assert log_size_from_irises([], 0.02) == 0.0
