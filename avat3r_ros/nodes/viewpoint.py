"""Where the viewer's eyes are, and how the operator's head movement turns the avatar.

    camera_from_head = eye_from_viewer @ viewer_from_body @ body_from_head

`body` is the avatar's head frame at rest, in which viewers are placed; `head` is turned in it as
the operator's head is turned towards the webcam.
"""

from dataclasses import dataclass, replace

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


NOT_SET = (0.0, 0.0, 0.0, 0.0)
"""Angles of a field of view that is not given."""

MAX_EDGE_DEG = 85.0
"""A flat image cannot reach 90 degrees from its axis."""


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
        left_fov_deg: Field of view of the left (or only) eye instead of vertical_fov_deg: angles to
            the left, right, upper and lower edge in degrees, signed as in OpenXR's XrFovf (left and
            lower are negative where the axis is inside the image); all zero: not set.
        right_fov_deg: Likewise, of the right eye.
        camera_info: Take the projections from the headset's calibrations on viewer/camera_info
            (mono) or viewer/left/camera_info and viewer/right/camera_info, scaled to width and
            height, and ipd_m from the right one's P; until they arrive, from the parameters.
    """

    width: int = ranged(512, 16, 4096)
    height: int = ranged(512, 16, 4096)
    vertical_fov_deg: float = ranged(32.0, 1.0, 150.0)
    viewer_distance_m: float = ranged(0.6, 0.2, 10.0)
    stereo: bool = False
    ipd_m: float = ranged(0.063, 0.0, 0.2)
    left_fov_deg: tuple[float, ...] = NOT_SET
    right_fov_deg: tuple[float, ...] = NOT_SET
    camera_info: bool = False

    def __post_init__(self) -> None:
        for name in ("left_fov_deg", "right_fov_deg"):
            angles = getattr(self, name)
            if angles == NOT_SET:
                continue
            if len(angles) != 4 or not all(abs(a) < MAX_EDGE_DEG for a in angles):
                raise ValueError(
                    f"expected four angles below {MAX_EDGE_DEG:g} degrees in {name}, got {angles}"
                )
            if angles[0] >= angles[1] or angles[3] >= angles[2]:
                raise ValueError(f"expected left < right and lower < upper in {name}, got {angles}")
        if self.stereo and (self.left_fov_deg == NOT_SET) != (self.right_fov_deg == NOT_SET):
            raise ValueError("expected left_fov_deg and right_fov_deg to be set together")

    @property
    def eyes(self) -> tuple[str, ...]:
        """Topic prefixes of the rendered images."""
        return ("left/", "right/") if self.stereo else ("",)


@dataclass(frozen=True)
class Eyes:
    """Projection of each eye and its place in the viewer's frame; the eyes look straight ahead.

    Attributes:
        intrinsics: Left eye first, pixels, centres at +0.5.
        offsets_m: Along the viewer's x, to the right.
        width: Of each image.
        height: Of each image.
    """

    intrinsics: Float[np.ndarray, "c 3 3"]
    offsets_m: tuple[float, ...]
    width: int
    height: int

    @staticmethod
    def of(config: ViewConfig) -> "Eyes":
        """Eyes as the parameters describe them."""
        angles = (config.left_fov_deg, config.right_fov_deg)[: len(config.eyes)]
        offsets_m = (-0.5 * config.ipd_m, 0.5 * config.ipd_m) if config.stereo else (0.0,)
        intrinsics = np.stack([_intrinsics(config, one) for one in angles])
        return Eyes(intrinsics, offsets_m, config.width, config.height)

    def with_calibration(
        self,
        index: int,
        intrinsics: Float[np.ndarray, "3 3"],
        width: int,
        height: int,
        baseline_m: float | None = None,
    ) -> "Eyes":
        """One eye's projection replaced by a calibration for images of any size.

        Args:
            index: 0 for the left or only eye.
            intrinsics: For images of `width` x `height`, without skew; its field of view is kept.
            width: Of the calibration.
            height: Of the calibration.
            baseline_m: Distance between the eyes, where it is known.

        Raises:
            ValueError: An edge of the image is farther than MAX_EDGE_DEG from the axis, or its
                field of view is less than a tenth of a degree.
        """
        scaled = np.array(intrinsics, np.float64)
        for axis, size in enumerate((width, height)):
            low, high = (np.array([0.0, size]) - scaled[axis, 2]) / scaled[axis, axis]
            if max(-low, high) > np.tan(np.radians(MAX_EDGE_DEG)) or high - low < 0.002:
                raise ValueError(
                    f"expected a field of view within {MAX_EDGE_DEG:g} degrees, got K "
                    f"{scaled.tolist()} for {width}x{height}"
                )
        scaled[0] *= self.width / width
        scaled[1] *= self.height / height
        together = self.intrinsics.copy()
        together[index] = scaled
        offsets_m = self.offsets_m
        if baseline_m is not None and len(offsets_m) == 2:
            offsets_m = (-0.5 * baseline_m, 0.5 * baseline_m)
        return replace(self, intrinsics=together, offsets_m=offsets_m)

    def cameras(
        self,
        viewer_from_body: Float[np.ndarray, "4 4"],
        body_from_head: Float[np.ndarray, "4 4"],
    ) -> Camera:
        """One camera for each eye: shapes (C, 3, 3) and (C, 4, 4), float32."""
        poses = []
        for offset_m in self.offsets_m:
            # What lies straight before the viewer is to the right of the left eye.
            eye_from_viewer = geometry.pose_matrix(np.eye(3), np.array([-offset_m, 0.0, 0.0]))
            poses.append(eye_from_viewer @ viewer_from_body @ body_from_head)
        return Camera(
            intrinsics=torch.tensor(self.intrinsics, dtype=torch.float32),
            camera_from_head=torch.tensor(np.stack(poses), dtype=torch.float32),
            width=self.width,
            height=self.height,
        )


def _intrinsics(config: ViewConfig, angles_deg: tuple[float, ...]) -> Float[np.ndarray, "3 3"]:
    if angles_deg == NOT_SET:
        focal = config.height / (2 * np.tan(np.radians(config.vertical_fov_deg) / 2))
        return geometry.intrinsics_matrix(focal, config.width / 2, config.height / 2)
    left, right, upper, lower = np.tan(np.radians(angles_deg))
    fx, fy = config.width / (right - left), config.height / (upper - lower)
    return np.array([[fx, 0, -left * fx], [0, fy, upper * fy], [0, 0, 1.0]])


def default_viewer_from_body(config: ViewConfig) -> Float[np.ndarray, "4 4"]:
    """Viewer in front of the face, looking at the middle of the head."""
    return geometry.look_at_head(0.0, 0.0, config.viewer_distance_m, HEAD_CENTER)


def head_turn(camera_from_head: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3"]:
    """How a tracked head is turned away from its camera: rotation vector, head frame, radians.

    Zero for a head that faces the camera upright.
    """
    rotation = geometry.CAMERA_FROM_HEAD_AXES.T @ np.asarray(camera_from_head, np.float64)[:3, :3]
    return cv2.Rodrigues(rotation)[0].ravel()


def limited_turn(turn: Float[np.ndarray, "3"], max_rad: float) -> Float[np.ndarray, "3"]:
    """A rotation vector about the same axis, by at most `max_rad`."""
    angle_rad = float(np.linalg.norm(turn))
    return turn * (max_rad / angle_rad) if angle_rad > max_rad else turn


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
