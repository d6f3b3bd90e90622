"""Photos' cameras see what the photos show; colours and places are moved for it, within limits."""

from dataclasses import replace

import pytest
import torch

from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.fine_views import TIMES
from avat3r_ros.model.photo_fit import COLOR_LIMIT, PLACE_LIMIT_M, RIM_PX, fitted_to_photos
from avat3r_ros.model.prefix import Prefix, make_motion
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.types import Gaussians

STRIPES_M = 0.008


@pytest.fixture(scope="module")
def striped(views):
    """The fake head with stripes of a few pixels."""
    light = 0.5 + 0.1 * torch.sin(2 * torch.pi * views.position_maps[:, 1:2] / STRIPES_M)
    return replace(views, images=(light * views.masks).expand(-1, 3, -1, -1).contiguous())


@pytest.fixture(scope="module")
def guess(striped, template):
    config = replace(preset("tiny"), image_size=striped.images.shape[-1])
    base = build_base_guess(striped, config, template)
    return base, make_motion(base, striped.identity, template, config)


def shown_by(base, motion, views):
    return Prefix(base, motion.for_base(base), len(views.images)).base_gaussians


def error(base, motion, views):
    """Mean absolute difference from the photos well within the head."""
    shown = shown_by(base, motion, views)
    reach = RIM_PX // TIMES
    inner = 1 - torch.nn.functional.max_pool2d(1 - views.masks, 2 * reach + 1, 1, reach)
    total = 0.0
    for row in range(len(views.images)):
        drawn = render_gaussians(shown(views.codes[row]), views.cameras[row : row + 1]).rgb[0]
        total += float((inner[row] * (drawn - views.images[row]).abs()).mean() / inner[row].mean())
    return total / len(views.images)


def test_photos_look_more_like_themselves_by_colors_and_places_within_limits(guess, striped):
    base, motion = guess
    found = fitted_to_photos(base, striped, shown_by(base, motion, striped))
    assert error(found, motion, striped) < 0.85 * error(base, motion, striped)
    limits = {"colors": COLOR_LIMIT, "means": PLACE_LIMIT_M}
    for name in Gaussians.__dataclass_fields__:
        before, after = getattr(base.gaussians, name), getattr(found.gaussians, name)
        moved = (after - before).abs().max().item()
        limit = limits.get(name, 0)
        assert limit / 4 <= moved <= limit * 1.001, name
    assert found.gaussians.colors.min() >= 0 and found.gaussians.colors.max() <= 1


def test_what_is_added_to_the_colors_is_taken_into_account(guess, striped):
    base, motion = guess
    plain = shown_by(base, motion, striped)

    def lighter(code):
        of_code = plain(code)
        return replace(of_code, colors=of_code.colors + 0.03)

    found = fitted_to_photos(base, striped, lighter)
    alone = fitted_to_photos(base, striped, plain)
    change = found.gaussians.colors - alone.gaussians.colors
    told = alone.gaussians.colors != base.gaussians.colors
    assert -0.04 < float(change[told].median()) < -0.01


def test_pictures_that_nobody_took_tell_nothing(guess, striped):
    base, motion = guess
    shown = shown_by(base, motion, striped)
    images = striped.images.clone()
    images[-1] = 1 - images[-1]
    told = [
        fitted_to_photos(base, replace(striped, images=pictures, num_guessed=1), shown)
        for pictures in (striped.images, images)
    ]
    assert torch.equal(told[0].gaussians.colors, told[1].gaussians.colors)
    both = fitted_to_photos(base, replace(striped, images=images), shown)
    assert not torch.allclose(both.gaussians.colors, told[0].gaussians.colors, atol=0.02)
