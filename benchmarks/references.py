"""Do more photos make better heads? 3, 4 and 6 of the same six photos, on held-out drawn people.

    python benchmarks/references.py [--people 8] [--ict-facekit FILE --ict-people 4] [-o FOLDER]

Of a person's six photos the most frontal comes first, then always the one farthest from those
before, as frames of a video are chosen: so the three are among the four, and those among the six.
All avatars are scored on the same pictures at 512 x 512, PSNR inside the true mask and in the mask
widened by 8 pixels; drivers' codes are the tracker's. The four photos are also given in reverse
order: what that changes is told by the PSNR between the two avatars' pictures.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.data.sampling import TrainingSample, training_sample
from avat3r_ros.geometry import camera_direction
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.model import Avat3r, load_network
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.metrics import psnr, widened
from avat3r_ros.training.references import person_from_sample

COUNTS, MOST, CROP_PX, AROUND_PX = (3, 4, 6), 6, 256, 8
METHODS = ("base guess", "network")


def in_order_of_choice(sample: TrainingSample, tracker: FaceTracker) -> list[int]:
    """The most frontal photo, then always the farthest from those before, by tracked direction."""
    faces = [tracker.track(photo.image, 0.0) for photo in sample.photos]
    directions = np.stack([camera_direction(face.camera_from_head) for face in faces])
    order = [int(np.linalg.norm(directions, axis=1).argmin())]
    while len(order) < len(faces):
        gap = np.linalg.norm(directions[:, None] - directions[order], axis=-1).min(1)
        order.append(int(gap.argmax()))
    return order


@torch.no_grad()
def pictures(
    sample: TrainingSample, photos: list[int], network: Avat3r, template: HeadTemplate
) -> Iterator[tuple[str, Float[Tensor, "t 3 h w"], dict[str, float]]]:
    """By method: the avatar of some photos as the targets show it, and its scores, dB."""
    chosen = replace(sample, photos=[sample.photos[i] for i in photos])
    person = person_from_sample(chosen, CROP_PX, "tracked", template)
    prefix = network.encode(person.views)
    targets = person.targets
    around = widened((targets.masks > SEEN_MASK).float(), AROUND_PX)
    for method in METHODS:
        rows = []
        for row, code in enumerate(person.driver_codes):
            base = method == "base guess"
            head = prefix.base_gaussians(code) if base else network.decode(prefix, code)
            rows.append(render_gaussians(head, targets.cameras[row : row + 1]).rgb[0])
        seen = torch.stack(rows).clamp(0, 1)
        yield (
            method,
            seen,
            {
                "mask": float(psnr(seen, targets.images, targets.masks).mean()),
                "8 px around": float(psnr(seen, targets.images, around).mean()),
            },
        )


def scores_of(
    sample: TrainingSample, network: Avat3r, template: HeadTemplate, tracker: FaceTracker
) -> dict[str, dict[str, float]]:
    """Scores of one person: method and region -> number of photos, or order -> dB."""
    order = in_order_of_choice(sample, tracker)
    scores: dict[str, dict[str, float]] = {}
    four = {}
    for count in COUNTS:
        for method, seen, values in pictures(sample, order[:count], network, template):
            four[method] = seen if count == 4 else four.get(method)
            for region, value in values.items():
                scores.setdefault(f"{method}, {region}", {})[str(count)] = value
    for method, seen, values in pictures(sample, order[:4][::-1], network, template):
        for region, value in values.items():
            row = scores[f"{method}, {region}"]
            row["4 reversed"] = value
        scores[f"{method}, mask"]["reversed, same picture"] = float(psnr(seen, four[method]).mean())
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--start", type=int, default=100, help="first person's seed")
    parser.add_argument("--ict-facekit", help="file of the other head model")
    parser.add_argument("--ict-people", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, help="folder for references.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    print_machine(facts)
    template, network = HeadTemplate.load(), load_network("tiny")
    seeds = [(args.start + i, None) for i in range(args.people)]
    seeds += [
        (50_000 + i, args.ict_facekit) for i in range(args.ict_people * bool(args.ict_facekit))
    ]
    people = {}
    with FaceTracker(smoothing=None, max_faces=1, running_mode="image") as tracker:
        for seed, ict in seeds:
            sample = training_sample(
                seed, template, image_size=512, num_photos=MOST, num_codes=4, cameras_per_code=2,
                casual=ict is None, ict_facekit=ict,
            )  # fmt: skip
            people[seed] = scores_of(sample, network, template, tracker)
            for name, row in people[seed].items():
                print(seed, name, {key: round(value, 2) for key, value in row.items()}, flush=True)
    for name in next(iter(people.values())):
        rows = [person[name] for person in people.values()]
        means = {key: round(float(np.mean([row[key] for row in rows])), 2) for key in rows[0]}
        worse = {
            f"{few} to {many}": [
                seed for seed, person in people.items() if person[name][many] < person[name][few]
            ]
            for few, many in (("3", "4"), ("4", "6"), ("3", "6"))
        }
        print(name, means, "worse:", worse)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        figures = {"machine": facts, "people": people}
        (args.output / "references.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
