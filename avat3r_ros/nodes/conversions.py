"""Messages to our dataclasses and back; images are in images.py.

The ROS side knows REP-155's face frame (x out of the face, y left, z up), quaternions xyzw and
pixel centres at integers; ours are the head frame, wxyz and +0.5. All of it changes over here,
through geometry.py.
"""

import array
import hashlib

import numpy as np
import torch
from avat3r.msg import Avatar as AvatarMsg
from avat3r.msg import Expression
from geometry_msgs.msg import Pose
from jaxtyping import Float
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header

from avat3r_ros import geometry
from avat3r_ros.avatar_file import AvatarFileError, avatar_from_bytes, avatar_to_bytes
from avat3r_ros.expression import validate_code
from avat3r_ros.types import Avatar, Camera, FaceState, Gaussians

HEAD_FROM_FACE = geometry.invert_pose(geometry.FACE_FROM_HEAD)


Stamp = tuple[int, int]
"""Seconds and nanoseconds: what belongs to one image bears exactly the same."""


def stamp_of(msg: object) -> Stamp:
    """Stamp of a message's header, to find what belongs together."""
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def stamp_s_from_msg(stamp) -> float:
    """Seconds of a builtin_interfaces Time."""
    return stamp.sec + 1e-9 * stamp.nanosec


def pose_from_msg(pose: Pose) -> Float[np.ndarray, "4 4"]:
    """Return parent_from_child of a Pose (quaternion xyzw, normalised here).

    Raises:
        ValueError: A value is not finite, or the quaternion is far from a unit one.
    """
    p, q = pose.position, pose.orientation
    values = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
    if not np.isfinite(values).all():
        raise ValueError(f"expected a finite pose, got {values.tolist()}")
    norm = float(np.linalg.norm(values[3:]))
    if abs(norm - 1.0) > 0.01:
        raise ValueError(f"expected a unit quaternion, got {values[3:].tolist()} of norm {norm:g}")
    quat = geometry.wxyz_from_xyzw(values[3:])
    return geometry.pose_matrix(geometry.matrix_from_quat_wxyz(quat), values[:3])


def msg_from_pose(parent_from_child: Float[np.ndarray, "4 4"]) -> Pose:
    """Inverse of `pose_from_msg`."""
    matrix = np.asarray(parent_from_child, np.float64)
    quat = geometry.quat_wxyz_from_matrix(matrix[:3, :3])
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = matrix[:3, 3].tolist()
    o = pose.orientation
    o.x, o.y, o.z, o.w = geometry.xyzw_from_wxyz(quat).tolist()
    return pose


def viewer_from_body_from_msg(viewer: Pose) -> Float[np.ndarray, "4 4"]:
    """Return viewer_from_body, head-frame axes, of a viewer's optical frame in the face frame.

    Raises:
        ValueError: See `pose_from_msg`.
    """
    return geometry.invert_pose(pose_from_msg(viewer)) @ geometry.FACE_FROM_HEAD


def msg_from_viewer_from_body(viewer_from_body: Float[np.ndarray, "4 4"]) -> Pose:
    """Inverse of `viewer_from_body_from_msg`."""
    return msg_from_pose(geometry.FACE_FROM_HEAD @ geometry.invert_pose(viewer_from_body))


def intrinsics_from_camera_info(
    info: CameraInfo, width: int, height: int
) -> Float[np.ndarray, "3 3"] | None:
    """Pinhole matrix (centres at +0.5) for an image, or None for an uncalibrated camera.

    Lens distortion is not undone: take a rectified image topic where it matters.

    Raises:
        ValueError: The calibration belongs to another image size, or is not a pinhole matrix.
    """
    k = np.asarray(info.k, np.float64).reshape(3, 3)
    if not k.any():
        return None
    if (info.width, info.height) != (width, height):
        raise ValueError(
            f"expected a calibration for {width}x{height}, got one for {info.width}x{info.height}"
        )
    if not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        raise ValueError(f"expected fx, fy > 0 in camera_info, got {k.tolist()}")
    return geometry.intrinsics_from_camera_info(k)


def camera_info_from_camera(
    camera: Camera, header: Header, *, baseline_m: float = 0.0
) -> CameraInfo:
    """Describe one camera without distortion.

    Args:
        camera: One camera, no leading dimension.
        header: Taken as it is.
        baseline_m: Distance to the left eye, for the right camera of a stereo pair.
    """
    if camera.intrinsics.shape != (3, 3):
        raise ValueError(f"expected one camera, got intrinsics {tuple(camera.intrinsics.shape)}")
    k = geometry.camera_info_from_intrinsics(camera.intrinsics.double().cpu().numpy())
    info = CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
    )
    info.k = k.ravel()
    info.r = np.eye(3).ravel()
    projection = np.hstack([k, [[-k[0, 0] * baseline_m], [0.0], [0.0]]])
    info.p = projection.ravel()
    return info


