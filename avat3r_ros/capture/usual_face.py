"""One person's face as most of a video shows it; what is before it at times stands out.

Each frame's colours are read at fixed places of the face, found between the landmarks. Of all
frames the median is the face, and the spread tells what its light and expressions do to it. A hand,
a cup or a microphone differs from that in a patch, whatever it is.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial import Delaunay

from avat3r_ros.capture.irises import EYE_OPENINGS
from avat3r_ros.geometry import camera_direction
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import FaceState

MOUTH_OPENING = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
"""Landmarks around it. What opens and closes is not compared."""

LIDS = 1.3
"""Size of an eye with its lids, in sizes of its opening."""

SIDE = 40
"""Places along the height of the face."""

FACE_PX, BLUR_PX = 96.0, 1.5
"""Size at which faces are read: pores, stubble and noise are smoothed away."""

STEP_S = 0.1
"""Frames closer together than this are not looked at: they show the same."""

NEARBY_S = 0.3
"""How long before and after a strange frame a hand is on its way. It touches chin and cheek then,
too little to be told from a shadow."""

MIN_FRAMES, MAX_FRAMES = 20, 3000
"""Fewer do not tell what is usual. Of more, every second is forgotten and the step doubled: long
videos would fill the memory."""

LIGHT_WIDTH, USUAL_SPREAD, ROUNDS = 0.05, 0.06, 4
"""Of logarithms of colours: what is farther from the median than the first counts little for a
frame's light, and no place is known better than the second. More rounds change little."""

EVEN_LIGHT = 30.0
"""Higher lets light change less from side to side. At 1 a disc before cheek and mouth passes for
light."""

DARKEST = 8.0
"""Added to colours, 0 to 255, so that noise in the dark stays small."""

PATCH, LARGEST = 3.0, 6.0
"""Sigma of the patch over which differences are averaged, places; and how much one place counts."""

FREE_TURN_RAD = np.radians(25.0)
"""A face turned this much farther than usual may differ twice as much: its light has turned."""

SEEN_AREA = (0.25, 0.6)
"""A place is seen when its triangle is as large as this, in shares of its size from in front: the
far cheek is not; fully where larger than the second."""

STRANGE = 2.5
"""Largest difference of a patch, in spreads, of a face with nothing before it. Of clean frames of
four people who talk, laugh and turn 99 % stay below 1.9, 1.9, 2.0 and 2.8; with a hand before cheek
or chin half are above 2.7 and 3.5, with a disc drawn over the mouth all above 3.4."""

MAX_STRANGE = 0.35
"""Where a larger share of frames is strange, none is: the hand may be the usual."""


