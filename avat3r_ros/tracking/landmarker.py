"""MediaPipe's FaceLandmarker behind one small class: image in, plain arrays out.

The only file of `tracking/` that knows mediapipe. Everything MediaPipe-specific ends here or in
head_pose.py: milliseconds, normalised coordinates, score names, centimetres.

MediaPipe's normalised x, y times the image size are pixels whose centres are at +0.5, our
convention, but for a shift from resampling its crops that was measured by mirroring photos: -0.4 px
at faces 90 px wide, -0.2 px at 180 px, -0.1 px at 270 px. It is below the noise between photos
(0.3 px) and not corrected.
"""

import ctypes
import dataclasses
import importlib.metadata
import logging
import os
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.model_files import find_model, without_drawing, without_start_up_chatter

logger = logging.getLogger(__name__)

RECOUNT_EVERY = 30
"""Images after which a lone face is checked for company: a second at 30 images/s."""

RECOUNT_IMAGES = 2
"""Images that a count takes: in the first, MediaPipe may look where the face was a second ago."""

MIN_SQUARE_PX = 128
"""Smaller pictures are not searched in parts."""

_LANDMARK = np.dtype(
    {
        "names": ["x", "y"],
        "formats": [np.float32, np.float32],
        "offsets": [0, 4],
        "itemsize": 40,
    }
)
"""Start of the C struct of one landmark; its size is checked when the landmarker opens."""


@dataclass(frozen=True, eq=False)
class RawFace:
    """One face as MediaPipe sees it.

    Attributes:
        landmarks_px: Pixels of the image, centres at +0.5.
        scores: Blendshape scores in ARKIT_52 order, [0, 1]; tongueOut is 0, MediaPipe has none.
        metric_from_face_cm: Canonical face to MediaPipe's metric space (see head_pose.py).
    """

    landmarks_px: Float[np.ndarray, "478 2"]
    scores: Float[np.ndarray, "52"]
    metric_from_face_cm: Float[np.ndarray, "4 4"]

    @property
    def area_px(self) -> float:
        """Area of the landmarks' bounding box."""
        return float(np.prod(np.ptp(self.landmarks_px, axis=0)))


