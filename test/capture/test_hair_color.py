"""Hair goes on as far as its colour does without a gap."""

import numpy as np
import pytest

from avat3r_ros.capture.hair_color import hair_pixels

BROWN, SKIN, BLUE = (0.25, 0.15, 0.1), (0.8, 0.6, 0.5), (0.1, 0.2, 0.6)


@pytest.fixture
def person():
    """Brown hair on top and down one side, a face, a blue collar, a brown brooch on it."""
    picture = np.zeros((64, 64, 3))
    picture[4:60, 8:56] = SKIN
    picture[4:16, 8:56] = BROWN
    picture[16:48, 8:18] = BROWN
    picture[48:60] = BLUE
    picture[52:57, 40:48] = BROWN
    inside = picture.sum(-1) > 0
    certain, skin = np.zeros((2, 64, 64), bool)
    certain[6:14, 10:54] = True
    skin[24:44, 24:50] = True
    return picture, inside, certain, skin


def test_long_hair_is_followed_and_nothing_else(person):
    hair = hair_pixels(*person)
    assert hair[6:46, 10:16].all(), "down the side"
    assert not hair[20:46, 21:].any(), "face"
    assert not hair[50:, :38].any(), "collar"
    assert not hair[52:57, 40:48].any(), "has the colour, but hangs on nothing"


def test_skin_that_looks_like_hair_stays_skin(person):
    picture, inside, certain, skin = person
    picture[16:48, 18:56] = np.add(BROWN, 0.02)
    assert not hair_pixels(picture, inside, certain, skin)[20:46, 21:52].any()
    assert hair_pixels(picture, inside, certain, np.zeros_like(skin))[20:46, 21:52].all()


def test_a_forehead_that_is_taken_for_certain_hair_is_skin(person):
    """Hairlines lie higher than the template's; a forehead is lighter than the cheeks below."""
    picture, inside, certain, skin = person
    picture[16:30, 18:56] = np.multiply(SKIN, 1.08)
    certain[14:26, 18:54] = True
    hair = hair_pixels(picture, inside, certain, skin)
    assert hair[6:14, 10:54].all() and hair[18:46, 10:16].all()
    assert not hair[18:46, 21:52].any()


def test_a_bald_scalp_in_shadow_stays_what_it_was(person):
    """Where nothing tells hair from skin, the template's word stands."""
    picture, inside, certain, skin = person
    shade = np.linspace(0.85, 1.0, 16)[:, None, None]
    picture[:16, 8:56] = SKIN * shade * (picture[:16, 8:56].sum(-1, keepdims=True) > 0)
    assert hair_pixels(picture, inside, certain, skin)[certain].all()


def test_the_bald_have_no_hair_to_follow(person):
    picture, inside, certain, skin = person
    certain[:] = False
    certain[6, 10:20] = True
    assert (hair_pixels(picture, inside, certain, skin) == certain).all()
