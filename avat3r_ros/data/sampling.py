"""Training samples: photos of one synthetic person from several sides, and what to predict.

    seed ─► person ─┬─► V photos: own camera far from the others, own calm expression
                    └─► targets: some expressions, each seen by some cameras around the face,
                        the first of them where a driver's webcam would be

Cameras are exact here. What a fit to the photos' landmarks would say instead is the business of
whoever turns photos into references (training/references.py).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avat3r_ros.data.camera_quality import CameraQuality, random_quality
from avat3r_ros.data.expressions import random_code, random_photo_code
from avat3r_ros.data.hair import STYLES
from avat3r_ros.data.head_surface import HeadSurface
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.ict_heads import IctHead
from avat3r_ros.data.painter import Picture
from avat3r_ros.data.shading import Light
from avat3r_ros.geometry import intrinsics_matrix, look_at_head, pose_matrix
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

HELD_OUT_SEEDS = range(0, 100_000)
"""People for demos, tests and evaluation: never trained on."""

ICT_SEEDS = range(50_000, 60_000)
"""Those of them that are people of the other head model in evaluations."""

TRAINING_SEEDS = range(1_000_000, 100_000_000)

_HEAD_MIDDLE = np.array([0.0, 0.0, -0.07])
"""What cameras look at, head frame, metres."""

_HEAD_HEIGHT_M = 0.34
"""What a target picture has to show around the middle."""


@dataclass(frozen=True)
class SyntheticPhoto:
    """A photo of a person with its truth.

    Attributes:
        image: RGB.
        matte: Share of each pixel that the person covers, clothes included.
        camera: One camera.
        code: `arkit_52`.
    """

    image: UInt8[np.ndarray, "h w 3"]
    matte: Float[np.ndarray, "h w"]
    camera: Camera
    code: Float[np.ndarray, "52"]


@dataclass(frozen=True)
class TargetViews:
    """Pictures of the head alone that a reconstruction is compared with.

    Pictures of one expression follow one another; the first is taken from in front, as a webcam
    sees the driver.

    Attributes:
        images: RGB in [0, 1], background black.
        masks: Coverage in [0, 1].
        cameras: T cameras.
        codes: `arkit_52` of each picture; several pictures share one.
        necks: Coverage in [0, 1] of the neck below the cut, which the pictures do not show; None
            if nobody asked.
    """

    images: Float[Tensor, "t 3 h w"]
    masks: Float[Tensor, "t 1 h w"]
    cameras: Camera
    codes: Float[Tensor, "t 52"]
    necks: Float[Tensor, "t 1 h w"] | None = None


@dataclass(frozen=True)
class TrainingSample:
    """One person: photos to reconstruct from, pictures to predict, and the true shape.

    Attributes:
        seed: Of the person and of everything else in the sample.
        photos: V photos.
        targets: T pictures.
        mesh: The person in any expression.
    """

    seed: int
    photos: list[SyntheticPhoto]
    targets: TargetViews
    mesh: HeadSurface


def training_sample(
    seed: int,
    template: HeadTemplate,
    *,
    image_size: int = 256,
    num_photos: int = 4,
    num_codes: int = 4,
    cameras_per_code: int = 2,
    one_expression: bool = False,
    casual: bool = False,
    close_ups: bool = False,
    necks: bool = False,
    ict_facekit: str | Path | None = None,
) -> TrainingSample:
    """Draw a person, photos and targets; the same arguments give the same sample.

    Args:
        seed: A member of `TRAINING_SEEDS` for training, of `HELD_OUT_SEEDS` for evaluation.
        template: The head template.
        image_size: Side of the targets, pixels; photos are twice as large.
        num_photos: V.
        num_codes: Target expressions.
        cameras_per_code: Pictures of each target expression.
        one_expression: All photos show the expression of the first (one time step, as from a
            camera rig) instead of each its own; the rest of the sample is the same.
        casual: Photos as people take them (`_Capture`), not always from all around, and not always
            with a good camera. The rest of the sample is the same.
        close_ups: Targets other than the driver's are windows of pictures 2 to 3 times as large.
            Renderings of 256 pixels spill half a pixel over outlines; whoever learns to make up for
            it makes heads too thin at the sizes at which avatars are shown.
        necks: The targets' `necks` are drawn, too.
        ict_facekit: File of the other head model: the person is one of its people (`IctHead`).

    Raises:
        ValueError: People of the other head model have no casual photos.
    """
    if casual and ict_facekit is not None:
        raise ValueError("expected casual=False with people of another head model")
    rng = np.random.default_rng([seed, 0x5A])
    if ict_facekit is None:
        head = SyntheticHead(seed, template)
    else:
        head = IctHead(ict_facekit, seed, template, style=STYLES[seed % len(STYLES)])
    units = head.mesh.moving_units
    photos = []
    focal = rng.uniform(0.9, 1.8)  # of the image's side; all photos come from one camera
    capture = _random_capture(seed) if casual else _Capture()
    for yaw, pitch in _farthest_directions(rng, num_photos):
        camera = _photo_camera(rng, *capture.direction(yaw, pitch), focal, 2 * image_size)
        code = random_photo_code(rng) * units
        if one_expression and photos:
            code = photos[0].code
        light = {"light": _light_of_room(head, camera)} if capture.turning else {}
        picture = head.paint_portrait(camera, code, **light)
        photos.append(_photo(picture, camera, code, rng, capture.quality))
    images, masks, intrinsics, poses, codes, below = [], [], [], [], [], []
    for _ in range(num_codes):
        code = random_code(rng) * units
        for number in range(cameras_per_code):
            camera = (_target_camera if number else _driver_camera)(rng, image_size)
            if close_ups and number:
                camera = _close_up(rng, camera)
            view = head.render(camera, code)
            images.append(view.image)
            masks.append(view.mask)
            intrinsics.append(camera.intrinsics)
            poses.append(camera.camera_from_head)
            codes.append(torch.from_numpy(code))
            if necks:
                below.append(_neck_below(head, camera, code, view.mask))
    return TrainingSample(
        seed=seed,
        photos=photos,
        targets=TargetViews(
            images=torch.stack(images),
            masks=torch.stack(masks),
            cameras=Camera(torch.stack(intrinsics), torch.stack(poses), image_size, image_size),
            codes=torch.stack(codes),
            necks=torch.stack(below) if below else None,
        ),
        mesh=head.mesh,
    )


def _neck_below(
    head: SyntheticHead | IctHead,
    camera: Camera,
    code: Float[np.ndarray, "52"],
    mask: Float[Tensor, "1 h w"],
) -> Float[Tensor, "1 h w"]:
    """What a picture without the neck's cut shows beyond one with it."""
    uncut = head.paint_portrait(camera, code, part="head")
    below = -mask
    rows, columns = uncut.window
    below[0, rows, columns] += torch.from_numpy(uncut.rgba[..., 3].copy())
    return below.clamp(min=0)


