"""Texture of guessed hair."""

import numpy as np
import pytest

from avat3r_ros.lift.strands import CENTER, strands


def around(polar, turn):
    direction = [
        np.sin(polar) * np.sin(turn),
        np.cos(polar) + 0 * turn,
        np.sin(polar) * np.cos(turn),
    ]
    return CENTER + 0.1 * np.stack(np.broadcast_arrays(*direction), -1)


def test_strands_have_unit_spread_and_no_seam():
    turn = np.linspace(-np.pi, np.pi, 4001)
    values = strands(around(1.2, turn))
    assert values.mean() == pytest.approx(0, abs=0.15)
    assert values.std() == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(values[0], values[-1], atol=1e-6)


def test_strands_run_down_from_the_crown():
    turn, step = np.linspace(-3, 3, 800), 0.02
    here = strands(around(1.2, turn))
    below, beside = strands(around(1.2 + step, turn)), strands(around(1.2, turn + step))
    assert np.abs(below - here).mean() < 0.3 * np.abs(beside - here).mean()


def test_every_place_on_a_head_has_a_finite_value():
    points = CENTER + np.random.default_rng(1).normal(size=(1000, 3))
    assert np.isfinite(strands(points)).all()
    assert np.isfinite(strands(CENTER + np.array([[0, 0.1, 0], [0, -0.1, 0]]))).all()
