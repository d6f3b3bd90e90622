"""Image to FaceState: landmarks -> pose and codes -> smoothing -> neutral -> response -> gaze.

image -> Landmarker -> largest face -+-> head pose -+--> One Euro -----------------------+-> state
                                     |              +--> lips, brows, lids ----------+   |
                                     +-> 52 scores -> One Euro -> neutral -> response -+-+

In video the landmarks pass a One Euro filter of their own, before scores are read from them.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_52, validate_code
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking.brow_height import BrowHeight
from avat3r_ros.tracking.gaze import gaze_from_code
from avat3r_ros.tracking.head_pose import HeadPoseSolver, assumed_intrinsics
from avat3r_ros.tracking.landmarker import Landmarker
from avat3r_ros.tracking.lid_opening import LidOpening
from avat3r_ros.tracking.mouth_opening import MouthOpening
from avat3r_ros.tracking.neutral import TYPICAL_NEUTRAL, neutral_from_codes, relative_to_neutral
from avat3r_ros.tracking.raw_face import RawFace
from avat3r_ros.tracking.response import ResponseRange
from avat3r_ros.tracking.smoothing import (
    PoseFilter,
    SmoothingConfig,
    code_filter,
    landmark_filter,
)
from avat3r_ros.types import FaceState

MIN_IMAGE_PX = 32
"""Images with a shorter side than this are refused: no face in them can be tracked."""

MAX_IMAGE_PX = 16384

RESIDUAL_SURE, RESIDUAL_LOST = 0.025, 0.10
"""Landmark error of the head pose (`HeadPoseSolver.solve`) up to which a face is certain, and from
which it is not one. Ours: six photos of two people, two of them half out of the image, stay below
0.019, renders of 16 people below 0.023."""

AWAY_S = 5.0
"""After so long without a face it may be another person's, who rests otherwise."""

REMEMBERED_CODES = 600
"""Raw codes kept for `calibrate_neutral`: 20 s at 30 images/s."""


