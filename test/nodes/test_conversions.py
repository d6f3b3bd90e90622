"""Messages and dataclasses: quaternion order, half pixel, frames, refusals."""

import array

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from geometry_msgs.msg import Pose
from node_stand_ins import face_state, small_avatar
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from avat3r_ros import geometry
from avat3r_ros.avatar_file import AvatarFileError
from avat3r_ros.nodes import conversions
from avat3r_ros.types import Camera, Gaussians


def rotated_pose():
    turn = geometry.look_at_head(0.4, 0.2, 0.7)
    turn[:3, 3] = [0.1, -0.2, 0.3]
    return turn


def test_pose_round_trip():
    pose = rotated_pose()
    np.testing.assert_allclose(
        conversions.pose_from_msg(conversions.msg_from_pose(pose)), pose, atol=1e-12
    )


def test_quaternions_of_messages_are_xyzw():
    quarter_turn_about_z = Pose()
    quarter_turn_about_z.orientation.z = quarter_turn_about_z.orientation.w = np.sqrt(0.5)
    x_axis = conversions.pose_from_msg(quarter_turn_about_z)[:3, 0]
    np.testing.assert_allclose(x_axis, [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("field", ["position", "orientation"])
def test_poses_with_nan_are_refused(field):
    pose = Pose()
    getattr(pose, field).x = float("nan")
    with pytest.raises(ValueError, match="finite pose"):
        conversions.pose_from_msg(pose)


def test_a_quaternion_of_zeros_is_refused():
    pose = Pose()
    pose.orientation.w = 0.0
    with pytest.raises(ValueError, match="unit quaternion"):
        conversions.pose_from_msg(pose)


def test_viewer_in_front_of_the_face_looks_at_it():
    """REP-155: x points out of the face, so a viewer in front is at +x and looks along -x."""
    viewer_from_body = geometry.look_at_head(0.0, 0.0, 0.6)
    pose = conversions.msg_from_viewer_from_body(viewer_from_body)
    assert pose.position.x == pytest.approx(0.6)
    face_from_viewer = conversions.pose_from_msg(pose)
    np.testing.assert_allclose(face_from_viewer[:3, 2], [-1, 0, 0], atol=1e-12)  # optical axis
    np.testing.assert_allclose(face_from_viewer[:3, 1], [0, 0, -1], atol=1e-12)  # image down
    np.testing.assert_allclose(
        conversions.viewer_from_body_from_msg(pose), viewer_from_body, atol=1e-12
    )


def test_camera_info_loses_and_gains_the_half_pixel():
    k = torch.tensor([[500.0, 0, 320.0], [0, 510.0, 240.0], [0, 0, 1]])
    camera = Camera(k, torch.eye(4), 640, 480)
    info = conversions.camera_info_from_camera(camera, Header(), baseline_m=0.06)
    assert info.k[2] == 319.5 and info.k[5] == 239.5
    assert info.p[3] == pytest.approx(-500.0 * 0.06)
    back = conversions.intrinsics_from_camera_info(info, 640, 480)
    np.testing.assert_allclose(back, k.numpy())


def test_uncalibrated_and_foreign_camera_info():
    assert conversions.intrinsics_from_camera_info(CameraInfo(), 640, 480) is None
    info = CameraInfo(width=320, height=240)
    info.k = np.array([300.0, 0, 160, 0, 300, 120, 0, 0, 1])
    with pytest.raises(ValueError, match="calibration for 640x480"):
        conversions.intrinsics_from_camera_info(info, 640, 480)


def test_face_to_expression_and_back():
    face = face_state(stamp_s=12.5, jaw_open=0.25)
    header = Header(frame_id="cam")
    header.stamp.sec, header.stamp.nanosec = 12, 500_000_000
    msg = conversions.expression_from_face(face, header)
    assert msg.head_pose.position.z == pytest.approx(0.5)
    back = conversions.face_from_expression(msg)
    assert back.stamp_s == 12.5 and back.detected and back.num_faces == 1
    np.testing.assert_array_equal(back.code, face.code)
    np.testing.assert_allclose(back.camera_from_head, face.camera_from_head, atol=1e-12)


def test_head_pose_of_the_message_is_the_rep_155_face_frame():
    """A face that looks into the camera: x out of the face is the camera's -z, z up its -y."""
    msg = conversions.expression_from_face(face_state(), Header())
    optical_from_face = conversions.pose_from_msg(msg.head_pose)
    np.testing.assert_allclose(optical_from_face[:3, 0], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(optical_from_face[:3, 2], [0, -1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"code_space": "arkit_53"}, "unknown code space"),
        ({"code_space": "ava256_256", "values": [0.0] * 256}, "expected a code of arkit_52"),
        ({"values": [0.0] * 51}, "52 values"),
        ({"values": [float("nan")] * 52}, "not finite"),
        ({"confidence": 3.0}, "confidence"),
    ],
)
def test_expressions_that_cannot_be_used_are_refused(change, match):
    msg = conversions.expression_from_face(face_state(), Header())
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(ValueError, match=match):
        conversions.face_from_expression(msg)


def test_avatar_round_trip_gives_it_its_id():
    msg = conversions.msg_from_avatar(small_avatar(0.5), Header())
    avatar = conversions.avatar_from_msg(msg)
    assert avatar.avatar_id == msg.avatar_id and len(avatar.avatar_id) == 64
    assert float(avatar.tensors["mark"]) == 0.5


@pytest.mark.parametrize("what", ["data", "sha256", "format", "cut"])
def test_damaged_avatar_messages_are_refused(what):
    msg = conversions.msg_from_avatar(small_avatar(), Header())
    if what == "data":
        msg.data[-1] ^= 1
    elif what == "cut":
        msg.data = array.array("B", bytes(msg.data)[:-10])
    else:
        setattr(msg, what, "0" * 64)
    with pytest.raises(AvatarFileError):
        conversions.avatar_from_msg(msg)


def test_point_cloud_is_in_the_face_frame_with_colours():
    gaussians = Gaussians(
        means=torch.tensor([[0.01, 0.02, 0.03]]),
        quats_wxyz=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.tensor([[0.001, 0.004, 0.002]]),
        opacities=torch.tensor([0.7]),
        colors=torch.tensor([[1.0, 0.5, -0.2]]),
    )
    cloud = conversions.point_cloud_from_gaussians(gaussians, Header(frame_id="avatar"))
    point = np.frombuffer(cloud.data, conversions._POINT)[0]
    # x out of the face is the head's z, y its x, z its y
    np.testing.assert_allclose([point["x"], point["y"], point["z"]], [0.03, 0.01, 0.02])
    assert point["rgb"] == 0xFF8000
    assert point["size"] == pytest.approx(0.004)
    assert [f.name for f in cloud.fields[:4]] == ["x", "y", "z", "rgb"]
    assert cloud.row_step == len(cloud.data)


def test_ros_reads_the_point_cloud():
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation only"
    )
    means = torch.rand(5, 3)
    gaussians = Gaussians(
        means, torch.eye(4)[:1].repeat(5, 1), means + 0.1, torch.ones(5), torch.ones(5, 3)
    )
    cloud = conversions.point_cloud_from_gaussians(gaussians, Header())
    assert point_cloud2.read_points(cloud, ["x"])["x"] == pytest.approx(means[:, 2].numpy())
