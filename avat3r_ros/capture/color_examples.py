"""What has the colour of something: pixels compared with examples of it, in CIELAB."""

import cv2
import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

MAX_COLOR_DISTANCE = 7.0
"""Distance within which a colour is one of the examples' (2.3 is just noticeable)."""

MAX_EXAMPLES, MIN_EXAMPLES = 600, 40
"""Colours that are compared with; fewer than the second tell nothing."""


def smooth_lab(picture: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """CIELAB of RGB in [0, 1], slightly blurred: strands and the gaps between them are one."""
    blurred = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.0)
    return cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB)


def color_examples(colors: Float[np.ndarray, "n 3"]) -> cKDTree:
    """Make colours searchable, up to twice `MAX_EXAMPLES` of them."""
    return cKDTree(colors[:: max(len(colors) // MAX_EXAMPLES, 1)])
