"""Scores of a recorded demo run against the known truth of the synthetic operator.

Every score is taken on what the renderer published, not on what the library could have rendered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avat3r_ros import geometry
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.pictures import uint8_image
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.face_scores import landmark_distance
from avat3r_ros.training.metrics import psnr
from avat3r_ros.types import Camera, FaceState

UNITS: dict[str, tuple[str, ...]] = {
    "mouth opening": ("jawOpen",),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
}
"""Movements whose course over time must be found again in the rendered frames."""

RIM_PX = 8
"""Width of the rim around the true head whose pixels count as well. Without it a picture with fat
outlines would win: what it draws beside the head would cost nothing, and an outline that falls
short of the truth costs most."""

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class DemoFrame:
    """One moment of the run: what the driver did and what the avatar showed.

    Attributes:
        stamp_s: Acquisition time of the driver's frame.
        driver: The driver's camera image.
        code: What the tracker read from it, as the renderer received it.
        rendered: What the renderer published with the same stamp.
        camera: The renderer's camera relative to the turned head, a batch of one.
        true_code: What the operator really did.
    """

    stamp_s: float
    driver: UInt8[np.ndarray, "driver_h driver_w 3"]
    code: Float[np.ndarray, "52"]
    rendered: Picture
    camera: Camera
    true_code: Float[np.ndarray, "52"]


@dataclass(frozen=True)
class Truth:
    """The operator as the renderer's camera would have seen it, on black.

    Attributes:
        picture: RGB, cut at the neck.
        mask: Where the head is, in [0, 1].
        judged: Where pictures are compared: in the mask and `RIM_PX` around it, but not where the
            neck goes on, of which avatars show more or less.
    """

    picture: Picture
    mask: Float[np.ndarray, "h w"]
    judged: Float[np.ndarray, "h w"]


def true_camera(camera: Camera, head: SyntheticHead, identity: Float[Tensor, "k"]) -> Camera:
    """The renderer's camera as it stands to the operator's real head.

    Photos leave open how large and how far away a head is, so the avatar's head frame differs from
    the real one by a similarity. It is taken from the landmarks of both resting heads, and applied
    to the camera: the truth is then seen from where the avatar was seen.

    Args:
        camera: A batch of one, relative to the avatar's head.
        head: The operator.
        identity: The avatar's template identity.
    """
    template = head.template
    mine = template.landmarks(template.vertices(identity)).double().numpy()
    true = template.landmarks(torch.from_numpy(head.mesh.rest)).double().numpy()
    scale, rotation, translation = geometry.fit_similarity(mine, true)
    pose = camera.camera_from_head[0].double().numpy()
    moved = geometry.pose_matrix(
        pose[:3, :3] @ rotation, (pose[:3, :3] @ translation + pose[:3, 3]) / scale
    )
    return replace(camera, camera_from_head=torch.tensor(moved, dtype=torch.float32)[None])


def true_view(head: SyntheticHead, frame: DemoFrame, identity: Float[Tensor, "k"]) -> Truth:
    """Render the operator's head with the true code from the renderer's camera."""
    camera = true_camera(frame.camera, head, identity)[0]
    view = head.render(camera, frame.true_code)
    mask = view.mask[0].numpy()
    judged = judged_pixels(head, camera, frame.true_code, mask)
    return Truth(uint8_image(view.image.numpy()), mask, judged)


def judged_pixels(
    head: SyntheticHead,
    camera: Camera,
    code: Float[np.ndarray, "52"],
    mask: Float[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w"]:
    """Where pictures are compared with a head that is cut at the neck; see `Truth`."""
    uncut = head.paint_portrait(camera, code, part="head")
    below = -mask
    below[uncut.window] += uncut.rgba[..., 3]
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM_PX + 1, 2 * RIM_PX + 1))
    around = cv2.dilate(mask, rim) - cv2.dilate(below.clip(0), rim)
    return np.maximum(around, mask)


def track_stills(pictures: Sequence[np.ndarray]) -> list[FaceState]:
    """Track pictures one by one, without memory of the one before, on the driver's scale."""
    with FaceTracker(smoothing=None, running_mode="image", full_range=True) as tracker:
        return [tracker.track(np.ascontiguousarray(picture), 0.0) for picture in pictures]


def image_scores(
    pictures: Sequence[np.ndarray], truths: Sequence[Truth], truth_faces: Sequence[FaceState]
) -> dict[str, float]:
    """Compare pictures with the truth of the same moments.

    Returns:
        `psnr_db`: mean PSNR where truths are judged: the operator's head and a rim around it.
        `psnr_inside_db`: the same without the rim.
        `landmark_distance_px`: mean distance of 468 landmarks where both faces are found.
        `faces_found`: fraction of pictures in which the tracker finds a face.
    """
    psnrs, insides = [], []
    faces = track_stills(pictures)
    for picture, truth in zip(pictures, truths, strict=True):
        for values, mask in ((psnrs, truth.judged), (insides, truth.mask)):
            values.append(
                float(psnr(_chw(picture), _chw(truth.picture), torch.from_numpy(mask)[None]))
            )
    return {
        "psnr_db": float(np.mean(psnrs)),
        "psnr_inside_db": float(np.mean(insides)),
        "landmark_distance_px": landmark_distance(truth_faces, faces),
        "faces_found": float(np.mean([face.detected for face in faces])),
    }


def correlations(frames: Sequence[DemoFrame]) -> dict[str, float]:
    """Correlate movements re-tracked from the rendered frames with the driver's, over time.

    Returns:
        Pearson correlation for each of `UNITS`; NaN where the driver's movement is constant.
    """
    faces = track_stills([frame.rendered for frame in frames])
    found = [i for i, face in enumerate(faces) if face.detected]
    scores = {}
    for unit, names in UNITS.items():
        columns = [ARKIT_INDEX[name] for name in names]
        driver = np.array([frames[i].code[columns].mean() for i in found])
        avatar = np.array([faces[i].code[columns].mean() for i in found])
        scores[unit] = pearson(driver, avatar)
    return scores


def distinct_moments(codes: Float[np.ndarray, "n 52"], count: int) -> list[int]:
    """Moments whose expressions differ most: the calmest, then always the farthest (k-farthest).

    Returns:
        At most `count` indices, ascending.
    """
    chosen = [int(np.linalg.norm(codes, axis=1).argmin())]
    while len(chosen) < min(count, len(codes)):
        distances = np.linalg.norm(codes[:, None] - codes[None, chosen], axis=-1).min(1)
        distances[chosen] = -1.0
        chosen.append(int(distances.argmax()))
    return sorted(chosen)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation coefficient; NaN where either series is constant or shorter than 3."""
    if len(a) < 3 or np.ptp(a) < 1e-6 or np.ptp(b) < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def score_pictures(
    pictures: dict[str, Sequence[np.ndarray]], truths: Sequence[Truth]
) -> dict[str, dict[str, float]]:
    """Score several ways of drawing the same moments against their truth."""
    truth_faces = track_stills([truth.picture for truth in truths])
    return {name: image_scores(drawn, truths, truth_faces) for name, drawn in pictures.items()}


def _chw(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)
