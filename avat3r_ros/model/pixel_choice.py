"""Which reference pixels become Gaussians.

A fit is off by millimetres. On skin that is a slight shift; in the mouth it paints teeth on the
tongue and on the lips; what those pixels tell of teeth is read in teeth_reach.py. Collars and rim
lights would stay as white stripes along the jaw, but white beards and hair must stay: those are
white in every photo.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation
from torch import Tensor

from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.template_colors import (
    SKIN,
    brightness,
    groups_of_pixels,
    in_mouth,
    saturation,
    summed_at_vertices,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

GLARE, GLARE_SATURATION = 0.3, 0.5
"""A pixel on skin may be glare or cloth when it is this much brighter than the person's median skin
(sRGB) and has less than this share of its saturation. Pale skin has no room above."""

GLARE_FREE_REGIONS = ("scalp", "brows", "ears", "lid_left", "lid_right")
"""Skin whose bright grey pixels are hair and the whites of the eyes."""

OTHERS_PIXELS = 0.5
"""Another photo shows a corner of the template from this many pixels around it on."""

GLARE_RIM = 0.008
"""Width of the rim around glare that it still brightens, as a share of the picture."""

FAINT_GLARE, FAINT_SATURATION, FAINT_REACH = 0.2, 0.65, 0.02
"""Pixels that hang together with glare are part of it by these laxer bounds, up to this share of
the picture away from it. Laxer ones (0.1, 0.8, 0.03) take shining skin: 0.03 dB less."""

MOUTH_RIM = 0.016
"""Lips this near to the open mouth, as a share of the picture, may be painted with what is in it:
the fit's error."""

BRIGHT_LIPS, GREY_LIPS, DARK_LIPS = 1.15, 0.7, 0.55
"""There, pixels of so much more than the brightness of the person's lips and less than this share
of their saturation are teeth, and darker ones than the last share are the gap between the lips."""


def misread_pixels(views: ReferenceViews, template: HeadTemplate) -> Bool[Tensor, "v 1 h w"]:
    """Pixels that would be painted on the wrong surface: the mouth's inside, glare along the jaw.

    Args:
        views: References, bound to the template.
        template: Their head template.
    """
    group = groups_of_pixels(views, template)
    colors = views.images.float().permute(0, 2, 3, 1)
    on_skin = (group == SKIN) & (views.masks[:, 0] > SEEN_MASK)
    misread = _mouth_on_lips(views, template, in_mouth(group), colors)
    # Of a single photo glare stays: no other view shows what is beneath.
    if bool(on_skin.any()) and len(views.images) - views.num_guessed > 1:
        skin = colors[on_skin]
        light = brightness(colors) - brightness(skin).median()
        grey = saturation(colors) / saturation(skin).median().clamp(min=1e-3)
        bright = on_skin & (light > GLARE) & (grey < GLARE_SATURATION)
        glare = _glare(views, template, on_skin, bright)
        faint = on_skin & (light > FAINT_GLARE) & (grey < FAINT_SATURATION)
        glare = _grown(glare, faint, round(FAINT_REACH * colors.shape[2]))
        rim = round(GLARE_RIM * colors.shape[2])
        wide = torch.nn.functional.max_pool2d(glare[:, None].float(), 2 * rim + 1, 1, rim)[:, 0] > 0
        misread |= wide & on_skin
    return misread[:, None]


def _mouth_on_lips(
    views: ReferenceViews,
    template: HeadTemplate,
    mouth: Bool[Tensor, "v h w"],
    colors: Float[Tensor, "v h w 3"],
) -> Bool[Tensor, "v h w"]:
    """The mouth, and the pixels of teeth and gaps that a fit puts on the lips around it."""
    ids = views.binding.triangle_ids.long()
    lips = (ids >= 0) & template.region_mask("lips")[ids.clamp(min=0)]
    light, tint = brightness(colors), saturation(colors)
    foreign = torch.zeros_like(mouth)
    for view in lips.flatten(1).any(1).nonzero()[:, 0]:
        on = lips[view]
        usual_light, usual_tint = light[view][on].median(), tint[view][on].median()
        teeth = (light[view] > BRIGHT_LIPS * usual_light) & (tint[view] < GREY_LIPS * usual_tint)
        foreign[view] = on & (teeth | (light[view] < DARK_LIPS * usual_light))
    return _grown(mouth, foreign, round(MOUTH_RIM * mouth.shape[2]))


def _glare(
    views: ReferenceViews,
    template: HeadTemplate,
    on_skin: Bool[Tensor, "v h w"],
    bright: Bool[Tensor, "v h w"],
) -> Bool[Tensor, "v h w"]:
    """Bright pixels where another photo shows skin, or on the jaw and neck where none shows any."""
    triangles = template.triangles.long()
    ids = views.binding.triangle_ids.clamp(min=0).long()
    kept_free = (template.region_mask(*GLARE_FREE_REGIONS) | _forehead(template))[ids]
    shown, shown_bright = (
        torch.stack(
            [
                summed_at_vertices(
                    len(template.neutral), triangles[ids[v][chosen[v]]],
                    views.binding.barycentrics[v][chosen[v]].float(),
                    torch.ones(int(chosen[v].sum()), 1),
                )[:, 0]
                for v in range(len(ids))
            ]
        )
        for chosen in (on_skin, bright)
    )  # fmt: skip
    glare = torch.zeros_like(bright)
    low = _jaw_and_neck(template)
    for v in range(len(ids)):
        others = torch.arange(len(ids)) != v
        known = shown[others].sum(0) > OTHERS_PIXELS
        skin_there = known & (shown_bright[others].sum(0) < 0.5 * shown[others].sum(0))
        corners = triangles[ids[v]]
        contradicted = skin_there[corners].float().mean(-1) > 0.5
        unseen = ~known[corners].any(-1)
        glare[v] = bright[v] & ~kept_free[v] & (contradicted | (unseen & low[ids[v]]))
    return glare


def _grown(
    cores: Bool[Tensor, "v h w"], faint: Bool[Tensor, "v h w"], pixels: int
) -> Bool[Tensor, "v h w"]:
    """Cores and the faint pixels that hang together with them, so far away."""
    return torch.from_numpy(
        np.stack(
            [
                binary_dilation(core, mask=around, iterations=pixels) if core.any() else core
                for core, around in zip(cores.numpy(), (cores | faint).numpy(), strict=True)
            ]
        )
    )


def _forehead(template: HeadTemplate) -> Bool[Tensor, "f"]:
    """Triangles above the lids of the neutral head: fair and white fringes hang there."""
    height = _heights(template)
    return height > height[template.region_mask("lid_left", "lid_right")].max()


def _jaw_and_neck(template: HeadTemplate) -> Bool[Tensor, "f"]:
    """Triangles of skin below the lips of the neutral head."""
    height = _heights(template)
    return template.region_mask("skin", "neck") & (
        height < height[template.region_mask("lips")].min()
    )


def _heights(template: HeadTemplate) -> Float[Tensor, "f"]:
    """Of the triangles' middles of the neutral head, metres."""
    return template.neutral[template.triangles.long()].mean(1)[:, 1]
