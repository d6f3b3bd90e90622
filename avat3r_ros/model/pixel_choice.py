"""Which reference pixels become Gaussians, and what the others still tell.

A fit is off by millimetres. On skin that is a slight shift; in the mouth it paints teeth on the
tongue and on the lips. Collars and rim lights would stay as white stripes along the jaw; above the
mouth such pixels are white hair, grey brows or the whites of the eyes, and stay.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avat3r_ros.model.template_colors import SKIN, brightness, in_mouth, saturation, surface_groups
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

GLARE, GLARE_SATURATION = 0.3, 0.5
"""A pixel on the jaw or the neck is glare or cloth when it is this much brighter than the person's
median skin (sRGB) and has less than this share of its saturation. Pale skin has no room above."""

GLARE_RIM = 0.008
"""Width of the rim around glare that it still brightens, as a share of the picture."""

TEETH_BRIGHTNESS, TEETH_SATURATION = 0.35, 0.3
"""Pixels in the mouth brighter than the first and less saturated than the second are teeth."""

MIN_TEETH_PIXELS = 16


def misread_pixels(views: ReferenceViews, template: HeadTemplate) -> Bool[Tensor, "v 1 h w"]:
    """Pixels that would be painted on the wrong surface: the mouth's inside, glare along the jaw.

    Args:
        views: References, bound to the template.
        template: Their head template.
    """
    group = _groups(views, template)
    colors = views.images.float().permute(0, 2, 3, 1)
    on_skin = (group == SKIN) & (views.masks[:, 0] > 0.5)
    on_jaw = on_skin & _jaw_and_neck(template)[views.binding.triangle_ids.clamp(min=0).long()]
    misread = in_mouth(group)
    if bool(on_skin.any()):
        skin = colors[on_skin]
        brighter = brightness(colors) > brightness(skin).median() + GLARE
        greyer = saturation(colors) < GLARE_SATURATION * saturation(skin).median()
        rim = round(GLARE_RIM * colors.shape[2])
        glare = (on_jaw & brighter & greyer)[:, None].float()
        glare = torch.nn.functional.max_pool2d(glare, 2 * rim + 1, stride=1, padding=rim)[:, 0] > 0
        misread |= glare & on_skin
    return misread[:, None]


def teeth_color(views: ReferenceViews, template: HeadTemplate) -> Float[Tensor, "3"] | None:
    """Colour of lit teeth where the references show some, else None; arguments as above."""
    mouth = views.images.float().permute(0, 2, 3, 1)[in_mouth(_groups(views, template))]
    teeth = mouth[(brightness(mouth) > TEETH_BRIGHTNESS) & (saturation(mouth) < TEETH_SATURATION)]
    return teeth.median(0).values if len(teeth) >= MIN_TEETH_PIXELS else None


def _jaw_and_neck(template: HeadTemplate) -> Bool[Tensor, "f"]:
    """Triangles of skin below the lips of the neutral head."""
    height = template.neutral[template.triangles.long()].mean(1)[:, 1]
    lips = height[template.region_mask("lips")].min()
    return template.region_mask("skin", "neck") & (height < lips)


def _groups(views: ReferenceViews, template: HeadTemplate) -> Tensor:
    """`surface_groups` of every pixel (V, H, W), -1 off the template."""
    triangles = views.binding.triangle_ids.long()
    return torch.where(triangles >= 0, surface_groups(template)[triangles.clamp(min=0)], -1)
