"""One demo run, step by step: start the graph, capture, build, drive, stop, score, report."""

import contextlib
import dataclasses
import os
import pathlib
import platform
import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from avat3r_ros.animation import Animator
from avat3r_ros.avatar_file import save_avatar
from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.demo.report import write_contact_sheet, write_video
from avat3r_ros.demo.scoring import (
    DemoFrame,
    correlations,
    distinct_moments,
    score_pictures,
    true_view,
)
from avat3r_ros.files import write_json
from avat3r_ros.model import Avat3r, preset
from avat3r_ros.model import cloud as cloud_config
from avat3r_ros.nodes.demo_recorder import (
    DemoRecorder,
    Recording,
    camera_of,
    decode,
    encode,
    listening,
)
from avat3r_ros.nodes.supervisor import NodeProcesses, telepresence_nodes
from avat3r_ros.pipeline import build_avatar_from_images
from avat3r_ros.rendering import FrameRenderer
from avat3r_ros.types import Avatar

SEED = 0
"""The demo's operator: dark brows on light skin, which the face tracker reads well."""

SETTLE_S = 6.0
"""Time for the operator to finish turning the head after there are enough views."""

START_TIMEOUT_S, BUILD_TIMEOUT_S = 60.0, 90.0
DRIVE_S, SMOKE_DRIVE_S = 26.0, 20.0
"""How long the operator performs; one pass through the script's single expressions takes 18 s."""

NUM_SCORED, NUM_SHOWN = 32, 16
"""Frames compared with the truth, evenly spread; frames of different expressions on the sheet."""

GOOD_CORRELATION = 0.8
"""Between a movement of the driver and the same one found again in the rendered frames."""

MIN_CORRELATION = 0.5
"""Below it the mouth does not follow: something is broken, not merely weak."""

BLACK = (0.0, 0.0, 0.0)


def run_demo(folder: pathlib.Path, *, smoke: bool = False) -> int:
    """Run the demo and write `contact_sheet.png`, `demo.mp4`, `avatar.avat3r`, `report.json`.

    Returns:
        0 if the avatar was built and driven and its face follows the driver's at all, else 1. How
        well it does is said in the summary.

    Raises:
        RuntimeError: A node did not start, or no avatar was built in time; says which.
    """
    start_s = time.monotonic()
    recording, avatar, recorder = record(SMOKE_DRIVE_S if smoke else DRIVE_S)
    avatar = save_avatar(avatar, folder / "avatar.avat3r")
    frames = demo_frames(recording, recorder)
    if len(frames) < 8:
        raise RuntimeError(
            f"only {len(frames)} frames of the driver were rendered and received; is the machine "
            "overloaded, or is another graph running with the same ROS_DOMAIN_ID?"
        )
    scored = spread(frames, NUM_SCORED)
    operator = SyntheticOperator(SEED)
    identity = avatar.tensors["identity"].float()
    truths = [
        true_view(operator.head, frame, identity) for frame in tqdm(scored, desc="rendering truth")
    ]
    references = reference_pictures(recording, avatar)
    pictures = {"avatar": [frame.rendered for frame in scored]}
    pictures |= baseline_pictures(scored, references, avatar, operator)
    images = score_pictures(pictures, truths)
    following = correlations(frames)

    shown = distinct_moments(np.stack([frame.true_code for frame in frames]), NUM_SHOWN)
    shown = [frames[i] for i in shown]
    write_contact_sheet(
        folder / "contact_sheet.png",
        references,
        shown,
        [true_view(operator.head, frame, identity) for frame in shown],
        avatar,
    )
    pairs = [(frame.stamp_s, frame.driver, frame.rendered) for frame in frames]
    write_video(folder / "demo.mp4", pairs, fps=len(pairs) / (pairs[-1][0] - pairs[0][0]))
    report = {
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
        "avatar": {
            "id": avatar.avatar_id,
            "views": len(references),
            "megabytes": (folder / "avatar.avat3r").stat().st_size / 1e6,
            "trained": bool(avatar.weights_sha256),
        },
        "seconds": {**recorder.seconds, "whole demo": time.monotonic() - start_s},
        "rates_hz": rates(recording),
        "latency_ms": {name: percentiles(v) for name, v in recording.latencies_s.items()},
        "stages_ms": recorder.stages,
        "images": images,
        "correlation": following,
        "frames": {"kept": len(frames), "scored": len(scored)},
    }
    write_json(folder / "report.json", report)
    return summarize(folder, report)


def record(drive_s: float) -> tuple[Recording, Avatar, DemoRecorder]:
    """Start the graph as processes, let the operator perform, and stop everything again."""
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(listening())
        recorder.refuse_company()
        processes = stack.enter_context(graph())
        with recorder.timed("start"):
            recorder.wait_for("all nodes", recorder.graph_ready, START_TIMEOUT_S, processes.check)
        recorder.keep_drivers = True
        result = recorder.request_build()
        recorder.activate_camera()
        with recorder.timed("capture and build"), tqdm(total=100, unit="%") as bar:

            def built() -> bool:
                stage = f"building: {recorder.stage:<26.26}"
                bar.set_description_str(stage, refresh=stage != bar.desc)
                bar.update(round(100 * recorder.progress) - bar.n)
                return result.done()

            recorder.wait_for("the avatar", built, BUILD_TIMEOUT_S, processes.check)
        recorder.check_build(result)
        recorder.wait_for(
            "the avatar message", recorder.avatar_arrived.is_set, 10.0, processes.check
        )
        recorder.keep_drivers = False
        recorder.recording = True
        for _ in tqdm(range(int(drive_s)), desc="driving", unit="s"):
            time.sleep(1.0)
            processes.check()
        recorder.recording = False
        return recorder.kept, recorder.avatar, recorder


