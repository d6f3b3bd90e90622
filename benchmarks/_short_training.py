"""Short trainings on a few people at hand, and how much of the motion is made; for benchmarks."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from avat3r_ros.model import Avat3r
from avat3r_ros.training.metrics import mean_distance_mm, moving_points
from avat3r_ros.training.people import TrainingPerson
from avat3r_ros.training.steps import StepConfig, step_loss

RATE, WARMUP_STEPS = 1e-3, 30


def train_shortly(
    network: Avat3r,
    people: Sequence[TrainingPerson],
    step: StepConfig,
    steps: int,
    geometry_share: float = 1.0,
) -> float:
    """Train on people in turn, one a step; returns processor seconds."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0)
    begun = time.process_time()
    for number in tqdm(range(steps), leave=False):
        rate = RATE * min(1.0, (number + 1) / WARMUP_STEPS) * (1 - 0.9 * number / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, _ = step_loss(
            network, [people[number % len(people)]], step, np.random.default_rng([0, number]),
            with_pictures=number >= geometry_share * steps,
        )  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.eval()
    return time.process_time() - begun


@torch.no_grad()
def motion(
    network: Avat3r, people: Sequence[TrainingPerson], rows: slice = slice(None)
) -> tuple[float, float, float]:
    """Millimetres of moving points, the same of the base guess, and the gain.

    The gain is the share of the true displacement between a person's expressions that is made: 1 is
    all of it, 0 a frozen face. A constant offset is no motion and does not count.
    """
    errors, of_base, along, whole = [], [], 0.0, 0.0
    for one in people:
        prefix = network.encode(one.views, base=one.base)
        codes, truth = one.codes[rows], one.before + one.moved[rows]
        means = network.decode_pixel_means(prefix, codes)[:, one.points]
        base = torch.stack([prefix.base_means(code)[one.points] for code in codes])
        moving = moving_points(truth, one.before)
        errors.append(float(mean_distance_mm(means, truth, moving)))
        of_base.append(float(mean_distance_mm(base, truth, moving)))
        made, true = (values - values.mean(0) for values in (means, truth))
        along += float((made * true).sum())
        whole += float((true * true).sum())
    return float(np.mean(errors)), float(np.mean(of_base)), along / whole
