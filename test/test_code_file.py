"""Recorded expression codes: round trip and refusals."""

import numpy as np
import pytest

from avat3r_ros.code_file import read_codes, write_codes
from avat3r_ros.expression import arkit_code
from avat3r_ros.types import FaceState


def state(time_s: float, **scores: float) -> FaceState:
    pose = np.eye(4)
    pose[2, 3] = 0.6
    return FaceState(
        stamp_s=time_s,
        detected=True,
        confidence=0.9,
        code=arkit_code(**scores),
        gaze=np.array([0.1, -0.05], np.float32),
        camera_from_head=pose,
        landmarks_px=np.zeros((0, 2), np.float32),
    )


def test_round_trip(tmp_path):
    path = tmp_path / "codes.jsonl"
    assert write_codes([state(0.0), state(0.04, jawOpen=0.5)], path) == 2
    first, second = read_codes(path)
    assert first.stamp_s == 0
    assert second.stamp_s == 0.04
    assert np.allclose(second.code, arkit_code(jawOpen=0.5), atol=1e-5)
    assert np.allclose(second.camera_from_head, state(0).camera_from_head)
    assert [p.name for p in tmp_path.iterdir()] == ["codes.jsonl"]


def test_a_failed_recording_keeps_the_last_good_file(tmp_path):
    path = tmp_path / "codes.jsonl"
    write_codes([state(0.0)], path)

    def broken():
        yield state(1.0)
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError):
        write_codes(broken(), path)
    assert [s.stamp_s for s in read_codes(path)] == [0.0]
    assert [p.name for p in tmp_path.iterdir()] == ["codes.jsonl"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: "", "not an avat3r code file"),
        (lambda text: "\x00\x01binary", "not an avat3r code file"),
        (lambda text: text.replace("avat3r-codes", "other"), "not an avat3r code file"),
        (lambda text: text.replace('"version": 1', '"version": 9'), "expected version 1, got 9"),
        (lambda text: text.replace("arkit_52", "arkit_99"), "line 2: unknown code space"),
        (lambda text: text.replace('"code": [0.0, ', '"code": ['), "line 2: expected a arkit_52"),
        (lambda text: text.replace('"code": [0.0', '"code": [NaN'), "line 2: .*not finite"),
        (lambda text: text.replace('"gaze"', '"gazes"'), "line 2: 'gaze'"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path, edit, message):
    path = tmp_path / "codes.jsonl"
    write_codes([state(0.0)], path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(ValueError, match=message):
        read_codes(path)
