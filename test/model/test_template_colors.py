"""Colours of surfaces that nobody saw."""

import torch

from avat3r_ros.model.template_colors import SKIN, _skin_colors, surface_groups
from avat3r_ros.rig import HeadTemplate

HAIR, FACE = torch.tensor([0.1, 0.08, 0.05]), torch.tensor([0.8, 0.6, 0.5])


def colors_from_the_front(hair):
    """Colours of all vertices when photos show the front half of a head: (template, (nv, 3))."""
    template = HeadTemplate.load()
    skin = surface_groups(template) == SKIN
    middles = template.neutral[template.triangles.long()].mean(1)
    seen = (skin & (middles[:, 2] > -0.08)).nonzero()[:, 0]
    scalp = template.region_mask("scalp")
    colors = torch.where(scalp[seen, None], hair, FACE)
    weights = torch.full((len(seen), 3), 1 / 3)
    found = _skin_colors(template.neutral, template, skin, seen, weights, colors, colors.mean(0))
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


def test_a_bald_head_is_bald_all_over():
    template, found = colors_from_the_front(FACE)
    on = template.region_vertices("scalp", "skin")
    torch.testing.assert_close(found[on], FACE.expand(len(on), 3), atol=1e-3, rtol=0)
