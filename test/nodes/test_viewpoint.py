"""The viewer's eyes and the operator's head movement."""

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from node_stand_ins import face_state

from avat3r_ros import geometry
from avat3r_ros.nodes import viewpoint

TURN_TO_LEFT = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # +z (nose) goes to +x (left)


def projected(camera, point):
    points = geometry.transform_points(
        camera.camera_from_head, torch.tensor([point]).expand(len(camera.camera_from_head), 1, 3)
    )
    return geometry.project_points(camera.intrinsics, points)[:, 0]


def test_a_head_that_faces_the_camera_is_not_turned():
    turn = viewpoint.head_turn(face_state().camera_from_head)
    np.testing.assert_allclose(turn, 0, atol=1e-12)


def test_a_head_turned_to_the_subjects_left_turns_the_avatar_there():
    face = face_state(turn=TURN_TO_LEFT)
    body_from_head = viewpoint.body_from_turned_head(viewpoint.head_turn(face.camera_from_head))
    np.testing.assert_allclose(body_from_head[:3, 2], [1, 0, 0], atol=1e-9)


def test_the_head_turns_on_the_neck():
    body_from_head = viewpoint.body_from_turned_head(np.array([0.3, -0.2, 0.1]))
    pivot = np.append(viewpoint.NECK_PIVOT, 1.0)
    np.testing.assert_allclose(body_from_head @ pivot, pivot, atol=1e-12)


def test_the_default_viewer_sees_the_sellion_near_the_middle_upright():
    config = viewpoint.ViewConfig()
    cameras = viewpoint.eye_cameras(config, viewpoint.default_viewer_from_body(config), np.eye(4))
    sellion = projected(cameras, [0.0, 0.0, 0.0])[0]
    chin = projected(cameras, [0.0, -0.11, 0.0])[0]
    assert abs(sellion[0] - 256) < 1 and 200 < sellion[1] < 256
    assert chin[1] > sellion[1] + 50


def test_near_points_lie_farther_right_in_the_left_eye():
    config = viewpoint.ViewConfig(stereo=True)
    assert config.eyes == ("left/", "right/")
    cameras = viewpoint.eye_cameras(config, viewpoint.default_viewer_from_body(config), np.eye(4))
    left, right = projected(cameras, [0.0, 0.0, 0.0])
    focal = float(cameras.intrinsics[0, 0, 0])
    assert float(left[0] - right[0]) == pytest.approx(focal * config.ipd_m / 0.54, rel=0.01)


def test_placeholders_have_the_wanted_size_and_differ_by_text():
    first = viewpoint.placeholder_picture(64, 48, "no avatar yet")
    second = viewpoint.placeholder_picture(64, 48, "nobody there")
    assert first.shape == (48, 64, 3) and (first != second).any()
