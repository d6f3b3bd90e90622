"""What a picture of a head shows, be it a crop, drawn or guessed: a box, cut off at the neck."""

import numpy as np
from jaxtyping import Float

BOX_CENTER_HEAD_M = np.array([0.0, 0.0, -0.08])
"""Middle of the crop: the middle of the head with its hair, head frame."""

BOX_SIZE_M = 0.32
"""Side of the crop at the middle's distance: head and neck, and 4 cm of hair above."""

SKULL_CENTER_HEAD_M = np.array([0.0, 0.025, -0.085])
SKULL_RADII_M = np.array([0.078, 0.105, 0.1])
"""Ellipsoid about the mean skull."""

NECK_BELOW_CHIN_M = 0.03
"""How far under the chin of the resting face the neck is cut, in front."""

NECK_SLOPE = 0.25
"""The cut rises by this much per metre towards the nape."""


def height_over_chin_plane(
    points: Float[np.ndarray, "*n 3"], chin: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*n"]:
    """Signed height over the cutting plane lifted to the chin, head frame, metres."""
    return points[..., 1] - chin[1] - NECK_SLOPE * (chin[2] - points[..., 2])


def hangs(points: Float[np.ndarray, "*n 3"]) -> np.ndarray:
    """Whether hair at points of the head frame (metres) hangs: below the middle of the skull.

    What hangs stays upright when the head is tilted, and so is elsewhere on it in each photo.
    """
    return points[..., 1] < SKULL_CENTER_HEAD_M[1]
