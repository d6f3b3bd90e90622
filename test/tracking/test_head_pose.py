"""Head pose: axes, units and origin of MediaPipe's transform, and the fit to known landmarks."""

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head, pose_matrix
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking.head_pose import (
    SELLION_CANONICAL_CM,
    HeadPoseSolver,
    assumed_intrinsics,
    camera_from_head_from_metric,
)

INTRINSICS = intrinsics_matrix(620.0, 315.0, 247.0)


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def solver(template):
    return HeadPoseSolver(template)


def projected(template, pose, code=None, intrinsics=INTRINSICS):
    vertices = template.vertices(
        torch.zeros(template.num_identity),
        torch.from_numpy(np.zeros(52, np.float32) if code is None else code),
    )
    points = template.landmarks(vertices).double().numpy() @ pose[:3, :3].T + pose[:3, 3]
    pixels = points @ intrinsics.T
    return pixels[:, :2] / pixels[:, 2:]


def rotation_vector(x_deg, y_deg, z_deg):
    return cv2.Rodrigues(np.radians([x_deg, y_deg, z_deg]))[0]


def test_a_frontal_face_at_one_metre():
    """MediaPipe: axes as the head's, camera at the origin looking along -z, centimetres."""
    metric_from_face = pose_matrix(np.eye(3), np.array([0, 0, -100.0]) - SELLION_CANONICAL_CM)
    np.testing.assert_allclose(
        camera_from_head_from_metric(metric_from_face), look_at_head(0.0, 0.0, 1.0), atol=1e-9
    )


@pytest.mark.parametrize(("yaw", "pitch"), [(25, 0), (-25, 0), (0, 15), (10, -15)])
def test_a_turned_face_matches_an_orbiting_camera(yaw, pitch):
    """A face turned to the subject's right shows its left side: the camera is at positive yaw."""
    rotation = rotation_vector(0, 0, 0) @ rotation_vector(pitch, 0, 0) @ rotation_vector(0, -yaw, 0)
    sellion_cm = np.array([0, 0, -80.0])
    metric_from_face = pose_matrix(rotation, sellion_cm - rotation @ SELLION_CANONICAL_CM)
    np.testing.assert_allclose(
        camera_from_head_from_metric(metric_from_face),
        look_at_head(np.radians(yaw), np.radians(pitch), 0.8),
        atol=1e-9,
    )


@pytest.mark.parametrize("bad", [2.0 * np.eye(3), np.diag([-1.0, 1, 1]), np.full((3, 3), np.nan)])
def test_what_is_not_a_rotation_is_refused(bad):
    with pytest.raises(ValueError, match="expected a rotation"):
        camera_from_head_from_metric(pose_matrix(bad, np.zeros(3)))


@pytest.mark.parametrize(
    "code", [np.zeros(52, np.float32), arkit_code(jawOpen=0.7, mouthSmile=0.5, browInnerUp=0.6)]
)
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (35, 10), (-30, -15)])
def test_the_pose_behind_known_landmarks_is_found(template, solver, yaw, pitch, code):
    truth = look_at_head(np.radians(yaw), np.radians(pitch), 0.7, np.array([0.1, -0.05, 0.0]))
    start = pose_matrix(rotation_vector(8, -6, 4) @ truth[:3, :3], np.array([0, 0, 0.3]))
    pixels = projected(template, truth, code)
    pose, residual = solver.solve(pixels, code, INTRINSICS, start)
    # Measured worst case: 2e-7 m and rad.
    np.testing.assert_allclose(pose, truth, atol=1e-5)
    assert residual < 1e-5


def test_the_expression_is_taken_out_of_the_pose(template, solver):
    """A dropped jaw must not nod the head."""
    code, truth = arkit_code(jawOpen=0.9), look_at_head(0.0, 0.0, 0.6)
    pixels = projected(template, truth, code)
    aware, _ = solver.solve(pixels, code, INTRINSICS, truth)
    unaware, _ = solver.solve(pixels, np.zeros(52, np.float32), INTRINSICS, truth)
    turn = [
        np.linalg.norm(cv2.Rodrigues(pose[:3, :3] @ truth[:3, :3].T)[0])
        for pose in (aware, unaware)
    ]
    assert turn[0] < 1e-5
    assert np.degrees(turn[1]) > 1.0


def test_distance_follows_the_focal_length(template, solver):
    pixels = projected(template, look_at_head(0.0, 0.0, 0.6))
    doubled = np.diag([2.0, 2.0, 1.0]) @ INTRINSICS
    near, _ = solver.solve(pixels, np.zeros(52), INTRINSICS, look_at_head(0.0, 0.0, 1.0))
    far, _ = solver.solve(
        projected(template, look_at_head(0.0, 0.0, 1.2), intrinsics=doubled),
        np.zeros(52),
        doubled,
        look_at_head(0.0, 0.0, 1.0),
    )
    assert near[2, 3] == pytest.approx(0.6, abs=1e-5)
    assert far[2, 3] == pytest.approx(1.2, abs=1e-5)


def test_the_residual_tells_a_face_from_scattered_points(template, solver):
    truth = look_at_head(0.2, 0.0, 0.6)
    pixels = projected(template, truth)
    noise = np.random.default_rng(0).normal(size=pixels.shape)
    height = np.ptp(pixels[:, 1])
    _, small = solver.solve(pixels + 0.01 * height * noise, np.zeros(52), INTRINSICS, truth)
    _, large = solver.solve(pixels + 0.20 * height * noise, np.zeros(52), INTRINSICS, truth)
    assert small == pytest.approx(0.01 * np.sqrt(2), rel=0.2)
    assert large > 0.1


def test_the_assumed_camera_sees_63_degrees():
    k = assumed_intrinsics(640, 480)
    assert 2 * np.degrees(np.arctan(240 / k[1, 1])) == pytest.approx(63.0)
    assert (k[0, 2], k[1, 2]) == (320.0, 240.0)
