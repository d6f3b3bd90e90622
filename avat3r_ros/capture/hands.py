"""Is a hand before the face? MediaPipe's hand landmarker, asked about squares around the face.

The landmarker finds hands in some squares and misses them in others, and what overlaps a face it
was not made for: so it looks at three sizes of square at a low threshold, and a hand counts when it
is about as large as the face. Seen in two squares it is certain.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from avat3r_ros.capture.vision_task import VisionTask
from avat3r_ros.model_files import without_start_up_chatter
from avat3r_ros.types import FaceState

SQUARES_IN_FACES = (4.0, 1.4, 2.0)
"""Sides of the squares, in sizes of the landmarks' box; what finds most comes first."""

SQUARE_PX = 256
"""Pixels of a square that the landmarker gets; it works with 192 and 224 of them."""

MIN_DETECTION, MIN_PRESENCE = 0.1, 0.3

MIN_EXTENT = 0.55
"""Larger side of a hand's box, in sizes of the face. Real ones before a face: 0.58 to 0.92; what
was taken for hands in faces without any: mostly below."""

MIN_SHARE = 0.025
"""Of the face's outline, brow to chin, under the hand's: a fist at the chin covers 0.03."""

NEARBY_S, NEARBY_STEP_S = 0.4, 0.08
"""A hand in a video is missed for up to 0.4 s at a time, but stays for longer: frames as far apart
as the second are asked, as long as the first before and after."""

NEARBY_SQUARES = 3
"""So many of theirs must show a hand, 2 of a frame at most: frames out of focus read as one at
times."""

CANVAS_PX = 160
"""Picture in which outlines are overlaid; the face is half as wide."""


@dataclass(frozen=True)
class HandOverFace:
    """A hand that covers part of a face.

    Attributes:
        share: Of the face, [0, 1]; 0 where no hand was found.
        certain: It was seen in two squares or more.
    """

    share: float = 0.0
    certain: bool = False


class HandFinder(VisionTask):
    """Looks for hands before faces; close it, or use it as a context manager.

    Of 33 frames of a woman with a hand before her face, 31 were found, 20 as certain; in 118
    photos and frames of others none wrongly. Of 200 drawn faces 3 were taken to be behind a hand,
    none for certain. Frame by frame of videos it errs more: 148 of her 174 were found, 103 as
    certain, and of 752 clean ones of others 34 were taken for a hand, one as certain.

    Args:
        model_path: hand_landmarker.task; searched for if None (model_files.py).

    Raises:
        RuntimeError: mediapipe is not installed.
        FileNotFoundError: The model file is nowhere; the message has the remedy.
        ValueError: The model file is not the published one.
    """

    def __init__(self, model_path: str | os.PathLike | None = None) -> None:
        super().__init__(
            kind="HandLandmarker",
            method="detect",
            purpose="looking for hands",
            model="hand_landmarker",
            model_path=model_path,
            side_px=SQUARE_PX,
            num_hands=1,
            min_hand_detection_confidence=MIN_DETECTION,
            min_hand_presence_confidence=MIN_PRESENCE,
        )

    def over_face(self, image: UInt8[np.ndarray, "h w 3"], face: FaceState) -> HandOverFace:
        """The hand before a face.

        Args:
            image: RGB.
            face: The face in it; detected.

        Raises:
            RuntimeError: Closed.
        """
        shares = list(self._shares(image, face))
        return HandOverFace(max(shares, default=0.0), len(shares) >= 2)

    def _shares(self, image: np.ndarray, face: FaceState) -> Iterator[float]:
        """Share of the face that lies under a hand, for each square that shows one."""
        left, top, right, bottom = face.box_px
        size = max(right - left, bottom - top)
        middle = np.array([left + right, top + bottom]) / 2
        to_canvas = CANVAS_PX / (2 * size)
        outline = _filled((face.landmarks_px[:468] - middle + size) * to_canvas)
        for faces in SQUARES_IN_FACES:
            scale = faces * size / SQUARE_PX
            corner = middle - faces * size / 2
            for hand in self._hands(_cut(image, scale, corner)):
                points = hand * scale + corner
                covered = _filled((points - middle + size) * to_canvas) & outline
                share = float(covered.sum() / max(outline.sum(), 1))
                if np.ptp(points, axis=0).max() >= MIN_EXTENT * size and share >= MIN_SHARE:
                    yield share

    def _hands(self, square: np.ndarray) -> list[Float[np.ndarray, "21 2"]]:
        """Landmarks of the hands in a square of SQUARE_PX, its pixels."""
        with without_start_up_chatter():  # it talks once more when the first hand is found
            found = self._result(square).hand_landmarks
        return [np.array([(point.x, point.y) for point in hand]) * SQUARE_PX for hand in found]


