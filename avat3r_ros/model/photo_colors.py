"""Colours with which an avatar drawn like a photo looks like that photo.

Discs overlap, and blur what each pixel took from its photo; where photos disagree by a seam's
width, or see each other's surfaces aslant, their mixture is nobody's colour. So the colours of the
pixels' Gaussians are moved until each photo's camera and expression give the photo again, as far as
colours can. Places, sizes and opacities stay, and with them outlines and motion.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.model.base_guess import SURE_MASK
from avat3r_ros.model.fine_views import finer_camera, finer_pictures, finer_pixels
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.types import Gaussians, ReferenceViews

ROUNDS = 10
"""Steps for each photo. With 5, 10 and 20 left-out photos of five people have 23.78, 23.81 and
23.83 dB (without limits)."""

LIMIT = 0.06
"""No colour is moved farther, sRGB: where photos do not fit one another, specks would be the most
that can be done for them."""

RIM_PX = 8
"""So near to a photo's outline its finer pixels tell nothing: an outline that lies a little beside
the avatar's would paint a dark line on it."""

RATE = 0.02
"""Adam's first step of a colour, sRGB; the last is 0."""


def with_photo_colors(
    base: BaseGuess, views: ReferenceViews, shown: Callable[[Tensor], Gaussians]
) -> BaseGuess:
    """Return a base guess with which the references' cameras see what the photos show.

    Args:
        base: On the CPU.
        views: Its references, on the CPU. Those that nobody photographed tell nothing.
        shown: Expression -> Gaussians of the base guess as an avatar shows them, colours being
            `base`'s and something added.
    """
    photos = len(views.images) - views.num_guessed
    pictures = finer_pictures(views)[:photos]
    cameras = finer_camera(views.cameras)
    told = _within(views.masks[:photos].float())
    area = told.mean((1, 2, 3)).clamp(min=0.01)
    with torch.no_grad():
        posed = [shown(code).to("cpu") for code in views.codes[:photos].float()]
    raw = torch.zeros(base.num_pixels, 3, requires_grad=True)
    rest = torch.zeros(len(base) - base.num_pixels, 3)

    def change() -> Tensor:
        return torch.cat([LIMIT * torch.tanh(raw / LIMIT), rest])

    optimizer = torch.optim.Adam([raw], lr=RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS * photos)
    with torch.enable_grad():
        for step in range(ROUNDS * photos):
            row = step % photos
            whole = replace(posed[row], colors=posed[row].colors + change())
            drawn = render_gaussians(whole, cameras[row : row + 1]).rgb[0]
            loss = (told[row] * (drawn - pictures[row]).abs()).mean() / area[row]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    colors = (base.gaussians.colors + change().detach()).clamp(0, 1)
    return replace(base, gaussians=replace(base.gaussians, colors=colors))


def _within(masks: Float[Tensor, "v 1 h w"]) -> Float[Tensor, "v 1 fh fw"]:
    """Finer pixels well within the mattes."""
    outside = finer_pixels((masks < SURE_MASK).float())
    return 1 - torch.nn.functional.max_pool2d(outside, 2 * RIM_PX + 1, 1, RIM_PX)
