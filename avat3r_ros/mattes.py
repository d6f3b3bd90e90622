"""Masks of a head in a picture: which pixels are the head's, and which hang together."""

import cv2
import numpy as np
from jaxtyping import Bool

SEEN_MASK = 0.5
"""Pixels of a soft matte below this are background."""


def parts_touching(
    mask: Bool[np.ndarray, "h w"], seeds: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """The connected parts of a mask that have a seed among their pixels."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.isin(parts, np.setdiff1d(parts[seeds], 0))
