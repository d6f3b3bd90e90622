"""Can cross-attention alone learn to animate? A few people by heart, without the template's motion.

    python benchmarks/overfit.py [--people 4] [--steps 400] [--json FILE]

Exact references and codes: nothing is wrong but the expression, so all there is to learn is motion.
Each row is a network trained on the same people with geometry alone, and what it then does in
expressions of these people that it was trained on and in others that it was not:

    moving mm   distance of points that truly move from where they should be
    gain        share of the true displacement that is made (1: all, 0: a frozen face)
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from _machine import machine, print_machine
from _short_training import motion, train_shortly

from avat3r_ros.data.sampling import TRAINING_SEEDS
from avat3r_ros.model import Avat3r, Avat3rConfig, preset
from avat3r_ros.model.inputs import shown_patches
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.people import make_person
from avat3r_ros.training.steps import StepConfig

CONFIG = replace(preset("mini"), image_size=128, motion_prior="none", condition_on_identity=False)
PAPER = replace(CONFIG, condition_on_reference_codes=False)
STEP = StepConfig(points=1500, codes=4, views=4)
OTHERS = 4
"""Expressions of each person that are not trained on."""


@dataclass(frozen=True)
class Variant:
    """A row: a network, and whether its expression encoder starts as PyTorch would start it."""

    config: Avat3rConfig
    default_start: bool = False


VARIANTS = {
    "cross-attention, code and difference to the photo's": Variant(CONFIG),
    "the same, PyTorch's start": Variant(CONFIG, default_start=True),
    "cross-attention, code alone (paper)": Variant(PAPER),
    "the same, PyTorch's start ": Variant(PAPER, default_start=True),
    "the same, PyTorch's start, patches decoded linearly": Variant(
        replace(PAPER, upsampler="linear"), default_start=True
    ),
    "bilinear basis beside it": Variant(replace(CONFIG, expression_basis=8)),
}


def started(variant: Variant, template: HeadTemplate) -> Avat3r:
    """Draw a network from a fixed seed."""
    torch.manual_seed(0)
    network = Avat3r(variant.config, template)
    if variant.default_start:
        for layer in network.expression_path.expression_encoder.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()
    return network


@torch.no_grad()
def hearing(network: Avat3r, codes: torch.Tensor) -> float:
    """Spread of the expression tokens over expressions, relative to their size."""
    if network.config.condition_on_reference_codes:
        codes = torch.cat([codes, codes - codes.roll(1, 0)], -1)
    tokens = network.expression_path.expression_encoder(codes)
    return float((tokens - tokens.mean(0)).norm() / tokens.norm())


def main() -> None:
    """Train all variants on the same people and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--expressions", type=int, default=8, help="of each person, trained on")
    parser.add_argument("--only", help="variants whose name contains this")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    print_machine(facts)
    template = HeadTemplate.load()
    people, count = [], args.expressions
    for number in range(args.people):
        one = make_person(
            TRAINING_SEEDS.start + number,
            CONFIG,
            "exact",
            template,
            num_codes=args.expressions + OTHERS,
            cameras_per_code=1,
        )
        people.append(replace(one, patches=shown_patches(one.views, CONFIG)))
    known = [replace(one, codes=one.codes[:count], moved=one.moved[:count]) for one in people]
    table = {}
    print(
        f"{args.people} people, {count} expressions of each, {args.steps} steps\n{'':52} heard  "
        "seconds  trained: mm  gain   others: mm  gain"
    )
    for name, variant in VARIANTS.items():
        if args.only and args.only not in name:
            continue
        network = started(variant, template)
        heard = hearing(network, people[0].codes)
        seconds = train_shortly(network, known, STEP, args.steps)
        trained = motion(network, people, slice(0, count))
        others = motion(network, people, slice(count, None))
        table[name] = {
            "heard": heard, "seconds": seconds, "trained_mm": trained[0],
            "trained_frozen_mm": trained[1], "trained_gain": trained[2], "others_mm": others[0],
            "others_frozen_mm": others[1], "others_gain": others[2],
        }  # fmt: skip
        print(
            f"{name:52} {heard:5.3f}  {seconds:7.0f}  {trained[0]:11.2f} {trained[2]:5.2f}   "
            f"{others[0]:10.2f} {others[2]:5.2f}"
        )
        sys.stdout.flush()
    print(f"{'frozen':52} {'':5}  {'':7}  {trained[1]:11.2f} {0:5.2f}   {others[1]:10.2f} {0:5.2f}")
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
