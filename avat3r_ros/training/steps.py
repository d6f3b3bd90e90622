"""One training step's loss: which points, expressions and pictures it looks at, and what it costs.

All random choices come from (seed, step), so a resumed run makes the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.data.expressions import random_code
from avat3r_ros.model import Avat3r, Prefix, subset_prefix
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.training.losses import (
    LossWeights,
    geometry_loss,
    photometric_losses,
    regularity_losses,
    total_loss,
)
from avat3r_ros.training.metrics import mean_distance_mm, moving_points
from avat3r_ros.training.people import TrainingPerson
from avat3r_ros.types import Gaussians


@dataclass(frozen=True)
class StepConfig:
    """What a step looks at.

    Attributes:
        points: Sampled Gaussians per person for the geometry loss; more: less noise, slower.
        codes: Random expressions per person for the geometry loss.
        targets: Pictures per person for the photometric loss, all of one expression.
        weights: Of the loss terms.
    """

    points: int = 2500
    codes: int = 4
    targets: int = 2
    weights: LossWeights = LossWeights()

    def __post_init__(self) -> None:
        for name in ("points", "codes", "targets"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")


def step_loss(
    network: Avat3r,
    people: Sequence[TrainingPerson],
    config: StepConfig,
    rng: np.random.Generator,
    *,
    with_pictures: bool,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Mean loss over some people.

    Args:
        network: In training mode.
        people: Who the step is about.
        config: What is looked at.
        rng: Source of all choices.
        with_pictures: Add the photometric loss to the geometry loss.

    Returns:
        The loss, and scalars for the log: the terms, and millimetres of moving points.
    """
    prefixes = network.encode_many(
        [one.person.views for one in people], bases=[one.base for one in people]
    )
    losses, scalars = [], []
    for one, prefix in zip(people, prefixes, strict=True):
        terms, measured = _geometry_terms(network, one, prefix, config, rng)
        if with_pictures:
            terms |= _picture_terms(network, one, prefix, config, rng)
        losses.append(total_loss(terms, config.weights))
        scalars.append(measured | {name: float(value.detach()) for name, value in terms.items()})
    mean = {name: float(np.nanmean([scalar[name] for scalar in scalars])) for name in scalars[0]}
    return torch.stack(losses).mean(), mean


def _geometry_terms(
    network: Avat3r,
    one: TrainingPerson,
    prefix: Prefix,
    config: StepConfig,
    rng: np.random.Generator,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    count = min(config.points, len(one.points))
    chosen = np.sort(rng.choice(len(one.points), count, replace=False))
    points = one.points[torch.from_numpy(chosen)]
    codes = torch.from_numpy(np.stack([random_code(rng) for _ in range(config.codes)]))
    pixels = one.base.pixel_indices[points]
    truth = one.person.true_positions(pixels, codes).to(network.device)
    before = one.person.photographed_positions(pixels).to(network.device)
    part = subset_prefix(prefix, points.to(network.device))
    decoded = network.decode_many(part, codes.to(network.device))
    means = torch.stack([gaussians.means for gaussians in decoded])
    moving = moving_points(truth, before)
    with torch.no_grad():
        base = torch.stack([part.base_gaussians(c.to(network.device)).means for c in codes])
        scalars = {
            "moving_mm": float(mean_distance_mm(means, truth, moving)),
            "base_moving_mm": float(mean_distance_mm(base, truth, moving)),
            "all_mm": float(mean_distance_mm(means, truth)),
            "base_all_mm": float(mean_distance_mm(base, truth)),
        }
    loss = geometry_loss(means, truth, truth - before)
    return {"geometry": loss}, scalars


def _picture_terms(
    network: Avat3r,
    one: TrainingPerson,
    prefix: Prefix,
    config: StepConfig,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    targets = one.person.targets
    first = int(rng.integers(len(targets.codes)))
    same = (targets.codes == targets.codes[first]).all(-1).nonzero()[:, 0][: config.targets]
    code = targets.codes[first].to(network.device)
    gaussians = network.decode(prefix, code)
    background = torch.from_numpy(rng.uniform(0, 1, 3).astype(np.float32)).to(network.device)
    rendered = render_gaussians(gaussians, targets.cameras[same], background=background)
    terms = photometric_losses(
        rendered.rgb,
        rendered.alpha,
        targets.images[same].to(network.device),
        targets.masks[same].to(network.device),
        background,
    )
    pixels = prefix.base.num_pixels
    base = prefix.base_gaussians(code)
    return terms | regularity_losses(_first(gaussians, pixels), _first(base, pixels))


def _first(gaussians: Gaussians, count: int) -> Gaussians:
    """The Gaussians that the network changes."""
    return Gaussians(
        **{name: getattr(gaussians, name)[:count] for name in gaussians.__dataclass_fields__}
    )
