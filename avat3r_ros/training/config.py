"""What a training run is, and how fast it learns."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from avat3r_ros.model import Avat3rConfig, preset
from avat3r_ros.training.perturb import Perturbation
from avat3r_ros.training.references import Prior
from avat3r_ros.training.steps import StepConfig


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        preset: Network preset; `network` overrides it.
        steps: Optimiser steps.
        seed: Of weights, people and all choices.
        prior: "tracked": references and codes as in use; "fitted": references with imitated errors,
            true codes; "exact": no errors (references.py).
        geometry_share: Share of the steps that look at positions alone, without pictures.
        perceptual_from: Share of the steps before the perceptual term joins; 1 leaves it out.
        people_per_step: People averaged over in a step; more: less noise, slower.
        start_from: Preset or checkpoint folder whose weights are trained on; None draws them from
            the seed.
        people: Different people altogether; more: generalises better, and each takes seconds to
            make. 0 never shows anybody twice.
        people_folder: Where people are kept between runs, 25 MB each; nowhere if None.
        crowd_size: People at hand at any time.
        steps_per_person: Steps until a person is replaced; at least `crowd_size`.
        workers: Processes that make people ahead of time.
        learning_rate: At the end of warm-up; falls to a twentieth along a cosine.
        output_rate: Learning rate of the layers that start at zero, relative to the others'.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Of AdamW, on matrices only.
        clip_norm: Largest norm of the gradient.
        place_share: What is kept of the learned changes of place when the run is done: those of
            people it knows are too large for others, and cost most where faces move
            (docs/experiments.md).
        opacity_share: The same for opacities. What rims of drawn hair gain by them is little, and
            real hair loses more.
        ema: Decay per step of the averaged weights; larger averages over more steps.
        checkpoint_minutes: Time between checkpoints.
        evaluation_people: Held-out people scored in the end; 0 scores none.
        threads: Threads of torch; None leaves them as they are.
        device: Of torch; pictures on "cuda" need gsplat.
        precision: Of the transformer blocks: "bfloat16" is faster where the device multiplies it
            faster (GPUs); weights, positions and losses are float32 in any case.
        tensorboard: Also write TensorBoard events.
        step: What a step looks at.
        perturbation: How some people's references are disturbed.
        network: Configuration of the network; the preset's if None.
    """

    preset: str = "tiny"
    steps: int = 20_000
    seed: int = 0
    prior: Prior = "tracked"
    geometry_share: float = 0.3
    perceptual_from: float = 0.3
    people_per_step: int = 1
    start_from: str | None = None
    people: int = 256
    people_folder: str | None = None
    crowd_size: int = 100
    steps_per_person: int = 1024
    workers: int = 1
    learning_rate: float = 2e-3
    output_rate: float = 1.0
    warmup_steps: int = 50
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    place_share: float = 0.15
    opacity_share: float = 0.0
    ema: float = 0.998
    checkpoint_minutes: float = 5.0
    evaluation_people: int = 8
    threads: int | None = None
    device: str = "cpu"
    precision: str = "float32"
    tensorboard: bool = False
    step: StepConfig = StepConfig()
    perturbation: Perturbation = Perturbation()
    network: Avat3rConfig | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.people_per_step < 1 or self.seed < 0:
            raise ValueError(
                f"expected steps >= 1, people_per_step >= 1 and seed >= 0, got {self.steps}, "
                f"{self.people_per_step} and {self.seed}"
            )
        if not self.people_per_step <= self.crowd_size <= self.steps_per_person:
            raise ValueError(
                "expected people_per_step <= crowd_size <= steps_per_person, got "
                f"{self.people_per_step}, {self.crowd_size} and {self.steps_per_person}"
            )
        for name in ("geometry_share", "perceptual_from", "place_share", "opacity_share", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} in [0, 1], got {getattr(self, name)}")
        if self.people and self.people < self.crowd_size:
            raise ValueError(f"expected 0 or at least crowd_size people, got {self.people}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"expected precision float32 or bfloat16, got {self.precision!r}")
        for name in ("learning_rate", "output_rate", "clip_norm", "checkpoint_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)}")

    def network_config(self) -> Avat3rConfig:
        """Configuration of the network that is trained."""
        return preset(self.preset) if self.network is None else self.network

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, the network's configuration spelled out."""
        return dataclasses.asdict(self) | {"network": self.network_config().to_json()}


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Warm-up, then a cosine down to a twentieth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
