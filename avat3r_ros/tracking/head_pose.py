"""Head pose: the head template's landmarks, in the tracked expression, fitted to the image.

    template landmarks + expression code --> landmarks_head (m) -- weighted PnP --> camera_from_head
    landmarks with their coarse depth -- rotation between the two point sets ------> start

On renders of 16 people the fit was off by 1.3 degrees of pitch on the average and by 2.8 degrees of
yaw (standard deviation), and agrees with the cameras of `capture`, which are fitted to the same
template. MediaPipe's own face transform was off by 8 and 4.8.

Distance hangs on the size of the template's mean face: about 9 % (one standard deviation) between
people. Without intrinsics MediaPipe's virtual camera is assumed and distances scale with its error.
"""

import cv2
import numpy as np
from jaxtyping import Float

from avat3r_ros.geometry import intrinsics_matrix, pose_matrix
from avat3r_ros.rig import HeadTemplate

ASSUMED_VERTICAL_FOV_RAD = np.radians(63.0)
"""Of MediaPipe's virtual camera (face geometry module, `Environment`)."""

_ITERATIONS = 10
_CONVERGED = 1e-4
"""Radians and metres of a step; the next would be a fifth of it, far below the noise of the
landmarks."""


def assumed_intrinsics(width: int, height: int) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of MediaPipe's virtual camera for an image size (centres at +0.5)."""
    focal_px = height / 2 / np.tan(ASSUMED_VERTICAL_FOV_RAD / 2)
    return intrinsics_matrix(focal_px, width / 2, height / 2)


class HeadPoseSolver:
    """Poses the mean head of a template.

    Args:
        template: Gives the place and the trust of each landmark.
    """

    def __init__(self, template: HeadTemplate) -> None:
        neutral = template.landmarks(template.neutral)
        moved = template.landmarks(template.neutral + template.expression_basis)
        weights = template.landmark_weights.double().numpy()
        self._weights = weights / weights.sum()
        self._root_weights = np.sqrt(self._weights)
        self._neutral_head = neutral.double().numpy()
        self._expressions = (moved - neutral).double().numpy().reshape(len(moved), -1)
        middle = self._weights @ self._neutral_head
        self._weighted_shape = self._weights * (self._neutral_head - middle).T

    @property
    def expressions_head(self) -> Float[np.ndarray, "52 478 3"]:
        """How far each unit at 1 moves each landmark, metres."""
        return self._expressions.reshape(len(self._expressions), -1, 3)

    def landmarks_head(self, code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "478 3"]:
        """Landmarks of the mean head in an expression, metres."""
        return self._neutral_head + (code @ self._expressions).reshape(-1, 3)

    def solve(
        self,
        landmarks: Float[np.ndarray, "478 3"],
        code: Float[np.ndarray, "52"],
        intrinsics: Float[np.ndarray, "3 3"],
        start: Float[np.ndarray, "4 4"] | None = None,
    ) -> tuple[Float[np.ndarray, "4 4"], float]:
        """Minimise the weighted squared pixel error (Levenberg-Marquardt on SE(3)).

        Args:
            landmarks: x and y in pixels, centres at +0.5; z as in `RawFace`, for the start.
            code: Expression at that moment.
            intrinsics: Camera without distortion, centres at +0.5.
            start: camera_from_head of a moment before, whose rotation is a start that saves time.

        Returns:
            camera_from_head, and the weighted RMS error relative to the height of the landmarks'
            bounding box.
        """
        points = self.landmarks_head(np.asarray(code, np.float64)).T
        # Rays (x, y, 1): from here on no intrinsics; errors are scaled back to pixels by weights.
        pixels = np.ones((3, len(landmarks)))
        pixels[:2] = landmarks[:, :2].T
        rays = np.linalg.solve(intrinsics, pixels)[:2]
        rotation = self._rotation(landmarks) if start is None else start[:3, :3]
        turned = rotation @ points
        translation = self._translation(turned, rays)
        rows = np.zeros((7, 2, len(landmarks)))
        cost, normal, gradient = self._normal_equations(turned, translation, rays, rows)
        damping = 1e-4
        for _ in range(_ITERATIONS):
            damped = normal.copy()
            damped.flat[::7] *= 1.0 + damping  # the diagonal
            step = np.linalg.solve(damped, -gradient)
            new_rotation = cv2.Rodrigues(step[:3])[0] @ rotation
            new_translation = translation + step[3:]
            new = self._normal_equations(new_rotation @ points, new_translation, rays, rows)
            if new[0] < cost:
                rotation, translation = new_rotation, new_translation
                cost, normal, gradient = new
                damping *= 0.1
            else:
                damping *= 100.0
            if np.abs(step).max() < _CONVERGED:
                break
        height_px = max(float(np.ptp(pixels[1])), 1e-6)
        return pose_matrix(rotation, translation), float(
            np.sqrt(cost) * intrinsics[1, 1] / height_px
        )

    def _rotation(self, landmarks: np.ndarray) -> Float[np.ndarray, "3 3"]:
        """About right: turns the neutral landmarks towards the seen ones (Kabsch's algorithm)."""
        u, _, vt = np.linalg.svd(self._weighted_shape @ landmarks)
        mirrored = np.linalg.det(u) * np.linalg.det(vt)
        return (vt.T * [1.0, 1.0, mirrored]) @ u.T

    def _translation(self, turned: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Translation for a known rotation; X + t_x = x (Z + t_z) is linear in it, y likewise."""
        right = rays * turned[2] - turned[:2]
        x, y = rays @ self._weights
        square = (rays * rays).sum(0) @ self._weights
        rows = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [-x, -y, square]])
        moments = np.array([*(right @ self._weights), -(rays * right).sum(0) @ self._weights])
        return np.linalg.solve(rows, moments)

    def _normal_equations(
        self, turned: np.ndarray, translation: np.ndarray, rays: np.ndarray, rows: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Cost, Gauss-Newton matrix and gradient for (rotation vector on the left, translation).

        Args:
            turned: (3, N) points, not yet moved.
            translation: Moves them into the camera frame.
            rays: (2, N) measured.
            rows: (7, 2, N), zero before the first call; for one derivative by each unknown and the
                error, times the roots of the weights. All sums are one product of it with itself.
        """
        x, y, z = turned
        depth = z + translation[2]
        if depth.min() <= 0:
            return np.inf, np.eye(6), np.zeros(6)
        image = (turned[:2] + translation[:2, None]) / depth  # (u, v)
        scale = self._root_weights / depth
        scaled = image * scale
        # d(u, v)/d camera point; a small rotation w moves a turned point by w x point.
        np.multiply(scaled, -y, out=rows[0])
        np.multiply(scaled, x, out=rows[1])
        scaled_z = scale * z
        rows[0, 1] -= scaled_z
        rows[1, 0] += scaled_z
        np.multiply(scale, -y, out=rows[2, 0])
        np.multiply(scale, x, out=rows[2, 1])
        rows[3, 0] = rows[4, 1] = scale
        np.negative(scaled, out=rows[5])
        np.multiply(image - rays, self._root_weights, out=rows[6])
        flat = rows.reshape(7, -1)
        sums = flat @ flat.T
        return float(sums[6, 6]), sums[:6, :6], sums[:6, 6]
