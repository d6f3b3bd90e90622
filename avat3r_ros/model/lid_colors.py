"""Which pixels tell the colours of lids: of upper lids, which an open eye folds, those on them.

A fit is off by millimetres, so that lashes, the white of the eye or the brow lie on the lid here
and there. What a lid's own pixels look like on the whole tells them apart: lids are darker than the
rest of the face, of some people much. Pixels of all photos are asked, as one with closed eyes shows
most of a lid, but in the light of the photo whose pixels lie around it, or the lid would be a
patch.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avat3r_ros.model.template_colors import ColorSources, brightness, saturation
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

EYE_SURROUNDINGS_M, DARKEST, GREYEST = 0.03, 0.85, 0.8
"""Pixels this near to the middle of an eye that are darker or greyer than these shares of the face
are lashes, the white of the eye or the brow."""

LID_DARKEST, LID_BRIGHTEST = 0.9, 1.25
"""Pixels of an upper lid that are darker or brighter than these shares of it are none, or lie in
the shade of its fold, which a closed eye has not."""

USUAL_QUANTILES = 0.5, 0.9
"""A surface's usual colour is the mean of its pixels between these in brightness: what does not
belong to it is mostly darker."""

LIT = 0.5
"""How far a closed lid is lit like the skin around (a power of the ratio of their brightness): an
open one is in the shade of the brow and of its own fold."""

ODD_LID = 0.7
"""A photo whose lid is so much darker or, by the inverse, brighter than another's shows the brow
there, or a shadow."""


def color_sources(
    views: ReferenceViews,
    template: HeadTemplate,
    neutral: Float[Tensor, "nv 3"],
    folds: Bool[Tensor, "f"],
    kept: Bool[Tensor, "v h w"],
    pixels: ColorSources,
) -> ColorSources:
    """Choose the pixels that tell what surfaces next to them look like.

    Args:
        views: References.
        template: Their head template.
        neutral: Vertices of the person at rest, metres.
        folds: Triangles of the upper lids, which an open eye folds.
        kept: Pixels that became Gaussians.
        pixels: These; those that lend are certainly the head's, and on the template.
    """
    lids = lid_pixels(views, template, folds, kept)
    lids = replace(lids, colors=_lit(lids, neutral, template, pixels))
    shown, triangles = pixels.triangle_ids.clamp(min=0), template.triangles.long()
    lend = pixels.lend & ~_around_lids(neutral, template, pixels)
    # Where lids end above, they take after whatever is there: a step would be an outline.
    corners = torch.zeros(len(neutral), dtype=torch.bool)
    corners[triangles[folds].flatten()] = True
    above = corners[triangles].any(-1) & template.region_mask("skin", "brows")
    lend = (lend | (pixels.lend & above[shown])) & ~folds[shown]
    return ColorSources(
        torch.cat([pixels.colors, lids.colors]),
        torch.cat([pixels.triangle_ids, lids.triangle_ids]),
        torch.cat([pixels.barycentrics, lids.barycentrics]),
        torch.cat([lend, lids.lend]),
    )


def lid_pixels(
    views: ReferenceViews,
    template: HeadTemplate,
    folds: Bool[Tensor, "f"],
    kept: Bool[Tensor, "v h w"],
) -> ColorSources:
    """Find the pixels of all photos that show an upper lid, in the light of the kept ones.

    Args:
        views: References.
        template: Their head template.
        folds: Triangles of the upper lids.
        kept: Pixels that became Gaussians.
    """
    ids = views.binding.triangle_ids.long()
    images = views.images.float().permute(0, 2, 3, 1)
    shown = (ids >= 0) & folds[ids.clamp(min=0)] & (views.masks[:, 0] > 0.95)
    shown[len(shown) - views.num_guessed :] &= kept[len(shown) - views.num_guessed :]
    chosen, gains = torch.zeros_like(shown), torch.ones_like(images)
    for side in ("left", "right"):
        here = shown & template.region_mask(f"lid_{side}")[ids.clamp(min=0)]
        if not bool((here & kept).any()):
            continue
        usual = usual_color(images[here & kept])
        for view, of_view in enumerate(here):
            if not bool(of_view.any()):
                continue
            own = usual_color(images[view][of_view])
            ratio = brightness(own) / brightness(usual).clamp(min=1e-3)
            if not ODD_LID < ratio < 1 / ODD_LID:
                continue
            light = brightness(images[view]) / brightness(own).clamp(min=1e-3)
            chosen[view] |= of_view & (light > LID_DARKEST) & (light < LID_BRIGHTEST)
            gains[view][of_view] = usual / own.clamp(min=1e-3)
    return ColorSources(
        (images[chosen] * gains[chosen]).clamp(0, 1),
        ids[chosen],
        views.binding.barycentrics[chosen].float(),
        chosen[chosen],
    )


def usual_color(colors: Float[Tensor, "p 3"]) -> Float[Tensor, "3"]:
    """What a lit surface looks like, from at least one pixel of it (`USUAL_QUANTILES`)."""
    # quantile() takes 16 million values at most, and a sample is enough.
    colors = colors[:: max(1, len(colors) // 100_000)]
    light = brightness(colors)
    low, high = torch.quantile(light, torch.tensor(USUAL_QUANTILES))
    return colors[(light >= low) & (light <= high)].mean(0)


def _lit(
    lids: ColorSources, neutral: Float[Tensor, "nv 3"], template: HeadTemplate, pixels: ColorSources
) -> Float[Tensor, "p 3"]:
    """Colours of lids as these look when they are closed."""
    colors, light = lids.colors.clone(), brightness(pixels.colors)
    shown = pixels.triangle_ids.clamp(min=0)
    for side in ("left", "right"):
        lid = template.region_mask(f"lid_{side}")[lids.triangle_ids]
        near = _near_eye(neutral, template, side) & template.region_mask("skin")
        near = near[shown] & pixels.lend
        if bool(lid.any()) and bool(near.any()):
            ratio = light[near].median() / brightness(colors[lid]).mean().clamp(min=1e-3)
            colors[lid] *= ratio.clamp(1, 1 / ODD_LID) ** LIT
    return colors.clamp(0, 1)


def _near_eye(
    neutral: Float[Tensor, "nv 3"], template: HeadTemplate, side: str
) -> Bool[Tensor, "f"]:
    middles = neutral[template.triangles.long()].mean(1)
    eye = middles[template.region_mask(f"eye_{side}")].mean(0)
    return (middles - eye).norm(dim=-1) < EYE_SURROUNDINGS_M


def _around_lids(
    neutral: Float[Tensor, "nv 3"], template: HeadTemplate, pixels: ColorSources
) -> Bool[Tensor, "p"]:
    """Pixels that say nothing about skin: the rim of an open eye, lashes and brows."""
    shown = pixels.triangle_ids.clamp(min=0)
    around = torch.zeros(len(template.triangles), dtype=torch.bool)
    for side in ("left", "right"):
        near = _near_eye(neutral, template, side)
        around |= near & template.region_mask(f"lid_{side}", "skin", "eyelashes")
    face = pixels.lend & template.region_mask("skin")[shown]
    if not bool(face.any()):
        return around[shown]
    light, tint = brightness(pixels.colors), saturation(pixels.colors)
    foreign = (light < DARKEST * light[face].median()) | (tint < GREYEST * tint[face].median())
    return template.region_mask("brows")[shown] | (around[shown] & foreign)
