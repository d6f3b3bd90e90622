"""Follows one face from image to image: MediaPipe's two networks of the face, run by LiteRT.

    last landmarks -> square around them -> crop -> [mesh network] -> landmarks, presence, tongue
                                       landmarks -> One Euro -> [blendshape network] -> scores

The networks are those of face_landmarker.task, and so are the crop and the units. Running them
ourselves takes less time than MediaPipe's graph, follows movements sooner (MediaPipe has the same
low-pass over the landmarks, with a slower estimate of their speed), and keeps what MediaPipe throws
away: the mesh network's third output is the probability of a tongue that sticks out. No document
says so; tongues painted into photos of seven people took it from at most 0.003 to between 0.1 and
0.8 in six of them.

Source of the geometry: MediaPipe, face_landmarks_detector_graph.cc and face_blendshapes_graph.cc
(Apache-2.0).
"""

import os
import zipfile

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX
from avat3r_ros.model_files import without_start_up_chatter
from avat3r_ros.tracking.raw_face import RawFace
from avat3r_ros.tracking.smoothing import OneEuroFilter

CROP_PX = 256
CROP_SCALE = 1.5
"""Side of the crop over the longer side of the landmarks' bounding box."""

RIGHT_EYE_CORNER, LEFT_EYE_CORNER = 33, 263
"""The line through these landmarks is level in the crop."""

SCORE_NAMES = ("_neutral", *sorted(set(ARKIT_52) - {"tongueOut"}))
"""Outputs of the blendshape network."""

_SCORES_OF_ARKIT = np.array(
    [SCORE_NAMES.index(name) if name in SCORE_NAMES else 0 for name in ARKIT_52]
)
_TONGUE, _JAW = ARKIT_INDEX["tongueOut"], ARKIT_INDEX["jawOpen"]

TONGUE_JAW_OPEN = 0.15
"""jawOpen from which the tongue counts in full, and not at all over a shut jaw. A woman's hand
before her mouth read as a tongue with 0.99 and jawOpen 0; painted tongues came with 0.15 to 0.5."""

# fmt: off
SCORED_LANDMARKS = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66,
    67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144,
    145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173,
    176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284,
    285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332,
    334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466,
    *range(468, 478),
])
# fmt: on
"""Landmarks that the blendshape network looks at."""


class FaceFollower:
    """Finds a face again near the place where it was.

    Args:
        model_path: face_landmarker.task.
        landmark_filter: Of x and y of the landmarks; its unit is the size of the face. None passes
            them through.
        num_threads: Of the networks.
        min_presence: Lowest probability that counts as a face.

    Raises:
        RuntimeError: ai-edge-litert is not installed.
    """

    def __init__(
        self,
        model_path: str | os.PathLike,
        *,
        landmark_filter: OneEuroFilter | None = None,
        num_threads: int = 1,
        min_presence: float = 0.5,
    ) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise RuntimeError(
                f"tracking needs ai-edge-litert ({error}); remedy: pip install ai-edge-litert"
            ) from error
        with zipfile.ZipFile(model_path) as bundle, without_start_up_chatter():
            self._mesh, self._blendshapes = (
                Interpreter(model_content=bundle.read(name), num_threads=num_threads)
                for name in ("face_landmarks_detector.tflite", "face_blendshapes.tflite")
            )
            self._mesh.allocate_tensors()
            self._blendshapes.allocate_tensors()
        shapes = {out["index"]: out["shape"].tolist() for out in self._mesh.get_output_details()}
        self._points, self._presence, self._tongue = (
            next(index for index, shape in shapes.items() if shape == wanted)
            for wanted in ([1, 1, 1, 3 * 478], [1, 1, 1, 1], [1, 1])
        )
        self._crop = self._mesh.get_input_details()[0]["index"]
        self._scored = self._blendshapes.get_input_details()[0]["index"]
        self._scores = self._blendshapes.get_output_details()[0]["index"]
        self._min_logit = np.log(min_presence / (1.0 - min_presence))
        self._filter = landmark_filter
        self._place: np.ndarray | None = None

    def start(self, landmarks_px: Float[np.ndarray, "478 2"] | None) -> None:
        """Follow the face that is there from now on, or none."""
        self._place = landmarks_px
        if self._filter is not None:
            self._filter.reset()

    def follow(self, image: UInt8[np.ndarray, "h w 3"], dt_s: float) -> RawFace | None:
        """Find the face again.

        Args:
            image: RGB.
            dt_s: Seconds since the last image.

        Returns:
            The face, or None if it is not there any more, nor will be until `start`.
        """
        if self._place is None:
            return None
        image_from_crop = _image_from_crop(self._place)
        crop = cv2.warpAffine(
            image,
            image_from_crop,
            (CROP_PX, CROP_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mesh = self._mesh
        mesh.set_tensor(self._crop, np.multiply(crop[None], 1 / 255, dtype=np.float32))
        mesh.invoke()
        if mesh.get_tensor(self._presence).item() < self._min_logit:
            self._place = None
            return None
        landmarks = mesh.get_tensor(self._points).reshape(478, 3)
        landmarks[:, :2] = landmarks[:, :2] @ image_from_crop[:, :2].T + image_from_crop[:, 2]
        landmarks[:, 2] *= np.sqrt(np.linalg.det(image_from_crop[:, :2]))
        self._place = landmarks[:, :2].copy()
        if self._filter is not None:
            size_px = float(np.ptp(self._place, axis=0).mean())
            landmarks[:, :2] = self._filter.filter(self._place, dt_s, unit=size_px)

        self._blendshapes.set_tensor(self._scored, landmarks[None, SCORED_LANDMARKS, :2])
        self._blendshapes.invoke()
        scores = self._blendshapes.get_tensor(self._scores)[_SCORES_OF_ARKIT]
        tongue = mesh.get_tensor(self._tongue).item()
        scores[_TONGUE] = tongue * min(1.0, scores[_JAW] / TONGUE_JAW_OPEN)
        return RawFace(landmarks, scores.clip(0.0, 1.0))


def _image_from_crop(landmarks_px: np.ndarray) -> Float[np.ndarray, "2 3"]:
    """The square around a face, turned so that the eyes are level."""
    low, high = landmarks_px.min(0), landmarks_px.max(0)
    scale = CROP_SCALE * float((high - low).max()) / CROP_PX
    across, down = landmarks_px[LEFT_EYE_CORNER] - landmarks_px[RIGHT_EYE_CORNER]
    cos, sin = scale * np.array([across, down]) / max(float(np.hypot(across, down)), 1e-6)
    turn = np.array([[cos, -sin], [sin, cos]])
    corner = (low + high) / 2 - turn @ np.full(2, CROP_PX / 2)
    return np.column_stack([turn, corner])
