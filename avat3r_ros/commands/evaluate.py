"""`avat3r evaluate`: weights on made-up people, or an avatar on photos it has not seen."""

import argparse
import logging
import pathlib
import time
from collections.abc import Iterator

import torch

from avat3r_ros import __version__
from avat3r_ros.commands import evaluate_photos
from avat3r_ros.data.sampling import ICT_SEEDS
from avat3r_ros.model import Avat3r, load_network, preset
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.evaluation import PersonResult, score_people
from avat3r_ros.training.people import TrainingPerson, make_person
from avat3r_ros.training.people_files import PeopleFolder
from avat3r_ros.training.references import FaceNotFoundError
from avat3r_ros.training.report import PAGE, text_table, write_report

logger = logging.getLogger(__name__)

QUICK_PEOPLE, QUICK_OPTIMISE_S = 3, 10.0
"""What `--quick` looks at: enough to see that nothing is broken, too few to rank weights by."""


def run(args: argparse.Namespace) -> int:
    """Evaluate on photos where some are given, else on made-up people."""
    if bool(args.references) != bool(args.targets):
        raise ValueError("expected both --references and --targets, or neither of them")
    if args.leave_one_out and (args.references or len(args.leave_one_out) < 3):
        raise ValueError(
            "expected at least 3 photos for --leave-one-out, and no --references and --targets"
        )
    if args.picture_size % 16 or args.picture_size < 64:
        raise ValueError(
            f"expected --picture-size to be a multiple of 16 from 64 on, got {args.picture_size}"
        )
    if args.references or args.leave_one_out:
        return evaluate_photos.run(args)
    return _on_people(args)


def _on_people(args: argparse.Namespace) -> int:
    """Write `report.html`, `scores.json` and `people.png` into the output folder."""
    if args.quick:
        args.people, args.optimise_seconds = QUICK_PEOPLE, QUICK_OPTIMISE_S
    if args.people < 1 or args.pictures < 0:
        raise ValueError(
            f"expected --people >= 1 and --pictures >= 0, got {args.people} and {args.pictures}"
        )
    torch.set_num_threads(1)  # tensors are small, and times of the optimisation can be compared
    template = HeadTemplate.load()
    if args.untrained:
        network = Avat3r(preset(args.preset), template).eval()
    else:
        network = load_network(args.preset, template=template)
    started = time.process_time()
    results: list[PersonResult] = []
    try:
        for result in score_people(
            network,
            _held_out(args, network, template),
            template,
            optimise_s=args.optimise_seconds,
            num_pictures=args.pictures,
        ):
            results.append(result)
    except KeyboardInterrupt:
        if not results:
            raise
        logger.warning("stopped: the report is of the %d people so far", len(results))
    if not results:
        raise ValueError(f"no face was found in the photos of any of {args.people} people")
    about = {
        "weights": "untrained" if args.untrained else args.preset,
        "people": _whom(args, len(results)),
        "pictures": f"{args.picture_size}x{args.picture_size} pixels",
        "references and codes": "as in use: photos and driver are tracked, the template is fitted",
        "optimised for": f"{args.optimise_seconds:g} s of processor time",
        "processor time": f"{time.process_time() - started:.0f} s",
        "avat3r": __version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    data = write_report(results, args.output, about)
    print(text_table(data["scores"]))
    print(f"look at {pathlib.Path(args.output) / PAGE}")
    return 0


def _whom(args: argparse.Namespace, found: int) -> str:
    others = _num_ict(args)
    own = f"{found} of the seeds 0 to {args.people - others - 1}, never trained on"
    if not others:
        return own
    return f"{own}, and {ICT_SEEDS.start} to {ICT_SEEDS[others - 1]} of ICT-FaceKit"


def _num_ict(args: argparse.Namespace) -> int:
    """A third of the people, where their head model is given."""
    return args.people // 3 if args.ict_facekit else 0


def _held_out(
    args: argparse.Namespace, network: Avat3r, template: HeadTemplate
) -> Iterator[TrainingPerson]:
    """People with the first held-out seeds; kept in a folder where one is given.

    A seed in whose photos the tracker finds no face is passed over, as no avatar could be built.
    """
    folder, others = args.people_folder, _num_ict(args)
    kept = (
        None
        if folder is None
        else PeopleFolder(folder, network.config, "tracked", picture_size=args.picture_size)
    )
    for seed in (*range(args.people - others), *ICT_SEEDS[:others]):
        if kept is not None and kept.path(seed).is_file():
            yield kept.load(seed)
            continue
        own = seed not in ICT_SEEDS
        try:
            one = make_person(
                seed,
                network.config,
                "tracked",
                template,
                casual=own,
                picture_size=args.picture_size,
                ict_facekit=None if own else args.ict_facekit,
                details=True,
            )
        except FaceNotFoundError as error:
            logger.warning("person %d is left out: %s", seed, error)
            continue
        if kept is not None:
            kept.save(one)
        yield one
