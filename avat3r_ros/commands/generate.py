"""`avat3r generate`: a look at the synthetic heads that training draws on."""

import argparse

import numpy as np
from tqdm import tqdm

from avat3r_ros.commands._arguments import head_camera, output_path
from avat3r_ros.data.expressions import random_code
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.pictures import contact_sheet, uint8_image, write_png
from avat3r_ros.rig import HeadTemplate


def run(args: argparse.Namespace) -> int:
    """Draw `count` people: neutral, then one random expression and viewpoint each."""
    output = output_path(args.output, ".png")
    if not 1 <= args.count <= 256:
        raise ValueError(f"expected --count from 1 to 256, got {args.count}")
    template = HeadTemplate.load()
    rows, columns = [], 8
    for start in tqdm(range(0, args.count, columns), desc="heads", unit=" rows"):
        neutral, posed = [], []
        for seed in range(args.seed + start, args.seed + min(start + columns, args.count)):
            head = SyntheticHead(seed, template)
            rng = np.random.default_rng(seed)
            front = head_camera(0.0, 0.0, 0.6, args.size)[0]
            turned = head_camera(rng.uniform(-0.6, 0.6), rng.uniform(-0.2, 0.2), 0.6, args.size)[0]
            neutral.append(uint8_image(head.render(front, np.zeros(52, np.float32)).image.numpy()))
            posed.append(uint8_image(head.render(turned, random_code(rng)).image.numpy()))
        rows += [(f"seeds {args.seed + start}...: neutral", neutral), ("random expression", posed)]
    write_png(contact_sheet(rows, args.size), output)
    print(f"{output}: {args.count} heads")
    return 0
