"""A small crowd that changes slowly: a few dozen people at hand, each replaced after a while.

Making a person takes seconds, a training step a fraction of one; so every person serves many steps.
Who is at hand at a step is a pure function of the step, so a resumed run sees the same people.
"""

import logging
import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from avat3r_ros.data.sampling import TRAINING_SEEDS
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.model.evidence import cross_view_evidence
from avat3r_ros.model.inputs import shown_patches
from avat3r_ros.model.outlines import within_outlines
from avat3r_ros.model.prefix import make_motion
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.people import TrainingPerson, make_person, on_device, shared_pixels
from avat3r_ros.training.people_files import PeopleFolder
from avat3r_ros.training.perturb import Perturbation, perturbed
from avat3r_ros.training.references import FaceNotFoundError, Prior

logger = logging.getLogger(__name__)

EXPRESSIONS = 6
"""Of each person; their blends are looked at, too. More people are worth more than more of them."""

CAMERAS = 3
"""Of each expression: the driver's, and two that look closely."""

_STAND_INS, _ATTEMPTS = 500_000, 5
"""A person whose face the tracker does not find is replaced by the one so many seeds further."""


class Crowd:
    """People at hand, by slot.

    Args:
        config: Of the network that is trained.
        prior: How references are made.
        size: People at hand at any time.
        steps_per_person: Steps after which a slot gets another person.
        people: Different people altogether; then the first come again. Endless if None.
        first_seed: Seed of the first person.
        folder: Where people are kept once they are made; they are not kept if None.
        workers: Processes that make people ahead of time; 0 makes them when they are needed.
        template: Head template; the shipped one if None. With workers it must be the shipped one.
        device: Where the people at hand are.
        perturbation: How some people's references are disturbed.
    """

    def __init__(
        self,
        config: Avat3rConfig,
        prior: Prior,
        *,
        size: int,
        steps_per_person: int,
        people: int | None = None,
        first_seed: int = TRAINING_SEEDS.start,
        folder: str | Path | None = None,
        workers: int = 0,
        template: HeadTemplate | None = None,
        device: str = "cpu",
        perturbation: Perturbation | None = None,
    ) -> None:
        if size < 1 or steps_per_person < size:
            raise ValueError(
                f"expected 1 <= size <= steps_per_person, got {size} and {steps_per_person}"
            )
        if people is not None and people < size:
            raise ValueError(f"expected at least as many people as slots ({size}), got {people}")
        if workers and template is not None:
            raise ValueError("workers load the shipped template; pass no other one")
        if first_seed not in TRAINING_SEEDS:
            raise ValueError(f"expected a training seed {TRAINING_SEEDS}, got {first_seed}")
        self._config, self._prior, self._device = config, prior, device
        self._perturbation = perturbation or Perturbation()
        self._size, self._steps, self._people = size, steps_per_person, people
        self._first_seed = first_seed
        self._folder = None if folder is None else PeopleFolder(folder, config, prior)
        self._template = template or HeadTemplate.load()
        self._slots: dict[int, tuple[int, TrainingPerson]] = {}
        self._pending: dict[int, Future[TrainingPerson | None]] = {}
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
        number = slot + generation * self._size
        return self._first_seed + (number if self._people is None else number % self._people)

    def person(self, slot: int, step: int) -> TrainingPerson:
        """Return the person in a slot at a step; waits where they are not made yet."""
        seed = self.seed_of(slot, step)
        held = self._slots.get(slot)
        if held is not None and held[0] == seed:
            return held[1]
        one = self._at_hand(self._made(seed))
        self._slots[slot] = (seed, one)
        return one

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
                if self._folder is None or not self._folder.path(seed).is_file():
                    self._pending[seed] = self._pool.submit(
                        _make_in_worker, seed, self._config, self._prior, self._folder
                    )

    def close(self) -> None:
        """Stop the workers; pending people are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _made(self, seed: int) -> TrainingPerson:
        folder, pending = self._folder, self._pending.pop(seed, None)
        if folder is not None and folder.path(seed).is_file():
            return folder.load(seed)
        if pending is None or pending.cancel():  # the others in the queue are not waited for
            one = _make_somebody(seed, self._config, self._prior, self._template, folder)
        else:
            one = pending.result()
        # What is read back is rounded; a run that starts with a full folder shall be the same.
        return one if folder is None else folder.load(seed)

    def _at_hand(self, one: TrainingPerson) -> TrainingPerson:
        config = self._config
        rng = np.random.default_rng([one.seed, 0xD15])
        if rng.random() < self._perturbation.share:
            one = perturbed(one, self._perturbation, rng)
            motion = make_motion(one.base, one.views.identity, self._template, config)
            if motion is not None and config.position_skip:  # as in the base guesses of use
                base = within_outlines(one.base, motion, one.views, self._template)
                one = replace(one, base=base)
        one = on_device(one, self._device)
        motion = make_motion(one.base, one.views.identity, self._template, config)
        evidence = None
        if config.evidence_features:
            evidence = cross_view_evidence(one.views, one.base, motion, self._template).to(
                torch.float16
            )
        return replace(
            one,
            motion=motion,
            patches=shown_patches(one.views, config) if config.has_tokens else None,
            evidence=evidence,
            shared=shared_pixels(one, motion),
        )


def _make_somebody(
    seed: int,
    config: Avat3rConfig,
    prior: Prior,
    template: HeadTemplate,
    folder: PeopleFolder | None,
) -> TrainingPerson:
    """Make and keep a person; where the tracker finds no face, another takes the place."""
    for attempt in range(_ATTEMPTS):
        try:
            one = make_person(
                seed + attempt * _STAND_INS,
                config,
                prior,
                template,
                num_codes=EXPRESSIONS,
                cameras_per_code=CAMERAS,
                casual=True,
                close_ups=True,
            )
            one = replace(one, seed=seed)
            if folder is not None:
                folder.save(one)
            return one
        except FaceNotFoundError as error:
            logger.warning("%s: somebody else stands in", error)
    raise FaceNotFoundError(f"no face found in photos of {_ATTEMPTS} people from seed {seed} on")


def _prepare_worker() -> None:
    # Ctrl-C reaches the whole group: the trainer ends politely, and then its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.nice(5)


def _make_in_worker(
    seed: int, config: Avat3rConfig, prior: Prior, folder: PeopleFolder | None
) -> TrainingPerson | None:
    """Without a folder the person comes back through the pipe."""
    one = _make_somebody(seed, config, prior, HeadTemplate.load(), folder)
    return one if folder is None else None
