r"""Train a preset on a GPU for a given time; resumable, with held-out scores before and after.

    python benchmarks/cuda/train.py -o runs/small --steps 20000 --minutes 9
    python benchmarks/cuda/train.py -o runs/small --steps 20000 --minutes 9    # goes on from there
    python benchmarks/cuda/train.py -o runs/small --steps 8000                 # ends it: weights
    python benchmarks/cuda/train.py -o runs/trial --preset debug --device cpu --steps 6 \
        --people 4 --crowd 2 --prior fitted --workers 0 --evaluate 1    # a trial

People are made on the machine by its processor cores; `--crowd` of them lie on the card at a time.
The run ends at `--steps`, or leaves a checkpoint when the time is over: call it again then. Fewer
steps than are done end the run at once. The finished network is RUN/network, and RUN/weights in
half precision, as weights are shipped; `avat3r evaluate --preset RUN/weights` scores them in full.
Geometry needs no rasterizer; steps with pictures need gsplat (see parity.py for its first use).
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from _machine import machine, print_machine  # noqa: E402
from _timing import RESULTS, chosen_device, write_result  # noqa: E402

from avat3r_ros.model import Avat3r, load_network, preset, save_network  # noqa: E402
from avat3r_ros.training.config import TrainingConfig  # noqa: E402
from avat3r_ros.training.curves import read_log  # noqa: E402
from avat3r_ros.training.evaluation import evaluate_network  # noqa: E402
from avat3r_ros.training.steps import StepConfig  # noqa: E402
from avat3r_ros.training.trainer import train  # noqa: E402

METHODS = ("network", "base guess")


def run_config(args: argparse.Namespace) -> TrainingConfig:
    """What is trained: larger batches and more people at hand than a CPU could bear."""
    return TrainingConfig(
        preset=args.preset,
        steps=args.steps,
        seed=args.seed,
        prior=args.prior,
        geometry_share=args.geometry_share,
        people_per_step=args.batch,
        start_from=args.start_from,
        people=args.people,
        people_folder=args.people_folder,
        crowd_size=args.crowd,
        steps_per_person=max(args.steps_per_person, args.crowd),
        workers=args.workers,
        learning_rate=args.learning_rate,
        checkpoint_minutes=2.0,
        evaluation_people=0,
        device=args.device,
        precision="bfloat16" if args.device.startswith("cuda") else "float32",
        step=StepConfig(points=args.points, codes=args.codes, views=4),
    )


def scores(network: Avat3r, args: argparse.Namespace) -> dict[str, Any]:
    """Held-out means of the network and the base guess."""
    table = evaluate_network(network, range(args.evaluate), prior=args.prior)
    return {"people": table["people"]} | {name: table[name] for name in METHODS}


def main() -> None:
    """Train, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="run folder")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, help="leave with a checkpoint after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", help="preset or checkpoint folder")
    parser.add_argument("--prior", default="tracked", choices=("tracked", "fitted", "exact"))
    parser.add_argument("--geometry-share", type=float, default=0.7)
    parser.add_argument("--batch", type=int, help="people per step; 4, or as many as there are")
    parser.add_argument("--points", type=int, default=8000)
    parser.add_argument("--codes", type=int, default=4)
    parser.add_argument("--people", type=int, default=0, help="0 never shows anybody twice")
    parser.add_argument("--people-folder", help="20 MB each; without it they are made anew")
    parser.add_argument("--crowd", type=int, default=128, help="people on the card")
    parser.add_argument("--steps-per-person", type=int, default=512)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--evaluate", type=int, default=8, help="held-out people, before and after")
    parser.add_argument("--json", type=Path, default=RESULTS / "train.json")
    args = parser.parse_args()
    args.batch = args.batch or min(4, args.crowd)
    device = chosen_device(parser, args.device, "the trial in the head of this file")
    facts = machine()
    print_machine(facts)
    config = run_config(args)
    if args.minutes is not None:
        # The trainer takes SIGTERM as the wish to finish the step and leave a checkpoint.
        timer = threading.Timer(60 * args.minutes, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False  # positions are metres to a tenth of a mm
    done_before = next((line["step"] for line in reversed(read_log(args.output))), 0)
    started_s = time.perf_counter()
    try:
        network_folder = train(config, args.output, resume=True)
    except KeyboardInterrupt as stopped:
        print(stopped)
        network_folder = None
    seconds = time.perf_counter() - started_s
    log = read_log(args.output)
    last = log[-1]["step"] if log else 0
    result: dict[str, Any] = {
        "machine": facts,
        "training": config.to_json(),
        "steps_done": last,
        "seconds": seconds,
        "steps_per_second": max(last - done_before, 0) / seconds,
        "last_log": log[-1] if log else {},
    }
    if device.type == "cuda":
        result["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    if network_folder is not None:
        about = json.loads((network_folder / "config.json").read_text())["about"]
        weights = args.output / "weights"
        save_network(load_network(network_folder), weights, dtype="float16", about=about)
        if args.evaluate:
            untrained = args.start_from is None
            before = Avat3r(preset(args.preset)).eval() if untrained else args.start_from
            result["before"], result["after"] = (
                scores(network if isinstance(network, Avat3r) else load_network(network), args)
                for network in (before, weights)
            )
    write_result(result, args.json)


if __name__ == "__main__":
    main()
