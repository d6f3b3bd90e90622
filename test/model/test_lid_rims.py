"""Rims of lids take the colour of the photo that shows them."""

from dataclasses import replace

import pytest
import torch

from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.lid_rims import with_shown_rims
from avat3r_ros.model.template_fill import unfolding_triangles
from avat3r_ros.rig import HeadTemplate

GREEN = torch.tensor([0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def head():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def colored(head, drawn_person):
    """Colours of the middles of all triangles, for some pixels that are used."""
    views = replace(
        drawn_person, images=GREEN.view(1, 3, 1, 1).expand_as(drawn_person.images).clone()
    )
    folds = unfolding_triangles(head, views.identity.float())
    faces = torch.arange(len(head.triangles))

    def color(kept):
        black = torch.zeros(len(faces), 3)
        thirds = torch.full((len(faces), 3), 1 / 3)
        return with_shown_rims(black, views, head, kept, folds, faces, thirds), folds

    return color, views.masks[:, 0] > SEEN_MASK


def test_rims_before_the_photos_pixels_take_their_colour(colored, head):
    color, shown = colored
    colors, folds = color(shown)
    green = (colors == GREEN).all(-1)
    lids = head.region_mask("lid_left", "lid_right")
    assert green.sum() > 20, "both eyes' rims are seen"
    assert (lids & ~folds)[green].all(), "skin, eyes and folded lids keep their colours"
    assert (colors[~green] == 0).all()


def test_what_lies_behind_what_the_photos_show_keeps_its_colour(colored, head):
    color, shown = colored
    green = (color(shown)[0] == GREEN).all(-1)
    lids = head.region_mask("lid_left", "lid_right") & ~color(shown)[1]
    assert (lids & ~green).sum() > 20, "the inside of lids is not seen"


def test_pixels_that_are_not_used_tell_nothing(colored):
    color, shown = colored
    assert (color(torch.zeros_like(shown))[0] == 0).all()
