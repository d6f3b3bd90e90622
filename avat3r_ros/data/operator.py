"""SyntheticOperator: a made-up person in front of a made-up webcam, for the demo and for tests.

The person performs a script (performance.py) in a room with fixed light and background; every frame
comes with the code and the camera that made it. Frames are ordinary images: the real tracker has to
find the face in them.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.noise import value_noise
from avat3r_ros.data.painter import Picture
from avat3r_ros.data.performance import Performance, Phase
from avat3r_ros.geometry import intrinsics_matrix, invert_pose, look_at_head, pose_matrix
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

_NECK_PIVOT = np.array([0.0, -0.105, -0.095])
"""Where the head turns, head frame, metres."""

_FOCAL_PER_WIDTH = 0.95
"""Focal length over image width: a webcam with a horizontal view of 56 degrees."""

_NOISE_FRAMES = 5


@dataclass(frozen=True)
class OperatorTruth:
    """What the operator really does at a moment.

    Attributes:
        code: `arkit_52` scores.
        camera: The webcam, relative to the head.
        phase: Part of the script.
    """

    code: Float[np.ndarray, "52"]
    camera: Camera
    phase: Phase


class SyntheticOperator:
    """A person performing in front of a webcam; every frame is a pure function of seed and time.

    Attributes:
        head: The person.
        width: Of the frames, pixels.
        height: Of the frames, pixels.
    """

    def __init__(
        self,
        seed: int,
        width: int = 640,
        height: int = 480,
        template: HeadTemplate | None = None,
        *,
        supersample: int = 2,
    ) -> None:
        """Draw a person and a room.

        Args:
            seed: Any non-negative integer.
            width: Of the frames, pixels.
            height: Of the frames, pixels.
            template: The shipped head template if None.
            supersample: Picture samples per pixel and axis.

        Raises:
            ValueError: The frame has no pixels.
        """
        if width < 1 or height < 1:
            raise ValueError(f"expected a positive frame size, got {width}x{height}")
        rng = np.random.default_rng([seed, 0x0FE])
        self.head = SyntheticHead(seed, HeadTemplate.load() if template is None else template)
        self.width, self.height = width, height
        self._supersample = supersample
        self._performance = Performance(seed)
        self._intrinsics = intrinsics_matrix(_FOCAL_PER_WIDTH * width, width / 2, height / 2)
        # The webcam stands a little above the eyes, as on a monitor.
        distance_m = 0.56 * max(1.0, 0.75 * width / height)
        self._camera_from_room = look_at_head(
            0.0, rng.uniform(0.02, 0.12), distance_m, np.array([0.0, -0.03, -0.05])
        )
        wall = _indoor_background(width, height, rng).astype(np.float32)
        noise = np.random.default_rng([seed, 1]).normal(0, 1.6, (_NOISE_FRAMES, height, width, 3))
        self._noise = noise.astype(np.float32)
        self._set_stage(wall)

    def phase(self, time_s: float) -> Phase:
        """Which part of the script a moment belongs to."""
        return self._performance.phase(time_s)

    def truth(self, time_s: float) -> OperatorTruth:
        """Return what the operator does at a moment."""
        camera_from_head = self._camera_from_room @ self._room_from_head(time_s)
        camera = Camera(
            intrinsics=torch.tensor(self._intrinsics, dtype=torch.float32),
            camera_from_head=torch.tensor(camera_from_head, dtype=torch.float32),
            width=self.width,
            height=self.height,
        )
        return OperatorTruth(self._performance.code(time_s), camera, self.phase(time_s))

    def frame(self, time_s: float) -> UInt8[np.ndarray, "h w 3"]:
        """Take the webcam's picture at a moment, RGB."""
        truth = self.truth(time_s)
        head_from_room = invert_pose(self._room_from_head(time_s))
        picture = self.head.paint_portrait(
            truth.camera,
            truth.code,
            supersample=self._supersample,
            light=self.head.light.rotated(head_from_room[:3, :3]),
            part="head",
        )
        which = int(time_s * 1000) % _NOISE_FRAMES
        image = self._empty_frames[which].copy()
        if picture.rgba.size:
            part = self._before_stage(picture)
            part *= 255
            part += self._noise[which][picture.window]
            image[picture.window] = cv2.convertScaleAbs(np.maximum(part, 0, out=part))
        return image

    def _set_stage(self, wall: np.ndarray) -> None:
        """Paint what does not move, once: the wall, and the shoulders before it."""
        rest = self.truth(0.0)
        camera = replace(
            rest.camera, camera_from_head=torch.tensor(self._camera_from_room, dtype=torch.float32)
        )
        clothes = self.head.paint_portrait(
            camera, np.zeros_like(rest.code), supersample=self._supersample, part="clothes"
        )
        size = (self.height, self.width)
        self._clothes = np.zeros((*size, 4), np.float32)
        self._clothes[clothes.window] = clothes.rgba
        self._clothes_depth = np.full(size, np.inf, np.float32)
        self._clothes_depth[clothes.window] = clothes.depth_m
        self._wall = wall
        self._stage = wall * (1 - self._clothes[..., 3:]) + self._clothes[..., :3]
        self._empty_frames = [
            cv2.convertScaleAbs(np.maximum(255 * self._stage + noise, 0)) for noise in self._noise
        ]

    def _before_stage(self, picture: Picture) -> np.ndarray:
        """Set the head before the stage, but behind the near side of the collar."""
        window, rgba = picture.window, picture.rgba
        part = self._stage[window] * (1 - rgba[..., 3:])
        part += rgba[..., :3]
        # At the head's outline its own depth counts for the pixels next to it, too.
        depth = cv2.erode(np.minimum(picture.depth_m, 1e3), np.ones((3, 3), np.uint8))
        behind = np.nonzero((self._clothes_depth[window] < depth) & (rgba[..., 3] > 0))
        head, clothes = rgba[behind], self._clothes[window][behind]
        deep = head[:, :3] + (1 - head[:, 3:]) * self._wall[window][behind]
        part[behind] = clothes[:, :3] + (1 - clothes[:, 3:]) * deep
        return part

    def _room_from_head(self, time_s: float) -> np.ndarray:
        """The room's axes are those of the head at rest."""
        return _turn_about_neck(*self._performance.head_turn(time_s))


