"""LandmarkBias: how far MediaPipe's landmarks lie beside their places on the template.

Measured by `tools/measure_landmark_bias.py` on drawn people: a landmark's constant shift, and how
the shift grows as the camera moves around the head (MediaPipe's turns come out too small).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import safe_open

from avat3r_ros.geometry import camera_direction, pose_matrix

BIAS_PATH = Path(__file__).parents[1] / "assets" / "landmark_bias.safetensors"

MAX_ANGLE_RAD = np.radians(45.0)
"""Cameras farther around the head than those of the measurement get the shift of its edge."""


@dataclass(frozen=True)
class LandmarkBias:
    """Shifts of the 478 landmarks.

    Attributes:
        offsets: In the head frame, metres, times (1, yaw, pitch) of the camera in radians: yaw
            positive towards the subject's left, pitch up.
    """

    offsets: Float[np.ndarray, "478 3 3"]

    @staticmethod
    @lru_cache(maxsize=1)
    def load() -> "LandmarkBias":
        """Load the shipped measurement.

        Raises:
            FileNotFoundError: It is not installed.
            ValueError: The file holds something else.
        """
        if not BIAS_PATH.is_file():
            raise FileNotFoundError(f"no landmark bias at {BIAS_PATH}")
        with safe_open(str(BIAS_PATH), "np") as file:
            kind = (file.metadata() or {}).get("format")
            if kind != "avat3r-landmark-bias":
                raise ValueError(f"expected a landmark bias in {BIAS_PATH}, got format {kind!r}")
            return LandmarkBias(file.get_tensor("offsets").astype(np.float64))

    def shifts(
        self, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "478 3"]:
        """How far each landmark is detected from its place, head frame, metres.

        Args:
            rotation: Of camera_from_head.
            translation: Of camera_from_head, metres.
        """
        angles = np.array(camera_direction(pose_matrix(rotation, translation)))
        angles = angles.clip(-MAX_ANGLE_RAD, MAX_ANGLE_RAD)
        return np.einsum("d,ldc->lc", np.concatenate([[1.0], angles]), self.offsets)
