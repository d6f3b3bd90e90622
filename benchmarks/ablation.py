"""What each part of the design is worth: the same short training with one thing changed at a time.

    python benchmarks/ablation.py --steps 200 --people 12 --held-out 4     # the budget of each row
    python benchmarks/ablation.py --only skip --steps 2000 --people 64     # rows by their name

The first row is the paper's way (motion through cross-attention alone, position maps, references at
different time steps, both skips), at the sizes of `tiny` with 128x128 references. Sapiens features
(S) have no row: their weights are not here. All rows are scored on the same held-out people, whose
photos show different expressions. One seed: differences of a few hundredths of a decibel say
nothing, and small budgets favour what is easy to learn over what is good in the end.
"""

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from _machine import machine, print_machine
from _short_training import motion, train_shortly

from avat3r_ros.data.sampling import HELD_OUT_SEEDS, TRAINING_SEEDS, training_sample
from avat3r_ros.model import Avat3r, Avat3rConfig, preset
from avat3r_ros.model.inputs import shown_patches
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.metrics import psnr, ssim
from avat3r_ros.training.people import TrainingPerson, prepare_person
from avat3r_ros.training.references import Person, person_from_sample
from avat3r_ros.training.steps import StepConfig

PAPER = replace(
    preset("mini"), image_size=128, motion_prior="none", condition_on_reference_codes=False,
    condition_on_identity=False,
)  # fmt: skip
STEP = StepConfig(points=1500, codes=4, views=4)


@dataclass(frozen=True)
class Row:
    """What differs from the first row: fields of the configuration, or the photos trained on.

    A heavy row takes a hundred times as long as the others on a CPU and is left out unless asked.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    one_expression: bool = False
    heavy: bool = False

    def config(self) -> Avat3rConfig:
        """Return the row's network."""
        return replace(PAPER, **self.changes)


ROWS = {
    "the paper's way (D, T)": Row(),
    "without position maps as input (D)": Row({"use_position_maps": False}),
    "without random time steps (T)": Row(one_expression=True),
    "without position skip": Row({"position_skip": False}),
    "without position maps at all": Row({"position_skip": False, "use_position_maps": False}),
    "without colour skip": Row({"color_skip": False}),
    "told the references' codes": Row({"condition_on_reference_codes": True}),
    "... but without random time steps": Row(
        {"condition_on_reference_codes": True}, one_expression=True
    ),
    "told them, and a bilinear basis": Row(
        {"condition_on_reference_codes": True, "expression_basis": 8}
    ),
    "interleaved attention": Row({"layout": "interleaved", "cross_attention_layers": 4}),
    "patches of 8": Row({"patch_size": 8}),
    "patches of 32": Row({"patch_size": 32}),
    "decoder per token (linear)": Row({"upsampler": "linear"}),
    "decoder by upsampling (GRM)": Row({"upsampler": "grm", "upsampler_window": 1024}, heavy=True),
    "moved by the template": Row(
        {"motion_prior": "template", "condition_on_reference_codes": True}
    ),
}


def prepared(people: list[Person], config: Avat3rConfig, template: HeadTemplate) -> list:
    """The same people for another configuration."""
    ready = [prepare_person(one, config, template) for one in people]
    return [replace(one, patches=shown_patches(one.views, config)) for one in ready]


@torch.no_grad()
def picture_scores(network: Avat3r, people: list[TrainingPerson]) -> tuple[float, float]:
    """PSNR in the head and SSIM, means over people and pictures."""
    values = []
    for one in people:
        prefix = network.encode(one.views, base=one.base)
        for row, code in enumerate(one.codes):
            shown = (one.shown == row).nonzero()[:, 0]
            rgb = render_gaussians(network.decode(prefix, code), one.targets.cameras[shown]).rgb
            truth, masks = one.targets.images[shown], one.targets.masks[shown]
            rgb = rgb.clamp(0, 1)
            values.append(torch.stack([psnr(rgb, truth, masks), ssim(rgb, truth, masks)], -1))
    mean = torch.cat(values).mean(0)
    return float(mean[0]), float(mean[1])


def main() -> None:
    """Train and score all rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="of each row")
    parser.add_argument("--people", type=int, default=12, help="trained on")
    parser.add_argument("--held-out", type=int, default=4, help="scored on")
    parser.add_argument("--geometry-share", type=float, default=0.7, help="the rest has pictures")
    parser.add_argument("--prior", default="exact", choices=("tracked", "fitted", "exact"))
    parser.add_argument("--seed", type=int, default=0, help="of the weights at the start")
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--heavy", action="store_true", help="rows for a GPU as well (GRM)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    print_machine(facts)
    template = HeadTemplate.load()
    rows = {
        name: row
        for name, row in ROWS.items()
        if (args.only is None or args.only in name) and (args.heavy or not row.heavy)
    }
    if not rows:
        parser.error(f"no row has {args.only!r} in its name (heavy ones need --heavy)")

    def drawn(first: int, count: int, one_expression: bool = False) -> list[Person]:
        return [
            person_from_sample(
                training_sample(
                    seed, template, image_size=PAPER.image_size, num_codes=6,
                    one_expression=one_expression,
                ),
                PAPER.image_size, args.prior, template,
            )
            for seed in range(first, first + count)
        ]  # fmt: skip

    held_out = drawn(HELD_OUT_SEEDS.start, args.held_out)
    trained_on = {
        shared: drawn(TRAINING_SEEDS.start, args.people, shared)
        for shared in sorted({row.one_expression for row in rows.values()})
    }
    print(
        f"{args.people} people, {args.steps} steps, references: {args.prior}; scored on "
        f"{args.held_out} others\n{'':36} seconds   PSNR   SSIM  moving mm  (untrained)   gain"
    )
    table = {}
    for name, row in rows.items():
        config = row.config()
        torch.manual_seed(args.seed)
        network = Avat3r(config, template)
        seconds = train_shortly(
            network, prepared(trained_on[row.one_expression], config, template), STEP, args.steps,
            args.geometry_share,
        )  # fmt: skip
        people = prepared(held_out, config, template)
        decibels, similarity = picture_scores(network, people)
        moving, untrained, gain = motion(network, people)
        table[name] = {
            "seconds": seconds, "psnr": decibels, "ssim": similarity, "moving_mm": moving,
            "untrained_moving_mm": untrained, "gain": gain,
        }  # fmt: skip
        print(
            f"{name:36} {seconds:7.0f}  {decibels:5.2f}  {similarity:.3f}  {moving:9.2f}  "
            f"{untrained:11.2f}  {gain:5.2f}",
            flush=True,
        )
        if args.json:
            about = {"machine": facts, "budget": vars(args) | {"json": None}, "rows": table}
            args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
