"""Optimise one person's Gaussians on pictures of them: what changes would have been best.

The unknowns are the network's own raw outputs, one set per pixel and the same in all expressions.
On the reference photos this is a baseline (a minute of optimisation instead of a network); on the
target pictures it is a bound: what no change of that kind can exceed.
"""

import time
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.model.changes import ATTRIBUTES, apply_changes
from avat3r_ros.model.fill_motion import moved_fill
from avat3r_ros.model.pixel_decoder import PixelPlaces, between_tokens
from avat3r_ros.model.prefix import Prefix
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.training.losses import LossWeights, photometric_losses, total_loss
from avat3r_ros.types import Camera, Gaussians

RATES = {"position": 0.02, "log_scale": 0.02, "rotation": 0.01, "color": 0.01, "opacity": 0.05}
"""Adam's step of each raw output; a position moves by up to 0.2 mm in a step."""

_WEIGHTS = LossWeights()


def fit_changes(
    prefix: Prefix,
    images: Float[Tensor, "t 3 h w"],
    masks: Float[Tensor, "t 1 h w"],
    cameras: Camera,
    codes: Float[Tensor, "t e"],
    *,
    attributes: Sequence[str] = tuple(ATTRIBUTES),
    places: PixelPlaces | None = None,
    steps: int = 200,
    seconds: float | None = None,
    seed: int = 0,
) -> Float[Tensor, "p 14"]:
    """Find the changes with which the base guess looks most like some pictures.

    Args:
        prefix: Of the person; only its base guess is read.
        images: Pictures on black.
        masks: Their coverage.
        cameras: T cameras.
        codes: Expression of each picture, as the rig shall follow it.
        attributes: Which of `ATTRIBUTES` may change.
        places: If given, changes are smooth: there is one of each token that `places` counts, and
            pixels lie between them. Otherwise every pixel has its own.
        steps: Steps of Adam, one picture each, rates falling along a cosine.
        seconds: Processor time after which it ends however many steps are done; `steps` then only
            says how many are expected.
        seed: Of the order of pictures and the backgrounds.

    Raises:
        ValueError: There is no such attribute.
    """
    unknown = sorted(set(attributes) - set(ATTRIBUTES))
    if unknown:
        raise ValueError(f"expected attributes of {sorted(ATTRIBUTES)}, got {unknown}")
    pixels = prefix.base.num_pixels
    count_of_each = pixels if places is None else int(places.tokens.max()) + 1
    raw = {
        name: torch.zeros(count_of_each, count, requires_grad=name in attributes)
        for name, count in ATTRIBUTES.items()
    }
    optimizer = torch.optim.Adam(
        [{"params": [raw[name]], "lr": RATES[name]} for name in attributes], betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.0)
    generator = torch.Generator().manual_seed(seed)
    bases: dict[tuple[float, ...], Gaussians] = {}
    started = time.process_time()
    for step in range(steps):
        if seconds is not None and time.process_time() - started > seconds:
            break
        if step % len(images) == 0:
            order = torch.randperm(len(images), generator=generator)
        row = order[step % len(images)]
        key = tuple(codes[row].tolist())
        if key not in bases:
            bases[key] = prefix.base_gaussians(codes[row])
        changed = changed_gaussians(prefix, bases[key], _per_pixel(raw, places))
        background = torch.rand(3, generator=generator)
        view = render_gaussians(changed, cameras[row : row + 1], background=background)
        terms = photometric_losses(
            view.rgb, view.alpha, images[row : row + 1], masks[row : row + 1], background
        )
        optimizer.zero_grad(set_to_none=True)
        total_loss(terms, _WEIGHTS).backward()
        optimizer.step()
        schedule.step()
    return _per_pixel(raw, places).detach()


def _per_pixel(raw: dict[str, Tensor], places: PixelPlaces | None) -> Float[Tensor, "p 14"]:
    changes = torch.cat(list(raw.values()), -1)
    return changes if places is None else between_tokens(changes, places, slice(None))


def changed_gaussians(prefix: Prefix, base: Gaussians, changes: Float[Tensor, "p 14"]) -> Gaussians:
    """Apply raw changes to the base guess in some expression, the unseen surfaces following."""
    lenders = None if prefix.motion is None else prefix.motion.lenders
    return moved_fill(apply_changes(base, changes), base, lenders)
