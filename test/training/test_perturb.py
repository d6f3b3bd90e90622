from dataclasses import replace

import numpy as np
import pytest
import torch

from avat3r_ros.geometry import project_points, transform_points
from avat3r_ros.model import base_guess, preset
from avat3r_ros.training.people import prepare_person
from avat3r_ros.training.perturb import Perturbation, perturbed
from avat3r_ros.training.references import person_from_sample


def pixels_of(views, view):
    """Where a view's points project to, and where their pixels are."""
    rows, columns = (views.masks[view, 0] > 0).nonzero().unbind(-1)
    points = views.position_maps[view].permute(1, 2, 0)[rows, columns]
    camera = views.cameras[view]
    projected = project_points(
        camera.intrinsics.float(), transform_points(camera.camera_from_head.float(), points)
    )
    return projected, torch.stack([columns, rows], -1) + 0.5


def test_disturbed_points_stay_on_the_rays_of_their_pixels(small_person):
    other = perturbed(small_person, Perturbation(), np.random.default_rng(0))
    for view in range(len(other.views.images)):
        before, pixels = pixels_of(small_person.views, view)
        after, _ = pixels_of(other.views, view)
        on_ray = (before - pixels).norm(dim=-1) < 0.01  # what is off the mesh need not be
        assert on_ray.float().mean() > 0.5
        assert torch.allclose(after[on_ray], pixels[on_ray], atol=0.02)


@pytest.fixture
def person_on_rays(sample, template, monkeypatch):
    """As `small_person`, but pixels lie where position maps say (they move, overlap.py)."""
    monkeypatch.setattr(base_guess, "overlap_shifts", lambda base, cameras: 0.0)
    person = person_from_sample(sample, 32, "fitted", template)
    return prepare_person(person, preset("debug"), template)


def test_points_move_by_millimetres_and_the_truth_stays(person_on_rays):
    other = perturbed(person_on_rays, Perturbation(), np.random.default_rng(0))
    count = person_on_rays.base.num_pixels
    means, before = other.base.gaussians.means, person_on_rays.base.gaussians.means
    moved = (means - before).norm(dim=-1)
    assert 0.0005 < float(moved[:count].mean()) < 0.01
    assert not moved[count:].any()
    assert other.before is person_on_rays.before
    assert other.moved is person_on_rays.moved
    # The Gaussian of a pixel and the position map of that pixel move together.
    maps = other.views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)
    old = person_on_rays.views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)
    pixels = other.base.pixel_indices
    together = (maps - old)[pixels] - (means - before)[:count]
    # What outlines had moved on its ray grows and stretches a little otherwise.
    assert together.abs().median() < 1e-6
    assert together.abs().max() < 3e-4


def test_no_spread_changes_nothing(small_person):
    names = ("turn_deg", "shift_m", "growth", "stretch", "exposure", "tint")
    still = Perturbation(**dict.fromkeys(names, 0.0))
    other = perturbed(small_person, still, np.random.default_rng(0))
    mask = small_person.views.masks > 0
    difference = (other.views.position_maps - small_person.views.position_maps) * mask
    assert difference.abs().max() < 1e-6
    assert torch.equal(other.views.images, small_person.views.images)


def test_each_photo_has_its_exposure_and_its_gaussians_the_same(small_person):
    how = Perturbation(exposure=0.2, tint=0.0)
    other = perturbed(small_person, how, np.random.default_rng(0))
    before, after = small_person.base, other.base
    gains = []
    for view, (old, new) in enumerate(
        zip(small_person.views.images, other.views.images, strict=True)
    ):
        seen = (old > 0.05) & (new < 1)
        gains.append(float((new[seen] / old[seen]).median()))
        own = (before.code_rows[: before.num_pixels] == view).nonzero()[:, 0]
        colors = before.gaussians.colors[own] * gains[-1]
        torch.testing.assert_close(after.gaussians.colors[own], colors.clamp(0, 1))
    assert len({round(gain, 3) for gain in gains}) == len(gains)
    assert 0.5 < min(gains) < max(gains) < 2


def test_wrong_spreads_are_refused():
    with pytest.raises(ValueError, match="share"):
        Perturbation(share=1.5)
    with pytest.raises(ValueError, match="growth"):
        replace(Perturbation(), growth=-1.0)