@dataclass(frozen=True)
class _Capture:
    """How somebody takes photos.

    Attributes:
        spread: Range of the directions, as a share of those all around.
        yaw: Middle of the directions, radians.
        turning: The person turns before a camera that stays, and the light stays with the room;
            otherwise the camera goes around the person.
        quality: Of the camera.
    """

    spread: float = 1.0
    yaw: float = 0.0
    turning: bool = False
    quality: CameraQuality = CameraQuality()

    def direction(self, yaw: float, pitch: float) -> tuple[float, float]:
        """Where a camera stands in this capture that would stand there in one all around."""
        return self.yaw + self.spread * yaw, self.spread * pitch


def _random_capture(seed: int) -> _Capture:
    """Half of the people are seen from all around, the others mostly from in front."""
    rng = np.random.default_rng([seed, 0xCA])
    turning = bool(rng.random() < 0.5)
    quality = random_quality(np.random.default_rng([seed, 0xCB]))
    if rng.random() < 0.5:
        return _Capture(turning=turning, quality=quality)
    spread = rng.uniform(0.1, 0.7)
    return _Capture(spread, rng.uniform(-0.25, 0.25) * (1 - spread), turning, quality)


def _light_of_room(head: SyntheticHead, camera: Camera) -> Light:
    """Light on a head that was turned out of the direction of the camera."""
    front = look_at_head(0, 0, 1.0, _HEAD_MIDDLE)[:3, :3]
    head_from_room = camera.camera_from_head[:3, :3].double().numpy().T @ front
    return head.light.rotated(head_from_room)


