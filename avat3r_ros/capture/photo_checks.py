"""Which photos of a set can be used, and what is wrong with the others, said by name.

Before the fit: is there exactly one face, is it bright and sharp enough? Then, all faces laid on
one head by their landmarks alone: does one photo not look like the others (a stranger), or only in
part (sunglasses, a mask, a hand)? Photos are left out while enough of them remain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from avat3r_ros.capture.frame_selection import face_sharpness
from avat3r_ros.capture.likeness import FrontalFaces, standing_out
from avat3r_ros.capture.template_fit import FaceObservation, fit_template
from avat3r_ros.rig import HeadTemplate, LandmarkBias
from avat3r_ros.types import FaceState

REFUSED_GAP = 0.25
"""Of likeness, `standing_out`. Of drawn people of a head model that the fit does not know, 1 in 96
own photos and 8 in 10 strangers among three others stood out more."""

DOUBTED_GAP = 0.15
"""Likewise 3 in 96 and 9 in 10. Among real photos in different lights, a stranger of similar age
was 0.06 apart and not found."""

EYES_GAP, MOUTH_GAP = 0.35, 0.45
"""Part of a face that differs this much from the other photos' is covered. Own photos: below 0.24
and 0.42, with mouths open in one and shut in the others; sunglasses 0.3 to 0.9, masks 0.64 in the
middle; hands beside the mouth mostly stay below."""

DARK, BRIGHT = 0.10, 0.93
"""Median brightness of the face, [0, 1], outside which little of it can be told."""

MAX_CLIPPED = 0.3
"""Share of the face that is entirely white or black."""

MIN_FACE_PX = 64
MIN_RELATIVE_SHARPNESS = 0.25
"""To the sharpest photo. Ours: photos at arm's length that look equally sharp differ by a half."""


@dataclass(frozen=True)
class PhotoChoice:
    """What became of a set of photos.

    Attributes:
        kept: Indices of the photos to build from.
        warnings: What is wrong with photos, by name and with a remedy.
    """

    kept: list[int]
    warnings: list[str]


def face_problem(face: FaceState) -> str:
    """Why nothing can be built from a photo, or ""."""
    if not face.detected:
        return (
            "no face found; use a sharp, well lit photo with the whole face, turned at most 45 "
            "degrees, with nothing before it"
        )
    if face.num_faces > 1:
        return f"{face.num_faces} faces found; crop it so that one person remains"
    return ""


def choose_photos(
    images: Sequence[np.ndarray],
    faces: Sequence[FaceState],
    names: Sequence[str],
    focals_px: Sequence[float | None],
    template: HeadTemplate,
    min_photos: int,
) -> PhotoChoice:
    """Leave out photos that would spoil the head, as long as `min_photos` remain.

    Args:
        images: RGB uint8 (H, W, 3).
        faces: What the tracker saw in each.
        names: How to call each.
        focals_px: Focal length of each, None where unknown.
        template: The head model.
        min_photos: Fewest photos to keep.

    Raises:
        ValueError: Fewer photos than that show exactly one face; all problems are named.
    """
    problems = {i: face_problem(face) for i, face in enumerate(faces)}
    kept = [i for i, problem in problems.items() if not problem]
    named = [f"{names[i]}: {problem}" for i, problem in problems.items() if problem]
    if len(kept) < min_photos:
        raise ValueError("; ".join(named))
    warnings = [f"{sentence} (built without this photo)" for sentence in named]

    sharpness = {i: face_sharpness(images[i], faces[i].box_px) for i in kept}
    for i in kept:
        warnings += [f"{names[i]}: {s}" for s in _picture_problems(images[i], faces[i])]
        if sharpness[i] < MIN_RELATIVE_SHARPNESS * max(sharpness.values()):
            warnings.append(
                f"{names[i]}: much less sharp than the others; hold still, wipe the lens, or take "
                "it from nearer"
            )

    while len(kept) >= 3:
        parts = _gaps(images, faces, focals_px, kept, template)
        worst = int(np.argmax(parts["face"]))
        name = names[kept[worst]]
        gap = float(parts["face"][worst])
        sentence = _difference(*(float(parts[part][worst]) for part in ("face", "eyes", "mouth")))
        if gap < REFUSED_GAP or len(kept) == min_photos:
            if sentence:
                warnings.append(f"{name}: {sentence}")
            break
        warnings.append(f"{name}: {sentence} (built without this photo)")
        del kept[worst]
    return PhotoChoice(kept, warnings)


def _difference(face: float, eyes: float, mouth: float) -> str:
    """What it means that a photo differs this much from the others, or ""."""
    if eyes > EYES_GAP and mouth < DOUBTED_GAP:
        return (
            "the eyes look unlike those in the other photos; take sunglasses and hair off them "
            "(or is it another person?)"
        )
    if mouth > MOUTH_GAP and eyes < DOUBTED_GAP:
        return (
            "mouth and chin look unlike those in the other photos; take hand, mask or scarf away "
            "(or is it another person?)"
        )
    if face > REFUSED_GAP:
        return (
            f"the face is unlike those in the other photos (by {face:.2f}, own photos stay below "
            f"{REFUSED_GAP}); another person, or something before the face?"
        )
    if face > DOUBTED_GAP:
        return (
            f"the face differs from those in the other photos (by {face:.2f}); the same person, in "
            "a similar light, with nothing before the face?"
        )
    return ""


def _gaps(
    images: Sequence[np.ndarray],
    faces: Sequence[FaceState],
    focals_px: Sequence[float | None],
    kept: list[int],
    template: HeadTemplate,
) -> dict[str, np.ndarray]:
    """How much each kept photo stands out, by part of the face."""
    observations = [
        FaceObservation(faces[i], images[i].shape[1], images[i].shape[0], focals_px[i])
        for i in kept
    ]
    fit = fit_template(
        observations, template, shared_focal=False, landmark_bias=LandmarkBias.load()
    )
    frontal = FrontalFaces([images[i] for i in kept], fit, template)
    return {part: standing_out(frontal.likeness(part)) for part in ("face", "eyes", "mouth")}


def _picture_problems(image: np.ndarray, face: FaceState) -> list[str]:
    """Light and size of one face."""
    problems = []
    hull = cv2.convexHull(face.landmarks_px[:468].astype(np.float32)).astype(np.int32)
    inside = cv2.fillConvexPoly(np.zeros(image.shape[:2], np.uint8), hull, 1) > 0
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[inside] / 255.0
    if not len(grey):
        return ["the face lies outside of the picture"]
    if np.median(grey) < DARK:
        problems.append("the face is very dark; turn towards a window or a lamp")
    elif np.median(grey) > BRIGHT:
        problems.append("the face is overexposed; take the photo out of direct light")
    elif ((grey < 0.02) | (grey > 0.98)).mean() > MAX_CLIPPED:
        problems.append("much of the face is entirely black or white; use softer light")
    left, top, right, bottom = face.box_px
    height, width = image.shape[:2]
    if left < 0 or top < 0 or right > width or bottom > height:
        problems.append("the face reaches out of the picture; step back")
    if bottom - top < MIN_FACE_PX:
        problems.append(
            f"the face is only {bottom - top:.0f} px high, expected {MIN_FACE_PX}; come closer"
        )
    return problems