class HandWatch:
    """Whether a hand is before the face in frames of a video, told from those around them, too.

    Args:
        over_face: `HandFinder.over_face`; used for faces that are asked for, and their neighbours.
    """

    def __init__(self, over_face: Callable[[np.ndarray, FaceState], HandOverFace]) -> None:
        self._over_face = over_face
        self._near: deque[tuple[np.ndarray, FaceState]] = deque()
        self._squares: dict[float, int] = {}

    def delayed(
        self, frames: Iterable[tuple[np.ndarray, FaceState]]
    ) -> Iterator[tuple[np.ndarray, FaceState]]:
        """Pass frames on as soon as `covered` can be asked about them, those after them known.

        Args:
            frames: RGB (H, W, 3) uint8 and what the tracker saw in it, in the order of time.
        """
        waiting: deque[tuple[np.ndarray, FaceState]] = deque()
        for image, face in frames:
            waiting.append((image, face))
            if not self._near or face.stamp_s - self._near[-1][1].stamp_s >= NEARBY_STEP_S:
                self._near.append((image, face))
            while face.stamp_s - waiting[0][1].stamp_s >= NEARBY_S:
                yield waiting.popleft()
            while self._near and waiting[0][1].stamp_s - self._near[0][1].stamp_s > NEARBY_S:
                self._squares.pop(self._near.popleft()[1].stamp_s, None)
        yield from waiting

    def covered(self, image: UInt8[np.ndarray, "h w 3"], face: FaceState) -> bool:
        """Whether a hand is before the face: seen in any square of it, or in several nearby.

        Args:
            image: RGB; passed on last.
            face: The face in it; detected.
        """
        if self._seen_in(image, face):
            return True
        count = 0
        for near, its_face in self._near:
            if its_face.detected and abs(its_face.stamp_s - face.stamp_s) <= NEARBY_S:
                count += self._seen_in(near, its_face)
            if count >= NEARBY_SQUARES:
                return True
        return False

    def _seen_in(self, image: np.ndarray, face: FaceState) -> int:
        """In how many squares of a frame a hand is seen: 0, 1 or 2 for more."""
        if face.stamp_s not in self._squares:
            hand = self._over_face(image, face)
            self._squares[face.stamp_s] = (hand.share > 0) + hand.certain
        return self._squares[face.stamp_s]


def _cut(image: np.ndarray, scale: float, corner: Float[np.ndarray, "2"]) -> np.ndarray:
    """A square of SQUARE_PX, `scale` pixels of the image each; black beyond the image."""
    if scale > 1.2:
        # Shrunk first: smoothing a whole photo takes longer than finding a hand.
        low = np.floor(corner.clip(0)).astype(int)
        high = np.ceil(np.minimum(corner + SQUARE_PX * scale, image.shape[1::-1])).astype(int)
        part = image[low[1] : high[1], low[0] : high[0]]
        size = [max(1, round(side / scale)) for side in part.shape[1::-1]]
        image = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        scale, corner = 1.0, (corner - low) / scale
    image_from_square = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, image_from_square, (SQUARE_PX, SQUARE_PX), flags=flags)


def _filled(points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """The convex outline of points on the canvas, filled."""
    canvas = np.zeros((CANVAS_PX, CANVAS_PX), np.uint8)
    hull = cv2.convexHull(points.astype(np.float32)).round().astype(np.int32)
    return cv2.fillConvexPoly(canvas, hull, 1) > 0
