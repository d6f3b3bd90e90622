"""Grey and sepia photos make heads of one tone; one coloured photo is enough for colours."""

from dataclasses import replace

import pytest
import torch

from avat3r_ros.model.avatar import build_avatar, restore_avatar
from avat3r_ros.model.tone import LUMA, only_tone

SEPIA = torch.tensor([1.12, 0.98, 0.8])


def toned(views, tone=None):
    tone = torch.ones(3) if tone is None else tone
    luma = torch.einsum("vchw,c->vhw", views.images, torch.tensor(LUMA))
    return replace(views, images=(luma[:, None] * tone[:, None, None]).clamp(0, 1))


@pytest.mark.parametrize("tone", [torch.ones(3), SEPIA])
def test_the_tone_of_photos_is_found(drawn_person, tone):
    found = only_tone(toned(drawn_person, tone))
    torch.testing.assert_close(found / found[0], tone / tone[0], rtol=0.01, atol=0)
    assert float(found @ torch.tensor(LUMA)) == pytest.approx(1)


def test_colors_are_no_tone(drawn_person):
    assert only_tone(drawn_person) is None
    mixed = toned(drawn_person)
    images = mixed.images.clone()
    images[1] = drawn_person.images[1]
    assert only_tone(replace(mixed, images=images)) is None


def test_what_nobody_photographed_does_not_count(drawn_person):
    mixed = toned(drawn_person)
    images = mixed.images.clone()
    images[2] = drawn_person.images[2]
    assert only_tone(replace(mixed, images=images, num_guessed=1)) is not None


def spread(views):
    """How far the channels of an avatar's Gaussians are apart at most, mouth and all."""
    prefix, _ = restore_avatar(build_avatar(views))
    colors = prefix.base.gaussians.colors.float()
    return float((colors.amax(1) - colors.amin(1)).max())


def test_a_grey_person_has_no_red_mouth(drawn_person):
    assert spread(drawn_person) > 0.1
    assert spread(toned(drawn_person)) < 0.01


def test_black_pictures_have_no_tone(drawn_person):
    assert only_tone(replace(drawn_person, images=torch.zeros_like(drawn_person.images))) is None
