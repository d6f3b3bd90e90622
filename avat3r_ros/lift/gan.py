"""A lift by a 3D GAN that a user has: find the photo among its faces, then look from elsewhere.

    photo ─align─► the generator's frame ─► w with forward(w, camera) = photo ─► four other cameras

The generator is a TorchScript file in the manner of EG3D (Chan et al., CVPR 2022), trained on FFHQ:

- `w_mean`: a buffer or parameter, the mean latent w, of any shape;
- `forward(w, camera)`: w as `w_mean` with a leading 1, camera (1, 25); returns RGB (1, 3, s, s) in
  [-1, 1], differentiable in w. The 25 numbers are world_from_camera (4x4, rows, OpenCV axes), then
  the intrinsics (3x3, rows) in units of the image's side. The face looks along +z, y is up, and the
  cameras of FFHQ stand `RADIUS` from `PIVOT`.

Writing such a file from a checkpoint is up to its owner, and so is its licence: EG3D's code and
weights are for non-commercial research only. Nothing of them is used here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avat3r_ros.geometry import camera_direction, fit_similarity, invert_pose, look_at_head
from avat3r_ros.priors.networks import load_torchscript
from avat3r_ros.types import FaceState

RADIUS, FOCAL, PIVOT = 2.7, 4.2647, np.array([0.0, 0.0, 0.2])
"""Cameras of FFHQ as EG3D has them: distance, focal length in image sides, what they look at."""

DIRECTIONS_RAD = ((-np.pi / 8, 0.0), (np.pi / 8, 0.0), (0.0, 0.2), (0.0, -0.2))
"""Yaw and pitch of the views, those of the paper's author: GANs fall apart farther away."""

STEPS, LEARNING_RATE = 200, 0.05
MEAN_WEIGHT = 1e-3
"""Pull of the mean face: far from it a generator still matches the photo, but not from aside."""

BACKGROUND_WEIGHT = 0.1
"""Of what the matte leaves out, against the head."""

STABLE_LANDMARKS = (33, 133, 362, 263, 168, 1, 61, 291, 152)
"""MediaPipe's corners of the eyes and the mouth, bridge and tip of the nose, chin."""

MAX_YAW_RAD = np.radians(40)
"""Generators know faces from in front."""

Track = Callable[[Sequence[np.ndarray]], list[FaceState]]


