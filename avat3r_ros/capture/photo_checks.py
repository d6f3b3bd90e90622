"""Which photos of a set can be used, and what is wrong with the others, said by name.

Before the fit: is there exactly one face, is it bright and sharp enough, is no hand before it
(`hands`), and is it one person's in all photos (`face_descriptor`)? Then, all faces laid on one
head by their landmarks alone: does one photo look unlike the others in part (sunglasses, a mask)?
Photos are left out while enough of them remain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from avat3r_ros.capture.face_descriptor import (
    SAME_PERSON,
    describe_faces,
    descriptor_distances,
)
from avat3r_ros.capture.frame_selection import face_sharpness
from avat3r_ros.capture.hands import HandFinder, HandOverFace
from avat3r_ros.capture.likeness import FrontalFaces, contradicting, standing_out
from avat3r_ros.capture.template_fit import FaceObservation, fit_template
from avat3r_ros.rig import HeadTemplate, LandmarkBias
from avat3r_ros.types import FaceState

DOUBTED_DISTANCE = 0.5
"""Of a face's descriptor from those in the other photos, median. One person's photos stay below
0.46 (80 drawn people) and 0.49 (6 real ones), with one turned by 43 degrees below 0.57, in nine
of ten sets below 0.45. Among real photos all of 360 strangers were farther than 0.56, among drawn
ones, who look alike, every second."""

UNLIKE_DISTANCE = 0.42
"""Below it nothing covers the face, however unlike its parts look: they moved."""

REFUSED_GAPS = {"face": 0.25, "eyes": 0.35, "mouth": 0.5}
"""Of likeness, `standing_out`, for faces farther than `UNLIKE_DISTANCE`. Own photos: in 2 of 116
sets more, a photo of other years among frames of one video. Something drawn over one of four
photos: sunglasses were left out in 39 of 76 sets, masks in 54, skin over cheek and mouth in 52;
spectacles in 7, although only one photo had them."""

DOUBTED_FACE_GAP = 0.15
"""Likewise; with it and `DOUBTED_DISTANCE` 7 of 116 own sets were warned of."""

DOUBTED_GAPS = {"eyes": 0.4, "mouth": 0.55}
"""Of likeness, for parts of any face."""

MIRRORED = 0.18
"""Of `contradicting`. Of 128 sets of own photos, real (48) and drawn, none was above; with one
photo mirrored 24 of 30 real and 41 of 52 drawn sets were, and always the right photo."""

DARK, BRIGHT = 0.10, 0.93
"""Median brightness of the face, [0, 1], outside which little of it can be told."""

MAX_CLIPPED = 0.3
"""Share of the face that is entirely white or black."""

MIN_FACE_PX = 64
MIN_RELATIVE_SHARPNESS = 0.25
"""To the sharpest photo. Ours: photos at arm's length that look equally sharp differ by a half."""

