"""Pixels cut in four where the photos show more than one of them holds."""

from dataclasses import replace

import pytest
import torch

from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import project_points, transform_points
from avat3r_ros.model import Avat3r, build_avatar, preset, restore_avatar
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.detail import MAX_SHARE, with_details
from avat3r_ros.model.overlap import overlap_shifts
from avat3r_ros.model.rig_motion import RigMotion
from avat3r_ros.rendering import render_gaussians

SIZE = 48
STRIPES_M = 0.011
"""Five finer pixels: too narrow for whole ones."""

STRIPED_ABOVE_M = 0.05
"""Fewer pixels than may be cut; the others are plain."""

CONFIG = replace(preset("tiny"), image_size=SIZE)


def stripes_at(positions):
    """Brightness of the head, (V, 1, H, W)."""
    return 0.5 + 0.3 * torch.sin(2 * torch.pi * positions[:, :1] / STRIPES_M)


@pytest.fixture(scope="module")
def fine_views(head, template):
    """The fake head twice as finely: what photos show."""
    views = head.fake_views(template, size=2 * SIZE)
    striped = (views.position_maps[:, 1:2] > STRIPED_ABOVE_M) & (views.masks > 0)
    colors = torch.where(striped, stripes_at(views.position_maps), 0.5)
    return replace(views, images=colors.expand(-1, 3, -1, -1))


@pytest.fixture(scope="module")
def striped(head, template, fine_views):
    """References of half the size, and what they lack."""
    views = head.fake_views(template, size=SIZE)
    views.masks[0, 0, 0, 0] = 0  # a pixel that is not where its photo shows it
    coarse = torch.nn.functional.avg_pool2d(fine_views.images, 2)
    twice = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return replace(views, images=coarse, details=fine_views.images - twice)


@pytest.fixture(scope="module")
def guess(striped, template):
    return build_base_guess(striped, CONFIG, template)


def pixels_of(base, views):
    """Where the Gaussians that come from pixels appear in their own photos: (view, x and y)."""
    view = base.pixel_indices.long() // SIZE**2
    poses, k = views.cameras.camera_from_head[view], views.cameras.intrinsics[view]
    means = base.gaussians.means[: base.num_pixels, None]
    return project_points(k, transform_points(poses, means))[:, 0]


def test_without_details_nothing_changes(striped, guess, template):
    same, rows = with_details(guess, replace(striped, details=None), template)
    assert same is guess
    assert torch.equal(rows, torch.arange(len(guess)))


def test_striped_pixels_are_cut_and_plain_ones_stay(striped, guess, template):
    finer, rows = with_details(guess, striped, template)
    times = torch.bincount(rows, minlength=len(guess))
    assert set(times.tolist()) == {1, 4}
    assert len(finer) == len(rows) > len(guess)
    assert (times[guess.num_pixels :] == 1).all()
    heights = guess.gaussians.means[: guess.num_pixels, 1]
    assert (heights[times[: guess.num_pixels] == 4] > STRIPED_ABOVE_M - 0.005).all()
    assert (times == 4).sum() <= MAX_SHARE * guess.num_pixels


def test_quarters_lie_in_the_middles_of_the_finer_pixels(striped, template, on_rays):
    guess = build_base_guess(striped, CONFIG, template)
    finer, rows = with_details(guess, striped, template)
    cut = torch.bincount(rows, minlength=len(guess))[rows[: finer.num_pixels]] == 4
    index = finer.pixel_indices.long() % SIZE**2
    corners = torch.stack([index % SIZE, index // SIZE], -1)
    within = (pixels_of(finer, striped) - corners)[cut].view(-1, 4, 2)
    expected = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    torch.testing.assert_close(within, expected.expand_as(within), atol=0.02, rtol=0)
    whole = guess.gaussians.scales[rows[: finer.num_pixels][cut]]
    torch.testing.assert_close(finer.gaussians.scales[: finer.num_pixels][cut], 0.5 * whole)


def test_quarters_move_half_as_far(striped, guess, template):
    """Their discs are half as large, and so is what they overlap."""
    finer, rows = with_details(guess, striped, template)
    cut = torch.bincount(rows, minlength=len(guess))[rows] == 4
    middles = finer.gaussians.means[cut].view(-1, 4, 3).mean(1)
    back = middles - guess.gaussians.means[rows[cut]].view(-1, 4, 3)[:, 0]
    whole = overlap_shifts(guess, striped.cameras)[rows[cut]].view(-1, 4, 3)[:, 0]
    torch.testing.assert_close(back, -0.5 * whole, atol=5e-5, rtol=0)
    assert whole.norm(dim=-1).max() > 5e-4


def test_finer_heads_look_more_like_the_photo(head, template, striped):
    alone = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1)
    one_shows = replace(striped, confidence=striped.confidence * alone)
    seen = head.fake_views(template, size=4 * SIZE)[1:2]
    x, y = seen.position_maps[0, :2]
    shown = (y > STRIPED_ABOVE_M + 0.005) & (y < 0.07) & (x.abs() < 0.05)
    network = Avat3r(CONFIG, template).eval()

    def error(views):
        prefix, _ = restore_avatar(build_avatar(views, network), template=template)
        gaussians = prefix.base_gaussians(torch.from_numpy(arkit_code()))
        picture = render_gaussians(gaussians, seen.cameras).rgb[0, 0]
        return float((picture - stripes_at(seen.position_maps)[0, 0])[shown].square().mean())

    assert error(one_shows) < 0.5 * error(replace(one_shows, details=None))


def test_quarters_move_with_their_pixel(head, template, striped):
    """The lips drop by 20 mm: stripes on them go along, and stay a quarter of a pixel apart."""
    lower = striped.position_maps[:, 1:2] < -0.03
    noise = torch.rand(striped.details.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    views = replace(striped, details=noise * lower.repeat_interleave(2, 2).repeat_interleave(2, 3))
    base = build_base_guess(views, CONFIG, template)
    finer, rows = with_details(base, views, template)
    open_jaw = torch.from_numpy(arkit_code(jawOpen=1.0))
    whole, parts = (
        RigMotion.of_person(one, views.identity, template).means(open_jaw) - one.gaussians.means
        for one in (base, finer)
    )
    cut = (torch.bincount(rows, minlength=len(base)) == 4).nonzero()[:, 0]
    assert len(cut) > 20
    moved = torch.stack([parts[rows == row] for row in cut])
    assert (whole[cut, 1] < -0.01).any()
    torch.testing.assert_close(moved.mean(1), whole[cut], atol=2e-4, rtol=0)


def test_pixels_at_the_outline_stay_whole(striped, guess, template):
    soft = replace(striped, masks=0.8 * striped.masks)
    finer, _ = with_details(guess, soft, template)
    assert len(finer) == len(guess)


def test_noise_is_not_detail(striped, guess, template):
    noise = 0.2 * torch.randn(striped.details.shape, generator=torch.Generator().manual_seed(0))
    finer, _ = with_details(guess, replace(striped, details=noise), template)
    assert len(finer) - len(guess) < 0.3 * guess.num_pixels
