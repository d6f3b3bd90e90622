"""Pixels that would be painted on the wrong surface."""

import dataclasses

import pytest
import torch

from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.pixel_choice import misread_pixels
from avat3r_ros.rig import REGIONS

SKIN = torch.tensor([0.7, 0.45, 0.35])
WHITE = torch.tensor([0.95, 0.95, 1.0])


@pytest.fixture
def template(template):
    """The head of the other tests, the lower half of its lips being a neck."""
    height = template.neutral[template.triangles].mean(1)[:, 1]
    low = template.region_mask("lips") & (height < -0.05)
    regions = torch.where(low, REGIONS.index("neck"), template.triangle_regions)
    return dataclasses.replace(template, triangle_regions=regions)


@pytest.fixture
def person(template, head):
    """Two sharp views of a face in one skin colour."""
    views = head.fake_views(template, size=64, num_views=2)
    shown = views.binding.triangle_ids >= 0
    views.images[:] = torch.where(shown[:, None], SKIN[:, None, None], 0.0)
    return views


def region(views, template, *names):
    shown = template.region_mask(*names)[views.binding.triangle_ids.clamp(min=0)]
    return (shown & (views.binding.triangle_ids >= 0))[:, None]


def middle(mask):
    """One pixel of the first view, well inside the mask."""
    rows, columns = mask[0, 0].nonzero().unbind(-1)
    return int(rows.median()), int(columns[rows == rows.median()].median())


def test_the_inside_of_the_mouth_is_never_taken_from_pixels(person, template):
    mouth = region(person, template, "teeth", "tongue", "inner_mouth")
    assert torch.equal(misread_pixels(person, template), mouth)


@pytest.mark.parametrize("foreign", [WHITE, SKIN * 0.3])
def test_teeth_and_gaps_on_lips_go_where_they_touch_the_mouth(template, head, foreign):
    """A fit that is off by a pixel; a shine on the lip, or a mole, is the lip's own."""
    views = head.fake_views(template, size=128, num_views=1)
    views.images[:] = SKIN[:, None, None]
    lips = region(views, template, "lips")[0, 0]
    rows, columns = lips.nonzero().unbind(-1)
    column = int(columns.median())
    top = int(rows[columns == column].min())
    views.binding.triangle_ids[0, top, column] = template.region_mask("inner_mouth").nonzero()[0, 0]
    lips[top, column] = False
    below, apart = (top + 1, column), (top, int(columns[rows == top].max()))
    assert lips[below] and lips[apart] and apart[1] > column + 3
    assert not misread_pixels(views, template)[0, 0][lips].any()
    views.images[0][:, below[0], below[1]] = foreign
    views.images[0][:, apart[0], apart[1]] = foreign
    assert misread_pixels(views, template)[0, 0][lips].nonzero().shape == (1, 1)
    assert misread_pixels(views, template)[0, 0][below]


def test_bright_grey_that_another_photo_shows_as_skin_goes_with_its_rim(person, template):
    row, column = middle(region(person, template, "skin"))
    bright_skin = dataclasses.replace(person, images=person.images.clone())
    bright_skin.images[0, :, row, column] = SKIN * 1.4
    assert not misread_pixels(bright_skin, template)[0, 0, row, column], "a shining forehead"
    person.images[0, :, row, column] = WHITE
    glare = misread_pixels(person, template)[0, 0]
    assert glare[row, column] and glare[row, column + 1], "what it brightens beside it"
    assert not glare[row, column + 3]


def test_glare_fades_out_and_all_of_it_goes(person, template):
    row, column = middle(region(person, template, "skin"))
    shares = (1.0, 0.9, 0.75, 0.6, 0.45)
    images = person.images.clone()
    for step, share in enumerate(shares):
        images[0, :, row, column + step] = share * WHITE + (1 - share) * SKIN
    # As bright, but apart from it: the skin's own.
    images[0, :, row - 5, column] = 0.45 * WHITE + 0.55 * SKIN
    # At this size the reach is a pixel, and so is the rim.
    glare = misread_pixels(dataclasses.replace(person, images=images), template)[0, 0]
    assert glare[row, column : column + len(shares)].all()
    assert not glare[row - 5, column] and not glare[row, column + 8]


def test_bright_grey_that_all_photos_show_is_the_person(person, template):
    face = region(person, template, "skin", "lips", "neck", "scalp", "brows", "lid_left")
    person.images[:] = torch.where(face, WHITE[:, None, None], person.images * 0.3)
    forehead = face & (person.position_maps[:, 1:2] > 0.04)
    person.images[:] = torch.where(forehead, SKIN[:, None, None], person.images)
    assert not (misread_pixels(person, template) & face).any(), "a white beard"


def test_white_fringes_stay_where_another_photo_puts_skin(person, template):
    """They stand off the forehead, so that the photos disagree about what is beneath."""
    face = region(person, template, "skin")
    fringe = face & (person.position_maps[:, 1:2] > 0.05)
    fringe[1:] = False
    assert fringe.sum() > 20
    person.images[:] = torch.where(fringe, WHITE[:, None, None], person.images)
    assert not (misread_pixels(person, template) & fringe).any()


def test_bright_grey_that_only_one_photo_sees_goes_from_the_jaw_alone(person, template):
    alone = dataclasses.replace(person, masks=person.masks.clone())
    alone.masks[1] = 0.0
    neck, cheek = (middle(region(alone, template, name)) for name in ("neck", "skin"))
    for row, column in (neck, cheek):
        alone.images[0, :, row, column] = WHITE
    glare = misread_pixels(alone, template)[0, 0]
    assert glare[neck], "a collar"
    assert not glare[cheek]


def test_white_hair_stays_whatever_another_photo_shows_there(person, template):
    row, column = middle(region(person, template, "skin"))
    person.images[0, :, row, column] = WHITE
    assert misread_pixels(person, template)[0, 0, row, column]
    hairy = torch.where(
        template.region_mask("skin"), REGIONS.index("scalp"), template.triangle_regions
    )
    shaggy = dataclasses.replace(template, triangle_regions=hairy)
    assert not misread_pixels(person, shaggy)[0, 0, row, column]


def test_pale_skin_has_no_glare(person, template):
    pale = torch.tensor([0.92, 0.82, 0.78])[:, None, None]
    person.images[:] = torch.where(person.binding.triangle_ids[:, None] >= 0, pale, 0.0)
    row, column = middle(region(person, template, "neck"))
    person.images[0, :, row, column] = 1.0
    assert not misread_pixels(person, template)[0, 0, row, column]


def test_a_brow_that_the_fit_puts_above_the_lid_does_not_colour_it(person, template):
    middle = template.neutral[template.triangles[template.region_mask("eye_left")]].mean((0, 1))
    near = (person.position_maps - middle[:, None, None]).norm(dim=1, keepdim=True) < 0.025
    person.images[:] = torch.where(near & region(person, template, "skin"), 0.1, person.images)
    base = build_base_guess(person, preset("debug"), template)
    bound_to = base.triangle_ids[base.num_pixels - base.moving_start :].clamp(min=0)
    colors = base.gaussians.colors[base.num_pixels : base.moving_stop]
    lids = template.region_mask("lid_left", "lid_right")[bound_to]
    assert lids.any()
    torch.testing.assert_close(colors[lids], SKIN.expand(int(lids.sum()), 3), atol=0.02, rtol=0)
