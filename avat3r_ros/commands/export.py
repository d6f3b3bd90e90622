"""`avat3r export`: an avatar's Gaussians in one expression for other viewers."""

import argparse

from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.commands._arguments import output_path, parse_expression
from avat3r_ros.rendering.ply import write_ply


def run(args: argparse.Namespace) -> int:
    """Write a 3D Gaussian splatting PLY."""
    output = output_path(args.output, ".ply")
    gaussians = Animator(load_avatar(args.avatar)).animate(parse_expression(args.expression))
    write_ply(gaussians, output)
    print(f"{output}: {len(gaussians)} Gaussians")
    return 0