class FaceTracker:
    """Tracks the largest face of an image stream; close it, or use it as a context manager.

    Not for use from several threads at once.

    Args:
        model_path: face_landmarker.task; searched for if None (model_files.py).
        smoothing: None passes measurements through. Without effect on still images.
        max_faces: Faces looked for, >= 1; 2 tells "one person" from "several".
        running_mode: "video" follows a face over time and wants stamps that do not go back; "image"
            takes unrelated images.
        template: Head that is posed; the shipped one if None.
        full_range: Codes are shares of the full movement (response.py); lips, and in smoothed video
            brows and lids, move as far as landmarks show (landmark_distances.py). False passes the
            landmarker's scores above rest. None: True for smoothed video, where the person's range
            can be learned.
        num_threads: Of the networks that follow a face.

    Raises:
        ValueError: A setting outside its range, or a model file that is not the published one.
        FileNotFoundError: The model file is nowhere; the message has the remedy.
        RuntimeError: mediapipe or ai-edge-litert is not installed.
    """

    def __init__(
        self,
        model_path: str | os.PathLike | None = None,
        *,
        smoothing: SmoothingConfig | None = SmoothingConfig(),  # noqa: B008 (frozen)
        max_faces: int = 2,
        running_mode: str = "video",
        template: HeadTemplate | None = None,
        full_range: bool | None = None,
        num_threads: int = 1,
    ) -> None:
        if running_mode not in ("video", "image"):
            raise ValueError(f"expected running_mode 'video' or 'image', got {running_mode!r}")
        if max_faces < 1:
            raise ValueError(f"expected max_faces >= 1, got {max_faces}")
        self._video = running_mode == "video"
        self._smoothing = smoothing if self._video else None
        self._code_filter = code_filter(smoothing) if self._smoothing else None
        self._pose_filter = PoseFilter(smoothing) if self._smoothing else None
        self._landmark_filter = landmark_filter(smoothing) if self._smoothing else None
        self._neutral: np.ndarray | None = None
        if full_range is None:
            full_range = self._smoothing is not None
        self._response = ResponseRange() if full_range else None
        self._raw_codes: OrderedDict[float, np.ndarray] = OrderedDict()
        self._pose_solver = HeadPoseSolver(template or HeadTemplate.load())
        self._mouth = MouthOpening(self._pose_solver)
        self._learning = BrowHeight(self._pose_solver), LidOpening(self._pose_solver)
        self._landmarker = Landmarker(
            model_path,
            max_faces=max_faces,
            video=self._video,
            landmark_filter=self._landmark_filter,
            num_threads=num_threads,
        )
        self.reset()

    def track(
        self,
        image: np.ndarray,
        stamp_s: float,
        intrinsics: Float[np.ndarray, "3 3"] | None = None,
    ) -> FaceState:
        """Track the largest face of one image.

        Args:
            image: (H, W, 3) uint8 RGB, not mirrored, each side at least MIN_IMAGE_PX.
            stamp_s: Acquisition time. In video mode it may repeat (the estimate then stays) but
                not go back; after a jump of the clock call `reset`.
            intrinsics: Pinhole camera of the image, centres at +0.5; the distance of the head is
                approximate without it (head_pose.py).

        Returns:
            `detected=False` when there is no face.

        Raises:
            ValueError: The image, stamp or intrinsics cannot be used; the tracker's state is kept.
            RuntimeError: The tracker is closed.
        """
        image = _checked_image(image)
        intrinsics = None if intrinsics is None else _checked_intrinsics(intrinsics)
        dt_s = self._advance(stamp_s)
        faces = self._landmarker.detect(image, dt_s)
        if not faces:
            self._forget_face()
            return _no_face(stamp_s)
        face = faces[0]
        box = face.box
        someone_else = self._is_someone_else(box)
        if someone_else:
            self._forget_face()
        if someone_else or stamp_s > self._seen_s + AWAY_S:
            self._forget_rest()
        self._seen_s = stamp_s
        self._last_box = box

        if intrinsics is None:
            intrinsics = assumed_intrinsics(image.shape[1], image.shape[0])
        code = face.scores
        pose, residual = self._pose_solver.solve(
            face.landmarks, code, intrinsics, start=self._last_pose
        )
        self._last_pose = pose if self._video and residual < RESIDUAL_LOST else None
        seen = (face.landmarks_px, pose, intrinsics)
        confidence = _confidence(face, residual, image)
        if self._smoothing is not None:
            pose = self._pose_filter.filter(pose, dt_s)
            code = self._code_filter.filter(code, dt_s).astype(np.float32)
        self._remember(stamp_s, code)
        code, gaze = self._calibrated(code)
        if self._response is not None:
            code = self._mouth.correct(code, self._mouth.measure(*seen))
            if self._smoothing is not None:  # rest is learned from a person's stream only
                for part in self._learning:
                    distances = part.measure(*seen)
                    part.learn(code, distances, stamp_s)
                    code = part.correct(code, distances)
        return FaceState(
            stamp_s=float(stamp_s),
            detected=True,
            confidence=confidence,
            code=code,
            gaze=gaze,
            camera_from_head=pose,
            landmarks_px=face.landmarks_px,
            num_faces=len(faces),
        )

    @property
    def neutral(self) -> Float[np.ndarray, "52"] | None:
        """Raw code of the resting face that is subtracted, or None."""
        return None if self._neutral is None else self._neutral.copy()

    def set_neutral(self, neutral: Float[np.ndarray, "52"] | None) -> None:
        """Use a stored neutral code (raw scores below 1), or none.

        Raises:
            ValueError: Not an `arkit_52` code, or a score of 1, which leaves no range.
        """
        if neutral is not None:
            neutral = validate_code("arkit_52", neutral)
            if neutral.max() >= 1.0:
                raise ValueError(f"expected neutral scores below 1, got {neutral.max()}")
        self._rest_at(neutral)

    def calibrate_neutral(self, states: Sequence[FaceState]) -> Float[np.ndarray, "52"]:
        """Take the face of these states as the resting face from now on.

        An earlier calibration does not disturb: the raw codes of this tracker's last
        REMEMBERED_CODES images are looked up by their stamps.

        Args:
            states: What `track` returned while the person held a relaxed face, a second or so.

        Returns:
            The neutral code, to be stored and given to `set_neutral` another time.

        Raises:
            ValueError: Too few faces, movement or an expression in them, or states that this
                tracker no longer remembers. The calibration in use stays.
        """
        codes = []
        for state in states:
            if not state.detected:
                continue
            if state.stamp_s not in self._raw_codes:
                raise ValueError(
                    f"the state of {state.stamp_s:.3f} s is not among the last "
                    f"{REMEMBERED_CODES} images that this tracker saw"
                )
            codes.append(self._raw_codes[state.stamp_s])
        self._rest_at(neutral_from_codes(codes))
        return self._neutral.copy()

    def reset(self) -> None:
        """Forget the past (place, smoothing, stamps); the neutral calibration stays."""
        self._landmarker.reset()
        self._forget_face()
        self._forget_rest()
        self._last_stamp_s: float | None = None
        self._seen_s = -np.inf
        self._raw_codes.clear()

    def close(self) -> None:
        """Free the native tracker; calling it again does nothing."""
        self._landmarker.close()

    def __enter__(self) -> "FaceTracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _advance(self, stamp_s: float) -> float:
        """Check the stamp and return the seconds since the last one (0 for the first)."""
        if not np.isfinite(stamp_s):
            raise ValueError(f"expected a finite stamp in seconds, got {stamp_s}")
        if not self._video:
            return 0.0
        last_s = self._last_stamp_s
        if last_s is not None and stamp_s < last_s:
            raise ValueError(
                f"stamp {stamp_s:.6f} s lies {last_s - stamp_s:.6f} s before the last one "
                f"({last_s:.6f} s); drop the image, or call reset() if the clock was set back"
            )
        dt_s = 0.0 if last_s is None else stamp_s - last_s
        self._last_stamp_s = float(stamp_s)
        if self._smoothing is not None and dt_s > self._smoothing.reset_gap_s:
            self._forget_face()
        return dt_s

    def _forget_face(self) -> None:
        self._last_box: np.ndarray | None = None
        self._last_pose: np.ndarray | None = None
        if self._smoothing is not None:
            for one in (self._code_filter, self._pose_filter, self._landmark_filter):
                one.reset()

    def _forget_rest(self) -> None:
        for part in self._learning:
            part.forget()

    def _is_someone_else(self, box: np.ndarray) -> bool:
        """The largest face is now elsewhere: its centre left the last box."""
        if self._last_box is None:
            return False
        centre = box.mean(0)
        return bool((centre < self._last_box[0]).any() or (centre > self._last_box[1]).any())

    def _calibrated(
        self, scores: np.ndarray
    ) -> tuple[Float[np.ndarray, "52"], Float[np.ndarray, "2"]]:
        """Code and gaze from the landmarker's scores."""
        code = relative_to_neutral(
            scores, TYPICAL_NEUTRAL if self._neutral is None else self._neutral
        )
        gaze = gaze_from_code(code)
        if self._response is None:
            return code, gaze
        if self._smoothing is not None:  # unrelated or noisy images teach nothing about a person
            self._response.learn(code)
        return self._response.stretch(code), gaze

    def _rest_at(self, neutral: np.ndarray | None) -> None:
        """Another resting face: what was learned above the old one no longer holds."""
        self._neutral = neutral
        self._forget_rest()
        if self._response is not None:
            self._response.forget()

    def _remember(self, stamp_s: float, code: np.ndarray) -> None:
        self._raw_codes[float(stamp_s)] = code
        if len(self._raw_codes) > REMEMBERED_CODES:
            self._raw_codes.popitem(last=False)


