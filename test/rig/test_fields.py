"""Fields over a mesh that follow observations."""

import numpy as np
import pytest

from avat3r_ros.rig import graph_laplacian
from avat3r_ros.rig.fields import follow

STRIP = 30


@pytest.fixture(scope="module")
def laplacian():
    """A strip of triangles: vertex i touches i +- 1 and i +- 2."""
    first = np.arange(STRIP - 2)
    return graph_laplacian(STRIP, np.stack([first, first + 1, first + 2], -1))


def at(*places):
    weights = np.zeros(STRIP)
    weights[list(places)] = 100.0
    return weights


def test_without_observations_the_guide_stays(laplacian):
    guide = np.sin(np.arange(STRIP))[:, None]
    np.testing.assert_allclose(follow(guide, np.ones((STRIP, 1)), at(), laplacian, 0.1), guide)


def test_a_constant_difference_is_continued_everywhere(laplacian):
    guide = np.sin(np.arange(STRIP))[:, None]
    field = follow(guide, guide + 0.5, at(3), laplacian, 10.0)
    # The pull to the guide takes the last thousandth.
    np.testing.assert_allclose(field, guide + 0.5, atol=2e-3)


def test_between_two_observations_the_field_is_a_straight_line(laplacian):
    observed = np.linspace(0, 1, STRIP)[:, None]
    field = follow(np.zeros((STRIP, 1)), observed, at(0, 1, 28, 29), laplacian, 1.0)
    np.testing.assert_allclose(field, observed, atol=0.02)


def test_a_stronger_rest_lets_observations_fade(laplacian):
    args = (np.zeros((STRIP, 1)), np.ones((STRIP, 1)), at(0), laplacian, 0.1)
    assert follow(*args)[-1] > 0.3
    assert follow(*args, rest_weight=0.01)[-1] < 0.05
