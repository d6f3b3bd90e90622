"""Discs moved so that surfaces seen aslant appear where their photos show them."""

from dataclasses import replace

import pytest
import torch

from avat3r_ros.geometry import matrices_from_quats_wxyz
from avat3r_ros.model import base_guess, cloud, preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.overlap import overlap_shifts
from avat3r_ros.rendering import render_gaussians

SIZE, TIMES = 64, 4
WAVE_M = 0.015
CONFIG = replace(preset("tiny"), image_size=SIZE)
FRONT = 1
"""View of the fake head's whose camera looks straight at it."""


def waves_at(positions):
    """Brightness of the head, (V, 1, H, W)."""
    return 0.5 + 0.3 * torch.sin(2 * torch.pi * positions[:, :1] / WAVE_M)


@pytest.fixture(scope="module")
def waved(head, template):
    """One view, from in front."""
    views = head.fake_views(template, size=SIZE)[FRONT : FRONT + 1]
    images = waves_at(views.position_maps) * (views.masks > 0)
    return replace(views, images=images.expand(-1, 3, -1, -1))


@pytest.fixture(scope="module")
def guess(waved, template):
    return build_base_guess(waved, CONFIG, template)


@pytest.fixture(scope="module")
def unmoved(waved, template):
    """The base guess with its discs on their rays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_guess, "overlap_shifts", lambda base, cameras: 0.0)
        return build_base_guess(waved, CONFIG, template)


def shifts_px(base, head, template):
    """How far a picture of the base guess is moved to the right, in pixels of its photo.

    Least squares (Lucas and Kanade, 1981) over the left and the right flank of the head.
    """
    seen = head.fake_views(template, size=TIMES * SIZE)[FRONT : FRONT + 1]
    x, y = seen.position_maps[0, :2]
    truth = waves_at(seen.position_maps)[0, 0]
    picture = render_gaussians(base.gaussians, seen.cameras).rgb[0, 0]
    slope = torch.gradient(truth, dim=1)[0]
    flanks = []
    for side in (-1, 1):
        on = (side * x > 0.015) & (side * x < 0.045) & (y > 0.045) & (y < 0.07)
        residual = (truth - picture)[on]
        flanks.append(float((slope[on] * residual).sum() / slope[on].square().sum()) / TIMES)
    return flanks


def test_flanks_appear_where_the_photo_shows_them(head, template, guess, unmoved):
    left, right = shifts_px(unmoved, head, template)
    assert left < -0.15 and right > 0.15  # the head bulges
    for before, after in zip((left, right), shifts_px(guess, head, template), strict=True):
        assert abs(after) < 0.4 * abs(before)


def test_discs_move_within_their_surface_and_less_in_the_middle(waved, unmoved):
    count = unmoved.num_pixels
    shift = overlap_shifts(unmoved, waved.cameras)
    normals = matrices_from_quats_wxyz(unmoved.gaussians.quats_wxyz[:count])[..., 2]
    flat = unmoved.gaussians.scales[:count, 2] < unmoved.gaussians.scales[:count, 1]
    across = (shift * normals).sum(-1).abs()[flat]
    assert across.max() < 0.2 * shift.norm(dim=-1).max()
    x = unmoved.gaussians.means[:count, 0].abs()
    middle, flanks = flat & (x < 0.005), flat & (x > 0.02) & (x < 0.05)
    assert shift[middle, 0].abs().mean() < 0.4 * shift[flanks, 0].abs().mean()


def test_the_base_guess_is_moved_and_nothing_else_of_it(waved, guess, unmoved):
    count = guess.num_pixels
    shift = guess.gaussians.means - unmoved.gaussians.means
    torch.testing.assert_close(shift[:count], overlap_shifts(unmoved, waved.cameras))
    assert not shift[count:].any()


def test_smaller_discs_move_less_far(waved, unmoved):
    halved = replace(unmoved.gaussians, scales=0.5 * unmoved.gaussians.scales)
    smaller = overlap_shifts(replace(unmoved, gaussians=halved), waved.cameras)
    torch.testing.assert_close(smaller, 0.5 * overlap_shifts(unmoved, waved.cameras))


def test_round_gaussians_stay(waved):
    points = build_base_guess(waved, cloud(CONFIG), None)
    assert not overlap_shifts(points, waved.cameras).any()
