"""Where the viewer's eyes are, and how the operator's head movement turns the avatar.

    camera_from_head = eye_from_viewer @ viewer_from_body @ body_from_head

`body` is the avatar's head frame at rest, in which viewers are placed; `head` is turned in it as
the operator's head is turned towards the webcam.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float

from avat3r_ros import geometry
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.types import Camera

HEAD_CENTER = np.array([0.0, -0.02, -0.06])
"""Point that the default viewer looks at: mid-head, a little below and behind the sellion."""

NECK_PIVOT = np.array([0.0, -0.105, -0.095])
"""Where the head turns on the neck, head frame, metres. Ours."""


@dataclass(frozen=True)
class ViewConfig:
    """Parameters of the rendered view.

    Attributes:
        width: Image width in pixels, of each eye.
        height: Image height in pixels.
        vertical_fov_deg: Vertical field of view; smaller is nearer to a passport photo.
        viewer_distance_m: Distance of the viewer until a viewer_pose arrives.
        stereo: Publish left/ and right/ instead of one image.
        ipd_m: Distance between the eyes of a stereo viewer.
    """

    width: int = ranged(512, 16, 4096)
    height: int = ranged(512, 16, 4096)
    vertical_fov_deg: float = ranged(32.0, 1.0, 150.0)
    viewer_distance_m: float = ranged(0.6, 0.2, 10.0)
    stereo: bool = False
    ipd_m: float = ranged(0.063, 0.0, 0.2)

    @property
    def eyes(self) -> tuple[str, ...]:
        """Topic prefixes of the rendered images."""
        return ("left/", "right/") if self.stereo else ("",)

    @property
    def eye_offsets_m(self) -> tuple[float, ...]:
        """Where each eye is along the viewer's x (to the right)."""
        return (-0.5 * self.ipd_m, 0.5 * self.ipd_m) if self.stereo else (0.0,)


def default_viewer_from_body(config: ViewConfig) -> Float[np.ndarray, "4 4"]:
    """Viewer in front of the face, looking at the middle of the head."""
    return geometry.look_at_head(0.0, 0.0, config.viewer_distance_m, HEAD_CENTER)


def eye_cameras(
    config: ViewConfig,
    viewer_from_body: Float[np.ndarray, "4 4"],
    body_from_head: Float[np.ndarray, "4 4"],
) -> Camera:
    """One camera for each eye, left first: shapes (C, 3, 3) and (C, 4, 4), float32."""
    focal = config.height / (2 * np.tan(np.radians(config.vertical_fov_deg) / 2))
    k = geometry.intrinsics_matrix(focal, config.width / 2, config.height / 2)
    poses = []
    for offset_m in config.eye_offsets_m:
        # What lies straight before the viewer is to the right of the left eye.
        eye_from_viewer = geometry.pose_matrix(np.eye(3), np.array([-offset_m, 0.0, 0.0]))
        poses.append(eye_from_viewer @ viewer_from_body @ body_from_head)
    return Camera(
        intrinsics=torch.tensor(np.stack([k] * len(poses)), dtype=torch.float32),
        camera_from_head=torch.tensor(np.stack(poses), dtype=torch.float32),
        width=config.width,
        height=config.height,
    )


def head_turn(camera_from_head: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3"]:
    """How a tracked head is turned away from its camera: rotation vector, head frame, radians.

    Zero for a head that faces the camera upright.
    """
    rotation = geometry.CAMERA_FROM_HEAD_AXES.T @ np.asarray(camera_from_head, np.float64)[:3, :3]
    return cv2.Rodrigues(rotation)[0].ravel()


def body_from_turned_head(turn: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """Turn the head on its neck: body_from_head for a rotation vector."""
    rotation = cv2.Rodrigues(np.asarray(turn, np.float64))[0]
    return geometry.pose_matrix(rotation, NECK_PIVOT - rotation @ NECK_PIVOT)


def placeholder_picture(width: int, height: int, text: str) -> np.ndarray:
    """A grey head-and-shoulders silhouette with one line of text, (H, W, 3) uint8 RGB."""
    picture = np.full((height, width, 3), 32, np.uint8)
    unit = min(width, height)
    centre = (width // 2, int(0.42 * height))
    grey = (72, 72, 72)
    axes = (int(0.16 * unit), int(0.21 * unit))
    cv2.ellipse(picture, centre, axes, 0, 0, 360, grey, -1, cv2.LINE_AA)
    shoulders = (width // 2, int(0.42 * height + 0.50 * unit))
    cv2.ellipse(
        picture, shoulders, (int(0.34 * unit), int(0.24 * unit)), 0, 180, 360, grey, -1, cv2.LINE_AA
    )
    scale = unit / 640
    (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    origin = ((width - text_width) // 2, int(0.95 * height))
    white = (220, 220, 220)
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, white, 1, cv2.LINE_AA)
    return picture
