"""What is laid over the avatar's picture: the placeholder as a veil, and a discreet badge.

The badge is a small dot with a word in the upper right corner, while the face shown is not the
operator's present one. LIVE has none, and the placeholder says it in words already.
"""

import cv2
import numpy as np
from jaxtyping import UInt8

from avat3r_ros.nodes.presence import State

BADGES = {State.HOLD: ("hold", (255, 176, 32)), State.NEUTRAL: ("away", (150, 150, 160))}
"""State -> word and colour of the dot, RGB."""

OPACITY = 0.75


def veil_over(
    image: UInt8[np.ndarray, "h w c"], placeholder: UInt8[np.ndarray, "h w 3"], share: float
) -> None:
    """Cover a picture with the placeholder, in place.

    Args:
        image: 3 or 4 channels; the placeholder is grey, so their order does not matter.
        placeholder: Of the same size.
        share: 0 leaves the picture, 1 replaces it.
    """
    if image.shape[2] == 4:
        placeholder = np.dstack([placeholder, np.full(image.shape[:2], 255, np.uint8)])
    cv2.addWeighted(image, 1.0 - share, placeholder, share, 0.0, dst=image)


def draw_badge(image: UInt8[np.ndarray, "h w c"], state: State, encoding: str) -> None:
    """Mark a picture that does not show the operator's present face, in place.

    Args:
        image: Pixels in the order of `encoding`.
        state: Why.
        encoding: "rgb8", "bgr8", "rgba8" or "bgra8".
    """
    if state not in BADGES:
        return
    word, color = BADGES[state]
    color = color if encoding.startswith("rgb") else color[::-1]
    unit = min(image.shape[:2])
    radius, scale = max(2, unit // 90), max(0.3, unit / 1100)
    (wide, tall), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    width, height = wide + 6 * radius, max(tall, 2 * radius) + 2 * radius
    left, top = image.shape[1] - width - 2 * radius, 2 * radius
    if 2 * width > image.shape[1]:
        return  # too small a picture for words
    window = image[top : top + height, left : left + width]
    plate = np.full_like(window, 24)
    middle = height // 2
    cv2.circle(plate, (2 * radius, middle), radius, (*color, 255), -1, cv2.LINE_AA)
    origin = (4 * radius, middle + tall // 2)
    ink = (235, 235, 235, 255)
    cv2.putText(plate, word, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    if image.shape[2] == 4:
        plate[..., 3] = 255  # seen before any background
    window[...] = cv2.addWeighted(window, 1.0 - OPACITY, plate, OPACITY, 0.0)