def expression_from_face(face: FaceState, header: Header) -> Expression:
    """Pack what the tracker saw; landmarks stay behind."""
    return Expression(
        header=header,
        detected=face.detected,
        num_faces=min(face.num_faces, 255),
        confidence=float(face.confidence),
        code_space="arkit_52",
        values=np.asarray(face.code, np.float32).tolist(),
        gaze=np.asarray(face.gaze, np.float32),
        head_pose=msg_from_pose(face.camera_from_head @ HEAD_FROM_FACE),
    )


def face_from_expression(msg: Expression, code_space: str = "arkit_52") -> FaceState:
    """Unpack and check an expression.

    Args:
        msg: From a tracker.
        code_space: Expected; the result's code has this space's length.

    Raises:
        ValueError: Another code space, wrong length, values that are not finite, a confidence
            outside [0, 1], or a broken pose.
    """
    code = validate_code(msg.code_space, np.asarray(msg.values))
    if msg.code_space != code_space:
        raise ValueError(f"expected a code of {code_space}, got {msg.code_space}")
    gaze = np.asarray(msg.gaze, np.float32)
    if not np.isfinite(gaze).all() or not 0.0 <= msg.confidence <= 1.0:
        raise ValueError(f"expected finite gaze, confidence in [0, 1]: {gaze}, {msg.confidence}")
    return FaceState(
        stamp_s=stamp_s_from_msg(msg.header.stamp),
        detected=bool(msg.detected),
        confidence=float(msg.confidence),
        code=code,
        gaze=gaze,
        camera_from_head=pose_from_msg(msg.head_pose) @ geometry.FACE_FROM_HEAD,
        landmarks_px=np.zeros((0, 2), np.float32),
        num_faces=msg.num_faces,
    )


def msg_from_avatar(avatar: Avatar, header: Header) -> AvatarMsg:
    """Pack an avatar as the bytes of its file."""
    data = avatar_to_bytes(avatar)
    # The id is the content's hash; an avatar that was never saved does not know its own.
    avatar_id = avatar.avatar_id or avatar_from_bytes(data).avatar_id
    msg = AvatarMsg(header=header, format=AvatarMsg.FORMAT, avatar_id=avatar_id)
    msg.data = array.array("B", data)
    msg.sha256 = hashlib.sha256(data).hexdigest()
    return msg


def avatar_from_msg(msg: AvatarMsg) -> Avatar:
    """Unpack an avatar, checking transport hash and content.

    Raises:
        AvatarFileError: Another format, a hash that does not match, or see `avatar_from_bytes`.
    """
    if msg.format != AvatarMsg.FORMAT:
        raise AvatarFileError(f"expected avatar format {AvatarMsg.FORMAT!r}, got {msg.format!r}")
    data = bytes(msg.data)
    digest = hashlib.sha256(data).hexdigest()
    if digest != msg.sha256:
        raise AvatarFileError(f"expected data of sha256 {msg.sha256[:16]}…, got {digest[:16]}…")
    return avatar_from_bytes(data)


_POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("opacity", "<f4"), ("size", "<f4")]
)


def point_cloud_from_gaussians(gaussians: Gaussians, header: Header) -> PointCloud2:
    """Gaussians as coloured points for RViz, in the face frame (REP-155 axes).

    `size` is the largest standard deviation in metres; `rgb` is packed as RViz expects.
    """
    rotation = torch.as_tensor(geometry.FACE_FROM_HEAD[:3, :3], dtype=torch.float32)
    means = gaussians.means.detach().cpu().float() @ rotation.T
    points = np.zeros(len(means), _POINT)
    points["x"], points["y"], points["z"] = means.numpy().T
    colors = (gaussians.colors.detach().cpu().clamp(0, 1) * 255 + 0.5).numpy().astype(np.uint32)
    points["rgb"] = colors[:, 0] << 16 | colors[:, 1] << 8 | colors[:, 2]
    points["opacity"] = gaussians.opacities.detach().cpu().numpy()
    points["size"] = gaussians.scales.detach().cpu().amax(-1).numpy()
    cloud = PointCloud2(header=header, height=1, width=len(points), is_dense=True)
    cloud.fields = [
        PointField(
            name=name,
            offset=_POINT.fields[name][1],
            datatype=PointField.UINT32 if name == "rgb" else PointField.FLOAT32,
            count=1,
        )
        for name in _POINT.names
    ]
    cloud.point_step = _POINT.itemsize
    cloud.row_step = _POINT.itemsize * len(points)
    cloud.data = array.array("B", points.tobytes())
    return cloud