ENOUGH = 3
"""Good photos that must remain where one is left out for what it shows."""


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
    """Leave out photos without a face, and those that would spoil the head while 3 remain.

    Args:
        images: RGB uint8 (H, W, 3).
        faces: What the tracker saw in each.
        names: How to call each.
        focals_px: Focal length of each, None where unknown.
        template: The head model.
        min_photos: Fewest photos that must show a face.

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

    distances = np.zeros((len(images), len(images)))
    descriptors = describe_faces([images[i] for i in kept], [faces[i] for i in kept])
    distances[np.ix_(kept, kept)] = descriptor_distances(descriptors)
    with HandFinder() as finder:
        hands = {i: finder.over_face(images[i], faces[i]) for i in kept}
    hands = {i: hand for i, hand in hands.items() if hand.share > 0}
    kept, said = _without_hands(kept, hands, distances, names)
    warnings += said
    before = kept
    kept, said = _of_one_person(kept, distances, names)
    warnings += said
    if said and kept == before:
        return PhotoChoice(kept, warnings)

    while len(kept) >= ENOUGH:
        frontal = _frontal_faces(images, faces, focals_px, kept, template)
        gaps = _gaps(frontal, len(kept))
        from_others = [_median_distance(i, kept, distances) for i in kept]
        found = [_unlike(*of_one) for of_one in zip(from_others, gaps, strict=True)]
        worst = int(np.argmax([badness for badness, _ in found]))
        badness, sentence = found[worst]
        name = names[kept[worst]]
        if badness < 1.0 or len(kept) == ENOUGH:
            if sentence and kept[worst] not in hands:
                warnings.append(f"{name}: {sentence}")
            warnings += _mirrored(frontal, [names[i] for i in kept])
            break
        warnings.append(f"{name}: {sentence} (built without this photo)")
        del kept[worst]
    return PhotoChoice(kept, warnings)


def _without_hands(
    kept: list[int],
    hands: dict[int, HandOverFace],
    distances: Float[np.ndarray, "n n"],
    names: Sequence[str],
) -> tuple[list[int], list[str]]:
    """Leave out photos with a hand before the face, the largest first, while enough remain.

    One that is not certain is left out if the face looks unlike the others, too.
    """
    kept, warnings = list(kept), []
    for i in sorted(hands, key=lambda i: -hands[i].share):
        clear = hands[i].certain
        if len(kept) > 1:
            clear |= _median_distance(i, kept, distances) > UNLIKE_DISTANCE
        sentence = "a hand covers part of the face" if clear else "perhaps a hand before the face"
        if clear and len(kept) > ENOUGH:
            kept.remove(i)
            warnings.append(f"{names[i]}: {sentence}; take it away (built without this photo)")
        else:
            warnings.append(f"{names[i]}: {sentence}; take it away, or replace this photo")
    return kept, warnings


def people(distances: Float[np.ndarray, "n n"]) -> list[list[int]]:
    """Which photos show one person each, by the distances of their descriptors; most photos first.

    Groups are joined while their photos are on average nearer than `SAME_PERSON`.
    """
    if len(distances) < 2:
        return [list(range(len(distances)))]
    joined = linkage(squareform(distances, checks=False), "average")
    labels = fcluster(joined, SAME_PERSON, "distance")
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return sorted(groups, key=lambda group: (-len(group), group))


def _of_one_person(
    kept: list[int],
    distances: Float[np.ndarray, "n n"],
    names: Sequence[str],
) -> tuple[list[int], list[str]]:
    """Leave out strangers where it is clear who they are and enough photos remain."""
    groups = [[kept[i] for i in group] for group in people(distances[np.ix_(kept, kept)])]
    if len(groups) == 1:
        return kept, []
    apart = np.median([distances[i, j] for i in groups[0] for j in kept if j not in groups[0]])
    if len(groups[0]) == len(groups[1]):
        described = "; ".join(" and ".join(names[i] for i in group) for group in groups)
        return kept, [
            f"these photos look like {len(groups)} people: {described} ({apart:.2f} apart, one "
            f"person's photos are nearer than {SAME_PERSON}); use photos of one person"
        ]
    left_out = len(groups[0]) >= ENOUGH
    warnings = []
    for i in (i for i in kept if i not in groups[0]):
        distance = _median_distance(i, groups[0], distances)
        warnings.append(
            f"{names[i]}: another person? The face is {distance:.2f} from those in the other "
            f"photos, one person's are nearer than {SAME_PERSON}"
            + ("; give photos of one person (built without this photo)" if left_out else
               "; replace this photo")
        )  # fmt: skip
    return (groups[0] if left_out else kept), warnings


def _median_distance(one: int, group: Sequence[int], distances: Float[np.ndarray, "n n"]) -> float:
    """Of a photo from the others of a group; all are indices of photos."""
    return float(np.median([distances[one, i] for i in group if i != one]))


def _unlike(distance: float, gaps: dict[str, float]) -> tuple[float, str]:
    """How bad it is that a photo looks this much unlike the others (1: leave it out), and why."""
    badness = max(gaps[part] / limit for part, limit in REFUSED_GAPS.items())
    if distance < UNLIKE_DISTANCE:
        badness = min(badness, 0.99)
    eyes, mouth = (gaps[part] > limit for part, limit in DOUBTED_GAPS.items())
    far = distance > DOUBTED_DISTANCE
    unlike = distance > UNLIKE_DISTANCE and gaps["face"] > DOUBTED_FACE_GAP
    if badness < 1.0 and not (eyes or mouth or far or unlike):
        return badness, ""
    if gaps["eyes"] > REFUSED_GAPS["eyes"] and gaps["mouth"] < DOUBTED_FACE_GAP:
        return badness, (
            "the eyes look unlike those in the other photos; take sunglasses and hair off them "
            "(or is it another person?)"
        )
    if gaps["mouth"] > REFUSED_GAPS["mouth"] and gaps["eyes"] < DOUBTED_FACE_GAP:
        return badness, (
            "mouth and chin look unlike those in the other photos; take hand, mask or scarf away "
            "(or is it another person?)"
        )
    return badness, (
        f"the face differs from those in the other photos ({distance:.2f}, one person's photos are "
        f"mostly below {UNLIKE_DISTANCE}); another person, another light, or something before the "
        "face?"
    )


def _frontal_faces(
    images: Sequence[np.ndarray],
    faces: Sequence[FaceState],
    focals_px: Sequence[float | None],
    kept: list[int],
    template: HeadTemplate,
) -> FrontalFaces:
    observations = [
        FaceObservation(faces[i], images[i].shape[1], images[i].shape[0], focals_px[i])
        for i in kept
    ]
    fit = fit_template(
        observations, template, shared_focal=False, landmark_bias=LandmarkBias.load()
    )
    return FrontalFaces([images[i] for i in kept], fit, template)


def _gaps(frontal: FrontalFaces, count: int) -> list[dict[str, float]]:
    """How much each photo stands out, by part of the face."""
    gaps = {part: standing_out(frontal.likeness(part)) for part in REFUSED_GAPS}
    return [{part: float(gaps[part][i]) for part in gaps} for i in range(count)]


def _mirrored(frontal: FrontalFaces, names: Sequence[str]) -> list[str]:
    """What to say if one photo shows left and right the other way round."""
    scores = contradicting(frontal.sidedness())
    one = int(np.argmax(scores))
    if scores[one] < MIRRORED:
        return []
    return [
        f"{names[one]}: looks mirrored; selfie cameras often save what their screen shows: switch "
        "that off, or flip the photo"
    ]


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
