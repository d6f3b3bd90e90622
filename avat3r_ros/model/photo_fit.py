"""Colours and places with which an avatar drawn like a photo looks like that photo.

Discs overlap, and blur what each pixel took from its photo; where photos disagree by a seam's
width, or see each other's surfaces aslant, their mixture is nobody's colour. So the Gaussians'
colours are moved, and their places a little, until each photo's camera and expression give the
photo again. Sizes and opacities stay, and with them outlines.
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

ROUNDS = 6
"""Steps for each photo. With 4, 6 and 10 (with rates of 0.03, 0.025 and 0.02) left-out photos of
five people have 23.91, 23.93 and 23.95 dB."""

COLOR_LIMIT = 0.12
"""No colour is moved farther, sRGB: where photos do not fit one another, specks would be the most
that can be done for them."""

PLACE_LIMIT_M = 0.0005
"""No Gaussian is moved farther along an axis of the head: a pixel is as wide at a close-up's face,
and what lies farther off is an error of cameras, which bent surfaces would only hide."""

RIM_PX = 4
"""So near to a photo's outline its finer pixels tell nothing: an outline that lies a little beside
the avatar's would paint a dark line on it."""

COLOR_RATE = 0.025
"""Adam's first step of a colour, sRGB; the last is 0."""

PLACE_RATE_M = 0.0000625
"""Adam's first step of a place; the last is 0."""

COLOR_FAINT = 1e-5
"""Adam's epsilon, per sRGB: a Gaussian whose gradient is smaller is moved by less. One that owns a
pixel of a reference has about as much; what photos hardly see would take on their noise."""

PLACE_FAINT = 1e-3
"""The same for places, per metre."""


def fitted_to_photos(
    base: BaseGuess, views: ReferenceViews, shown: Callable[[Tensor], Gaussians]
) -> BaseGuess:
    """Return a base guess with which the references' cameras see what the photos show.

    Args:
        base: On the CPU.
        views: Its references, on the CPU. Those that nobody photographed tell nothing.
        shown: Expression -> Gaussians of the base guess as an avatar shows them, colours and
            places being `base`'s and something added (an expression moves places, but hardly
            turns them, so that moves at rest serve for all).
    """
    photos = len(views.images) - views.num_guessed
    pictures = finer_pictures(views)[:photos]
    cameras = finer_camera(views.cameras)
    told = _within(views.masks[:photos].float())
    area = told.mean((1, 2, 3)).clamp(min=0.01)
    with torch.no_grad():
        posed = [shown(code).to("cpu") for code in views.codes[:photos].float()]
    color = torch.zeros(len(base), 3, requires_grad=True)
    place = torch.zeros(len(base), 3, requires_grad=True)

    def moved(gaussians: Gaussians) -> Gaussians:
        return replace(
            gaussians,
            colors=gaussians.colors + _limited(color, COLOR_LIMIT),
            means=gaussians.means + _limited(place, PLACE_LIMIT_M),
        )

    optimizer = torch.optim.Adam(
        [
            {"params": color, "lr": COLOR_RATE, "eps": COLOR_FAINT},
            {"params": place, "lr": PLACE_RATE_M, "eps": PLACE_FAINT},
        ],
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ROUNDS * photos)
    with torch.enable_grad():
        for step in range(ROUNDS * photos):
            row = step % photos
            drawn = render_gaussians(moved(posed[row]), cameras[row : row + 1]).rgb[0]
            loss = (told[row] * (drawn - pictures[row]).abs()).mean() / area[row]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        fitted = moved(base.gaussians)
    return replace(base, gaussians=replace(fitted, colors=fitted.colors.clamp(0, 1)))


def _limited(change: Float[Tensor, "n 3"], limit: float) -> Float[Tensor, "n 3"]:
    return limit * torch.tanh(change / limit)


def _within(masks: Float[Tensor, "v 1 h w"]) -> Float[Tensor, "v 1 fh fw"]:
    """Finer pixels well within the mattes."""
    outside = finer_pixels((masks < SURE_MASK).float())
    return 1 - torch.nn.functional.max_pool2d(outside, 2 * RIM_PX + 1, 1, RIM_PX)
