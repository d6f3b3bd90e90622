"""A person ready for training steps: references, base guess, and where their points truly go."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.data.sampling import TargetViews, training_sample
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.evidence import Evidence
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion
from avat3r_ros.model.seams import without_seams
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.metrics import widened
from avat3r_ros.training.references import Person, Prior, person_from_sample
from avat3r_ros.types import ReferenceViews

SHARED_REACH = 0.04
"""Pictures are compared up to this far from the base guess, as a share of their side."""


@dataclass(frozen=True)
class TrainingPerson:
    """A person ready for training steps: tensors only.

    Attributes:
        seed: Of the person.
        views: References.
        base: Their base guess.
        points: Gaussians of the base guess whose pixel shows a true surface.
        before: Where that surface was when its photo was taken, metres.
        codes: Some expressions, as the network is told of them.
        moved: Displacement of `before` in those expressions, metres.
        targets: Pictures of those expressions.
        shown: Row of `codes` that each picture shows.
        motion: The base guess's rig; this and the next are kept while the person is at hand, and
            are not part of files.
        patches: What the network sees of each patch.
        evidence: What the other references say of each pixel of the base guess, half precision.
        shared: Pixels of the targets that the references show something of.
    """

    seed: int
    views: ReferenceViews
    base: BaseGuess
    points: Int[Tensor, "p"]
    before: Float[Tensor, "p 3"]
    codes: Float[Tensor, "c 52"]
    moved: Float[Tensor, "c p 3"]
    targets: TargetViews
    shown: Int[Tensor, "t"]
    motion: RigMotion | None = None
    patches: Float[Tensor, "s i"] | None = None
    evidence: Evidence | None = None
    shared: Bool[Tensor, "t 1 h w"] | None = None


def make_person(
    seed: int,
    config: Avat3rConfig,
    prior: Prior,
    template: HeadTemplate,
    *,
    num_codes: int = 10,
    cameras_per_code: int = 2,
    casual: bool = False,
    close_ups: bool = False,
    picture_size: int | None = None,
    ict_facekit: str | Path | None = None,
    details: bool = False,
) -> TrainingPerson:
    """Draw a person, make references of their photos, and place the base guess.

    Arguments as those of `training_sample` and `person_from_sample`; `picture_size` is the side of
    the targets, pixels, that of the references' images if None.

    Raises:
        ValueError: People of another head model can only be tracked.
        FaceNotFoundError: With `prior="tracked"`: the tracker finds no face.
    """
    sample = training_sample(
        seed,
        template,
        image_size=picture_size or config.image_size,
        num_codes=num_codes,
        cameras_per_code=cameras_per_code,
        casual=casual,
        close_ups=close_ups,
        necks=details,
        ict_facekit=ict_facekit,
    )
    person = person_from_sample(sample, config.image_size, prior, template, details=details)
    return prepare_person(person, config, template)


def prepare_person(person: Person, config: Avat3rConfig, template: HeadTemplate) -> TrainingPerson:
    """Place the base guess and look up where its points truly go."""
    views = without_seams(person.views, config, template)
    base = build_base_guess(views, config, template)
    points = (person.surfaces.triangle_ids.flatten()[base.pixel_indices] >= 0).nonzero()[:, 0]
    pixels = base.pixel_indices[points]
    before = person.photographed_positions(pixels)
    true_codes = person.targets.codes
    changed = torch.ones(len(true_codes), dtype=torch.bool)
    changed[1:] = (true_codes[1:] != true_codes[:-1]).any(-1)
    first = changed.nonzero()[:, 0]
    return TrainingPerson(
        seed=person.seed,
        views=views,
        base=base,
        points=points,
        before=before,
        codes=person.driver_codes[first],
        moved=person.true_positions(pixels, true_codes[first]) - before,
        targets=person.targets,
        shown=changed.long().cumsum(0) - 1,
    )


@torch.no_grad()
def shared_pixels(one: TrainingPerson, motion: RigMotion | None) -> Bool[Tensor, "t 1 h w"]:
    """Pixels of the targets where there is nothing, or something near what the references show.

    References end at the neck's cut, and with them hair that hangs lower: no network can know it,
    and one that is asked for it learns to blow up what hangs there.
    """
    targets = one.targets
    shared = torch.ones_like(targets.masks, dtype=torch.bool)
    reach = round(SHARED_REACH * targets.masks.shape[-1])
    for row, code in enumerate(one.codes):
        shown = (one.shown == row).nonzero()[:, 0]
        gaussians = one.base.gaussians if motion is None else motion.gaussians(code)
        alpha = render_gaussians(gaussians, targets.cameras[shown]).alpha
        near = widened((alpha > 0.5).float(), reach)
        shared[shown] = (near > 0) | (targets.masks[shown] < SEEN_MASK)
    return shared


def on_device(value: Any, device: torch.device | str) -> Any:
    """Return the same person, or any nest of dataclasses, with all tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if not dataclasses.is_dataclass(value):
        return value
    moved = {field.name: on_device(getattr(value, field.name), device)
             for field in dataclasses.fields(value)}  # fmt: skip
    return dataclasses.replace(value, **moved)
