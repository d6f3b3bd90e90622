"""Frames, poses and projections, each with its inverse. Every convention is stated here once.

Transforms are named `a_from_b` and chain by eye: `points_a = a_from_b @ points_b`.

    head (canonical)                 camera (OpenCV)            face_<id> (ROS, REP-155)
         y up                             z forward                  z up (to the scalp)
         |                               /                           |
         |                              o---- x right                |
         o---- x subject's left         |                            o---- y subject's left
        /                               y down                      /
       z out of the face                                           x out of the face

`head` and `face_<id>` share their origin, the sellion (deepest point of the nose bridge) of the
mean head template. Metres everywhere. A camera in front of the face at distance d sees the head
upright with `camera_from_head` = diag(1, -1, -1) and translation (0, 0, d).

Pixel centres are at +0.5: the centre of the top-left pixel is (0.5, 0.5), and a Gaussian on the
optical axis lands at (cx, cy). ROS `CameraInfo` and OpenCV calibration put centres at integers;
`intrinsics_from_camera_info` and `camera_info_from_intrinsics` are the only places that add or
remove the half pixel.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.types import Camera

FACE_FROM_HEAD = np.array(
    [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)
"""Constant rotation from the canonical head frame to REP-155's face frame (same origin)."""

CAMERA_FROM_HEAD_AXES = np.diag([1.0, -1.0, -1.0])
"""Rotation part of a camera that looks straight at the face, upright."""