@contextlib.contextmanager
def graph() -> Iterator[NodeProcesses]:
    """The telepresence graph as processes; the operator waits until the others are there."""
    own = {
        "camera": {"seed": SEED, "publish_truth": True, "autostart": False},
        "avatar_builder": {"build_on_start": False, "capture.settle_s": SETTLE_S},
        # What is compared with the truth is drawn at full resolution, however slow the machine.
        "avatar_renderer": {"quality.min_scale": 1.0, "quality.reproject": "off"},
    }
    processes = NodeProcesses()
    try:
        for node in telepresence_nodes():
            parameters = {**node.parameters, **own.get(node.name, {})}
            processes.start(dataclasses.replace(node, parameters=parameters))
        yield processes
    finally:
        processes.stop()


def demo_frames(recording: Recording, recorder: DemoRecorder) -> list[DemoFrame]:
    """Decode the kept pairs and join them with code, camera and truth of the same stamp."""
    frames = []
    for stamp, driver, rendered in recording.pairs:
        face, truth = recording.faces[stamp], recording.truths.get(stamp)
        if truth is not None:
            frames.append(
                DemoFrame(
                    stamp_s=stamp[0] + 1e-9 * stamp[1],
                    driver=decode(driver),
                    code=face.code,
                    rendered=decode(rendered),
                    camera=camera_of(recorder.camera, face),
                    true_code=truth,
                )
            )
    return frames


def reference_pictures(recording: Recording, avatar: Avatar) -> list[np.ndarray]:
    """Find the driver frames that became the references."""
    stamps = np.array(list(recording.drivers))
    pictures = []
    for stamp_s in avatar.metadata["view_stamps_s"]:
        nearest = stamps[np.abs(stamps - stamp_s).argmin()]
        pictures.append(decode(recording.drivers[float(nearest)]))
    return pictures


def baseline_pictures(
    frames: list[DemoFrame],
    references: list[np.ndarray],
    avatar: Avatar,
    operator: SyntheticOperator,
) -> dict[str, list[np.ndarray]]:
    """Draw the same moments without animation, and as the paper's motionless coloured cloud."""
    focal = float(operator.truth(0.0).camera.intrinsics[0, 0])
    cloud = build_avatar_from_images(
        references,
        focals_px=[focal] * len(references),
        network=Avat3r(cloud_config(preset("tiny"))),
    ).avatar
    neutral, background = np.zeros(52, np.float32), np.array(BLACK, np.float32)
    drawn = {}
    for name, source in (("frozen neutral avatar", avatar), ("motionless coloured cloud", cloud)):
        gaussians = Animator(source).animate(neutral)
        renderer = FrameRenderer()
        # Through the recorder's JPEG, as the published frames went.
        drawn[name] = [
            decode(encode(renderer.render_u8(gaussians, frame.camera, background)[0]))
            for frame in tqdm(frames, desc=name)
        ]
    return drawn


def rates(recording: Recording) -> dict[str, float]:
    """Frames per second at which codes, animated frames and rendered frames arrived."""
    stamps = [s + 1e-9 * n for s, n in recording.faces]
    shown = len(recording.latencies_s["rendered"])
    span = max(np.ptp(recording.rendered), 1e-9)
    return {
        "tracked": (len(stamps) - 1) / max(np.ptp(stamps), 1e-9),
        "new expressions shown": shown / span,
        "rendered": (len(recording.rendered) - 1) / span,
    }


def percentiles(values_s: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    p50, p95, p99 = np.percentile(np.array(values_s) * 1000, (50, 95, 99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def spread(items: list, count: int) -> list:
    """At most `count` items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def summarize(folder: pathlib.Path, report: dict) -> int:
    """Print five lines; 1 if the rendered face does not follow the driver's, else 0."""
    images, following, latency = report["images"], report["correlation"], report["latency_ms"]
    mine = images["avatar"]
    others = {name: scores for name, scores in images.items() if name != "avatar"}
    print(
        f"avatar: {report['avatar']['views']} views, {report['avatar']['megabytes']:.1f} MB, "
        f"captured and built in {report['seconds']['capture and build']:.1f} s"
    )
    print(
        f"live: {report['rates_hz']['rendered']:.0f} rendered and "
        f"{report['rates_hz']['new expressions shown']:.0f} animated frames/s; camera to image "
        f"p50 {latency['rendered']['p50']:.0f} ms, p95 {latency['rendered']['p95']:.0f} ms"
    )
    compared = "; ".join(
        f"{name} {scores['psnr_db']:.1f} dB / {scores['landmark_distance_px']:.1f} px"
        for name, scores in others.items()
    )
    print(
        f"likeness: {mine['psnr_db']:.1f} dB, landmarks {mine['landmark_distance_px']:.1f} px "
        f"({compared})"
    )
    print("follows: " + ", ".join(f"{unit} {value:.2f}" for unit, value in following.items()))
    weak = [unit for unit, value in following.items() if not value >= GOOD_CORRELATION]
    weak += [f"PSNR against the {name}" for name, scores in others.items()
             if not mine["psnr_db"] > scores["psnr_db"]]  # fmt: skip
    weak += [f"landmarks against the {name}" for name, scores in others.items()
             if not mine["landmark_distance_px"] < scores["landmark_distance_px"]]  # fmt: skip
    verdict = f"weaker than wanted: {', '.join(weak)}" if weak else "all scores as wanted"
    print(f"{verdict}; look at {folder / 'contact_sheet.png'} and {folder / 'demo.mp4'}")
    follows = following["mouth opening"] >= MIN_CORRELATION and mine["faces_found"] > 0.5
    return 0 if follows else 1
