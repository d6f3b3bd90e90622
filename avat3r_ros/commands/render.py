"""`avat3r render`: an avatar and codes to a picture or a video."""

import argparse

import numpy as np
from tqdm import tqdm

from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.capture.video import VideoWriter
from avat3r_ros.code_file import read_codes
from avat3r_ros.commands._arguments import (
    head_camera,
    output_path,
    parse_background,
    parse_camera,
    parse_expression,
    stereo_pair,
)
from avat3r_ros.pictures import write_png
from avat3r_ros.rendering import FrameRenderer

ORBIT_YAW_RAD, ORBIT_PITCH_RAD, ORBIT_DISTANCE_M = np.radians(35.0), np.radians(8.0), 0.6
ORBIT_PERIOD_S = 6.0


def orbit(time_s: float) -> tuple[float, float, float]:
    """Yaw, pitch and distance of a camera that swings around the face."""
    phase = 2 * np.pi * time_s / ORBIT_PERIOD_S
    return ORBIT_YAW_RAD * np.sin(phase), ORBIT_PITCH_RAD * np.sin(2 * phase), ORBIT_DISTANCE_M


def run(args: argparse.Namespace) -> int:
    """Render one picture, or one video frame per code (a full orbit where there are no codes)."""
    output = output_path(args.output, ".png", ".mp4")
    if not 16 <= args.size <= 4096:
        raise ValueError(f"expected --size from 16 to 4096 pixels, got {args.size}")
    if not 0 < args.fps <= 240:
        raise ValueError(f"expected --fps in (0, 240], got {args.fps}")
    if not 0 < args.ipd <= 0.2:
        raise ValueError(f"expected --ipd in (0, 0.2] metres, got {args.ipd}")
    background = parse_background(args.background)
    fixed = None if args.camera == "orbit" else parse_camera(args.camera)
    avatar = load_avatar(args.avatar)
    animator = Animator(avatar)
    if args.codes:
        frames = [(state.stamp_s, state.code) for state in read_codes(args.codes) if state.detected]
        if not frames:
            raise ValueError(f"{args.codes}: no frame with a face")
    else:
        code = parse_expression(args.expression)
        count = int(ORBIT_PERIOD_S * args.fps) if output.suffix == ".mp4" else 1
        frames = [(i / args.fps, code) for i in range(count)]

    width = 2 * args.size if args.stereo else args.size
    renderer = FrameRenderer(backend=args.backend)

    def draw(time_s: float, code: np.ndarray) -> np.ndarray:
        yaw, pitch, distance = fixed if fixed is not None else orbit(time_s - frames[0][0])
        camera = head_camera(yaw, pitch, distance, args.size)
        if args.stereo:
            camera = stereo_pair(camera, args.ipd, distance)
        images = renderer.render_u8(animator.animate(code), camera, background)
        return np.hstack(images[::-1]) if args.stereo else images[0]

    if output.suffix.lower() == ".png":
        write_png(draw(*frames[0]), output)
    else:
        with VideoWriter(output, width, args.size, args.fps) as writer:
            for time_s, code in tqdm(frames, desc="rendering", unit=" frames"):
                writer.write(draw(time_s, code))
    print(f"{output}: {len(frames) if output.suffix.lower() == '.mp4' else 1} frame(s)")
    return 0
