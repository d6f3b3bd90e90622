"""Heads that are too fat: what the outlines of the other photos say of it."""

import dataclasses

import pytest
import torch

from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.evidence import rays_to_cameras
from avat3r_ros.model.outlines import within_outlines
from avat3r_ros.model.prefix import make_motion
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate

CONFIG = preset("debug")


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def moved(base, views, metres):
    means = base.gaussians.means.clone()
    means[: base.num_pixels] += metres * rays_to_cameras(base, views.cameras)
    return dataclasses.replace(base, gaussians=dataclasses.replace(base.gaussians, means=means))


def corrected(base, views, template):
    motion = make_motion(base, views.identity, template, CONFIG)
    return within_outlines(base, motion, views, template)


def share_beside(base, views):
    """Pixels drawn beside the head, as a share of the head, in the photos' own cameras."""
    alpha = render_gaussians(base.gaussians, views.cameras).alpha
    return float(((alpha > 0.5) & (views.masks < 0.5)).sum() / (views.masks > 0.5).sum())


def test_a_head_that_is_too_fat_is_brought_back(drawn_person, template):
    fat = moved(build_base_guess(drawn_person, CONFIG, template), drawn_person, 0.012)
    better = corrected(fat, drawn_person, template)
    assert share_beside(fat, drawn_person) > 0.03
    assert share_beside(better, drawn_person) < 0.75 * share_beside(fat, drawn_person)
    shift = better.gaussians.means - fat.gaussians.means
    along = (shift[: fat.num_pixels] * rays_to_cameras(fat, drawn_person.cameras)).sum(-1)
    assert along.mean() < -0.0005, "pixels go back to where they belong, away from the camera"
    assert torch.allclose(along.abs(), shift[: fat.num_pixels].norm(dim=-1), atol=1e-6)


def test_what_lies_right_stays(drawn_person, template):
    base = build_base_guess(drawn_person, CONFIG, template)
    again = corrected(base, drawn_person, template)
    shift = (again.gaussians.means - base.gaussians.means).norm(dim=-1)
    assert shift.mean() < 0.0005
    lost = base.gaussians.opacities - again.gaussians.opacities
    assert lost.min() >= 0
    assert lost.mean() < 0.02


def test_what_cannot_be_there_fades(drawn_person, template):
    base = build_base_guess(drawn_person, CONFIG, template)
    far = moved(base, drawn_person, 0.05)
    faded = corrected(far, drawn_person, template)
    gone = faded.gaussians.opacities[: base.num_pixels] < 0.05
    assert gone.float().mean() > 0.04
    assert torch.equal(faded.gaussians.colors, far.gaussians.colors)


@pytest.mark.parametrize(("thickness_m", "stays"), [(0.0, False), (0.004, True)])
def test_one_outline_does_not_take_hanging_hair_away(drawn_person, template, thickness_m, stays):
    hair = torch.full((len(template.neutral),), thickness_m)
    views = dataclasses.replace(drawn_person, hair_thickness_m=hair)
    base = build_base_guess(views, CONFIG, template)
    seen = views.position_maps[0, 1]
    cheeks = (seen < 0.0) & (seen > -0.05) & (views.masks[0, 0] > 0)
    masks = views.masks.clone()
    masks[0, 0][cheeks] = 0.0
    faded = corrected(base, dataclasses.replace(views, masks=masks), template)
    lost = (base.gaussians.opacities - faded.gaussians.opacities)[: base.num_pixels]
    lost = lost[base.code_rows[: base.num_pixels] > 0]
    assert (lost > 0.5).float().mean() < 0.01 if stays else (lost > 0.5).float().mean() > 0.1


def test_one_view_says_nothing_of_itself(drawn_person, template):
    one = drawn_person[:1]
    base = moved(build_base_guess(one, CONFIG, template), one, 0.01)
    after = corrected(base, one, template)
    pixels = slice(0, base.num_pixels)
    assert torch.equal(after.gaussians.means[pixels], base.gaussians.means[pixels])
    assert torch.equal(after.gaussians.opacities[pixels], base.gaussians.opacities[pixels])
