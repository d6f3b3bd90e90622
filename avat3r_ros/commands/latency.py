"""`avat3r latency`: glass to glass from the pixels, with histogram and report."""

import argparse
import pathlib


def run(args: argparse.Namespace) -> int:
    """Measure with the real graph, write the report, and print it in short."""
    try:
        from avat3r_ros.nodes.latency_session import run_latency
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"the ROS 2 parts are missing ({error.name}): source your ROS 2 workspace, or run "
            "`make env` to install the ROS 2 wheels into .venv"
        ) from error
    folder = pathlib.Path(args.output)
    report = run_latency(
        folder=folder,
        avatar=args.avatar,
        seconds=args.seconds,
        size=args.size,
        fps=args.fps,
        params=args.params,
        single_process=args.single_process,
    )
    print(f"{report['changes']} changes, {report['changes_missed']} never seen")
    rows = {
        "glass to glass (half of the change)": report["glass_to_glass_ms"],
        "glass to glass (first sign)": report["first_sign_ms"],
        "stamp to display": report["stamp_to_display_ms"],
        "image in to image out": report["image_in_to_image_out_ms"],
        **{f"  {way}": values for way, values in report["ways_ms"].items()},
    }
    print(f"{'milliseconds':<38}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, values in rows.items():
        if values["count"]:
            print(f"{name:<38}{values['p50']:>8.1f}{values['p95']:>8.1f}{values['p99']:>8.1f}")
    medians = ", ".join(f"{name} {ms:.1f}" for name, ms in report["medians_ms"].items())
    print(f"of the median: {medians} ms")
    print(
        f"{report['displayed_per_second']} frames/s displayed, "
        f"{report['new_expressions_per_second']} new expressions/s; {folder / 'latency.png'}"
    )
    return 0