class Landmarker:
    """Finds faces in images; close it, or use it as a context manager.

    MediaPipe finds faces whose width is at least 11 % of the image's longer side (measured). Still
    images without such a face are searched a second time in parts, down to half of that.

    In video a lone face is followed by a one-face task: with several allowed and one present,
    MediaPipe would search every image for the others, a fifth of the time. Every RECOUNT_EVERY
    images the other task looks whether someone joined.

    Args:
        model_path: face_landmarker.task; searched for if None (model_files.py).
        max_faces: Faces looked for.
        video: Follow faces from image to image; `detect` then needs increasing timestamps.
        min_confidence: Lowest score of detection, presence and tracking that counts as a face.

    Raises:
        RuntimeError: mediapipe is not installed.
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
        from mediapipe.tasks.python.vision import RunningMode

        self._video = video
        self._image_class = mediapipe.Image
        self._srgb = mediapipe.ImageFormat.SRGB
        options = face_landmarker.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            running_mode=RunningMode.VIDEO if video else RunningMode.IMAGE,
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
            min_tracking_confidence=min_confidence,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self._score_targets: np.ndarray | None = None
        self._result_class = _c_result_class(face_landmarker)
        self._timestamp_ms = 0
        self._alone_for = 0
        self._single = None
        create = face_landmarker.FaceLandmarker.create_from_options
        with without_start_up_chatter():
            self._task = create(options)
            if video and max_faces > 1:
                self._single = create(dataclasses.replace(options, num_faces=1))
            # The native start-up goes on until the first image has passed.
            for task in filter(None, (self._task, self._single)):
                self._detect_at(np.zeros((64, 64, 3), np.uint8), 0, 0, task)

    def detect(
        self, image: UInt8[np.ndarray, "h w 3"], timestamp_ms: int | None = None
    ) -> list[RawFace]:
        """Find faces.

        Args:
            image: RGB, contiguous.
            timestamp_ms: In video mode; raised to stay strictly increasing, as MediaPipe insists.

        Returns:
            Largest face first; empty if there is none.

        Raises:
            RuntimeError: The landmarker is closed.
        """
        if self._task is None:
            raise RuntimeError("the landmarker is closed")
        if self._video:
            self._timestamp_ms = max(self._timestamp_ms + 1, timestamp_ms or 0)
            faces = self._detect_next(image)
        else:
            faces = self._detect_at(image, 0, 0, self._task) or self._detect_small(image)
        return sorted(faces, key=lambda face: -face.area_px)

    def _detect_next(self, image: np.ndarray) -> list[RawFace]:
        """Faces of the next video image; by the one-face task while there is one face."""
        if self._single is not None and RECOUNT_IMAGES <= self._alone_for < RECOUNT_EVERY:
            faces = self._detect_at(image, 0, 0, self._single)
            if faces:
                self._alone_for += 1
                return faces
        if self._alone_for >= RECOUNT_IMAGES:  # lost, or time to count again
            self._alone_for = 0
        faces = self._detect_at(image, 0, 0, self._task)
        self._alone_for = self._alone_for + 1 if len(faces) == 1 else 0
        return faces

    def _detect_at(self, image: np.ndarray, left: int, top: int, task) -> list[RawFace]:
        """Faces of an image that is cut out of a larger one at (left, top)."""
        picture = self._image_class(image_format=self._srgb, data=image)
        read = self._detect_c if self._result_class else self._detect_public
        found = read(task, picture)
        size, corner = np.float32([image.shape[1], image.shape[0]]), np.float32([left, top])
        return [RawFace(xy * size + corner, scores, matrix) for xy, scores, matrix in found]

    def _detect_small(self, image: np.ndarray) -> list[RawFace]:
        """Look again in overlapping squares: the detector sees 128 px of whatever it is given."""
        height, width = image.shape[:2]
        side = max(width, height) // 2
        if side < MIN_SQUARE_PX:
            return []
        faces: list[RawFace] = []
        for top in _starts(height, side):
            for left in _starts(width, side):
                square = np.ascontiguousarray(image[top : top + side, left : left + side])
                for face in self._detect_at(square, left, top, self._task):
                    # Squares overlap: of one face found twice, the larger was cut less.
                    twins = [other for other in faces if _same_place(face, other)]
                    if all(face.area_px > other.area_px for other in twins):
                        faces = [other for other in faces if other not in twins] + [face]
        return faces

    def close(self) -> None:
        """Free the native graph; calling it again does nothing."""
        for task in filter(None, (self._task, self._single)):
            task.close()
        self._task = self._single = None

    def __enter__(self) -> "Landmarker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _detect_c(self, task, picture) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Read MediaPipe's C result directly: its own conversion builds 478 objects, 2 ms."""
        result = self._result_class()
        if self._video:
            task._lib.MpFaceLandmarkerDetectForVideo(
                task._handle, picture._image_ptr, None, self._timestamp_ms, ctypes.byref(result)
            )
        else:
            task._lib.MpFaceLandmarkerDetectImage(
                task._handle, picture._image_ptr, None, ctypes.byref(result)
            )
        try:
            return [self._face_from_c(result, i) for i in range(result.face_landmarks_count)]
        finally:
            task._lib.MpFaceLandmarkerCloseResult(ctypes.byref(result))

    def _face_from_c(self, result, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points = result.face_landmarks[index]
        num_bytes = points.landmarks_count * _LANDMARK.itemsize
        raw = np.frombuffer(ctypes.string_at(points.landmarks, num_bytes), _LANDMARK)
        categories = result.face_blendshapes[index]
        count = categories.categories_count
        if self._score_targets is None:
            names = [categories.categories[i].category_name.decode() for i in range(count)]
            self._score_targets = _score_targets(names)
        scores = np.array([categories.categories[i].score for i in range(count)], np.float32)
        matrix = result.facial_transformation_matrixes[index].to_numpy()
        xy = np.stack([raw["x"], raw["y"]], -1)
        return xy, _arkit_scores(scores, self._score_targets), matrix.astype(np.float64)

    def _detect_public(self, task, picture) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        if self._video:
            result = task.detect_for_video(picture, self._timestamp_ms)
        else:
            result = task.detect(picture)
        found = []
        for points, categories, matrix in zip(
            result.face_landmarks,
            result.face_blendshapes,
            result.facial_transformation_matrixes,
            strict=True,
        ):
            xy = np.array([(p.x, p.y) for p in points], np.float32)
            targets = _score_targets([c.category_name for c in categories])
            scores = np.array([c.score for c in categories], np.float32)
            found.append((xy, _arkit_scores(scores, targets), np.asarray(matrix, np.float64)))
        return found


def _starts(length: int, side: int) -> list[int]:
    """Where squares of this side begin along an image side, overlapping by half."""
    last = max(0, length - side)
    return sorted({min(i * side // 2, last) for i in range(2 * length // side)})


def _same_place(a: RawFace, b: RawFace) -> bool:
    """The boxes' centres lie in each other's boxes."""
    boxes = [(face.landmarks_px.min(0), face.landmarks_px.max(0)) for face in (a, b)]
    centres = [(low + high) / 2 for low, high in boxes]
    return all(
        bool(((low <= centre) & (centre <= high)).all())
        for (low, high), centre in zip(boxes, reversed(centres), strict=True)
    )


def _c_result_class(module) -> type | None:
    """MediaPipe's C result struct if this version has the layout that we read, else None."""
    result_class = getattr(module, "MpFaceLandmarkerResultC", None)
    if result_class is not None:
        fields = dict(result_class._fields_)
        point = dict(fields["face_landmarks"]._type_._fields_)["landmarks"]._type_
        if (
            ctypes.sizeof(point) == _LANDMARK.itemsize
            and (point.x.offset, point.y.offset) == (0, 4)
            and point.x.size == 4
        ):
            return result_class
    logger.warning(
        "mediapipe %s has another result layout than 1.2.2: reading results the slow way",
        importlib.metadata.version("mediapipe"),
    )
    return None


def _score_targets(names: list[str]) -> np.ndarray:
    """Index into ARKIT_52 of each MediaPipe category; -1 for `_neutral`."""
    unknown = [name for name in names if name != "_neutral" and name not in ARKIT_INDEX]
    if unknown:
        raise RuntimeError(f"the model has blendshapes outside ARKit's list: {unknown}")
    return np.array([ARKIT_INDEX.get(name, -1) for name in names])


def _arkit_scores(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    code = np.zeros(len(ARKIT_INDEX), np.float32)
    known = targets >= 0
    code[targets[known]] = scores[known].clip(0.0, 1.0)
    return code
