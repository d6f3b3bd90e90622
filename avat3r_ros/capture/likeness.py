"""How much the faces in several photos look alike, wherever their cameras stood.

Each photo is read at the points of the template that a camera in front of the face would see, and
its brightness evened out, so that light and turns matter little. Faces are then compared pixel by
pixel: strangers, sunglasses and masks stand out against photos that agree with each other.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float

from avat3r_ros import native
from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate

SIZE = 112
"""Side of the frontal pictures; pores and noise are finer than their pixels."""

DISTANCE_M, EXTENT_M = 3.0, 0.17
CENTER = np.array([0.0, -0.02, 0.0])
REGIONS = ("skin", "brows", "lips", "lid_left", "lid_right", "eye_left", "eye_right")

EVENING_PX = 20.0
"""Width of what counts as light rather than face. Finer differences than this are shared by all
faces, coarser ones by all photos in one light."""

NOISE = 3.0
"""Contrast of brightness, 0 to 255, that is not amplified."""

FINE_EVENING_PX, FINE_NOISE = 3.0, 0.2
"""Likewise for what tells left from right, of pictures evened before: moles, creases, the shape of
a brow. Anything coarser changes sides with the light."""

MIN_FACING, FULL_FACING = 0.25, 0.75
MIN_SEEN_PX = 200.0
"""Pixels that both photos see, below which nothing is said about them."""

EYES_M, MOUTH_M = (-0.012, 0.03), (-0.105, -0.05)
"""Height above the sellion, of the mean head."""


class FrontalFaces:
    """The faces of V photos as seen from in front.

    Args:
        images: RGB uint8 (H, W, 3).
        fit: Of all these photos.
        template: The head model.
    """

    def __init__(
        self, images: Sequence[np.ndarray], fit: TemplateFit, template: HeadTemplate
    ) -> None:
        triangles = template.triangles_without_lashes().int().numpy()
        k = intrinsics_matrix(SIZE * DISTANCE_M / EXTENT_M, SIZE / 2, SIZE / 2)
        front = native.rasterize_mesh(
            template.neutral.numpy(), triangles, k, look_at_head(0, 0, DISTANCE_M, CENTER),
            SIZE, SIZE,
        )  # fmt: skip
        in_face = template.region_mask(*REGIONS).numpy()
        shown = (front.triangle_ids >= 0) & in_face[front.triangle_ids.clip(0)]
        corners, weights = triangles[front.triangle_ids[shown]], front.barycentrics[shown]
        heights = np.zeros((SIZE, SIZE))
        on_mean = (weights[..., None] * template.neutral.numpy()[corners]).sum(-2)
        heights[shown] = on_mean[:, 1]
        self._parts = {
            "face": shown,
            "eyes": shown & (heights > EYES_M[0]) & (heights < EYES_M[1]),
            "mouth": shown & (heights > MOUTH_M[0]) & (heights < MOUTH_M[1]),
        }
        self._pictures, self._seen = [], []
        for index, image in enumerate(images):
            vertices = template.vertices(
                torch.from_numpy(fit.identity), torch.from_numpy(fit.codes[index])
            )
            normals = template.vertex_normals(vertices).numpy()[corners].mean(-2)
            points = (weights[..., None] * vertices.numpy()[corners]).sum(-2)
            pose, intrinsics = fit.camera_from_head[index], fit.intrinsics[index]
            points = points @ pose[:3, :3].T + pose[:3, 3]
            facing = -((normals @ pose[:3, :3].T) * points).sum(-1)
            facing /= np.linalg.norm(points, axis=-1)
            at = np.full((SIZE, SIZE, 2), -10, np.float32)
            at[shown] = points[:, :2] / points[:, 2:] * intrinsics[0, 0] + intrinsics[:2, 2] - 0.5
            grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
            shrinks = intrinsics[0, 0] / pose[2, 3] * EXTENT_M / SIZE
            if shrinks > 1.4:
                grey = cv2.GaussianBlur(grey, (0, 0), 0.4 * shrinks)
            picture = cv2.remap(
                grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            seen = np.zeros((SIZE, SIZE), np.float32)
            seen[shown] = ((facing - MIN_FACING) / (FULL_FACING - MIN_FACING)).clip(0, 1)
            self._pictures.append(_evened(picture, seen, EVENING_PX, NOISE))
            self._seen.append(seen)

    def likeness(self, part: str = "face") -> Float[np.ndarray, "v v"]:
        """Correlation of each two photos' faces, [-1, 1]; nan where they share too little.

        Args:
            part: "face", "eyes" or "mouth".
        """
        return _correlations(self._pictures, [seen * self._parts[part] for seen in self._seen])

    def sidedness(self) -> Float[np.ndarray, "v v"]:
        """Correlation of what sets the left apart from the right, of each two faces, [-1, 1].

        Below 0 one of the two photos is likely mirrored; nan where they share too little.
        """
        fine = [
            _evened(picture, seen, FINE_EVENING_PX, FINE_NOISE)
            for picture, seen in zip(self._pictures, self._seen, strict=True)
        ]
        # The picture is symmetric about its middle column, so that flipping it swaps the sides.
        differences = [picture - picture[:, ::-1] for picture in fine]
        return _correlations(differences, [seen * seen[:, ::-1] for seen in self._seen])


def standing_out(likeness: Float[np.ndarray, "v v"]) -> Float[np.ndarray, "v"]:
    """How much less each photo is like the others than they are like each other.

    0 where nothing can be said: fewer than 3 photos, or too little in common.
    """
    count = len(likeness)
    gaps = np.zeros(count)
    for one in range(count):
        others = [i for i in range(count) if i != one]
        own = likeness[one, others]
        among = likeness[np.ix_(others, others)]
        among = among[np.isfinite(among)]
        if np.isfinite(own).any() and len(among):
            gaps[one] = among.mean() - own[np.isfinite(own)].mean()
    return gaps


def contradicting(sidedness: Float[np.ndarray, "v v"]) -> Float[np.ndarray, "v"]:
    """How much each photo contradicts the others in what is left and right, while they agree.

    0 where nothing can be said: fewer than 4 photos (two others agree by chance too often), too
    little in common, or others that do not agree themselves.
    """
    count = len(sidedness)
    scores = np.zeros(count)
    if count < 4:
        return scores
    for one in range(count):
        others = [i for i in range(count) if i != one]
        own = sidedness[one, others]
        among = sidedness[np.ix_(others, others)]
        among = among[np.isfinite(among)]
        if np.isfinite(own).any() and len(among) and among.mean() > 0:
            scores[one] = -own[np.isfinite(own)].mean()
    return scores


def _correlations(
    pictures: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> Float[np.ndarray, "v v"]:
    """Of each two pictures where both have weight; nan where that is little, and with itself."""
    count = len(pictures)
    matrix = np.full((count, count), np.nan)
    for a in range(count):
        for b in range(a):
            weight = weights[a] * weights[b]
            total = weight.sum()
            if total < MIN_SEEN_PX:
                continue
            first, second = (p - (p * weight).sum() / total for p in (pictures[a], pictures[b]))
            norm = np.sqrt((weight * first**2).sum() * (weight * second**2).sum())
            matrix[a, b] = matrix[b, a] = (weight * first * second).sum() / max(norm, 1e-6)
    return matrix


def _evened(grey: np.ndarray, seen: np.ndarray, width_px: float, noise: float) -> np.ndarray:
    """Take away the local brightness and contrast, looking at seen pixels only."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), width_px)

    share = blurred(seen) + 1e-3
    centred = (grey - blurred(grey * seen) / share) * (seen > 0)
    return centred / (np.sqrt(blurred(centred**2 * seen) / share) + noise)
