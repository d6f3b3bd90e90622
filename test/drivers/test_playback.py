"""Playback: the recording's own speed, its seam, pause and end."""

import dataclasses

import numpy as np
import pytest

from avat3r_ros.drivers import Playback
from avat3r_ros.expression import arkit_code
from avat3r_ros.types import FaceState

FACE = FaceState(0.0, True, 1.0, arkit_code(), np.zeros(2), np.eye(4), np.zeros((0, 2)))


def recording(*times_s):
    return [dataclasses.replace(FACE, stamp_s=at) for at in times_s]


def test_frames_come_at_their_times():
    playback = Playback(recording(5.0, 5.1, 5.4), loop=True)
    assert playback.at(100.0).stamp_s == 5.0 and playback.lasts_s == pytest.approx(0.1)
    assert playback.at(100.25).stamp_s == 5.1 and playback.lasts_s == pytest.approx(0.15)
    assert playback.at(100.5).stamp_s == 5.4


def test_the_seam_of_a_loop_lasts_as_long_as_a_usual_frame():
    playback = Playback(recording(0.0, 0.1, 0.2), loop=True)
    playback.at(0.0)
    assert playback.at(0.29).stamp_s == 0.2 and playback.lasts_s == pytest.approx(0.01)
    assert playback.at(0.31).stamp_s == 0.0
    assert playback.at(100.05).stamp_s in (0.0, 0.1), "also after many rounds at once"


def test_without_loop_it_ends():
    playback = Playback(recording(0.0, 0.1), loop=False)
    playback.at(0.0)
    assert playback.at(0.19).stamp_s == 0.1 and playback.at(0.21) is None


def test_a_pause_keeps_the_frame_and_goes_on_from_there():
    playback = Playback(recording(0.0, 0.1, 0.2), loop=True)
    playback.at(0.0)
    playback.at(0.12)
    playback.paused = True
    assert playback.at(9.0).stamp_s == 0.1 and playback.lasts_s == playback.period_s
    playback.paused = False
    assert playback.at(9.05).stamp_s == 0.1
    assert playback.at(9.10).stamp_s == 0.2


@pytest.mark.parametrize("times_s", [(), (0.0,), (0.0, 0.0), (0.0, 0.2, 0.1), (0.0, float("nan"))])
def test_recordings_without_a_course_are_refused(times_s):
    with pytest.raises(ValueError, match="times grow"):
        Playback(recording(*times_s), loop=True)
