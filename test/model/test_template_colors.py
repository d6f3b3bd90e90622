"""Colours of surfaces that nobody saw."""

import numpy as np
import torch

from avat3r_ros.model.template_colors import (
    SKIN,
    SKIN_HUE,
    TONGUE,
    ColorSources,
    _skin_colors,
    brightness,
    fill_colors,
    photo_light,
    surface_groups,
)
from avat3r_ros.rig import HeadTemplate

HAIR, FACE = torch.tensor([0.1, 0.08, 0.05]), torch.tensor([0.8, 0.6, 0.5])


def colors_from_the_front(hair, misread=0.0):
    """Colours of all vertices when photos show the front half of a head: (template, (nv, 3)).

    Args:
        hair: Colour of the scalp.
        misread: Share of its pixels that show the face, as where the fit is a little wrong.
    """
    template = HeadTemplate.load()
    skin = surface_groups(template) == SKIN
    middles = template.neutral[template.triangles.long()].mean(1)
    seen = (skin & (middles[:, 2] > -0.08)).nonzero()[:, 0]
    scalp = template.region_mask("scalp")
    rng = np.random.default_rng(0)
    is_hair = scalp[seen] & torch.from_numpy(rng.random(len(seen)) >= misread)
    colors = torch.where(is_hair[:, None], hair, FACE)
    weights = torch.full((len(seen), 3), 1 / 3)
    hairy = torch.zeros(len(template.neutral))
    hairy[template.region_vertices("scalp")] = float(hair is HAIR)
    found = _skin_colors(
        template.neutral, template, skin, hairy, seen, weights, colors, colors.mean(0)
    )
    return template, found


def test_hair_goes_on_over_the_unseen_scalp_and_skin_down_the_unseen_neck():
    template, found = colors_from_the_front(HAIR)
    back = template.neutral[:, 2] < -0.15
    high = template.neutral[:, 1] > 0.03
    of_scalp = torch.zeros(len(back), dtype=torch.bool)
    of_scalp[template.region_vertices("scalp")] = True
    of_neck = torch.zeros_like(of_scalp)
    of_neck[template.region_vertices("neck")] = True
    crown, nape = back & high & of_scalp, of_neck & ~of_scalp & (template.neutral[:, 2] < -0.13)
    assert crown.sum() > 20 and nape.sum() > 5
    assert (found[crown] - HAIR).abs().max() < 0.1
    assert (found[nape] - FACE).abs().max() < 0.15


def test_skin_misread_as_hair_does_not_dye_hair_that_nobody_saw():
    template, found = colors_from_the_front(HAIR, misread=0.4)
    z = template.neutral[template.region_vertices("scalp"), 2]
    behind = (z < -0.1) & (z > -0.12)
    assert behind.sum() > 20
    assert (found[template.region_vertices("scalp")][behind] - HAIR).abs().max() < 0.1


def test_a_bald_head_is_bald_all_over():
    template, found = colors_from_the_front(FACE)
    on = template.region_vertices("scalp", "skin")
    torch.testing.assert_close(found[on], FACE.expand(len(on), 3), atol=1e-3, rtol=0)


def test_warm_light_reaches_the_mouth_and_cool_skin_says_nothing():
    usual = 0.7 * torch.tensor(SKIN_HUE)
    white = photo_light(usual.repeat(50, 1))
    assert torch.allclose(white, white[:1].expand(3), atol=1e-3)
    warm = photo_light((usual * torch.tensor([1.1, 1.0, 0.6])).repeat(50, 1))
    assert warm[0] > 1.15 * warm[2]
    cool = photo_light((usual * torch.tensor([0.9, 0.95, 1.2])).repeat(50, 1))
    assert cool[2] <= cool[0] < 1.03 * cool[2]


def test_the_mouth_is_darker_inside_than_in_front_and_aside_than_in_the_middle():
    template = HeadTemplate.load()
    group = surface_groups(template)
    tongue = (group == TONGUE).nonzero()[:, 0]
    weights = torch.full((len(tongue), 3), 1 / 3)
    shown = (group == SKIN).nonzero()[:100, 0]
    sources = ColorSources(
        FACE.expand(100, 3), shown, torch.full((100, 3), 1 / 3), torch.ones(100, dtype=torch.bool)
    )
    hairy = torch.zeros(len(template.neutral))
    colors = fill_colors(template.neutral, template, group, sources, hairy, tongue, weights)
    light = brightness(colors)
    x, _, z = template.neutral[template.triangles[tongue].long()].mean(1).T
    tip = z > z.max() - 0.01
    assert light[tip].mean() > 1.5 * light[z < z.max() - 0.04].mean()
    assert light[tip & (x.abs() < 0.004)].mean() > 1.1 * light[tip & (x.abs() > 0.012)].mean()
    assert brightness(FACE) > light.max() > 0.25
