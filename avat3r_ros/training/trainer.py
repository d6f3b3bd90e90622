"""Training: steps with pictures, and cheaper ones with the positions of many expressions alone.

A run folder holds config.json, log.jsonl (one line of scalars every few steps), curves.png (their
course), checkpoint.pt (the newest complete state) and, in the end, network/ (averaged weights, for
`load_network`) and evaluation.json. Every choice is a function of (seed, step), so a resumed run
continues exactly.
"""

import contextlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from avat3r_ros.data.sampling import TRAINING_SEEDS
from avat3r_ros.files import whole_file, write_json
from avat3r_ros.model import Avat3r, load_network, save_network
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.config import TrainingConfig, learning_rate
from avat3r_ros.training.crowd import Crowd
from avat3r_ros.training.curves import RunLog, cut_log, draw_curves
from avat3r_ros.training.evaluation import evaluate_network
from avat3r_ros.training.metrics import finite_means
from avat3r_ros.training.steps import step_loss

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
LOG_EVERY = 20
MAX_BAD_STEPS = 10
"""Steps in a row with a loss or gradient that is not finite before a run gives up."""

_MAY_CHANGE = ("steps", "workers", "threads", "checkpoint_minutes", "evaluation_people",
               "people_folder", "tensorboard", "device", "precision")  # fmt: skip
"""Settings that a resumed run may have otherwise."""

PEOPLE_PER_SEED = 1_000_000
"""Runs with different seeds train on different people."""


