"""The learned prior of heads: what is seen tells what is not."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.looks import (
    DEFAULT_PATH,
    Components,
    HeadLooks,
    mirrored_vertices,
)


@pytest.fixture(scope="module")
def looks():
    return HeadLooks.load()


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def test_the_shipped_prior_is_small_and_fits_the_template(looks, template):
    assert DEFAULT_PATH.stat().st_size < 6e6
    assert looks.skin.mean.shape == (len(template.neutral), 3)
    assert looks.hair.mean.shape == (len(template.neutral), 5)
    for part in (looks.skin, looks.hair):
        assert np.isfinite(part.basis).all()


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(1)}, path, {"format": "something"})
    with pytest.raises(ValueError, match="expected avat3r-head-looks.*'something'"):
        HeadLooks.load(path)
    with pytest.raises(FileNotFoundError, match="no head looks"):
        HeadLooks.load(tmp_path / "none.safetensors")


def test_one_half_of_a_face_tells_the_other(looks, template):
    left = (template.neutral[:, 0] > 0).numpy()
    coefficients = np.random.default_rng(3).normal(size=len(looks.skin.basis))
    truth = looks.skin.mean + np.tensordot(coefficients, looks.skin.basis, 1)
    weights = np.repeat(left[:, None] * 50.0, 3, 1)
    guess = looks.skin.complete(np.where(left[:, None], truth, 99.0), weights)
    error = np.abs(guess - truth)[~left].mean()
    assert error < 0.3 * np.abs(looks.skin.mean - truth)[~left].mean()


def test_nothing_seen_gives_the_mean(looks):
    nothing = np.zeros_like(looks.hair.mean)
    np.testing.assert_allclose(looks.hair.complete(nothing, nothing), looks.hair.mean)


def test_doubtful_observations_are_followed_less():
    components = Components(np.zeros((1, 1)), np.ones((1, 1, 1)))
    once, often = (components.complete(np.ones((1, 1)), np.full((1, 1), w)) for w in (1.0, 9.0))
    np.testing.assert_allclose([once.item(), often.item()], [0.5, 0.9])


def test_the_mirror_image_of_the_mirror_image_is_the_head(template):
    mirror = mirrored_vertices(template)
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    points = template.neutral.numpy()
    np.testing.assert_allclose(points[mirror] * [-1, 1, 1], points, atol=1e-4)


def test_hair_grows_on_scalps_and_not_on_cheeks(looks, template):
    def mean_presence(region):
        own = np.unique(template.triangles[template.region_mask(region)].numpy())
        return looks.hair.mean[own, 0].mean()

    assert mean_presence("scalp") > 0.7
    assert mean_presence("lips") == 0
