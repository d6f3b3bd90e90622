"""Which Gaussians any viewer ever sees: the weight each brings to pictures from all directions.

The weight of a Gaussian in a pixel, its alpha times what the Gaussians before it let through, is
the derivative of the pixel by the Gaussian's colour. One backward pass therefore gives the sum over
the pixels for all Gaussians. Leaving a Gaussian out changes the colour of a pixel by at most its
weight there.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.animation.codes import ARKIT_SPACE, random_codes
from avat3r_ros.animation.snapshots import FullPath
from avat3r_ros.expression import CODE_SPACES, arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.native import SplatScene, SplatWorkspace
from avat3r_ros.types import Camera

HEAD_CENTER = np.array([0.0, -0.02, -0.06])
DISTANCE_M, FIELD_OF_VIEW_RAD = 0.6, 0.56

PICTURE_PX = 384
"""Side of the tried pictures."""

OPEN_CODES: tuple[dict[str, float], ...] = (
    {"jawOpen": 1.0},
    {"jawOpen": 1.0, "tongueOut": 1.0},
    {"eyeBlink": 1.0},
    {"eyeWide": 1.0, "browInnerUp": 1.0, "mouthPucker": 1.0, "jawOpen": 0.3},
    {"jawOpen": 0.5, "mouthSmile": 0.9, "mouthUpperUp": 0.6, "mouthLowerDown": 0.6},
    {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0, "cheekPuff": 1.0},
    {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0, "mouthSmile": 1.0},
    {"eyeLookDown": 1.0, "browDown": 1.0},
)
"""Expressions that show what the neutral face hides."""

ALL_YAWS_DEG, ALL_PITCHES_DEG = range(-180, 180, 45), (-40, 0, 40, 75)
FRONT_YAWS_DEG, FRONT_PITCHES_DEG = (-45, 0, 45), (0,)

NUM_DRIVEN, DRIVEN_YAW_RAD, DRIVEN_PITCH_RAD = 60, 1.0, 0.5
"""Random codes, each from one random direction in front. Without them teeth and lids that only
half-opened mouths and eyes show were lost: 46 dB at worst instead of 58."""


def orbit_camera(yaw_rad: float, pitch_rad: float, size: int) -> Camera:
    """Return a square camera (C = 1) that sees the whole head."""
    focal = size / (2 * np.tan(FIELD_OF_VIEW_RAD / 2))
    pose = look_at_head(yaw_rad, pitch_rad, DISTANCE_M, HEAD_CENTER)
    intrinsics = intrinsics_matrix(focal, size / 2, size / 2)
    return Camera(
        torch.from_numpy(intrinsics).float()[None], torch.from_numpy(pose).float()[None], size, size
    )


def largest_contributions(
    path: FullPath, code_space: str, progress: Callable[[float], None]
) -> Float[Tensor, "n"]:
    """Return each Gaussian's greatest sum of weights over the pixels of one tried picture."""
    workspace = SplatWorkspace()
    most = torch.zeros(len(path))
    views = list(_views(code_space))
    for i, (code, cameras) in enumerate(views):
        progress(i / len(views))
        gaussians = path.gaussians(torch.from_numpy(code))
        for camera in cameras:
            scene = SplatScene(
                gaussians.means.contiguous(),
                gaussians.quats_wxyz.contiguous(),
                gaussians.scales.contiguous(),
                gaussians.opacities.contiguous(),
                torch.ones(len(gaussians), 1),
                camera.camera_from_head,
                camera.intrinsics,
                camera.width,
                camera.height,
            )
            image = torch.empty(1, camera.height, camera.width, 1)
            alphas = torch.empty(1, camera.height, camera.width)
            threads = torch.get_num_threads()
            workspace.forward(
                scene, channels=image, alphas=alphas, keep_for_backward=True, num_threads=threads
            )
            weights = workspace.backward(
                scene, torch.ones_like(image), None, num_threads=threads
            ).colors
            assert weights is not None
            most = torch.maximum(most, weights[:, 0])
    return most


def _views(code_space: str) -> Iterator[tuple[np.ndarray, list[Camera]]]:
    """Codes, each with its cameras: all around for the first, in front for the others."""
    rng = np.random.default_rng(29)

    def cameras(yaws: object, pitches: object) -> list[Camera]:
        return [
            orbit_camera(np.radians(yaw), np.radians(pitch), PICTURE_PX)
            for yaw in yaws
            for pitch in pitches
        ]

    yield np.zeros(CODE_SPACES[code_space], np.float32), cameras(ALL_YAWS_DEG, ALL_PITCHES_DEG)
    if code_space == ARKIT_SPACE:
        for scores in OPEN_CODES:
            yield arkit_code(**scores), cameras(FRONT_YAWS_DEG, FRONT_PITCHES_DEG)
    for code in random_codes(code_space, NUM_DRIVEN, rng):
        yaw = rng.uniform(-DRIVEN_YAW_RAD, DRIVEN_YAW_RAD)
        pitch = rng.uniform(-DRIVEN_PITCH_RAD, DRIVEN_PITCH_RAD)
        yield code, [orbit_camera(yaw, pitch, PICTURE_PX)]
