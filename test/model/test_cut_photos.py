"""Heads go on where their photos end: a crown that no photo shows is guessed, not missing."""

from dataclasses import replace

import pytest
import torch

from avat3r_ros.animation import Animator
from avat3r_ros.model import build_avatar
from avat3r_ros.rendering import render_gaussians

CUT_ROW = 20
"""Of 64: through the foreheads."""


@pytest.fixture(scope="module")
def cut(drawn_person):
    """The person's photos without what is above a row, as photos that end there."""
    kept = (torch.arange(64) >= CUT_ROW)[None, None, :, None].expand_as(drawn_person.masks)
    ids = torch.where(kept[:, 0], drawn_person.binding.triangle_ids, -1)
    return replace(
        drawn_person,
        images=drawn_person.images * kept,
        masks=drawn_person.masks * kept,
        position_maps=drawn_person.position_maps * kept,
        confidence=drawn_person.confidence * kept,
        binding=replace(drawn_person.binding, triangle_ids=ids),
        told=kept,
    )


def share_drawn(views, whole):
    """Of the head above the cut, in the photos' own cameras."""
    gaussians = [Animator(build_avatar(views)).animate(code.numpy()) for code in views.codes]
    above = (whole.masks > 0.9) & (torch.arange(64) < CUT_ROW - 2)[:, None]
    assert above.sum() > 300
    drawn = torch.cat(
        [
            render_gaussians(one, whole.cameras[row : row + 1]).alpha
            for row, one in enumerate(gaussians)
        ]
    )
    return float((drawn > 0.5)[above].float().mean())


def test_crowns_beyond_the_photos_are_drawn(cut, drawn_person):
    assert share_drawn(cut, drawn_person) > 0.8


def test_background_above_a_head_is_no_head(cut, drawn_person):
    assert share_drawn(replace(cut, told=None), drawn_person) < 0.2
