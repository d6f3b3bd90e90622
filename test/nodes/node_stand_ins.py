"""Small stand-ins for the slow parts of the core: a face, an avatar, a tracker, an animator."""

import numpy as np
import torch

from avat3r_ros import geometry
from avat3r_ros.expression import ARKIT_INDEX, arkit_code
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import Avatar, FaceState, Gaussians


def face_state(stamp_s=1.0, jaw_open=0.0, detected=True, turn=None):
    """A frontal face half a metre before the camera."""
    pose = geometry.look_at_head(0.0, 0.0, 0.5)
    if turn is not None:
        pose = pose @ geometry.pose_matrix(turn, np.zeros(3))
    return FaceState(
        stamp_s=float(stamp_s),
        detected=detected,
        confidence=0.9 if detected else 0.0,
        code=arkit_code(jawOpen=jaw_open),
        gaze=np.zeros(2, np.float32),
        camera_from_head=pose if detected else np.eye(4),
        landmarks_px=np.zeros((0, 2), np.float32),
        num_faces=int(detected),
    )


def small_avatar(mark=0.0):
    """An avatar that can be saved and sent; only fakes can animate it."""
    return Avatar(
        avatar_id="",
        code_space="arkit_52",
        model="fake",
        weights_sha256="",
        config={},
        tensors={"mark": torch.tensor([mark])},
    )


class FakeAnimator:
    """Two red blobs beside the sellion that turn green with the jaw."""

    code_space, path = "arkit_52", "full"

    def __init__(self, avatar):
        self.mark = float(avatar.tensors["mark"])
        self.calls = 0

    def animate(self, code):
        self.calls += 1
        green = float(code[ARKIT_INDEX["jawOpen"]])
        return Gaussians(
            means=torch.tensor([[0.03, 0.0, 0.0], [-0.03, -0.02, 0.0]]),
            quats_wxyz=torch.tensor([[1.0, 0, 0, 0]] * 2),
            scales=torch.full((2, 3), 0.01),
            opacities=torch.ones(2),
            colors=torch.tensor([[1.0 - green, green, self.mark]] * 2),
        )


class FakeTracker(FaceTracker):
    """Sees a face whose jaw opens with the image's brightness; black images show nobody."""

    def __init__(self):
        self.closed = False
        self.calibrated = None
        self.resets = 0

    def track(self, image, stamp_s, intrinsics=None):
        self.intrinsics = intrinsics
        brightness = float(image.mean()) / 255
        return face_state(stamp_s, jaw_open=brightness, detected=brightness > 0)

    def calibrate_neutral(self, states):
        if len(states) < 3:
            raise ValueError(f"expected at least 3 images of a face at rest, got {len(states)}")
        self.calibrated = states

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
