"""A hand to draw over faces: MediaPipe takes it for one in three of four places."""

import cv2
import numpy as np
import pytest

FINGERS = (
    ((-0.16, -0.50), (-0.20, -0.72), (-0.215, -0.86), 0.052),
    ((-0.05, -0.53), (-0.06, -0.80), (-0.06, -0.97), 0.055),
    ((0.06, -0.52), (0.075, -0.77), (0.08, -0.93), 0.053),
    ((0.155, -0.47), (0.19, -0.65), (0.205, -0.77), 0.045),
)
"""Two joints, the tip, and the thickness; the hand is 1 long, its wrist lies in the origin."""

PARTS = (
    *(((0.7 * a[0], -0.12), a, 0.075, 0.07, -0.02) for a, _, _, _ in FINGERS),
    *((a, b, 1.12 * r, r, 0.0) for a, b, _, r in FINGERS),
    *((b, c, r, 0.78 * r, 0.0) for _, b, c, r in FINGERS),
    ((-0.10, -0.10), (-0.27, -0.32), 0.085, 0.065, 0.0),
    ((-0.27, -0.32), (-0.37, -0.50), 0.06, 0.045, 0.0),
    ((0.0, 0.25), (0.0, -0.05), 0.13, 0.13, -0.02),
    ((-0.06, -0.1), (0.06, -0.1), 0.11, 0.11, -0.03),
)
"""Rounded rods: start, end, radius at both, and how far they are raised."""

LIGHT = (-0.35, -0.45, 0.82)


@pytest.fixture(scope="session")
def draw_hand():
    """Draws a hand whose wrist is at a pixel, `length` pixels long, turned clockwise by `angle`."""

    def draw(image, wrist, length, angle, tone):
        turn = length * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        pixels = np.stack(np.meshgrid(*map(np.arange, image.shape[1::-1])), -1).astype(float)
        height = np.full(image.shape[:2], -1.0)
        for start, end, radius, end_radius, raised in PARTS:
            start, end = (np.array(wrist) + turn @ point for point in (start, end))
            along = ((pixels - start) @ (end - start) / ((end - start) @ (end - start))).clip(0, 1)
            round_ = length * (radius + (end_radius - radius) * along)
            away = np.linalg.norm(pixels - start - along[..., None] * (end - start), axis=-1)
            over = np.sqrt(np.maximum(round_**2 - away**2, 0)) + raised * length
            height = np.maximum(height, np.where(away < round_, over, -1.0))
        smooth = cv2.GaussianBlur(height.clip(0), (0, 0), 0.008 * length)
        down, right = np.gradient(smooth)
        normals = np.stack([-right, -down, np.ones_like(down)], -1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        skin = np.array(tone) * (0.35 + 0.7 * (normals @ LIGHT).clip(0, 1))[..., None]
        share = cv2.GaussianBlur((height >= 0).astype(float), (0, 0), 0.7)[..., None]
        return (image * (1 - share) + share * skin.clip(0, 255)).astype(np.uint8)

    return draw