def train(
    config: TrainingConfig,
    output: str | Path,
    *,
    resume: bool = False,
    template: HeadTemplate | None = None,
    stop_after: int | None = None,
) -> Path:
    """Train a network.

    Args:
        config: The run.
        output: Run folder; created. Without `resume` it must not hold a run yet.
        resume: Continue from the newest checkpoint, if there is one. The configuration must be that
            of the run; only `steps` may differ (the learning rate then follows the new length).
        template: Head template; the shipped one if None.
        stop_after: Leave after this many steps of this call, with a checkpoint.

    Returns:
        The folder of the trained network (`load_network` reads it), or of the run when stopped.

    Raises:
        ValueError: The folder holds another run, or a run although `resume` is off.
        RuntimeError: The loss stays non-finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the step under way was finished and a checkpoint left.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run = _Run(config, folder, template)
    if (folder / CHECKPOINT).is_file():
        if not resume:
            raise ValueError(f"{folder} holds a run already: resume it or name another folder")
        run.load()
    write_json(folder / "config.json", config.to_json())
    last = config.steps if stop_after is None else min(config.steps, run.step + stop_after)
    with (
        Crowd(
            config.network_config(),
            config.prior,
            size=config.crowd_size,
            steps_per_person=config.steps_per_person,
            people=config.people or None,
            folder=config.people_folder,
            first_seed=TRAINING_SEEDS.start + config.seed * PEOPLE_PER_SEED % 90_000_000,
            workers=0 if template is not None else config.workers,
            template=template,
            device=config.device,
            perturbation=config.perturbation,
        ) as crowd,
        _polite_end() as asked_to_end,
    ):
        run.advance(last, crowd, asked_to_end)
    if asked_to_end.is_set() and run.step < last:
        raise KeyboardInterrupt(f"stopped after step {run.step}; resume to continue")
    if run.step < config.steps:
        return folder
    return run.finish()


class _Run:
    """The state of a run: weights, their average, the optimiser, the step."""

    def __init__(self, config: TrainingConfig, folder: Path, template: HeadTemplate | None) -> None:
        self.config, self.folder = config, folder
        self.step, self._bad_steps = 0, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = Avat3r(config.network_config(), template)
        if config.start_from is not None:
            before = load_network(config.start_from, template=template)
            if before.config != self.network.config:
                raise ValueError(f"{config.start_from} holds weights of another network")
            self.network.load_state_dict(before.state_dict())
        self.network.block_dtype = getattr(torch, config.precision)
        self.network.to(config.device).train()
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config))
        self.average = {
            name: value.detach().clone() for name, value in self.network.state_dict().items()
        }

    def advance(self, last: int, crowd: Crowd, asked_to_end: threading.Event) -> None:
        """Train up to a step, with checkpoints and a log."""
        saved_at = time.monotonic()
        recent: list[dict[str, float]] = []
        progress = tqdm(
            total=self.config.steps, initial=self.step, desc="train", unit=" steps", smoothing=0.02
        )
        with progress, RunLog(self.folder, tensorboard=self.config.tensorboard) as log:
            while self.step < last and not asked_to_end.is_set():
                crowd.prepare(self.step)
                recent.append(self._one_step(crowd))
                self.step += 1
                progress.update()
                if self.step % LOG_EVERY == 0 or self.step == last:
                    names = sorted({name for scalars in recent for name in scalars})
                    means = finite_means(recent, names)
                    means = {name: round(mean, 5) for name, mean in means.items()}
                    log.write(self.step, means)
                    progress.set_postfix_str(
                        f"moving {means.get('moving_mm', math.nan):.2f} mm "
                        f"(base {means.get('base_moving_mm', math.nan):.2f})"
                    )
                    recent = []
                if time.monotonic() - saved_at > 60 * self.config.checkpoint_minutes:
                    self.save()
                    draw_curves(self.folder)
                    saved_at = time.monotonic()
        self.save()
        draw_curves(self.folder)

    def _one_step(self, crowd: Crowd) -> dict[str, float]:
        config = self.config
        rng = np.random.default_rng([config.seed, self.step])
        slots = rng.choice(config.crowd_size, config.people_per_step, replace=False)
        people = [crowd.person(int(slot), self.step) for slot in slots]
        rate = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative_rate"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))  # of what is left out in the network
            loss, scalars = step_loss(
                self.network,
                people,
                config.step,
                rng,
                with_pictures=bool(rng.random() >= config.geometry_share),
                perceptual=self.step >= config.perceptual_from * config.steps,
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            self._bad_steps += 1
            logger.warning("step %d: loss %s, gradient %s: left out", self.step, loss, norm)
            if self._bad_steps >= MAX_BAD_STEPS:
                raise RuntimeError(f"loss not finite in {MAX_BAD_STEPS} steps in a row")
            return {"bad": 1.0}
        self._bad_steps = 0
        self.optimizer.step()
        # The average follows faster in the beginning, or it would remember the start for long.
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return scalars | {"loss": float(loss.detach()), "gradient": float(norm), "rate": rate}

    def save(self) -> None:
        """Replace the checkpoint in one move."""
        state = {
            "step": self.step,
            "config": json.dumps(self.config.to_json()),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(self.folder / CHECKPOINT) as partial:
            torch.save(state, partial)

    def load(self) -> None:
        """Continue from the checkpoint."""
        state = torch.load(self.folder / CHECKPOINT, weights_only=True, map_location="cpu")
        theirs, ours = json.loads(state["config"]), json.loads(json.dumps(self.config.to_json()))
        different = sorted(
            key for key in ours
            if theirs.get(key) != ours[key] and key not in _MAY_CHANGE
        )  # fmt: skip
        if different:
            raise ValueError(f"{self.folder} holds a run with other settings of {different}")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average = {
            name: value.to(self.network.device) for name, value in state["average"].items()
        }
        self.optimizer.load_state_dict(state["optimizer"])
        cut_log(self.folder, self.step)

    def finish(self) -> Path:
        """Write the averaged network and its scores."""
        self.network.load_state_dict(self.average)
        self.network.to("cpu").eval()
        self.network.block_dtype = torch.float32
        if self.network.config.evidence_features:
            self.network.evidence_decoder.scale_changes(
                place=self.config.place_share, opacity=self.config.opacity_share
            )
        about: dict[str, Any] = {
            "training": self.config.to_json(),
            "steps": self.step,
            "data": "synthetic heads made on the fly (avat3r_ros.data)",
        }
        if self.config.evaluation_people:
            scores = evaluate_network(
                self.network, range(self.config.evaluation_people), prior=self.config.prior
            )
            about["evaluation"] = scores
            write_json(self.folder / "evaluation.json", scores)
        save_network(self.network, self.folder / "network", about=about)
        return self.folder / "network"


@contextlib.contextmanager
def _polite_end() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets: the step under way is finished, then a checkpoint.

    A second Ctrl-C ends at once.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parameter_groups(network: Avat3r, config: TrainingConfig) -> list[dict[str, Any]]:
    """Last layers and others, matrices (which decay) and the rest."""
    last = {id(p) for layer in network.output_layers() for p in layer.parameters()}
    groups = []
    for is_last in (False, True):
        for is_matrix in (False, True):
            groups.append(
                {
                    "params": [
                        p
                        for p in network.parameters()
                        if (id(p) in last) == is_last and (p.dim() > 1) == is_matrix
                    ],
                    "weight_decay": config.weight_decay * is_matrix,
                    "relative_rate": config.output_rate if is_last else 1.0,
                    "betas": (0.9, 0.98),
                }
            )
    return groups
