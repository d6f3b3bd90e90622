"""One training step's loss: which points, expressions and pictures it looks at, and what it costs.

All random choices come from (seed, step), so a resumed run makes the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.model import Avat3r
from avat3r_ros.model.evidence import Evidence, cross_view_evidence
from avat3r_ros.model.prefix import make_motion
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
        views: References whose Gaussians are sampled; fewer: cheaper, more noise.
        targets: Pictures per person for the photometric loss, all of one expression.
        weights: Of the loss terms.
    """

    points: int = 3000
    codes: int = 4
    views: int = 2
    targets: int = 2
    weights: LossWeights = LossWeights()

    def __post_init__(self) -> None:
        for name in ("points", "codes", "views", "targets"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")


def step_loss(
    network: Avat3r,
    people: Sequence[TrainingPerson],
    config: StepConfig,
    rng: np.random.Generator,
    *,
    with_pictures: bool,
    perceptual: bool = False,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Mean loss over some people.

    Args:
        network: In training mode.
        people: Who the step is about.
        config: What is looked at.
        rng: Source of all choices.
        with_pictures: Decode all Gaussians in one expression for pictures and geometry; otherwise a
            sample of them in several expressions for geometry alone, which is cheaper.
        perceptual: Compare the local structure of pictures, too.

    Returns:
        The loss, and scalars for the log: the terms, and millimetres of moving points.
    """
    losses, scalars = [], []
    for terms, measured in (
        _picture_terms(network, people, config, rng, perceptual)
        if with_pictures
        else _geometry_terms(network, people, config, rng)
    ):
        losses.append(total_loss(terms, config.weights))
        scalars.append(measured | {name: float(value.detach()) for name, value in terms.items()})
    mean = {name: float(np.nanmean([scalar[name] for scalar in scalars])) for name in scalars[0]}
    return torch.stack(losses).mean(), mean


Terms = tuple[dict[str, Tensor], dict[str, float]]


def _geometry_terms(
    network: Avat3r, people: Sequence[TrainingPerson], config: StepConfig, rng: np.random.Generator
) -> list[Terms]:
    rows = [_sampled_rows(one, config, rng) for one in people]
    bases = [one.base.subset(one.points[r]) for one, r in zip(people, rows, strict=True)]
    prefixes = network.encode_many(
        [one.views for one in people],
        bases=bases,
        motions=[
            None if one.motion is None else one.motion.for_base(base)
            for one, base in zip(people, bases, strict=True)
        ],
        patches=[one.patches for one in people],
        evidence=[
            _evidence(network, one, one.points[r]) for one, r in zip(people, rows, strict=True)
        ],
    )
    terms = []
    for one, prefix, r in zip(people, prefixes, rows, strict=True):
        codes, moved = _blended_codes(one, r, config, rng)
        codes, moved = codes.to(network.device), moved.to(network.device)
        means = network.decode_pixel_means(prefix, codes)
        before = one.before[r].to(network.device)
        with torch.no_grad():
            base = torch.stack([prefix.base_means(code) for code in codes])
        terms.append(_geometry(means, base, before, moved))
    return terms


def _picture_terms(
    network: Avat3r,
    people: Sequence[TrainingPerson],
    config: StepConfig,
    rng: np.random.Generator,
    perceptual: bool,
) -> list[Terms]:
    prefixes = network.encode_many(
        [one.views for one in people],
        bases=[one.base for one in people],
        motions=[one.motion for one in people],
        patches=[one.patches for one in people],
        evidence=[_evidence(network, one, None) for one in people],
    )
    both = []
    for one, prefix in zip(people, prefixes, strict=True):
        targets, device = one.targets, network.device
        row = int(rng.integers(len(one.codes)))
        shown = (one.shown == row).nonzero()[:, 0]
        picked = torch.from_numpy(rng.permutation(len(shown))[: config.targets])
        shown = shown[picked.to(shown.device)]
        code = one.codes[row].to(device)
        gaussians = network.decode(prefix, code)
        background = torch.from_numpy(rng.uniform(0, 1, 3).astype(np.float32)).to(device)
        rendered = render_gaussians(gaussians, targets.cameras[shown], background=background)
        terms = photometric_losses(
            rendered.rgb,
            rendered.alpha,
            targets.images[shown].to(device),
            targets.masks[shown].to(device),
            background,
            None if one.shared is None else one.shared[shown],
            perceptual=perceptual,
        )
        pixels = prefix.base.num_pixels
        still = prefix.base_gaussians(code)
        terms |= regularity_losses(_first(gaussians, pixels), _first(still, pixels))
        points = one.points.to(device)
        geometry, measured = _geometry(
            gaussians.means[None, points],
            prefix.base_means(code)[None, points],
            one.before.to(device),
            one.moved[row : row + 1].to(device),
        )
        both.append((terms | geometry, measured))
    return both


def _evidence(network: Avat3r, one: TrainingPerson, rows: Tensor | None) -> Evidence | None:
    """What the references say of some pixels of the base guess, or of all."""
    if not network.config.evidence_features:
        return None
    known = one.evidence
    if known is None:  # A pixel's surroundings count, so it takes all pixels to know about some.
        motion = make_motion(one.base, one.views.identity, network.template, network.config)
        known = cross_view_evidence(one.views, one.base, motion, network.template)
    return (known if rows is None else known.subset(rows)).to(torch.float32)


def _geometry(means: Tensor, base: Tensor, before: Tensor, moved: Tensor) -> Terms:
    """Loss of predicted positions, and millimetres for them and for the base guess."""
    truth = before + moved
    moving = moving_points(truth, before)
    scalars = {
        "moving_mm": float(mean_distance_mm(means.detach(), truth, moving)),
        "base_moving_mm": float(mean_distance_mm(base, truth, moving)),
        "all_mm": float(mean_distance_mm(means.detach(), truth)),
        "base_all_mm": float(mean_distance_mm(base, truth)),
    }
    return {"geometry": geometry_loss(means, truth, moved)}, scalars


def _sampled_rows(
    one: TrainingPerson, config: StepConfig, rng: np.random.Generator
) -> Int[Tensor, "k"]:
    """Rows of `one.points` in some of the views: tokens of other views need not be decoded."""
    num_views = len(one.views.images)
    chosen = rng.choice(num_views, min(config.views, num_views), replace=False)
    view = one.base.code_rows[one.points]
    there = torch.isin(view, torch.from_numpy(chosen).to(view)).nonzero()[:, 0]
    picked = rng.choice(len(there), min(config.points, len(there)), replace=False)
    return there[torch.from_numpy(np.sort(picked)).to(there.device)]


def _blended_codes(
    one: TrainingPerson, rows: Tensor, config: StepConfig, rng: np.random.Generator
) -> tuple[Float[Tensor, "c 52"], Float[Tensor, "c k 3"]]:
    """Random blends of pairs of a person's expressions: points move linearly in the code."""
    count, device = len(one.codes), one.codes.device
    first, second = (
        torch.from_numpy(rng.integers(count, size=config.codes)).to(device) for _ in range(2)
    )
    share = torch.from_numpy(rng.uniform(0, 1, config.codes).astype(np.float32))
    # Half of the expressions are as they were read, none is a blend of itself only by chance.
    share = torch.where(torch.from_numpy(rng.random(config.codes) < 0.5), 0.0, share).to(device)
    codes = torch.lerp(one.codes[first], one.codes[second], share[:, None])
    moved = one.moved[:, rows]
    return codes, torch.lerp(moved[first], moved[second], share[:, None, None])


def _first(gaussians: Gaussians, count: int) -> Gaussians:
    """The Gaussians that the network changes."""
    return Gaussians(
        **{name: getattr(gaussians, name)[:count] for name in gaussians.__dataclass_fields__}
    )
