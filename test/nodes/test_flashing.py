"""The moments at which the face of `avat3r latency` changes."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes.flashing import (
    JITTER_S,
    SLOT_S,
    Flashing,
    changes_between,
    is_open,
    settled,
)


def test_every_change_turns_the_mouth_over():
    changes = changes_between(1000.0, 1060.0)
    assert abs(len(changes) - 60 / SLOT_S) <= 1
    for moment, opens in changes:
        assert is_open(moment + 1e-6) == opens and is_open(moment - 1e-6) != opens
    assert is_open(changes[3][0] + 0.4) == changes[3][1], "it stays until the next change"


def test_changes_do_not_keep_in_step_with_a_camera():
    phases = np.array([m for m, _ in changes_between(0.0, 200.0)]) % (1 / 30) * 30
    assert np.histogram(phases, 4, (0, 1))[0].min() > 0.15 * len(phases)
    offsets = np.array([m for m, _ in changes_between(0.0, 200.0)]) % SLOT_S
    assert offsets.max() <= JITTER_S + 1e-9 and offsets.std() > 0.2 * JITTER_S


def test_settled_is_late_enough_after_a_change():
    (moment, _), (following, _) = changes_between(10.0, 12.5)[:2]
    assert not settled(moment + 0.1, 0.3) and settled(moment + 0.31, 0.3)
    assert not settled(following + 0.01, 0.3)


def test_the_camera_sees_the_face_as_it_is(monkeypatch):
    source = Flashing(0, 96, 72, fps=60.0)
    seen = {}
    for mouth in (True, False):
        monkeypatch.setattr("avat3r_ros.nodes.flashing.is_open", lambda _, m=mouth: m)
        seen[mouth] = source.read().astype(int)
    difference = np.abs(seen[True] - seen[False]).max(-1)
    assert (difference > 40).sum() > 10, "the mouth differs"
    assert (difference > 40).mean() < 0.1, "and little else does"
