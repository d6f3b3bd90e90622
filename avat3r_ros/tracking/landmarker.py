"""Finds faces and follows one: image in, plain arrays out.

    still image ──► MediaPipe's FaceLandmarker ──────────────► all faces
    video ──► FaceFollower, around the place of before ──────► the face that is followed
                 └─ nobody followed, or a second has gone by: MediaPipe looks for all faces

The only file that knows mediapipe. Everything MediaPipe-specific ends here: normalised coordinates
and score names.

MediaPipe's normalised x, y times the image size are pixels whose centres are at +0.5, our
convention, but for a shift from resampling its crops that was measured by mirroring photos: -0.4 px
at faces 90 px wide, -0.2 px at 180 px, -0.1 px at 270 px. It is below the noise between photos
(0.3 px) and not corrected.
"""

import os

import numpy as np
from jaxtyping import UInt8

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.model_files import find_model, without_drawing, without_start_up_chatter
from avat3r_ros.tracking.face_follower import FaceFollower
from avat3r_ros.tracking.raw_face import RawFace, same_place
from avat3r_ros.tracking.smoothing import OneEuroFilter

COUNT_EVERY = 30
"""Images after which a face that is followed is checked for company: a second at 30 images/s."""

MIN_SQUARE_PX = 128
"""Smaller pictures are not searched in parts."""


class Landmarker:
    """Finds faces in images; close it, or use it as a context manager.

    MediaPipe finds faces whose width is at least 11 % of the image's longer side (measured). Still
    images without such a face are searched a second time in parts, down to half of that.

    Args:
        model_path: face_landmarker.task; searched for if None (model_files.py).
        max_faces: Faces looked for.
        video: Images follow each other: the largest face is followed, and others are counted every
            COUNT_EVERY images. Only a face that is followed has its tongue looked at.
        min_confidence: Lowest score of detection, presence and tracking that counts as a face.
        landmark_filter: Of the face that is followed (face_follower.py).
        num_threads: Of following.

    Raises:
        RuntimeError: mediapipe or ai-edge-litert is not installed.
        FileNotFoundError: The model file is nowhere; the message has the remedy.
        ValueError: The model file is not the published one.
    """

    def __init__(
        self,
        model_path: str | os.PathLike | None = None,
        *,
        max_faces: int = 2,
        video: bool = True,
        min_confidence: float = 0.5,
        landmark_filter: OneEuroFilter | None = None,
        num_threads: int = 1,
    ) -> None:
        path = find_model("face_landmarker", model_path)
        try:
            with without_drawing():
                import mediapipe
                from mediapipe.tasks.python.vision import face_landmarker
        except ImportError as error:
            raise RuntimeError(
                f"tracking needs mediapipe ({error}); remedy: pip install mediapipe==1.2.2"
            ) from error
        from mediapipe.tasks.python import BaseOptions

        self._follower = None
        if video:
            self._follower = FaceFollower(
                path,
                landmark_filter=landmark_filter,
                num_threads=num_threads,
                min_presence=min_confidence,
            )
        self._max_faces = max_faces
        self._image_class = mediapipe.Image
        self._srgb = mediapipe.ImageFormat.SRGB
        options = face_landmarker.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
            output_face_blendshapes=True,
        )
        self.reset()
        with without_start_up_chatter():
            self._task = face_landmarker.FaceLandmarker.create_from_options(options)
            # The native start-up goes on until the first image has passed.
            self._find(np.zeros((64, 64, 3), np.uint8))

    def reset(self) -> None:
        """Forget the face that is followed: the next image has nothing to do with the last."""
        if self._follower is not None:
            self._follower.start(None)
        self._others: list[RawFace] = []
        self._counted_ago = 0

    def detect(self, image: UInt8[np.ndarray, "h w 3"], dt_s: float = 0.0) -> list[RawFace]:
        """Find faces.

        Args:
            image: RGB, contiguous.
            dt_s: In video, seconds since the last image.

        Returns:
            Largest face first; empty if there is none. In video the first is the one that was the
            largest when faces were counted last, and the others are where they were then.

        Raises:
            RuntimeError: The landmarker is closed.
        """
        if self._task is None:
            raise RuntimeError("the landmarker is closed")
        if self._follower is None:
            return self._find(image) or self._find_small(image)
        face = self._follower.follow(image, dt_s)
        self._counted_ago += 1
        if face is None or (self._max_faces > 1 and self._counted_ago >= COUNT_EVERY):
            face = self._count(image, face)
        return [] if face is None else [face, *self._others]

    def _count(self, image: np.ndarray, followed: RawFace | None) -> RawFace | None:
        """Look for all faces; the largest is the one to follow from now on."""
        self._counted_ago = 0
        found = self._find(image)
        if not found:
            self._others = []
            return followed
        if followed is None or not same_place(followed, found[0]):
            self._follower.start(found[0].landmarks_px)
            followed = self._follower.follow(image, 0.0) or found[0]
        self._others = [face for face in found if not same_place(face, followed)]
        return followed

    def _find(self, image: np.ndarray, left: int = 0, top: int = 0) -> list[RawFace]:
        """All faces of an image that is cut out of a larger one at (left, top), largest first."""
        found = self._task.detect(self._image_class(image_format=self._srgb, data=image))
        height, width = image.shape[:2]
        size, corner = np.float32([width, height, width]), np.float32([left, top, 0])
        faces = []
        for points, scores in zip(found.face_landmarks, found.face_blendshapes, strict=True):
            landmarks = np.array([(p.x, p.y, p.z) for p in points], np.float32) * size + corner
            faces.append(RawFace(landmarks, _arkit_scores(scores)))
        return sorted(faces, key=lambda face: -face.area_px)

    def _find_small(self, image: np.ndarray) -> list[RawFace]:
        """Look again in overlapping squares: the detector sees 128 px of whatever it is given."""
        height, width = image.shape[:2]
        side = max(width, height) // 2
        if side < MIN_SQUARE_PX:
            return []
        faces: list[RawFace] = []
        for top in _starts(height, side):
            for left in _starts(width, side):
                square = np.ascontiguousarray(image[top : top + side, left : left + side])
                for face in self._find(square, left, top):
                    # Squares overlap: of one face found twice, the larger was cut less.
                    twins = [other for other in faces if same_place(face, other)]
                    if all(face.area_px > other.area_px for other in twins):
                        faces = [other for other in faces if other not in twins] + [face]
        return sorted(faces, key=lambda face: -face.area_px)

    def close(self) -> None:
        """Free the native graph; calling it again does nothing."""
        if self._task is not None:
            self._task.close()
        self._task = self._follower = None

    def __enter__(self) -> "Landmarker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _starts(length: int, side: int) -> list[int]:
    """Where squares of this side begin along an image side, overlapping by half."""
    last = max(0, length - side)
    return sorted({min(i * side // 2, last) for i in range(2 * length // side)})


def _arkit_scores(categories: list) -> np.ndarray:
    code = np.zeros(len(ARKIT_INDEX), np.float32)
    for category in categories:
        if category.category_name != "_neutral":
            code[ARKIT_INDEX[category.category_name]] = category.score
    return code.clip(0.0, 1.0)
