"""Photos in different light meet where their pixels do."""

from dataclasses import replace

import torch

from avat3r_ros.model import preset
from avat3r_ros.model.seams import MAX_DIFFERENCE, without_seams

CONFIG = preset("debug")


def two_photos(template, head, change):
    """Two photos of a face; the second is darker by `change`."""
    views = head.fake_views(template, num_views=2, size=64)
    skin = template.region_mask("skin", "lips")[views.binding.triangle_ids.clamp(min=0)]
    skin &= views.binding.triangle_ids >= 0
    views.images[1] -= change * skin[1]
    return views, skin


def gap(views, skin):
    """How much darker the skin of the second photo is."""
    means = [views.images[v].movedim(0, -1)[skin[v]].mean() for v in (0, 1)]
    return float(means[0] - means[1])


def test_skin_of_two_photos_comes_nearer_and_keeps_its_details(template, head):
    views, skin = two_photos(template, head, 0.1)
    detail = 0.03 * (torch.arange(64) % 2) * skin[0]
    views.images[0] += detail
    before, met = gap(views, skin), without_seams(views, CONFIG, template)
    assert before > 0.09 and abs(gap(met, skin)) < 0.02
    change = (met.images - views.images)[0, 0]
    inner = skin[0][:, 1:] & skin[0][:, :-1]
    # From pixel to pixel hardly anything is new.
    assert change.diff(dim=-1)[inner].abs().mean() < 0.01
    off = ~skin[:, None].expand_as(views.images)
    assert torch.equal(met.images[off], views.images[off])


def test_where_a_photo_shows_something_else_it_stays(template, head):
    views, skin = two_photos(template, head, MAX_DIFFERENCE + 0.1)
    assert abs(gap(without_seams(views, CONFIG, template), skin) - gap(views, skin)) < 0.03


def test_where_one_photo_alone_is_kept_it_stays(template, head):
    views, skin = two_photos(template, head, 0.1)
    views.confidence[1] = 0
    met = without_seams(views, CONFIG, template)
    assert (met.images[0] - views.images[0]).abs().max() < 1e-5
    assert abs(gap(met, skin)) < 0.02


def test_a_single_photo_stays_as_it_is(template, head):
    views = head.fake_views(template, num_views=1)
    met = without_seams(views, CONFIG, template)
    torch.testing.assert_close(met.images, views.images, atol=1e-5, rtol=0)


def test_without_a_motion_prior_references_stay(template, head):
    views, _ = two_photos(template, head, 0.1)
    assert without_seams(views, replace(CONFIG, motion_prior="none"), None) is views
