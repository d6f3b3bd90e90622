"""Scores of a recorded demo run against the known truth of the synthetic operator.

Every score is taken on what the renderer published, not on what the library could have rendered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.metrics import psnr
from avat3r_ros.types import FaceState

UNITS: dict[str, tuple[str, ...]] = {
    "mouth opening": ("jawOpen",),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
}
"""Movements whose course over time must be found again in the rendered frames."""

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class DemoFrame:
    """One moment of the run: what the driver did and what the avatar showed.

    Attributes:
        stamp_s: Acquisition time of the driver's frame.
        driver: The driver's camera image.
        code: What the tracker read from it, as received by the renderer.
        rendered: What the renderer published with the same stamp.
        truth: The operator as the renderer's camera would see the true code, on black.
        truth_mask: Where the operator's head is in `truth`, in [0, 1].
        true_code: What the operator really did.
    """

    stamp_s: float
    driver: Picture
    code: Float[np.ndarray, "52"]
    rendered: Picture
    truth: Picture
    truth_mask: Float[np.ndarray, "h w"]
    true_code: Float[np.ndarray, "52"]


def track_stills(pictures: Sequence[np.ndarray]) -> list[FaceState]:
    """Track pictures one by one, without memory of the one before."""
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        return [tracker.track(np.ascontiguousarray(picture), 0.0) for picture in pictures]


def image_scores(
    pictures: Sequence[np.ndarray], frames: Sequence[DemoFrame], truth_faces: Sequence[FaceState]
) -> dict[str, float]:
    """Compare pictures with the truth of the same moments.

    Returns:
        `psnr_db`: mean PSNR inside the operator's head mask.
        `landmark_distance_px`: mean distance of 468 landmarks where both faces are found.
        `faces_found`: fraction of pictures in which the tracker finds a face.
    """
    psnrs, distances = [], []
    faces = track_stills(pictures)
    for picture, frame, face, truth_face in zip(pictures, frames, faces, truth_faces, strict=True):
        psnrs.append(float(psnr(_chw(picture), _chw(frame.truth), _mask(frame.truth_mask))))
        if face.detected and truth_face.detected:
            delta = face.landmarks_px[:468] - truth_face.landmarks_px[:468]
            distances.append(np.linalg.norm(delta, axis=1).mean())
    return {
        "psnr_db": float(np.mean(psnrs)),
        "landmark_distance_px": float(np.mean(distances)) if distances else float("nan"),
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


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation coefficient; NaN where either series is constant or shorter than 3."""
    if len(a) < 3 or np.ptp(a) < 1e-6 or np.ptp(b) < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def score_run(
    frames: Sequence[DemoFrame], baselines: dict[str, Callable[[DemoFrame], np.ndarray]]
) -> dict:
    """Score the rendered frames and each baseline's picture of the same moments."""
    truth_faces = track_stills([frame.truth for frame in frames])
    scores = {"avatar": image_scores([frame.rendered for frame in frames], frames, truth_faces)}
    for name, draw in baselines.items():
        scores[name] = image_scores([draw(frame) for frame in frames], frames, truth_faces)
    return {"images": scores, "correlation": correlations(frames)}


def _chw(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)


def _mask(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask.astype(np.float32))[None]
