"""Conventions of geometry.py, stated as numbers known by hand."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avat3r_ros import geometry
from avat3r_ros.types import Camera


def random_rotations(count: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(count, random_state=seed).as_matrix()


def test_quaternions_agree_with_scipy_and_round_trip():
    matrices = random_rotations(200)
    quats = geometry.quats_wxyz_from_matrices(torch.tensor(matrices))
    xyzw = Rotation.from_matrix(matrices).as_quat(canonical=True)
    assert np.allclose(quats.numpy(), np.roll(xyzw, 1, axis=-1), atol=1e-12)
    assert torch.allclose(geometry.matrices_from_quats_wxyz(quats), torch.tensor(matrices))
    assert torch.allclose(geometry.matrices_from_quats_wxyz(-quats), torch.tensor(matrices))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_have_no_singularity(axis):
    vector = np.zeros(3)
    vector[axis] = np.pi
    matrix = torch.tensor(Rotation.from_rotvec(vector).as_matrix())
    quat = geometry.quats_wxyz_from_matrices(matrix)
    assert torch.allclose(geometry.matrices_from_quats_wxyz(quat), matrix, atol=1e-12)


def test_one_quaternion_in_plain_numbers_is_that_of_the_batched_ones():
    turns = Rotation.random(200, random_state=0)
    near_half_turns = Rotation.from_rotvec((np.pi - 1e-7) * np.eye(3))
    for matrix in (*turns.as_matrix(), *near_half_turns.as_matrix(), np.eye(3)):
        quat = geometry.quat_wxyz_from_matrix(matrix)
        assert quat[0] >= 0 and np.linalg.norm(quat) == pytest.approx(1.0)
        batched = geometry.quats_wxyz_from_matrices(torch.tensor(matrix)).numpy()
        assert np.allclose(quat, batched, atol=1e-12)
        assert np.allclose(geometry.matrix_from_quat_wxyz(-2 * quat), matrix, atol=1e-12)


def test_quaternion_product_is_matrix_product():
    a, b = (torch.tensor(random_rotations(20, seed)) for seed in (1, 2))
    qa, qb = geometry.quats_wxyz_from_matrices(a), geometry.quats_wxyz_from_matrices(b)
    product = geometry.matrices_from_quats_wxyz(geometry.multiply_quats_wxyz(qa, qb))
    assert torch.allclose(product, a @ b, atol=1e-12)


def test_quaternion_order_at_the_ros_edge():
    quarter_turn_about_z_wxyz = np.array([np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)])
    xyzw = geometry.xyzw_from_wxyz(quarter_turn_about_z_wxyz)
    assert np.allclose(Rotation.from_quat(xyzw).apply([1, 0, 0]), [0, 1, 0])
    assert np.array_equal(geometry.wxyz_from_xyzw(xyzw), quarter_turn_about_z_wxyz)


def test_pose_inverses():
    pose = geometry.pose_matrix(random_rotations(1)[0], np.array([1.0, -2.0, 3.0]))
    assert np.allclose(geometry.invert_pose(pose) @ pose, np.eye(4))
    assert torch.allclose(
        geometry.invert_poses(torch.tensor(pose)[None])[0], torch.tensor(geometry.invert_pose(pose))
    )


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-4, 0.3, 2.9, 3.1])
def test_twists_and_poses_are_inverses(angle):
    rng = np.random.default_rng(3)
    for _ in range(20):
        axis = rng.normal(size=3)
        twist = np.concatenate([angle * axis / np.linalg.norm(axis), rng.normal(size=3)])
        assert np.allclose(geometry.twist_from_pose(geometry.pose_from_twist(twist)), twist)


def test_a_steady_turn_about_a_point_keeps_that_point():
    # A quarter turn about z, whose axis runs through (1, 0, 0) of the moving frame.
    pose = geometry.pose_from_twist(np.array([0, 0, np.pi / 2, 0, -np.pi / 2, 0]))
    assert np.allclose(pose @ [1, 0, 0, 1], [1, 0, 0, 1])
    assert np.allclose(pose @ [0, 0, 0, 1], [1, -1, 0, 1])


def test_half_a_twist_twice_is_the_whole():
    twist = np.array([0.4, -0.2, 0.9, 0.3, 0.1, -0.5])
    half = geometry.pose_from_twist(0.5 * twist)
    assert np.allclose(half @ half, geometry.pose_from_twist(twist))


def test_face_frame_axes_follow_rep_155():
    out_of_the_face, subject_left, scalp = (
        np.array([0, 0, 1]),
        np.array([1, 0, 0]),
        np.array([0, 1, 0]),
    )
    rotation = geometry.FACE_FROM_HEAD[:3, :3]
    assert np.array_equal(rotation @ out_of_the_face, [1, 0, 0])
    assert np.array_equal(rotation @ subject_left, [0, 1, 0])
    assert np.array_equal(rotation @ scalp, [0, 0, 1])
    assert np.isclose(np.linalg.det(rotation), 1)


def test_front_camera_sees_the_head_upright():
    camera_from_head = geometry.look_at_head(0.0, 0.0, 0.6)
    # The subject's left is at the viewer's right (x right), the scalp is up (y down).
    subject_left = camera_from_head @ [0.05, 0, 0, 1]
    scalp = camera_from_head @ [0, 0.1, 0, 1]
    assert np.allclose(subject_left[:3], [0.05, 0, 0.6])
    assert np.allclose(scalp[:3], [0, -0.1, 0.6])


def test_orbit_signs_and_target():
    left = geometry.invert_pose(geometry.look_at_head(0.5, 0, 0.6))[:3, 3]
    above = geometry.invert_pose(geometry.look_at_head(0, 0.5, 0.6))[:3, 3]
    assert left[0] > 0.2
    assert np.isclose(left[1], 0)
    assert above[1] > 0.2
    target = np.array([0.01, -0.03, -0.08])
    pose = geometry.look_at_head(-0.4, 0.3, 0.7, target)
    assert np.allclose((pose @ [*target, 1])[:3], [0, 0, 0.7])
    assert np.isclose(np.linalg.det(pose[:3, :3]), 1)


@pytest.mark.parametrize(("pitch", "distance"), [(0, 0), (0, -1), (0, np.nan), (1.6, 1)])
def test_orbit_refuses_impossible_cameras(pitch, distance):
    with pytest.raises(ValueError, match="expected"):
        geometry.look_at_head(0, pitch, distance)


def test_projection_round_trip_and_optical_axis():
    intrinsics = torch.tensor(geometry.intrinsics_matrix(500, 256, 240))
    assert torch.allclose(
        geometry.project_points(intrinsics, torch.tensor([[0.0, 0, 1.0]], dtype=torch.float64)),
        torch.tensor([[256.0, 240.0]], dtype=torch.float64),
    )
    points = torch.rand(50, 3, dtype=torch.float64) + torch.tensor([-0.5, -0.5, 0.4])
    pixels = geometry.project_points(intrinsics, points)
    assert torch.allclose(geometry.unproject_pixels(intrinsics, pixels, points[:, 2]), points)


def test_pixel_centers_are_at_half():
    centers = geometry.pixel_centers(3, 2)
    assert centers.shape == (2, 3, 2)
    assert centers[0, 0].tolist() == [0.5, 0.5]
    assert centers[1, 2].tolist() == [2.5, 1.5]


def test_points_fall_on_the_pixel_that_holds_their_projection():
    """A point at (0.5, 0.5) is on the first pixel; one beside or behind the picture is on none."""
    pose = torch.tensor(geometry.look_at_head(0.0, 0.0, 1.0)).float()
    camera = Camera(torch.tensor(geometry.intrinsics_matrix(100, 2, 1)).float(), pose, 4, 2)
    # 1 m in front of it 1 cm is a pixel; the camera looks at the origin, down is -y.
    points = torch.tensor(
        [[-0.015, 0.005, 0.0], [0.0199, -0.0001, 0.0], [0.05, 0.03, 0.0], [0.0, 0.0, 2.0]]
    )
    x, y, inside = geometry.pixels_under(camera, points)
    assert inside.tolist() == [True, True, False, False]
    assert x[:3].tolist() == [0, 3, 3]
    assert y[:3].tolist() == [0, 1, 0]


def test_normals_of_triangles_turn_right_handed_and_are_twice_their_area():
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 3, 0]])
    assert geometry.triangle_normals(corners).tolist() == [0, 0, 6]
    both = torch.stack([corners, corners.flip(0)])
    assert geometry.triangle_normals(both)[:, 2].tolist() == [6, -6]


def test_crop_keeps_rays():
    """A point's pixel in the crop is its full-image pixel, shifted and scaled."""
    full = geometry.intrinsics_matrix(900, 640, 360)
    crop = geometry.crop_and_resize_intrinsics(full, 500, 200, 300, 150)
    point = np.array([0.02, -0.03, 0.7])
    in_full = (full @ point / point[2])[:2]
    in_crop = (crop @ point / point[2])[:2]
    assert np.allclose(in_crop, (in_full - [500, 200]) * 0.5)


def test_half_pixel_of_camera_info():
    k = np.array([[500, 0, 255.5], [0, 500, 239.5], [0, 0, 1.0]])
    ours = geometry.intrinsics_from_camera_info(k)
    assert ours[0, 2] == 256
    assert ours[1, 2] == 240
    assert np.array_equal(geometry.camera_info_from_intrinsics(ours), k)


def test_similarity_is_recovered_and_never_mirrors():
    rng = np.random.default_rng(0)
    points_b = rng.normal(size=(40, 3))
    rotation, translation = random_rotations(1, 5)[0], np.array([0.3, -1.0, 2.0])
    scale, found, moved = geometry.fit_similarity(
        1.7 * points_b @ rotation.T + translation, points_b
    )
    assert np.isclose(scale, 1.7)
    assert np.allclose(found, rotation)
    assert np.allclose(moved, translation)
    _, mirrored, _ = geometry.fit_similarity(points_b * [-1, 1, 1], points_b)
    assert np.isclose(np.linalg.det(mirrored), 1)
    with pytest.raises(ValueError, match="at least 3 points"):
        geometry.fit_similarity(points_b[:2], points_b[:2])
