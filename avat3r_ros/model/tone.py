"""Heads of one tone: grey photos, sepia prints and stone have no red mouths and no brown hair."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.model.base_guess import SURE_MASK
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.types import ReferenceViews

MAX_SPREAD, WITHIN = 0.05, 0.9
"""So many of a head's pixels differ by less in hue (log colour), if it has but one. Of grey photos
they differ by up to 0.02, of 18 coloured ones by 0.14 and more."""

DARKEST, BRIGHTEST = 0.08, 0.98
"""sRGB: darker pixels have no reliable hue, and brighter channels are clipped."""

LUMA = (0.299, 0.587, 0.114)
"""Shares of the channels in brightness. Source: ITU-R BT.601."""


def only_tone(views: ReferenceViews) -> Float[Tensor, "3"] | None:
    """The one tone of all photos of a head: sRGB of brightness 1, or None if it has colours."""
    logs = []
    for view in range(len(views.images) - views.num_guessed):
        colors = views.images[view][:, views.masks[view, 0] > SURE_MASK].float()
        known = (colors.mean(0) > DARKEST) & (colors.amax(0) < BRIGHTEST)
        hue = colors[:, known].clamp(min=DARKEST / 2).log()
        hue = hue - hue.mean(0)
        if not hue.numel():
            return None
        usual = hue.median(1, keepdim=True).values
        if (hue - usual).norm(dim=0).quantile(WITHIN) > MAX_SPREAD:
            return None
        logs.append(usual[:, 0])
    tone = torch.stack(logs).mean(0).exp()
    return tone / (tone @ tone.new_tensor(LUMA))


def in_one_tone(base: BaseGuess, tone: Float[Tensor, "3"]) -> BaseGuess:
    """Return a base guess with the tone instead of colours, as bright as before."""
    luma = base.gaussians.colors @ tone.new_tensor(LUMA)
    colors = (luma[:, None] * tone).clamp(0, 1)
    return replace(base, gaussians=replace(base.gaussians, colors=colors))
