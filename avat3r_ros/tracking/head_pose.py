"""Head pose from MediaPipe's metric face transform, or from landmarks and a known camera.

    canonical face (cm)  --metric_from_face-->  MediaPipe metric space (cm)
         | origin to the sellion, cm to m           | y up -> y down, looks along -z -> +z
         v                                          v
       head (m)          --camera_from_head-->    camera (m, OpenCV)

The canonical face has the axes of our head frame (x subject's left, y up, z out of the face); its
origin lies inside the head. Centimetres and MediaPipe's axes do not leave this file.

MediaPipe assumes a camera of 63 degrees vertical field of view with a centred principal point, so
its distances are wrong by the ratio of the focal lengths; `pose_for_camera` repairs this where the
camera is known. Either way distance hangs on the size of the canonical (mean adult) face.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.geometry import CAMERA_FROM_HEAD_AXES, intrinsics_matrix, pose_matrix

ASSUMED_VERTICAL_FOV_RAD = np.radians(63.0)
"""Of MediaPipe's virtual camera (face geometry module, `Environment`)."""

SELLION_CANONICAL_CM = np.array([0.0, 3.2710, 5.2360])
"""Deepest point of the nose bridge of MediaPipe's canonical face: its landmark 168."""

_BASIS = np.array(
    [
        (4, 0.0000, -0.4632, 7.5866, 0.0709),
        (6, 0.0000, 2.4733, 5.7886, 0.0321),
        (10, 0.0000, 8.2618, 4.4815, 0.0084),
        (33, -4.4459, 2.6640, 3.1734, 0.0587),
        (54, -6.2793, 6.6154, 1.4259, 0.0077),
        (67, -3.5240, 8.0060, 3.7292, 0.0091),
        (117, -5.2587, 0.9458, 2.9743, 0.0098),
        (119, -3.3007, 0.8616, 3.8728, 0.0146),
        (121, -1.8207, 1.4680, 4.2241, 0.0186),
        (127, -7.7431, 2.3650, -2.0052, 0.0052),
        (129, -1.7858, -0.9783, 4.8505, 0.1206),
        (132, -7.2709, -2.8909, -2.2525, 0.0056),
        (133, -1.8564, 2.5852, 3.7579, 0.0533),
        (136, -5.0853, -7.1786, 0.7147, 0.0669),
        (143, -6.4076, 2.2360, 1.5608, 0.0148),
        (147, -6.2349, -1.9444, 1.6635, 0.0143),
        (198, -1.2468, 0.2303, 5.6810, 0.0255),
        (205, -3.8329, -1.5373, 4.1377, 0.0473),
        (263, 4.4459, 2.6640, 3.1734, 0.0587),
        (284, 6.2793, 6.6154, 1.4259, 0.0077),
        (297, 3.5240, 8.0060, 3.7292, 0.0091),
        (346, 5.2587, 0.9458, 2.9743, 0.0098),
        (348, 3.3007, 0.8616, 3.8728, 0.0146),
        (350, 1.8207, 1.4680, 4.2241, 0.0186),
        (356, 7.7431, 2.3650, -2.0052, 0.0052),
        (358, 1.7858, -0.9783, 4.8505, 0.1206),
        (361, 7.2709, -2.8909, -2.2525, 0.0056),
        (362, 1.8564, 2.5852, 3.7579, 0.0533),
        (365, 5.0853, -7.1786, 0.7147, 0.0669),
        (372, 6.4076, 2.2360, 1.5608, 0.0148),
        (376, 6.2349, -1.9444, 1.6635, 0.0143),
        (420, 1.2468, 0.2303, 5.6810, 0.0255),
        (425, 3.8329, -1.5373, 4.1377, 0.0473),
    ]
)
"""Landmark, x, y, z (cm) and weight of the landmarks that move least with expression. MediaPipe's
own choice for its face transform (geometry_pipeline_metadata_landmarks, Apache-2.0)."""

BASIS_LANDMARKS = _BASIS[:, 0].astype(int)
BASIS_WEIGHTS = _BASIS[:, 4] / _BASIS[:, 4].sum()
BASIS_POINTS_HEAD = (_BASIS[:, 1:4] - SELLION_CANONICAL_CM) / 100.0
"""Where the basis landmarks lie on the canonical face, head frame, metres, (33, 3)."""