@dataclass(frozen=True)
class Generator:
    """A checked generator.

    Attributes:
        module: The TorchScript module, frozen.
        w_mean: Mean latent with a leading dimension of 1.
        size: Side of its pictures, pixels.
    """

    module: torch.nn.Module
    w_mean: Float[Tensor, "1 *w"]
    size: int

    @property
    def focal_px(self) -> float:
        """Focal length of its pictures."""
        return FOCAL * self.size

    def pictures(
        self, w: Float[Tensor, "1 *w"], directions_rad: Sequence[tuple[float, float]]
    ) -> list[UInt8[np.ndarray, "s s 3"]]:
        """Draw a face from some directions (yaw, pitch)."""
        with torch.no_grad():
            drawn = [self.module(w, camera_numbers(*angles).to(w))[0] for angles in directions_rad]
        return [
            ((d.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).numpy()
            for d in drawn
        ]


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Load a TorchScript generator, and try it once.

    A TorchScript file is a program: take it from nobody you do not trust.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TorchScript file (pickled checkpoints are not read), or does not do
            what this module's docstring asks for.
    """
    module = load_torchscript(path, "a TorchScript generator", device)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    w_mean = getattr(module, "w_mean", None)
    if not isinstance(w_mean, Tensor):
        raise ValueError(f"{path}: expected a tensor `w_mean`, found none")
    w_mean = w_mean.detach().float()[None]
    try:
        image = module(w_mean, camera_numbers(0.0, 0.0).to(w_mean))
    except RuntimeError as error:
        raise ValueError(
            f"{path}: forward(w, camera) fails for w {tuple(w_mean.shape)} and camera (1, 25): "
            f"{str(error).strip().splitlines()[-1]}"
        ) from error
    shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
    if not isinstance(image, Tensor) or image.ndim != 4 or shape != (1, 3, shape[2], shape[2]):
        raise ValueError(f"{path}: expected pictures (1, 3, s, s), got {shape}")
    return Generator(module, w_mean, shape[2])


def camera_numbers(yaw_rad: float, pitch_rad: float) -> Float[Tensor, "1 25"]:
    """The 25 numbers of a camera on the orbit, as the generator takes them."""
    world_from_camera = invert_pose(look_at_head(yaw_rad, pitch_rad, RADIUS, PIVOT))
    intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
    numbers = np.concatenate([world_from_camera.ravel(), intrinsics.ravel()])
    return torch.tensor(numbers, dtype=torch.float32)[None]


def lift(
    image: UInt8[np.ndarray, "h w 3"],
    matte: Float[np.ndarray, "h w"],
    face: FaceState,
    track: Track,
    generator: Generator,
    steps: int = STEPS,
) -> list[UInt8[np.ndarray, "s s 3"]]:
    """Draw the person of a photo from `DIRECTIONS_RAD`.

    Args:
        image: The photo, RGB.
        matte: Share of each pixel that belongs to the person.
        face: What the tracker saw in it.
        track: The tracker, for pictures of the generator.
        generator: Whose faces are searched.
        steps: Of the search.

    Raises:
        ValueError: The face is turned too far, or no face is seen where the generator should show
            its mean one.
    """
    yaw, pitch = camera_direction(face.camera_from_head)
    if abs(yaw) > MAX_YAW_RAD:
        raise ValueError(
            f"expected a face turned by at most {np.degrees(MAX_YAW_RAD):.0f} degrees for the 3D "
            f"GAN, got {np.degrees(abs(yaw)):.0f}"
        )
    mean_picture = generator.pictures(generator.w_mean, [(yaw, pitch)])[0]
    mean_face = track([mean_picture])[0]
    if not mean_face.detected:
        raise ValueError(
            "no face is seen in the generator's mean picture; is it one of faces, with the cameras "
            "of FFHQ?"
        )
    frame_from_photo = align(face, mean_face)
    size = (generator.size, generator.size)
    target = cv2.warpAffine(
        np.ascontiguousarray(image), frame_from_photo, size, flags=cv2.INTER_AREA,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    weight = cv2.warpAffine(matte.astype(np.float32), frame_from_photo, size)
    w = invert(generator, target, weight, (yaw, pitch), steps)
    return generator.pictures(w, DIRECTIONS_RAD)


def align(face: FaceState, onto: FaceState) -> Float[np.ndarray, "2 3"]:
    """Affine map (turn, scale, shift) that lays one face's landmarks on another's.

    Pixel centres are OpenCV's, at integers.
    """
    rows = list(STABLE_LANDMARKS)
    flat = [
        np.pad(one.landmarks_px[rows].astype(np.float64) - 0.5, ((0, 0), (0, 1)))
        for one in (onto, face)
    ]
    scale, rotation, shift = fit_similarity(*flat)
    return np.concatenate([scale * rotation[:2, :2], shift[:2, None]], 1)


def invert(
    generator: Generator,
    target: UInt8[np.ndarray, "s s 3"],
    weight: Float[np.ndarray, "s s"],
    direction_rad: tuple[float, float],
    steps: int = STEPS,
) -> Float[Tensor, "1 *w"]:
    """Find the latent whose picture from a direction is the target.

    Args:
        generator: The generator.
        target: In the generator's frame, RGB.
        weight: Of each pixel, [0, 1].
        direction_rad: Yaw and pitch of its camera.
        steps: Of Adam, from the mean face.
    """
    device = generator.w_mean.device
    wanted = torch.from_numpy(target).to(device).float().movedim(-1, 0)[None] / 127.5 - 1
    share = torch.from_numpy(weight).to(device).float()[None, None]
    share = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * share
    camera = camera_numbers(*direction_rad).to(generator.w_mean)
    w = generator.w_mean.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=LEARNING_RATE)
    for _ in range(steps):
        drawn = generator.module(w, camera).float()
        loss = MEAN_WEIGHT * (w - generator.w_mean).square().mean()
        # Coarse pictures lead where fine ones only see that edges do not meet.
        for factor in (1, 4, 16):
            a, b, c = (torch.nn.functional.avg_pool2d(x, factor) for x in (drawn, wanted, share))
            loss = loss + (c * (a - b).abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach()