def _turn_about_neck(yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = (f(angle) for angle in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])  # positive looks up
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rotation = about_y @ about_x @ about_z
    return pose_matrix(rotation, _NECK_PIVOT - rotation @ _NECK_PIVOT)


def _indoor_background(
    width: int, height: int, rng: np.random.Generator
) -> Float[np.ndarray, "h w 3"]:
    """A softly lit wall with a few blurred shapes, out of focus."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    wall = rng.uniform(0.45, 0.8) * rng.uniform(0.9, 1.08, 3)
    glow = np.exp(-(((across - rng.uniform(0, 1)) / 0.6) ** 2 + ((down - 0.1) / 0.8) ** 2))
    picture = wall * (0.75 + 0.3 * glow - 0.15 * down)[..., None]
    for _ in range(rng.integers(3, 7)):
        left, top = rng.uniform(-0.1, 0.95), rng.uniform(0.0, 0.75)
        wide, tall = rng.uniform(0.06, 0.28), rng.uniform(0.08, 0.6)
        inside = (across > left) & (across < left + wide) & (down > top) & (down < top + tall)
        color = rng.uniform(0.2, 0.9) * rng.uniform(0.8, 1.15, 3)
        picture[inside] = 0.35 * picture[inside] + 0.65 * color
    sigma = 0.012 * width
    picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    points = np.stack([across.ravel(), down.ravel()], -1).astype(np.float32)
    uneven = value_noise(points, 0.25, rng).reshape(height, width)
    return (picture * (1 + 0.02 * uneven[..., None])).clip(0.02, 0.98)
