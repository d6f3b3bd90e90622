"""Masks of a head in a picture: which pixels are the head's, and which hang together."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

SEEN_MASK = 0.5
"""Pixels of a soft matte below this are background."""


FACE_REGIONS = ("skin", "brows", "lips")
"""Of the head template: never cut off, and where the fit is best."""

MISSED_M, MAX_MISSED = 0.01, 0.08
"""A matte that ends this far within the fitted face misses what it leaves out there."""


def misses_face(outside_m: Float[np.ndarray, "n"]) -> bool:
    """Whether a matte misses part of a face, as of one half in the dark; it denies nothing then.

    Args:
        outside_m: How far outside the matte the vertices of `FACE_REGIONS` are, 0 inside, metres.
            Of good mattes at most 2 % are outside at all.
    """
    return bool((outside_m > MISSED_M).mean() > MAX_MISSED)


def parts_touching(
    mask: Bool[np.ndarray, "h w"], seeds: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """The connected parts of a mask that have a seed among their pixels."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.isin(parts, np.setdiff1d(parts[seeds], 0))
