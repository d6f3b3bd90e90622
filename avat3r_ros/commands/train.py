"""`avat3r train`: a preset on synthetic heads made on the fly."""

import argparse

from avat3r_ros.training.config import TrainingConfig
from avat3r_ros.training.trainer import train


def run(args: argparse.Namespace) -> int:
    """Train or resume; the run folder holds config, log and checkpoints."""
    config = TrainingConfig(
        preset=args.preset,
        steps=args.steps,
        seed=args.seed,
        people=args.people,
        crowd_size=min(args.people or TrainingConfig.crowd_size, TrainingConfig.crowd_size),
        people_folder=args.people_folder,
        start_from=args.start_from,
        workers=args.workers,
        tensorboard=args.tensorboard,
        device=args.device,
        precision=args.precision,
    )
    checkpoint = train(config, args.output, resume=args.resume)
    print(f"{checkpoint}: trained to step {args.steps}")
    return 0
