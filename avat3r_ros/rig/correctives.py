"""Shapes that do not add up: what one of them does, another cannot do once more.

Blendshapes are summed, faces are not. A closed lid lies on the lower one and stays there, whatever
the eye behind it does; lips that meet do not pass through each other.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_INDEX

FREE_LID = 0.4
"""Up to this eyeBlink the lids still follow the eye; from there on less, at 1 not at all. Trackers
read closed eyes as looking down, too, by up to 0.8, which would lower the lids by 3 mm more."""

_BLINKS = [ARKIT_INDEX[f"eyeBlink{side}"] for side in ("Left", "Right")]
_FOLLOWERS = [
    [ARKIT_INDEX[f"{unit}{side}"] for side in ("Left", "Right")]
    for unit in ("eyeLookDown", "eyeSquint")
]
_JAW_OPEN, _MOUTH_CLOSE = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthClose"]


def corrected(code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "52"]:
    """An `arkit_52` code whose shapes may be summed.

    eyeLookDown and eyeSquint fade as their eye closes, and mouthClose, which undoes jawOpen, ends
    where the lips meet.
    """
    code = code.copy()
    freedom = ((1.0 - code[_BLINKS]) / (1.0 - FREE_LID)).clip(0.0, 1.0)
    for units in _FOLLOWERS:
        code[units] *= freedom
    code[_MOUTH_CLOSE] = min(code[_MOUTH_CLOSE], code[_JAW_OPEN])
    return code
