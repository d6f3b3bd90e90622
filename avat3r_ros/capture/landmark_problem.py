"""The least-squares problem behind the template fit: its unknowns, cost, derivatives and solver.

Everything enters the landmark positions linearly or through one projection, so this is a damped
Gauss-Newton problem with a closed-form Jacobian:

    pixel = project(K(focal), R · (neutral + identity · B + code · E)[landmarks] + t)

    cost = sum robust(|pixel - detected| / sigma) + |identity|² + |(code - tracker's code) / sigma|²
           + (log focal - log guess)² / sigma²

Landmarks are robust (Cauchy), for MediaPipe invents those that it cannot see.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from avat3r_ros.expression import ARKIT_52
from avat3r_ros.geometry import intrinsics_matrix
from avat3r_ros.rig import NUM_LANDMARKS, HeadTemplate

LANDMARK_SIGMA_M = 0.003
"""Spread of the best landmark on the head. Ours: MediaPipe scatters by 1 mm, but neighbouring
landmarks err together, so that 478 of them are worth far fewer independent ones. Surface errors on
drawn heads were flat from 2 to 4.5 mm; half of it already makes up odd identities."""

LANDMARK_SIGMA_PX = 0.5
"""Noise of a landmark in a small face, where pixels are larger than millimetres."""

ROBUST_SIGMAS = 2.5
"""Error, in sigmas, from which a landmark counts less."""

FOCAL_GUESS = 1.0
"""Focal length of an unknown camera over its longer image side: between webcams (0.7) and portrait
lenses (1.5)."""

FOCAL_LOG_SIGMA = 0.35
"""How far (factor e^sigma) an unknown focal length strays from the guess."""

CODE_SIGMA = {
    "eyeLook": 0.3,
    "jawOpen": 0.15,
    "cheekPuff": 0.3,
    "noseSneer": 0.25,
    "eyeWide": 0.25,
    "tongueOut": 0.02,
    "": 0.12,
}
"""How far the fit may move a score away from the tracker's, by prefix of its name. MediaPipe is
weak at the looser ones; tongueOut it does not see at all. The others stay close to the tracker's,
because codes of the references and of the driver must mean the same."""

MAX_ITERATIONS = 40
MIN_FACING = 0.15
"""Least weight of a landmark that is turned away from its camera."""


@dataclass
class FitState:
    """The unknowns of V photos by G cameras."""

    identity: np.ndarray
    codes: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    log_focals: np.ndarray


class LandmarkProblem:
    """Data of one fit of V photos by G cameras, its cost, and the damped Gauss-Newton steps.

    Args:
        template: The head model, with measured landmarks.
        detected_px: (V, 478, 2) landmarks.
        centers_px: (V, 2) principal points.
        tracker_codes: (V, 52) scores.
        camera_of: Index of each photo's camera.
        focals_px: Focal length of each camera, None where unknown.
        image_sizes_px: Longer image side of each camera.
        identity: Fixed identity, or None to find it.

    Raises:
        ValueError: The template has no landmarks, the identity has another length, or no pose in
            front of a camera explains a photo's landmarks.
    """

    def __init__(
        self,
        template: HeadTemplate,
        *,
        detected_px: np.ndarray,
        centers_px: np.ndarray,
        tracker_codes: np.ndarray,
        camera_of: list[int],
        focals_px: list[float | None],
        image_sizes_px: list[int],
        identity: np.ndarray | None,
    ) -> None:
        corners = template.triangles[template.landmark_triangles].numpy()
        weights = template.landmark_barycentrics.double().numpy()

        def at_landmarks(values: np.ndarray) -> np.ndarray:
            return np.einsum("lk,...lkc->...lc", weights, values[..., corners, :])

        self.mean = at_landmarks(template.neutral.double().numpy())
        self.identity_basis = at_landmarks(template.identity_basis.double().numpy())
        self.expression_basis = at_landmarks(template.expression_basis.double().numpy())
        self._identity_rows = self.identity_basis.reshape(len(self.identity_basis), -1)
        self._expression_rows = self.expression_basis.reshape(len(self.expression_basis), -1)
        self.normals = template.vertex_normals(template.neutral).double().numpy()[corners].mean(1)
        landmark_weights = template.landmark_weights.double().numpy()
        if not landmark_weights.any():
            raise ValueError("expected a template with measured landmarks, got weights of 0")
        self.fixed_identity = identity is not None
        if identity is not None and identity.shape != (len(self.identity_basis),):
            raise ValueError(
                f"expected an identity of {len(self.identity_basis)} values, got {identity.shape}"
            )
        self.detected_px = detected_px
        self.centers_px = centers_px
        self.tracker_codes = tracker_codes.astype(np.float64)
        self.camera_of = camera_of
        self.code_sigmas = np.array(
            [next(s for prefix, s in CODE_SIGMA.items() if n.startswith(prefix)) for n in ARKIT_52]
        )
        self.focal_known = np.array([focal is not None for focal in focals_px])
        self.log_focal_guess = np.log(
            [
                focal or FOCAL_GUESS * size
                for focal, size in zip(focals_px, image_sizes_px, strict=True)
            ]
        )
        self._start(identity)
        self._set_sigmas(landmark_weights)

    def _start(self, identity: np.ndarray | None) -> None:
        """Pose of each photo for the known or mean head in the tracker's expression (PnP)."""
        identity = np.zeros(len(self.identity_basis)) if identity is None else identity
        count = len(self.detected_px)
        self.start = FitState(
            identity.astype(np.float64),
            self.tracker_codes.copy(),
            np.zeros((count, 3, 3)),
            np.zeros((count, 3)),
            self.log_focal_guess.copy(),
        )
        face = slice(0, 468)
        for view in range(count):
            points = self._head_points(self.start, view)
            focal = np.exp(self.log_focal_guess[self.camera_of[view]])
            found, rotation, translation = cv2.solvePnP(
                points[face],
                self.detected_px[view, face],
                intrinsics_matrix(focal, *self.centers_px[view]),
                None,
                flags=cv2.SOLVEPNP_SQPNP,
            )
            if not found or not translation[2, 0] > 0.03:
                raise ValueError(f"observation {view}: no head pose explains the landmarks")
            self.start.rotations[view] = cv2.Rodrigues(rotation)[0]
            self.start.translations[view] = translation[:, 0]
            if self.start.rotations[view][:, 2] @ self.start.translations[view] > 0:
                raise ValueError(
                    f"observation {view}: the landmarks are those of a face seen from behind; "
                    "were their x coordinates mirrored?"
                )

    def _set_sigmas(self, landmark_weights: np.ndarray) -> None:
        """Expected pixel error of each landmark: larger where it is badly found or turned away."""
        self.sigmas = np.empty(self.detected_px.shape[:2])
        for view in range(len(self.detected_px)):
            rotation, translation = self.start.rotations[view], self.start.translations[view]
            points = self._head_points(self.start, view) @ rotation.T + translation
            to_camera = -points / np.linalg.norm(points, axis=1, keepdims=True)
            facing = ((self.normals @ rotation.T) * to_camera).sum(1)
            weights = landmark_weights * np.clip(2 * facing + MIN_FACING, MIN_FACING, 1)
            focal = np.exp(self.log_focal_guess[self.camera_of[view]])
            pixels_per_metre = focal / translation[2]
            self.sigmas[view] = np.hypot(LANDMARK_SIGMA_M * pixels_per_metre, LANDMARK_SIGMA_PX)
            self.sigmas[view] /= np.sqrt(weights)

    def _head_points(self, state: FitState, view: int) -> np.ndarray:
        """Landmarks of one photo in the head frame, (478, 3)."""
        offsets = state.identity @ self._identity_rows + state.codes[view] @ self._expression_rows
        return self.mean + offsets.reshape(-1, 3)

    def _project(self, state: FitState, view: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Camera-frame landmarks, their pixels relative to the image centre, focal length."""
        points = self._head_points(state, view) @ state.rotations[view].T
        points = points + state.translations[view]
        focal = np.exp(state.log_focals[self.camera_of[view]])
        return points, focal * points[:, :2] / points[:, 2:], focal

    def _errors(self, state: FitState, view: int) -> np.ndarray:
        """Offsets of the projected from the detected landmarks, (478, 2) pixels."""
        return self._project(state, view)[1] + self.centers_px[view] - self.detected_px[view]

    def cost(self, state: FitState) -> float:
        """Value that `solve` minimises; infinite when a landmark is not in front of its camera."""
        total = 0.0 if self.fixed_identity else float(state.identity @ state.identity)
        total += float((((state.codes - self.tracker_codes) / self.code_sigmas) ** 2).sum())
        total += float((((state.log_focals - self.log_focal_guess) / FOCAL_LOG_SIGMA) ** 2).sum())
        for view in range(len(self.detected_px)):
            if not (self._project(state, view)[0][:, 2] > 0.01).all():
                return np.inf
            squared = (self._errors(state, view) ** 2).sum(1) / self.sigmas[view] ** 2
            total += ROBUST_SIGMAS**2 * float(np.log1p(squared / ROBUST_SIGMAS**2).sum())
        return total

    def _normal_equations(self, state: FitState) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Newton matrix and gradient; order: identity, focals, then pose and code by view."""
        num_identity, num_groups = len(state.identity), len(state.log_focals)
        shared = num_identity + num_groups
        block = 6 + len(ARKIT_52)
        size = shared + block * len(self.detected_px)
        matrix, gradient = np.zeros((size, size)), np.zeros(size)
        diagonal = np.zeros(size)
        diagonal[:num_identity] = 1.0
        gradient[:num_identity] = state.identity
        diagonal[num_identity:shared] = FOCAL_LOG_SIGMA**-2
        gradient[num_identity:shared] = (
            state.log_focals - self.log_focal_guess
        ) / FOCAL_LOG_SIGMA**2
        for view in range(len(self.detected_px)):
            points, pixels, focal = self._project(state, view)
            rotation = state.rotations[view]
            depth = points[:, 2]
            to_pixel = np.zeros((NUM_LANDMARKS, 2, 3))
            to_pixel[:, 0, 0] = to_pixel[:, 1, 1] = focal / depth
            to_pixel[:, :, 2] = -pixels / depth[:, None]
            from_head = to_pixel @ rotation
            turned = points - state.translations[view]
            # d(exp(w) p)/dw = -[p]x, so row a of to_pixel becomes p x a.
            by_turn = np.cross(turned[:, None], to_pixel)
            by_focal = np.zeros((NUM_LANDMARKS, 2, num_groups))
            by_focal[:, :, self.camera_of[view]] = pixels
            jacobian = np.concatenate(
                [
                    np.einsum("lij,klj->lik", from_head, self.identity_basis, optimize=True),
                    by_focal,
                    by_turn,
                    to_pixel,
                    np.einsum("lij,klj->lik", from_head, self.expression_basis, optimize=True),
                ],
                axis=2,
            )
            errors = self._errors(state, view)
            squared = (errors**2).sum(1) / self.sigmas[view] ** 2
            trust = 1 / (1 + squared / ROBUST_SIGMAS**2) / self.sigmas[view] ** 2
            flat = jacobian.reshape(2 * NUM_LANDMARKS, -1)
            weighted = flat * np.repeat(trust, 2)[:, None]
            own = shared + block * view
            where = np.r_[0:shared, own : own + block]
            matrix[np.ix_(where, where)] += weighted.T @ flat
            gradient[where] += weighted.T @ errors.reshape(-1)
            code = slice(own + 6, own + block)
            diagonal[code] = self.code_sigmas**-2
            gradient[code] += (state.codes[view] - self.tracker_codes[view]) / self.code_sigmas**2
        matrix[np.arange(size), np.arange(size)] += diagonal
        return matrix, gradient

    def _frozen(self, state: FitState, gradient: np.ndarray) -> np.ndarray:
        """Unknowns that a step must not move: known ones, and scores pressed against [0, 1]."""
        num_identity = len(state.identity)
        frozen = np.zeros(len(gradient), bool)
        frozen[:num_identity] = self.fixed_identity
        frozen[num_identity : num_identity + len(self.focal_known)] = self.focal_known
        blocks = gradient[num_identity + len(self.focal_known) :].reshape(len(state.codes), -1)
        pressed = (state.codes <= 0) & (blocks[:, 6:] > 0) | (state.codes >= 1) & (
            blocks[:, 6:] < 0
        )
        own = frozen[num_identity + len(self.focal_known) :].reshape(len(state.codes), -1)
        own[:, 6:] = pressed
        return frozen

    def _stepped(self, state: FitState, step: np.ndarray) -> FitState:
        num_identity, num_groups = len(state.identity), len(state.log_focals)
        own = step[num_identity + num_groups :].reshape(len(state.codes), -1)
        turns = np.stack([cv2.Rodrigues(turn)[0] for turn in own[:, :3]])
        return FitState(
            state.identity + step[:num_identity],
            (state.codes + own[:, 6:]).clip(0, 1),
            turns @ state.rotations,
            state.translations + own[:, 3:6],
            state.log_focals + step[num_identity : num_identity + num_groups],
        )

    def solve(self) -> FitState:
        """Minimise the cost from the PnP poses (Levenberg-Marquardt with an active set)."""
        state, cost, damping = self.start, self.cost(self.start), 1e-3
        for _ in range(MAX_ITERATIONS):
            matrix, gradient = self._normal_equations(state)
            free = ~self._frozen(state, gradient)
            reduced = matrix[np.ix_(free, free)]
            improvement = 0.0
            for _ in range(8):
                step = np.zeros(len(gradient))
                damped = reduced + damping * np.diag(np.diag(reduced))
                step[free] = -np.linalg.solve(damped, gradient[free])
                candidate = self._stepped(state, step)
                candidate_cost = self.cost(candidate)
                if candidate_cost < cost:
                    improvement = cost - candidate_cost
                    state, cost, damping = candidate, candidate_cost, damping / 5
                    break
                damping *= 5
            if improvement < 1e-4 * cost:
                break
        return state

    def residual_px(self, state: FitState) -> np.ndarray:
        """Weighted RMS distance of the landmarks in each photo, (V,) pixels."""
        residuals = []
        for view, sigmas in enumerate(self.sigmas):
            weights = sigmas**-2
            squared = (self._errors(state, view) ** 2).sum(1)
            residuals.append(np.sqrt((weights * squared).sum() / weights.sum()))
        return np.array(residuals)
