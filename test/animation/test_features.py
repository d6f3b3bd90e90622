"""The map from code to inputs finds linear maps, products and nothing where there is nothing."""

import numpy as np
import pytest

from avat3r_ros.animation.features import FeatureMap, fit_features


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(0)
    random = rng.uniform(0, 1, (150, 8)) * (rng.uniform(size=(150, 8)) < 0.4)
    return np.concatenate([np.zeros((1, 8)), np.eye(8), random]).astype(np.float32)


def test_a_linear_map_is_found_without_corrections(codes):
    weights = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    found, error = fit_features(codes, codes @ weights.T, 9)
    assert len(found.pairs) == len(found.centers) == 0
    np.testing.assert_allclose(found.weights, weights, atol=1e-4)
    assert error < 1e-4


def test_products_are_found_and_chosen(codes):
    inputs = np.stack([codes[:, 0] + 2 * codes[:, 1] * codes[:, 5], codes[:, 3] ** 2], -1)
    found, error = fit_features(codes, inputs, 9)
    assert {(1, 5), (3, 3)} <= {tuple(pair) for pair in found.pairs}
    code = np.array([0.3, 0.6, 0, 0.5, 0, 0.7, 0, 0], np.float32)
    np.testing.assert_allclose(found(code), [0.3 + 2 * 0.42, 0.25], atol=0.02)
    assert error < 0.02


def test_noise_gets_no_corrections(codes):
    inputs = np.random.default_rng(2).standard_normal((len(codes), 2)).astype(np.float32)
    found, error = fit_features(codes, inputs, 9)
    assert len(found.pairs) == 0 and error > 0.8


def test_neutral_stays_neutral(codes):
    weights = np.ones((2, 8 + 1 + 2), np.float32)
    found = FeatureMap(np.array([[0, 1]]), codes[5:7], 0.7, weights)
    assert np.array_equal(found(np.zeros(8, np.float32)), np.zeros(2))
    assert found(codes[5])[0] != 0


def test_parts_that_do_not_fit_are_refused(codes):
    centers = np.zeros((0, 8), np.float32)
    with pytest.raises(ValueError, match="weights of 9 features"):
        FeatureMap(np.array([[0, 1]]), centers, 1.0, np.ones((2, 8), np.float32))
    with pytest.raises(ValueError, match=r"products of scores 0\.\.7"):
        FeatureMap(np.array([[0, 8]]), centers, 1.0, np.ones((2, 9), np.float32))
    with pytest.raises(ValueError, match="positive width"):
        FeatureMap(np.zeros((0, 2), np.int64), centers, 0.0, np.ones((2, 8), np.float32))
    with pytest.raises(ValueError, match="more than 400 codes"):
        fit_features(codes, codes, 400)
