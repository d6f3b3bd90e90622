"""Head pose: the fit to known landmarks, from a start that their coarse depth gives."""

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking.head_pose import HeadPoseSolver, assumed_intrinsics

INTRINSICS = intrinsics_matrix(620.0, 315.0, 247.0)


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def solver(template):
    return HeadPoseSolver(template)


def seen(template, pose, code=None, intrinsics=INTRINSICS):
    """Landmarks as a network gives them: pixels, and depth in the same scale, too flat by a third.

    The depth is that of the resting face.
    """

    def points(code):
        vertices = template.vertices(torch.zeros(template.num_identity), torch.from_numpy(code))
        return template.landmarks(vertices).double().numpy() @ pose[:3, :3].T + pose[:3, 3]

    rest = np.zeros(52, np.float32)
    pixels = points(rest if code is None else code) @ intrinsics.T
    depth = points(rest)[:, 2] - pose[2, 3]
    return np.column_stack(
        [pixels[:, :2] / pixels[:, 2:], 0.67 * depth * intrinsics[0, 0] / pose[2, 3] + 50.0]
    )


@pytest.mark.parametrize(
    "code", [np.zeros(52, np.float32), arkit_code(jawOpen=0.7, mouthSmile=0.5, browInnerUp=0.6)]
)
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (35, 10), (-30, -15), (60, -20), (-75, 20)])
def test_the_pose_behind_known_landmarks_is_found(template, solver, yaw, pitch, code):
    truth = look_at_head(np.radians(yaw), np.radians(pitch), 0.7, np.array([0.1, -0.05, 0.0]))
    pose, residual = solver.solve(seen(template, truth, code), code, INTRINSICS)
    # Measured worst case: 2e-7 m and rad.
    np.testing.assert_allclose(pose, truth, atol=1e-5)
    assert residual < 1e-5


def test_the_expression_is_taken_out_of_the_pose(template, solver):
    """A dropped jaw must not nod the head."""
    code, truth = arkit_code(jawOpen=0.9), look_at_head(0.0, 0.0, 0.6)
    landmarks = seen(template, truth, code)
    aware, _ = solver.solve(landmarks, code, INTRINSICS)
    unaware, _ = solver.solve(landmarks, np.zeros(52, np.float32), INTRINSICS)
    turn = [
        np.linalg.norm(cv2.Rodrigues(pose[:3, :3] @ truth[:3, :3].T)[0])
        for pose in (aware, unaware)
    ]
    assert turn[0] < 1e-5
    assert np.degrees(turn[1]) > 1.0


def test_distance_follows_the_focal_length(template, solver):
    doubled = np.diag([2.0, 2.0, 1.0]) @ INTRINSICS
    near_seen = seen(template, look_at_head(0.0, 0.0, 0.6))
    far_seen = seen(template, look_at_head(0.0, 0.0, 1.2), intrinsics=doubled)
    near, _ = solver.solve(near_seen, np.zeros(52), INTRINSICS)
    far, _ = solver.solve(far_seen, np.zeros(52), doubled)
    assert near[2, 3] == pytest.approx(0.6, abs=1e-5)
    assert far[2, 3] == pytest.approx(1.2, abs=1e-5)


def test_the_residual_tells_a_face_from_scattered_points(template, solver):
    truth = look_at_head(0.2, 0.0, 0.6)
    landmarks = seen(template, truth)
    noise = np.random.default_rng(0).normal(size=landmarks.shape)
    height = np.ptp(landmarks[:, 1])
    _, small = solver.solve(landmarks + 0.01 * height * noise, np.zeros(52), INTRINSICS)
    _, large = solver.solve(landmarks + 0.20 * height * noise, np.zeros(52), INTRINSICS)
    assert small == pytest.approx(0.01 * np.sqrt(2), rel=0.2)
    assert large > 0.1


def test_the_assumed_camera_sees_63_degrees():
    k = assumed_intrinsics(640, 480)
    assert 2 * np.degrees(np.arctan(240 / k[1, 1])) == pytest.approx(63.0)
    assert (k[0, 2], k[1, 2]) == (320.0, 240.0)
