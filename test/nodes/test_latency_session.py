"""The arithmetic of `avat3r latency` on made-up displays, and the whole of it on the real graph."""

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r_ros.nodes.flashing import changes_between, is_open
from avat3r_ros.nodes.latency_session import (
    FIRST_SEEN,
    HALF_SEEN,
    LOOK_PX,
    Displayed,
    glass_to_glass_s,
    progress_of_change,
)

PERIOD_S = 1 / 60


def display(delay_s, *, noise=3.0, smear_s=0.0, seconds=12.0, start_s=500.0):
    """Frames of a display on which the mouth is seen `delay_s` late and moves for `smear_s`."""
    rng = np.random.default_rng(0)
    shut = rng.uniform(60, 200, (LOOK_PX, LOOK_PX))
    frames = []
    for at_s in np.arange(start_s, start_s + seconds, PERIOD_S):
        seen = np.mean([is_open(at_s - delay_s - s) for s in np.linspace(0, smear_s, 30)])
        look = shut + rng.normal(0, noise, shut.shape)
        look[40:48, 24:40] -= 60 * seen
        frames.append(Displayed(at_s, 0.02, look.clip(0, 255).astype(np.uint8)))
    return frames


@pytest.mark.parametrize("delay_s", [0.031, 0.118])
def test_a_known_delay_is_found_to_the_frame(delay_s):
    frames = display(delay_s)
    took, missed = glass_to_glass_s(frames, progress_of_change(frames), HALF_SEEN)
    assert missed == 0 and len(took) >= 12
    assert delay_s <= min(took) and max(took) <= delay_s + PERIOD_S + 1e-6


def test_a_smeared_change_has_a_first_sign_and_a_half():
    frames = display(0.05, smear_s=0.2)
    progress = progress_of_change(frames)
    first, _ = glass_to_glass_s(frames, progress, FIRST_SEEN)
    half, _ = glass_to_glass_s(frames, progress, HALF_SEEN)
    assert np.median(half) - np.median(first) == pytest.approx(0.08, abs=1.5 * PERIOD_S)


def test_a_change_that_is_never_shown_is_counted():
    frames = display(0.05)
    moment, _ = changes_between(504.0, 512.0)[0]
    kept = [f for f in frames if not moment <= f.at_s < moment + 0.75]
    took, missed = glass_to_glass_s(kept, progress_of_change(kept), HALF_SEEN)
    assert missed + len(took) == len(changes_between(500.4, 511.5)) - 1
    assert max(took) > 0.5 or missed == 1


def test_a_face_that_does_not_follow_is_said_so():
    frames = [Displayed(f.at_s, 0.02, np.full((LOOK_PX, LOOK_PX), 90)) for f in display(0.05)]
    with pytest.raises(RuntimeError, match="does not follow"):
        progress_of_change(frames)


@pytest.mark.realtime
def test_latency_of_the_real_graph(tmp_path, small_face_avatar):
    """As a user runs it, on a small picture and for a short time."""
    from avat3r_ros.nodes.latency_session import run_latency

    lines = []
    report = run_latency(
        folder=tmp_path, avatar=small_face_avatar, seconds=6.0, size=128, say=lines.append
    )
    assert report["changes"] >= 4
    glass, stamps = report["glass_to_glass_ms"], report["stamp_to_display_ms"]
    assert 0.0 < stamps["p50"] < glass["p95"], "stamps know nothing of the wait for the camera"
    medians, total = report["medians_ms"], report["image_in_to_image_out_ms"]["p50"]
    assert set(medians) == {"tracking", "animation", "drawing", "everything else"}
    assert sum(medians.values()) == pytest.approx(total, abs=0.2)
    assert min(medians["tracking"], medians["drawing"]) > 0.0
    assert {"captured to tracked", "tracked to received"} <= set(report["ways_ms"])
    assert json.loads((tmp_path / "latency.json").read_text()) == report
    assert (tmp_path / "latency.png").stat().st_size > 1000
    assert any("measuring" in line for line in lines)
