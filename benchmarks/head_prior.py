"""Trained network against base guess, frozen face and coloured cloud, on people never trained on.

    python benchmarks/head_prior.py [--weights tiny] [--people 16] [--output out/head_prior]
        [--people-folder DIR] [--pictures 6] [--json FILE]

References, cameras and driving codes are made as in use: the tracker reads photos and driver, the
template is fitted. Writes scores.json and people.png: references, and for several expressions seen
from unseen cameras the truth, the network and the base guess.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros.model import Avat3r, load_network
from avat3r_ros.pictures import contact_sheet, uint8_image, write_png
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.evaluation import METHODS, SCORES, score_people
from avat3r_ros.training.people import TrainingPerson, make_person
from avat3r_ros.training.people_files import PeopleFolder

PICTURE_PX = 192
EXPRESSIONS_SHOWN = 6


def held_out_people(
    count: int, network: Avat3r, folder: str | None, template: HeadTemplate
) -> Iterator[TrainingPerson]:
    """People with the first held-out seeds; kept in a folder where one is given."""
    kept = None if folder is None else PeopleFolder(folder, network.config, "tracked")
    for seed in range(count):
        if kept is not None and kept.path(seed).is_file():
            yield kept.load(seed)
            continue
        one = make_person(seed, network.config, "tracked", template)
        if kept is not None:
            kept.save(one)
        yield one


@torch.no_grad()
def picture_rows(network: Avat3r, one: TrainingPerson) -> list[tuple[str, list[np.ndarray]]]:
    """References, truth, network and base guess of one person."""
    prefix = network.encode(one.views, base=one.base)
    # The last picture of an expression is from an unseen side, the first from the driver's camera.
    last = [int((one.shown == row).nonzero()[-1]) for row in range(len(one.codes))]
    rows: dict[str, list[np.ndarray]] = {"truth": [], "network": [], "base guess": []}
    for picture in last[:EXPRESSIONS_SHOWN]:
        code, camera = one.codes[one.shown[picture]], one.targets.cameras[picture : picture + 1]
        drawn = {
            "truth": one.targets.images[picture],
            "network": render_gaussians(network.decode(prefix, code), camera).rgb[0],
            "base guess": render_gaussians(prefix.base_gaussians(code), camera).rgb[0],
        }
        for name, image in drawn.items():
            rows[name].append(uint8_image(image.clamp(0, 1).numpy()))
    references = [uint8_image(image.numpy()) for image in one.views.images]
    return [(f"person {one.seed}: references", references), *rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="tiny", help="preset or checkpoint folder")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--people-folder", help="keep the people here, 25 MB each")
    parser.add_argument("--pictures", type=int, default=6, help="people in the picture")
    parser.add_argument("--output", default="out/head_prior")
    parser.add_argument("--json", help="also write the scores here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    template = HeadTemplate.load()
    network = load_network(args.weights, template=template)
    started = time.process_time()
    people = held_out_people(args.people, network, args.people_folder, template)
    rows: list[tuple[str, list[np.ndarray]]] = []

    def watched() -> Iterator[TrainingPerson]:
        for number, one in enumerate(people):
            if number < args.pictures:
                rows.extend(picture_rows(network, one))
            yield one

    scores = score_people(network, watched(), template)
    facts = machine()
    print_machine(facts)
    print(f"{args.people} held-out people, {time.process_time() - started:.0f} s of processor time")
    print(f"{'':16}" + "".join(f"{name:>12}" for name in SCORES))
    for method in METHODS:
        values = "".join(f"{scores[method].get(name, float('nan')):12.3f}" for name in SCORES)
        print(f"{method:16}{values}")
    text = json.dumps({"machine": facts, "weights": args.weights, "scores": scores}, indent=2)
    for path in filter(None, (folder / "scores.json", args.json)):
        Path(path).write_text(text + "\n")
    if rows:
        write_png(contact_sheet(rows, PICTURE_PX), folder / "people.png")
        print(f"look at {folder / 'people.png'}")


if __name__ == "__main__":
    main()
