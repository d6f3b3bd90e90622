"""Veil and badge over the picture."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes.overlay import BADGES, draw_badge, veil_over
from avat3r_ros.nodes.presence import State


@pytest.mark.parametrize("channels", [3, 4])
def test_the_veil_mixes_placeholder_and_picture(channels):
    image = np.full((8, 10, channels), 200, np.uint8)
    veil_over(image, np.full((8, 10, 3), 100, np.uint8), 0.25)
    assert (image[..., :3] == 175).all()


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8"])
def test_the_badge_is_small_coloured_and_in_its_corner(encoding):
    image = np.zeros((256, 256, len(encoding) - 1), np.uint8)
    draw_badge(image, State.HOLD, encoding)
    marked = np.argwhere(image.any(-1))
    assert len(marked) < 0.03 * 256 * 256, "discreet"
    assert marked[:, 0].max() < 40 and marked[:, 1].min() > 150, "in the upper right corner"
    amber = np.array(BADGES[State.HOLD][1])
    amber = amber if encoding.startswith("rgb") else amber[::-1]
    distance = np.abs(image[..., :3].astype(int) - amber * 0.75).max(-1)
    assert distance.min() < 4, "the dot has its colour whatever the order of channels"


@pytest.mark.parametrize("state", [State.LIVE, State.PLACEHOLDER])
def test_the_present_face_has_no_badge(state):
    image = np.zeros((64, 64, 3), np.uint8)
    draw_badge(image, state, "rgb8")
    assert not image.any()


def test_a_tiny_picture_is_left_alone():
    image = np.zeros((8, 8, 3), np.uint8)
    draw_badge(image, State.HOLD, "rgb8")
    assert not image.any()
