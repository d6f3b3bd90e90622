"""Which pixels lend lids their colour."""

import torch

from avat3r_ros.expression import arkit_code
from avat3r_ros.model.lid_colors import color_sources, lid_pixels
from avat3r_ros.model.template_colors import ColorSources, brightness
from avat3r_ros.model.template_fill import unfolding_triangles

LASHES = 0.02


def lid_photos(template, head, light=1.0):
    """A photo with a closed eye that is the source of Gaussians, and one in another light."""
    views = head.fake_views(template, [arkit_code(eyeBlinkLeft=1.0)] * 2, size=128)
    views.images[1] *= light
    folds = unfolding_triangles(template, views.identity)
    kept = torch.zeros_like(views.masks[:, 0], dtype=torch.bool)
    kept[0] = True
    return views, folds, kept


def on_lid(views, folds):
    ids = views.binding.triangle_ids
    return (ids >= 0) & folds[ids.clamp(min=0)]


def test_all_photos_lend_in_the_light_of_the_kept_one(template, head):
    views, folds, kept = lid_photos(template, head, light=0.8)
    found = lid_pixels(views, template, folds, kept)
    assert len(found.colors) == on_lid(views, folds).sum() > 200
    lid = torch.tensor(head.COLORS["lid_left"])
    torch.testing.assert_close(found.colors, lid.expand_as(found.colors), atol=1e-3, rtol=0)


def test_lashes_lend_nothing(template, head):
    views, folds, kept = lid_photos(template, head)
    lashes = on_lid(views, folds)
    lashes[..., ::3] = False
    lashes[..., 1::3] = False
    views.images.movedim(1, -1)[lashes] = LASHES
    found = lid_pixels(views, template, folds, kept)
    assert len(found.colors) == on_lid(views, folds).sum() - lashes.sum()
    assert found.colors.min() > 0.3


def test_a_photo_whose_brow_lies_on_the_lid_lends_nothing(template, head):
    views, folds, kept = lid_photos(template, head, light=0.4)
    found = lid_pixels(views, template, folds, kept)
    assert len(found.colors) == on_lid(views, folds)[0].sum()


def test_a_closed_lid_is_lit_almost_as_the_skin_around(template, head):
    views, folds, kept = lid_photos(template, head)
    lid, skin = (brightness(torch.tensor(head.COLORS[name])) for name in ("lid_left", "skin"))
    ids = views.binding.triangle_ids
    pixels = ColorSources(
        views.images.movedim(1, -1)[kept],
        ids[kept],
        views.binding.barycentrics[kept],
        (ids >= 0)[kept],
    )
    neutral = template.vertices(views.identity)
    found = color_sources(views, template, neutral, folds, kept, pixels)
    lids = brightness(found.colors[len(pixels.colors) :])
    assert lid * 1.05 < lids.min() <= lids.max() < skin * 0.95
