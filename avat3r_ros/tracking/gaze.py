"""Eye direction from the eyeLook scores, which MediaPipe derives from the iris landmarks."""

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_INDEX

YAW_RANGE_RAD = np.radians(30.0)
PITCH_RANGE_RAD = np.radians(25.0)
"""Turn of the eye at an eyeLook score of 1 (ours: comfortable limits of eye movement)."""


def gaze_from_code(code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "2"]:
    """Mean eye direction in the head frame from an `arkit_52` code.

    Returns:
        Yaw (positive: subject's left) and pitch (positive: up), radians, float32.
    """

    def score(name: str) -> float:
        return float(code[ARKIT_INDEX[name]])

    left = score("eyeLookOutLeft") - score("eyeLookInLeft")
    right = score("eyeLookInRight") - score("eyeLookOutRight")
    up = sum(score(f"eyeLookUp{side}") - score(f"eyeLookDown{side}") for side in ("Left", "Right"))
    return np.array([YAW_RANGE_RAD * (left + right) / 2, PITCH_RANGE_RAD * up / 2], np.float32)
