"""What other photos say of pixels that lie right, too near, and outside an outline."""

import dataclasses

import pytest
import torch

from avat3r_ros.expression import arkit_code
from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.evidence import (
    EVIDENCE_INPUTS,
    NUMBERS,
    OFFSETS_M,
    cross_view_evidence,
    rays_to_cameras,
)
from avat3r_ros.model.prefix import make_motion

CONFIG = preset("debug")
K = len(OFFSETS_M)
DIFFERENCE, WEIGHT = slice(K, 2 * K), slice(3 * K, 4 * K)


def evidence_of(views, template, config=CONFIG):
    base = build_base_guess(views, config, template)
    motion = make_motion(base, views.identity, template, config)
    return base, cross_view_evidence(views, base, motion, template).numbers


@pytest.fixture
def striped(template, head):
    """A face whose colour depends on the place alone, in four views of 64 pixels."""
    views = head.fake_views(template, size=64, num_views=4)
    waves = 0.5 + 0.5 * torch.sin(views.position_maps * 120)
    return dataclasses.replace(views, images=waves * views.masks)


def test_colours_agree_where_the_place_is_right_and_nowhere_else_on_the_ray(striped, template):
    base, evidence = evidence_of(striped, template)
    assert evidence.shape == (base.num_pixels, EVIDENCE_INPUTS)
    assert torch.isfinite(evidence).all()
    seen = evidence[:, WEIGHT].amin(1) > 0.5
    assert seen.sum() > 100
    by_offset = evidence[seen][:, DIFFERENCE].mean(0)
    assert OFFSETS_M[int(by_offset.argmin())] == 0.0
    assert by_offset.min() < 0.5 * by_offset[0]


def test_a_surface_that_is_too_far_is_found_nearer_to_the_camera(striped, template):
    """The evidence of a pixel points along its ray to where its surface is."""
    base = build_base_guess(striped, CONFIG, template)
    pixels, error = base.num_pixels, 0.015
    means = base.gaussians.means.clone()
    means[:pixels] -= error * rays_to_cameras(base, striped.cameras)
    wrong = dataclasses.replace(base, gaussians=dataclasses.replace(base.gaussians, means=means))
    motion = make_motion(wrong, striped.identity, template, CONFIG)
    evidence = cross_view_evidence(striped, wrong, motion, template).numbers
    seen = evidence[:, WEIGHT].amin(1) > 0.3
    assert seen.any()
    best = evidence[seen][:, DIFFERENCE].mean(0).argmin()
    assert OFFSETS_M[int(best)] == error


def test_a_place_outside_another_outline_is_marked(striped, template):
    """The first pixel of the first view floats beside the head: other views show nothing there."""
    base, evidence = evidence_of(striped, template)
    middle = OFFSETS_M.index(0.0)
    row = int((base.pixel_indices == 0).nonzero()[0, 0])
    assert evidence[row, middle] == -1.0
    assert evidence[:, middle].median() > 0


def test_places_are_compared_in_the_other_photo_s_expression(template, head):
    """The jaw is open in one photo: told so by its code, its pixels agree with the others."""
    codes = [arkit_code(), arkit_code(), arkit_code(jawOpen=1.0)]
    views = head.fake_views(template, codes, size=64, num_views=3)
    closed = dataclasses.replace(views, codes=torch.from_numpy(codes[0]).expand(3, -1).clone())
    lips = template.region_mask("lips")
    disagreement = []
    for one in (views, closed):
        base, evidence = evidence_of(one, template)
        triangles = one.binding.triangle_ids.flatten()[base.pixel_indices]
        on_lips = lips[triangles.clamp(min=0)] & (triangles >= 0)
        disagreement.append(float(evidence[on_lips, K + OFFSETS_M.index(0.0)].mean()))
    assert disagreement[0] < 0.7 * disagreement[1]


def test_means_of_the_surroundings_are_means(striped, template):
    base, evidence = evidence_of(striped, template)
    own, near, far = evidence.split(NUMBERS, -1)
    torch.testing.assert_close(own.mean(0), far.mean(0), atol=0.1, rtol=0.1)
    assert (far.std(0) <= own.std(0) + 1e-3).all()
    assert not torch.equal(near, far)


def test_finer_references_say_much_the_same(template, head):
    """A place is asked about in metres, an outline in shares of the picture."""
    rows = []
    for size in (64, 128):
        base, evidence = evidence_of(head.fake_views(template, size=size, num_views=3), template)
        rows.append(evidence[base.code_rows[: base.num_pixels] == 1][:, :NUMBERS].mean(0))
    torch.testing.assert_close(rows[0], rows[1], atol=0.12, rtol=0)
