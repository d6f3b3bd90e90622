"""`avat3r track`: a video to expression codes."""

import argparse

from tqdm import tqdm

from avat3r_ros.capture.video import iter_frames
from avat3r_ros.code_file import write_codes
from avat3r_ros.commands._arguments import output_path
from avat3r_ros.tracking import FaceTracker, SmoothingConfig


def run(args: argparse.Namespace) -> int:
    """Track every frame and write one line each, faces or not."""
    output = output_path(args.output, ".jsonl")
    seen = 0

    def states():
        nonlocal seen
        smoothing = None if args.no_smoothing else SmoothingConfig()
        with FaceTracker(smoothing=smoothing) as tracker:
            for time_s, image in tqdm(iter_frames(args.video), desc="tracking", unit=" frames"):
                state = tracker.track(image, time_s)
                seen += state.detected
                yield state

    count = write_codes(states(), output)
    print(f"{output}: {count} frames, a face in {seen}")
    return 0
