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


def cameras_of(config):
    return viewpoint.Eyes.of(config).cameras(viewpoint.default_viewer_from_body(config), np.eye(4))


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
    cameras = cameras_of(config)
    sellion = projected(cameras, [0.0, 0.0, 0.0])[0]
    chin = projected(cameras, [0.0, -0.11, 0.0])[0]
    assert abs(sellion[0] - 256) < 1 and 200 < sellion[1] < 256
    assert chin[1] > sellion[1] + 50


def test_near_points_lie_farther_right_in_the_left_eye():
    config = viewpoint.ViewConfig(stereo=True)
    assert config.eyes == ("left/", "right/")
    cameras = cameras_of(config)
    left, right = projected(cameras, [0.0, 0.0, 0.0])
    focal = float(cameras.intrinsics[0, 0, 0])
    assert float(left[0] - right[0]) == pytest.approx(focal * config.ipd_m / 0.54, rel=0.01)


ANGLES = {"left_fov_deg": (-50.0, 40.0, 45.0, -52.0), "right_fov_deg": (-40.0, 50.0, 45.0, -52.0)}


def test_edges_of_an_asymmetric_frustum_lie_at_its_angles():
    config = viewpoint.ViewConfig(width=300, height=200, stereo=True, **ANGLES)
    cameras = viewpoint.Eyes.of(config).cameras(np.eye(4), np.eye(4))
    for eye, angles in enumerate(ANGLES.values()):
        tangents = np.tan(np.radians(angles))
        edges = [
            [tangents[0], 0, 1],
            [tangents[1], 0, 1],
            [0, -tangents[2], 1],
            [0, -tangents[3], 1],
        ]
        pixels = geometry.project_points(
            cameras.intrinsics[eye].double(), torch.tensor(np.array(edges))
        )
        # y points down: the upper edge is row 0.
        np.testing.assert_allclose(pixels[:2, 0], [0, 300], atol=1e-3)
        np.testing.assert_allclose(pixels[2:, 1], [0, 200], atol=1e-3)


def test_both_eyes_agree_on_where_a_point_is():
    config = viewpoint.ViewConfig(width=400, height=400, stereo=True, ipd_m=0.07, **ANGLES)
    cameras = viewpoint.Eyes.of(config).cameras(np.eye(4), np.eye(4))
    point = np.array([0.05, -0.1, 0.8])
    pixels = projected(cameras, point.astype(np.float32).tolist()).double().numpy()
    k = cameras.intrinsics.double().numpy()
    tangent = (pixels - k[:, :2, 2]) / k[:, [0, 1], [0, 1]]
    depth_m = 0.07 / (tangent[0, 0] - tangent[1, 0])
    assert depth_m == pytest.approx(0.8, rel=1e-4)
    assert tangent[:, 0].mean() * depth_m == pytest.approx(0.05, rel=1e-3)
    assert (tangent[:, 1] * depth_m) == pytest.approx([-0.1, -0.1], rel=1e-3)


def test_a_calibration_keeps_its_field_of_view_at_another_size():
    eyes = viewpoint.Eyes.of(viewpoint.ViewConfig(width=300, height=200, stereo=True))
    calibration = np.array([[900.0, 0, 640], [0, 800, 700], [0, 0, 1]])
    eyes = eyes.with_calibration(1, calibration, 1200, 1000, baseline_m=0.06)
    np.testing.assert_allclose(eyes.intrinsics[1], [[225, 0, 160], [0, 160, 140], [0, 0, 1]])
    assert eyes.offsets_m == (-0.03, 0.03)
    assert eyes.intrinsics[0, 0, 2] == 150, "the left eye stays"


@pytest.mark.parametrize(
    "angles",
    [(-50.0, 40.0, 45.0), (50.0, 40.0, 45.0, -50.0), (-50.0, 40.0, -45.0, 50.0), (-95.0, 1, 1, -1)],
)
def test_impossible_fields_of_view_are_refused(angles):
    with pytest.raises(ValueError, match="in left_fov_deg"):
        viewpoint.ViewConfig(left_fov_deg=angles)
    with pytest.raises(ValueError, match="set together"):
        viewpoint.ViewConfig(stereo=True, left_fov_deg=ANGLES["left_fov_deg"])


def test_placeholders_have_the_wanted_size_and_differ_by_text():
    first = viewpoint.placeholder_picture(64, 48, "no avatar yet")
    second = viewpoint.placeholder_picture(64, 48, "nobody there")
    assert first.shape == (48, 64, 3) and (first != second).any()