def quats_wxyz_from_matrices(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Convert rotation matrices to unit quaternions with w >= 0.

    The largest of the four components is taken from the diagonal and the others divided by it, so
    no rotation is near a singularity (Shepperd, "Quaternion from rotation matrix", 1978).
    """
    m = rotations
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack(
        [1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], -1
    )
    a = m[..., 2, 1] - m[..., 1, 2]
    b = m[..., 0, 2] - m[..., 2, 0]
    c = m[..., 1, 0] - m[..., 0, 1]
    d = m[..., 1, 0] + m[..., 0, 1]
    e = m[..., 0, 2] + m[..., 2, 0]
    f = m[..., 2, 1] + m[..., 1, 2]
    w2, x2, y2, z2 = squares.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([w2, a, b, c], -1),
            torch.stack([a, x2, d, e], -1),
            torch.stack([b, d, y2, f], -1),
            torch.stack([c, e, f, z2], -1),
        ],
        -2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quats = torch.nn.functional.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def matrices_from_quats_wxyz(quats_wxyz: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Convert quaternions (normalised here) to rotation matrices."""
    w, x, y, z = torch.nn.functional.normalize(quats_wxyz, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quat_wxyz_from_matrix(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """`quats_wxyz_from_matrices` of one matrix in plain numbers, float64.

    For what travels with each frame: small tensors take thirty times as long.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = np.asarray(rotation).tolist()
    a, b, c = m21 - m12, m02 - m20, m10 - m01
    d, e, f = m10 + m01, m02 + m20, m21 + m12
    candidates = (
        (1 + m00 + m11 + m22, a, b, c),
        (a, 1 + m00 - m11 - m22, d, e),
        (b, d, 1 - m00 + m11 - m22, f),
        (c, e, f, 1 - m00 - m11 + m22),
    )
    best = max(range(4), key=lambda i: candidates[i][i])
    quat = np.array(candidates[best], np.float64)
    return quat / (np.copysign(1.0, quat[0]) * np.sqrt(quat @ quat))


def matrix_from_quat_wxyz(quat_wxyz: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    """`matrices_from_quats_wxyz` of one quaternion (normalised here) in plain numbers, float64."""
    quat = np.asarray(quat_wxyz, np.float64)
    w, x, y, z = (quat / np.sqrt(quat @ quat)).tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def multiply_quats_wxyz(
    a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]
) -> Float[Tensor, "*b 4"]:
    """Hamilton product: the rotation `b` followed by the rotation `a`."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def xyzw_from_wxyz(quat_wxyz: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """Reorder one quaternion for ROS or SciPy; the order changes only here and in the inverse."""
    return np.roll(quat_wxyz, -1)


def wxyz_from_xyzw(quat_xyzw: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """Reorder one quaternion that came from ROS or SciPy."""
    return np.roll(quat_xyzw, 1)


def pose_matrix(
    rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """Assemble a rigid transform, float64."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = translation
    return pose


def invert_pose(a_from_b: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """Invert a rigid transform without a general matrix inverse."""
    rotation = np.asarray(a_from_b)[:3, :3].T
    return pose_matrix(rotation, -rotation @ np.asarray(a_from_b)[:3, 3])


def invert_poses(a_from_b: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Invert rigid transforms, batched and differentiable."""
    rotation = a_from_b[..., :3, :3].transpose(-1, -2)
    translation = -rotation @ a_from_b[..., :3, 3:]
    bottom = a_from_b[..., 3:, :]
    return torch.cat([torch.cat([rotation, translation], -1), bottom], -2)


def pose_from_twist(twist: Float[np.ndarray, "6"]) -> Float[np.ndarray, "4 4"]:
    """Exponential of SE(3): where one unit of time of a steady screw motion leads.

    Args:
        twist: Turn (rotation vector, radians), then velocity (metres), both in the moving frame.

    Source: Murray, Li and Sastry, "A Mathematical Introduction to Robotic Manipulation", 2.3.
    """
    turn, velocity = np.asarray(twist[:3], np.float64), np.asarray(twist[3:], np.float64)
    w = _cross_matrix(turn)
    angle = float(np.linalg.norm(turn))
    if angle < 1e-6:  # second order: exact to the last digit here
        rotation, shift = np.eye(3) + w + 0.5 * w @ w, np.eye(3) + 0.5 * w
    else:
        a, b = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
        rotation = np.eye(3) + a * w + b * w @ w
        shift = np.eye(3) + b * w + (1 - a) / angle**2 * w @ w
    return pose_matrix(rotation, shift @ velocity)


def twist_from_pose(a_from_b: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "6"]:
    """Logarithm of SE(3), inverse of `pose_from_twist` for turns below pi."""
    pose = np.asarray(a_from_b, np.float64)
    r = pose[:3, :3]
    axis = 0.5 * np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    sine, cosine = float(np.linalg.norm(axis)), 0.5 * (float(np.trace(r)) - 1)
    angle = float(np.arctan2(sine, cosine))
    if angle < 3.0:
        turn = axis * (angle / sine if sine > 1e-9 else 1.0)
    else:  # the axis vanishes towards half turns, the quaternion does not
        quat = quats_wxyz_from_matrices(torch.from_numpy(r.copy())).numpy()
        turn = quat[1:] * (angle / np.linalg.norm(quat[1:]))
    w = _cross_matrix(turn)
    # 1 / angle^2 - cot(angle / 2) / (2 angle), and its limit
    b = (1 - angle / (2 * np.tan(angle / 2))) / angle**2 if angle > 1e-3 else 1 / 12
    velocity = (np.eye(3) - 0.5 * w + b * w @ w) @ pose[:3, 3]
    return np.concatenate([turn, velocity])


def _cross_matrix(v: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Matrix whose product with x is v x x."""
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def transform_points(
    a_from_b: Float[Tensor, "*b 4 4"], points_b: Float[Tensor, "*b n 3"]
) -> Float[Tensor, "*b n 3"]:
    """Apply rigid transforms to points."""
    return points_b @ a_from_b[..., :3, :3].transpose(-1, -2) + a_from_b[..., None, :3, 3]


def fit_similarity(
    points_a: Float[np.ndarray, "n 3"], points_b: Float[np.ndarray, "n 3"]
) -> tuple[float, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Find scale, rotation and translation with a ~ scale * rotation @ b + translation.

    Least squares over corresponding points (Umeyama, "Least-squares estimation of transformation
    parameters between two point patterns", 1991).

    Raises:
        ValueError: Fewer than 3 points, or different numbers of them.
    """
    if points_a.shape != points_b.shape or len(points_a) < 3:
        raise ValueError(
            f"expected two equal sets of at least 3 points, got {points_a.shape}, {points_b.shape}"
        )
    mean_a, mean_b = points_a.mean(0), points_b.mean(0)
    centered_a, centered_b = points_a - mean_a, points_b - mean_b
    u, singular, vt = np.linalg.svd(centered_a.T @ centered_b)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (centered_b**2).sum())
    return scale, rotation, mean_a - scale * rotation @ mean_b


def project_points(
    intrinsics: Float[Tensor, "*b 3 3"], points_camera: Float[Tensor, "*b n 3"]
) -> Float[Tensor, "*b n 2"]:
    """Project camera-frame points to pixels. Points at or behind the camera give huge values."""
    depth = points_camera[..., 2:].clamp(min=1e-6)
    return (points_camera[..., :2] / depth) @ intrinsics[..., :2, :2].transpose(
        -1, -2
    ) + intrinsics[..., None, :2, 2]


def unproject_pixels(
    intrinsics: Float[Tensor, "*b 3 3"],
    pixels: Float[Tensor, "*b n 2"],
    depth: Float[Tensor, "*b n"],
) -> Float[Tensor, "*b n 3"]:
    """Inverse of `project_points` for known z depth."""
    xy = (pixels - intrinsics[..., None, :2, 2]) @ torch.linalg.inv(
        intrinsics[..., :2, :2]
    ).transpose(-1, -2)
    return torch.cat([xy, torch.ones_like(xy[..., :1])], -1) * depth[..., None]


def pixels_under(
    camera: Camera, points_head: Float[Tensor, "n 3"]
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Bool[Tensor, "n"]]:
    """Column and row of the pixel each point falls on, and whether it is in the picture.

    Of a point beside the picture the nearest pixel in it; nothing behind the camera is in it.
    """
    points = transform_points(camera.camera_from_head.float(), points_head)
    x, y = project_points(camera.intrinsics.float(), points).floor().long().unbind(-1)
    inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height) & (points[:, 2] > 0)
    return x.clamp(0, camera.width - 1), y.clamp(0, camera.height - 1), inside


def triangle_normals(corners: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Outward normals of triangles (..., corner, xyz), as long as twice their areas."""
    a, b, c = corners.unbind(-2)
    return torch.cross(b - a, c - a, dim=-1)


def pixel_centers(width: int, height: int) -> Float[Tensor, "h w 2"]:
    """Pixel-centre coordinates (x, y) of an image grid."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1)


def look_at_head(
    yaw_rad: float,
    pitch_rad: float,
    distance_m: float,
    target_head: Float[np.ndarray, "3"] | None = None,
) -> Float[np.ndarray, "4 4"]:
    """Pose of an upright camera that orbits the head and looks at `target_head`.

    Args:
        yaw_rad: 0 is in front of the face; positive moves the camera to the subject's left.
        pitch_rad: 0 is level; positive raises the camera. Must lie inside (-pi/2, pi/2).
        distance_m: From the target, > 0.
        target_head: Point to look at, head frame; the origin (sellion) if None.

    Returns:
        camera_from_head, float64.

    Raises:
        ValueError: The distance is not positive or the pitch reaches a pole.
    """
    if not distance_m > 0:
        raise ValueError(f"expected a positive distance in metres, got {distance_m}")
    if not abs(pitch_rad) < np.pi / 2:
        raise ValueError(f"expected a pitch inside (-pi/2, pi/2), got {pitch_rad}")
    target = np.zeros(3) if target_head is None else np.asarray(target_head, np.float64)
    back = np.array(
        [
            np.sin(yaw_rad) * np.cos(pitch_rad),
            np.sin(pitch_rad),
            np.cos(yaw_rad) * np.cos(pitch_rad),
        ]
    )
    right = np.array([np.cos(yaw_rad), 0.0, -np.sin(yaw_rad)])
    rotation = np.stack([right, -np.cross(back, right), -back])
    return pose_matrix(rotation, -rotation @ (target + distance_m * back))


def camera_direction(camera_from_head: Float[np.ndarray, "4 4"]) -> tuple[float, float]:
    """Yaw and pitch (radians) at which the camera's centre stands around the head.

    Inverse of `look_at_head` up to roll: yaw positive to the subject's left, pitch up.
    """
    rotation, translation = camera_from_head[:3, :3], camera_from_head[:3, 3]
    x, y, z = -rotation.T @ translation / np.linalg.norm(translation)
    return float(np.arctan2(x, z)), float(np.arcsin(np.clip(y, -1.0, 1.0)))


def intrinsics_matrix(
    focal_px: float, center_x_px: float, center_y_px: float
) -> Float[np.ndarray, "3 3"]:
    """Build a square-pixel intrinsics matrix (centres at +0.5), float64."""
    return np.array([[focal_px, 0, center_x_px], [0, focal_px, center_y_px], [0, 0, 1.0]])


def crop_and_resize_intrinsics(
    intrinsics: Float[np.ndarray, "3 3"],
    left_px: float,
    top_px: float,
    crop_size_px: float,
    output_size_px: int,
) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of a square crop resized to a square; only here does a crop change K."""
    scale = output_size_px / crop_size_px
    out = np.array(intrinsics, dtype=np.float64)
    out[0, 2] -= left_px
    out[1, 2] -= top_px
    out[:2] *= scale
    return out


def intrinsics_from_camera_info(k: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Convert a ROS/OpenCV calibration matrix (centres at integers) to ours (centres at +0.5)."""
    out = np.array(k, dtype=np.float64)
    out[:2, 2] += 0.5
    return out


def camera_info_from_intrinsics(intrinsics: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Inverse of `intrinsics_from_camera_info`."""
    out = np.array(intrinsics, dtype=np.float64)
    out[:2, 2] -= 0.5
    return out
