"""A small crowd that changes slowly: a few dozen people at hand, each replaced after a while.

Making a person takes seconds, a training step a fraction of one; so every person serves many steps.
Who is at hand at a step is a pure function of the step, so a resumed run sees the same people.
"""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context

import torch
from jaxtyping import Int
from torch import Tensor

from avat3r_ros.data.sampling import TRAINING_SEEDS, training_sample
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.references import Person, Prior, person_from_sample


@dataclass(frozen=True)
class TrainingPerson:
    """A person ready for training steps.

    Attributes:
        person: References and truth.
        base: Base guess of the references.
        points: Gaussians of the base guess whose pixel shows a true surface.
    """

    person: Person
    base: BaseGuess
    points: Int[Tensor, "p"]


def make_person(
    seed: int,
    config: Avat3rConfig,
    prior: Prior,
    template: HeadTemplate,
    *,
    num_codes: int = 4,
    cameras_per_code: int = 2,
) -> TrainingPerson:
    """Draw a person, make references of their photos, and place the base guess."""
    sample = training_sample(
        seed,
        template,
        image_size=config.image_size,
        num_codes=num_codes,
        cameras_per_code=cameras_per_code,
    )
    person = person_from_sample(sample, config.image_size, prior)
    base = build_base_guess(person.views, config, template)
    has_truth = person.surfaces.triangle_ids.flatten()[base.pixel_indices] >= 0
    return TrainingPerson(person, base, has_truth.nonzero()[:, 0])


class Crowd:
    """People at hand, by slot.

    Args:
        config: Of the network that is trained.
        prior: How references are made.
        size: People at hand at any time.
        steps_per_person: Steps after which a slot gets a new person.
        first_seed: Seed of the first person.
        workers: Processes that make people ahead of time; 0 makes them when they are needed.
        template: Head template; the shipped one if None. With workers it must be the shipped one.
    """

    def __init__(
        self,
        config: Avat3rConfig,
        prior: Prior,
        *,
        size: int,
        steps_per_person: int,
        first_seed: int = TRAINING_SEEDS.start,
        workers: int = 0,
        template: HeadTemplate | None = None,
    ) -> None:
        if size < 1 or steps_per_person < size:
            raise ValueError(
                f"expected 1 <= size <= steps_per_person, got {size} and {steps_per_person}"
            )
        if workers and template is not None:
            raise ValueError("workers load the shipped template; pass no other one")
        if first_seed not in TRAINING_SEEDS:
            raise ValueError(f"expected a training seed {TRAINING_SEEDS}, got {first_seed}")
        self._config, self._prior = config, prior
        self._size, self._steps = size, steps_per_person
        self._first_seed = first_seed
        self._template = template
        self._slots: dict[int, tuple[int, TrainingPerson]] = {}
        self._pending: dict[int, Future[TrainingPerson]] = {}
        self._pool = None
        if workers:
            self._pool = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_prepare_worker
            )

    def seed_of(self, slot: int, step: int) -> int:
        """Seed of the person in a slot at a step; slots change in turn, evenly spread."""
        if not 0 <= slot < self._size:
            raise ValueError(f"expected a slot in [0, {self._size}), got {slot}")
        generation = (step + slot * self._steps // self._size) // self._steps
        return self._first_seed + slot + generation * self._size

    def person(self, slot: int, step: int) -> TrainingPerson:
        """Return the person in a slot at a step; waits where they are not made yet."""
        seed = self.seed_of(slot, step)
        held = self._slots.get(slot)
        if held is not None and held[0] == seed:
            return held[1]
        pending = self._pending.pop(seed, None)
        made = self._make(seed) if pending is None else _sharing_template(pending.result())
        self._slots[slot] = (seed, made)
        return made

    def prepare(self, step: int) -> None:
        """Let the workers make the people who are needed now and next."""
        if self._pool is None:
            return
        ahead = max(1, 4 * self._steps // self._size)
        for at in (step, step + ahead):
            for slot in range(self._size):
                seed = self.seed_of(slot, at)
                held = self._slots.get(slot)
                if seed in self._pending or (held is not None and held[0] == seed):
                    continue
                self._pending[seed] = self._pool.submit(
                    _make_in_worker, seed, self._config, self._prior
                )

    def close(self) -> None:
        """Stop the workers; pending people are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make(self, seed: int) -> TrainingPerson:
        return make_person(seed, self._config, self._prior, self._template or HeadTemplate.load())


def _sharing_template(made: TrainingPerson) -> TrainingPerson:
    """A person from another process brings a template of their own; all should use one."""
    mesh = replace(made.person.mesh, template=_template())
    return replace(made, person=replace(made.person, mesh=mesh))


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    os.nice(5)


@lru_cache(maxsize=1)
def _template() -> HeadTemplate:
    return HeadTemplate.load()


def _make_in_worker(seed: int, config: Avat3rConfig, prior: Prior) -> TrainingPerson:
    return make_person(seed, config, prior, _template())