def camera_from_head_from_metric(
    metric_from_face_cm: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "4 4"]:
    """Convert MediaPipe's face transform to the head's pose in the OpenCV camera frame.

    Args:
        metric_from_face_cm: Canonical face to MediaPipe metric space (camera looks along -z), cm.

    Returns:
        camera_from_head, metres.

    Raises:
        ValueError: The rotation block is not a rotation to 1e-3.

    Source: MediaPipe "Face Mesh", section "Metric 3D Space".
    """
    rotation = np.asarray(metric_from_face_cm, np.float64)[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not error < 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError(f"expected a rotation, got {rotation.tolist()}")
    translation_cm = metric_from_face_cm[:3, 3] + rotation @ SELLION_CANONICAL_CM
    # OpenCV's camera is MediaPipe's turned half round x; for a frontal face that is
    # CAMERA_FROM_HEAD_AXES, since head and metric space then share their axes.
    return pose_matrix(
        CAMERA_FROM_HEAD_AXES @ rotation, CAMERA_FROM_HEAD_AXES @ translation_cm / 100.0
    )


def assumed_intrinsics(width: int, height: int) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of MediaPipe's virtual camera for an image size (centres at +0.5)."""
    focal_px = height / 2 / np.tan(ASSUMED_VERTICAL_FOV_RAD / 2)
    return intrinsics_matrix(focal_px, width / 2, height / 2)


def pose_for_camera(
    camera_from_head: Float[np.ndarray, "4 4"],
    landmarks_px: Float[np.ndarray, "l 2"],
    assumed: Float[np.ndarray, "3 3"],
    intrinsics: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "4 4"]:
    """Carry a pose found under the assumed camera over to the true one.

    The rotation relative to the viewing ray is kept: MediaPipe takes it from landmarks in 3D.
    Solving it from the same landmarks in 2D on a mean face (full PnP) turned frontal portraits by
    4 to 20 degrees. The translation is solved anew from the landmarks.

    Args:
        camera_from_head: Pose under `assumed`.
        landmarks_px: At least the 468 face landmarks, pixels.
        assumed: Intrinsics under which the pose was found.
        intrinsics: The true camera, without distortion, centres at +0.5.

    Returns:
        camera_from_head under `intrinsics`, metres.
    """
    ray = camera_from_head[:3, 3] / camera_from_head[2, 3]
    true_ray = np.linalg.solve(intrinsics, assumed @ ray)
    rotation = _rotation_between(ray, true_ray) @ camera_from_head[:3, :3]
    return pose_matrix(rotation, _solve_translation(landmarks_px, intrinsics, rotation))


def _solve_translation(
    landmarks_px: np.ndarray, intrinsics: np.ndarray, rotation: np.ndarray
) -> np.ndarray:
    """Translation of a head of known rotation: PnP with three unknowns is linear.

    Each landmark's ray (x, y, 1) demands X + t_x = x (Z + t_z) and Y + t_y = y (Z + t_z).
    """
    points = BASIS_POINTS_HEAD @ rotation.T
    pixels = np.asarray(landmarks_px, np.float64)[BASIS_LANDMARKS]
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ np.linalg.inv(intrinsics).T
    rows = np.zeros((len(points), 2, 3))
    rows[:, 0, 0] = rows[:, 1, 1] = 1.0
    rows[:, :, 2] = -rays[:, :2]
    right = rays[:, :2] * points[:, 2:] - points[:, :2]
    weights = np.sqrt(BASIS_WEIGHTS)[:, None]
    solution, *_ = np.linalg.lstsq(
        (rows * weights[..., None]).reshape(-1, 3), (right * weights).reshape(-1), rcond=None
    )
    return solution


def _rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest rotation that turns direction a into direction b, both in front of the camera."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    x, y, z = np.cross(a, b)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1.0 + a @ b)


def pose_residual(
    landmarks_px: Float[np.ndarray, "l 2"],
    intrinsics: Float[np.ndarray, "3 3"],
    camera_from_head: Float[np.ndarray, "4 4"],
) -> float:
    """Weighted RMS distance of the basis landmarks from a rigid face, in heights of the face.

    Height is that of the landmarks' bounding box, so the value does not depend on distance.
    """
    points = BASIS_POINTS_HEAD @ camera_from_head[:3, :3].T + camera_from_head[:3, 3]
    projected = points @ intrinsics.T
    offset = projected[:, :2] / projected[:, 2:] - landmarks_px[BASIS_LANDMARKS]
    rms = np.sqrt((BASIS_WEIGHTS * (offset**2).sum(-1)).sum())
    return float(rms / max(np.ptp(landmarks_px[:, 1]), 1e-6))