class UsualFace:
    """Looks at the frames of one person's video; afterwards tells which of them look strange.

    Args:
        template: The head model: where landmarks are on a face seen from in front.
    """

    def __init__(self, template: HeadTemplate) -> None:
        at = template.landmarks(template.neutral)[:468, :2].numpy().astype(np.float64) * (1, -1)
        low, size = at.min(0), np.ptp(at, axis=0)
        columns, rows = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
        places = np.stack([columns, rows], -1).reshape(-1, 2) + 0.5
        points = low + size / 2 + (places / SIDE - 0.5) * size.max()
        mesh = Delaunay(at)
        triangles = mesh.find_simplex(points)
        shown = triangles >= 0
        for ring, grown in ((MOUTH_OPENING, 1.0), *((eye, LIDS) for eye in EYE_OPENINGS)):
            outline = at[list(ring)]
            outline = (outline.mean(0) + grown * (outline - outline.mean(0))).astype(np.float32)
            shown &= [cv2.pointPolygonTest(outline, point, False) < 0 for point in points.tolist()]
        self._shown = np.flatnonzero(shown)
        self._corners = mesh.simplices[triangles[shown]]
        affine = mesh.transform[triangles[shown]]
        weights = np.einsum("pij,pj->pi", affine[:, :2], points[shown] - affine[:, 2])
        self._weights = np.c_[weights, 1 - weights.sum(1)]
        self._areas = _areas(at[self._corners]) / size.max() ** 2
        self._planes = np.c_[np.ones(len(weights)), places[shown] / SIDE - 0.5]
        self._times, self._colors, self._seen, self._directions = [], [], [], []
        self._step_s = STEP_S

    @property
    def nearby_s(self) -> float:
        """How far from one of `strange_times` frames are suspect, seconds."""
        return max(NEARBY_S, self._step_s)

    def look(self, image: UInt8[np.ndarray, "h w 3"], face: FaceState) -> None:
        """Take a frame into account; later than all before it.

        Args:
            image: RGB.
            face: What the tracker saw in it.
        """
        if not face.detected or (self._times and face.stamp_s - self._times[-1] < self._step_s):
            return
        landmarks = face.landmarks_px[:468].astype(np.float64)
        low, size = landmarks.min(0), np.ptp(landmarks, axis=0).max()
        scale, margin = FACE_PX / size, 0.1 * size
        small_from_image = scale * np.c_[np.eye(2), margin - low]
        side = round(1.2 * FACE_PX)
        small = cv2.warpAffine(
            image, small_from_image, (side, side), borderMode=cv2.BORDER_REPLICATE
        )  # fmt: skip
        small = cv2.GaussianBlur(small, (0, 0), BLUR_PX).astype(np.float32)
        corners = landmarks[self._corners]
        at = (corners * self._weights[..., None]).sum(1) - low + margin
        at = (scale * at - 0.5).astype(np.float32)[:, None]
        colors = cv2.remap(small, at, None, cv2.INTER_LINEAR)[:, 0]
        area = _areas(corners) / size**2 / self._areas
        self._times.append(face.stamp_s)
        self._colors.append(np.log(colors + DARKEST))
        low_area, full_area = SEEN_AREA
        self._seen.append(((area - low_area) / (full_area - low_area)).clip(0, 1))
        self._directions.append(camera_direction(face.camera_from_head))
        if len(self._times) > MAX_FRAMES:
            self._step_s *= 2
            for values in (self._times, self._colors, self._seen, self._directions):
                del values[1::2]

    def strangeness(self) -> Float[np.ndarray, "n"]:
        """How much each frame that was looked at differs from the others, in spreads."""
        colors, seen = np.array(self._colors, np.float32), np.array(self._seen, np.float32)
        hidden = seen < 0.5
        known = (~hidden).sum(0) >= MIN_FRAMES // 2
        colors, seen, hidden = colors[:, known], seen[:, known], hidden[:, known]
        plain = colors - np.nanmedian(_without(colors, hidden), axis=1, keepdims=True)
        for _ in range(ROUNDS):
            usual = np.nanmedian(_without(plain, hidden), axis=0)
            plain = colors - self._light(colors - usual, plain - usual, seen, known)
        usual = np.nanmedian(_without(plain, hidden), axis=0)
        apart = np.abs(plain - usual)
        spread = 1.48 * np.nanmedian(_without(apart, hidden), axis=0)
        apart = (apart / np.hypot(spread, USUAL_SPREAD)).max(-1)
        turned = np.array(self._directions) - np.median(self._directions, axis=0)
        apart /= 1 + np.hypot(*turned.T)[:, None] / FREE_TURN_RAD
        return np.array(
            [self._worst_patch(*of_one, known) for of_one in zip(apart, seen, strict=True)]
        )

    def strange_times(self) -> Float[np.ndarray, "n"]:
        """When something was before the face, seconds; frames within `nearby_s` are suspect.

        Empty where it cannot be told: too few frames, or too many strange ones.
        """
        if len(self._times) < MIN_FRAMES:
            return np.empty(0)
        strange = self.strangeness() > STRANGE
        return np.array(self._times)[strange] if strange.mean() <= MAX_STRANGE else np.empty(0)

    def _light(
        self,
        apart: Float[np.ndarray, "n p 3"],
        left: Float[np.ndarray, "n p 3"],
        seen: Float[np.ndarray, "n p"],
        known: np.ndarray,
    ) -> Float[np.ndarray, "n p 3"]:
        """What of the differences a light that changes evenly over the face explains.

        Places where much was `left` of them the last time count little: something is before them.
        """
        planes = self._planes[known]
        weight = seen / (1 + (np.abs(left).max(-1) / LIGHT_WIDTH) ** 2)
        weighed = weight[..., None] * planes  # (N, P, 3)
        normal = np.einsum("npi,pj->nij", weighed, planes) + np.diag([1e-3, EVEN_LIGHT, EVEN_LIGHT])
        slopes = np.linalg.solve(normal, np.einsum("npi,npc->nic", weighed, apart))
        return np.einsum("pi,nic->npc", planes, slopes).astype(np.float32)

    def _worst_patch(self, apart: np.ndarray, seen: np.ndarray, known: np.ndarray) -> float:
        maps = np.zeros((2, SIDE * SIDE), np.float32)
        maps[:, self._shown[known]] = apart.clip(0, LARGEST) * seen, seen
        maps = cv2.GaussianBlur(maps.reshape(2, SIDE, SIDE).transpose(1, 2, 0), (0, 0), PATCH)
        return float((maps[..., 0] / maps[..., 1].clip(0.25)).max())


def _without(values: Float[np.ndarray, "n p 3"], hidden: np.ndarray) -> np.ndarray:
    """Values with nan where hidden."""
    return np.where(hidden[..., None], np.float32(np.nan), values)


def _areas(corners: Float[np.ndarray, "p 3 2"]) -> Float[np.ndarray, "p"]:
    """Signed areas of triangles."""
    (ax, ay), (bx, by) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    return ax * by - ay * bx