def _farthest_directions(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Yaw and pitch of cameras: a random first, then greedily the farthest of random candidates."""
    candidates = np.stack([rng.uniform(-0.75, 0.75, 24), rng.uniform(-0.35, 0.4, 24)], -1)
    chosen = [0]
    while len(chosen) < count:
        gap = np.linalg.norm(candidates[:, None] - candidates[chosen], axis=-1).min(1)
        chosen.append(int(gap.argmax()))
    return [(float(yaw), float(pitch)) for yaw, pitch in candidates[chosen]]


def _photo_camera(
    rng: np.random.Generator, yaw: float, pitch: float, focal: float, size: int
) -> Camera:
    """A camera held by hand: the head fills half to three quarters of the photo, off centre."""
    share = rng.uniform(0.55, 0.8)
    distance = focal * _HEAD_HEIGHT_M / share
    target = _HEAD_MIDDLE + rng.normal(0, 0.012, 3)
    pose = _rolled(look_at_head(yaw, pitch, distance, target), rng.normal(0, np.radians(4)))
    return _camera(intrinsics_matrix(focal * size, size / 2, size / 2), pose, size)


def _driver_camera(rng: np.random.Generator, size: int) -> Camera:
    """A webcam before the face: it is there that a tracker reads the driver's expression."""
    return _target_camera(rng, size, spread=0.3)


def _target_camera(rng: np.random.Generator, size: int, spread: float = 1.0) -> Camera:
    """A viewer around the face, sometimes close."""
    yaw, pitch = rng.normal(0, 0.42) * spread, rng.normal(0, 0.22) * spread
    focal = rng.uniform(1.2, 2.4)
    distance = focal * _HEAD_HEIGHT_M * rng.uniform(0.75, 1.15)
    target = _HEAD_MIDDLE + rng.normal(0, 0.008, 3)
    pose = look_at_head(float(np.clip(yaw, -1.2, 1.2)), float(np.clip(pitch, -0.6, 0.6)), distance,
                        target)  # fmt: skip
    return _camera(intrinsics_matrix(focal * size, size / 2, size / 2), pose, size)


def _close_up(rng: np.random.Generator, camera: Camera) -> Camera:
    """A window of what a camera sees, enlarged to the same number of pixels."""
    zoom, size = rng.uniform(2.0, 3.0), camera.width
    intrinsics = camera.intrinsics.clone()
    intrinsics[:2] *= zoom
    # The middle of the window stays well inside the picture, where the head is.
    shift = 0.7 * rng.uniform(-0.5, 0.5, 2) * (zoom - 1) * size
    intrinsics[:2, 2] = size / 2 + torch.from_numpy(shift).float()
    return replace(camera, intrinsics=intrinsics)


def _rolled(camera_from_head: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    roll = pose_matrix(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.zeros(3))
    return roll @ camera_from_head


def _camera(intrinsics: np.ndarray, pose: np.ndarray, size: int) -> Camera:
    return Camera(
        torch.tensor(intrinsics, dtype=torch.float32),
        torch.tensor(pose, dtype=torch.float32),
        size,
        size,
    )


def _photo(
    picture: Picture,
    camera: Camera,
    code: np.ndarray,
    rng: np.random.Generator,
    quality: CameraQuality,
) -> SyntheticPhoto:
    """Set the person before a plain wall, with the exposure and losses of a camera."""
    image = np.broadcast_to(rng.uniform(0.2, 0.9, 3), (camera.height, camera.width, 3)).copy()
    matte = np.zeros((camera.height, camera.width), np.float32)
    window, rgba = picture.window, picture.rgba
    image[window] = image[window] * (1 - rgba[..., 3:]) + rgba[..., :3]
    matte[window] = rgba[..., 3]
    image *= rng.uniform(0.97, 1.03)
    return SyntheticPhoto(quality.taken(image, rng.normal(size=image.shape)), matte, camera, code)