def _checked_image(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected an image (H, W, 3) uint8 RGB, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        hint = ""
        if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
            hint = " with values that are not finite"
        raise ValueError(
            f"expected an image (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}{hint}"
        )
    if not MIN_IMAGE_PX <= min(image.shape[:2]) <= max(image.shape[:2]) <= MAX_IMAGE_PX:
        raise ValueError(
            f"expected image sides from {MIN_IMAGE_PX} to {MAX_IMAGE_PX} px, got "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    return np.ascontiguousarray(image)


def _checked_intrinsics(intrinsics: np.ndarray) -> np.ndarray:
    k = np.asarray(intrinsics, np.float64)
    if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        raise ValueError(f"expected pinhole intrinsics (3, 3) with fx, fy > 0, got {k.tolist()}")
    return k


def _confidence(face: RawFace, residual: float, image: np.ndarray) -> float:
    """Share of landmarks inside the image, reduced where they do not fit a rigid face."""
    inside = ((face.landmarks_px >= 0) & (face.landmarks_px <= image.shape[1::-1])).all(-1).mean()
    fit = (RESIDUAL_LOST - residual) / (RESIDUAL_LOST - RESIDUAL_SURE)
    return float(inside * np.clip(fit, 0.0, 1.0))


def _no_face(stamp_s: float) -> FaceState:
    return FaceState(
        stamp_s=float(stamp_s),
        detected=False,
        confidence=0.0,
        code=np.zeros(len(ARKIT_52), np.float32),
        gaze=np.zeros(2, np.float32),
        camera_from_head=np.eye(4),
        landmarks_px=np.zeros((0, 2), np.float32),
        num_faces=0,
    )
