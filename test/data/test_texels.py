import numpy as np
import pytest

from avat3r_ros.data.noise import NoiseBank, value_noise
from avat3r_ros.data.texels import TexelGrid, divisions_for_triangles


def test_a_texel_finds_itself():
    grid = TexelGrid.build(np.array([1, 4, 9, 2]))
    assert len(grid) == 3 + 15 + 55 + 6
    found = grid.lookup(grid.triangle_ids, *grid.barycentrics.T[:2])
    assert np.array_equal(found, np.arange(len(grid)))


def test_any_point_finds_a_texel_of_its_triangle_within_a_step():
    rng = np.random.default_rng(0)
    grid = TexelGrid.build(np.array([3, 8, 20]))
    triangle = rng.integers(0, 3, 500).astype(np.int32)
    weights = rng.dirichlet([1, 1, 1], 500).astype(np.float32)
    found = grid.lookup(triangle, *weights.T[:2])
    assert np.array_equal(grid.triangle_ids[found], triangle)
    step = 1 / grid.divisions[triangle][:, None]
    assert (np.abs(grid.barycentrics[found] - weights) <= 1.01 * step).all()


def test_linear_values_are_interpolated_exactly():
    rng = np.random.default_rng(1)
    vertices, triangles = rng.normal(size=(5, 3)), np.array([[0, 1, 2], [2, 3, 4]])
    grid = TexelGrid.build(np.array([4, 6]))
    points = grid.interpolate(vertices, triangles)
    values = grid.interpolate(vertices @ [1.0, 2.0, 3.0], triangles)
    assert np.allclose(points @ [1, 2, 3], values, atol=1e-5)


def test_divisions_follow_the_longest_edge():
    vertices = np.array([[0, 0, 0], [0.01, 0, 0], [0, 0.002, 0]])
    triangles = np.array([[0, 1, 2]])
    assert divisions_for_triangles(vertices, triangles, np.array([0.001]))[0] == 11
    assert divisions_for_triangles(vertices, triangles, np.array([1e-6]), most=32)[0] == 32


def test_noise_has_unit_spread_and_its_wavelength():
    points = np.random.default_rng(2).uniform(0, 1, (20_000, 3)).astype(np.float32)
    noise = value_noise(points, 0.05, np.random.default_rng(3))
    assert abs(noise.mean()) < 0.1
    assert 0.85 < noise.std() < 1.15  # 1.01 measured on a head's texels
    near = value_noise(points + 0.001, 0.05, np.random.default_rng(3))
    far = value_noise(points + 0.2, 0.05, np.random.default_rng(3))
    assert np.corrcoef(noise, near)[0, 1] > 0.98
    assert abs(np.corrcoef(noise, far)[0, 1]) < 0.1


def test_a_noise_bank_mixes_without_changing_the_spread():
    points = np.random.default_rng(4).uniform(0, 1, (5000, 3)).astype(np.float32)
    bank = NoiseBank(points, (0.05,), fields=3)
    one, other = (bank.mixture(0.05, np.random.default_rng(seed)) for seed in (0, 1))
    assert 0.8 < one.std() < 1.2
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.999
    with pytest.raises(ValueError, match="wavelength"):
        bank.mixture(0.1, np.random.default_rng(0))
