"""The least-squares problem behind the template fit: its unknowns, cost, derivatives and solver.

Everything enters the surface points linearly or through one projection, so this is a damped
Gauss-Newton problem with a closed-form Jacobian:

    pixel = project(K(focal), R · (neutral + identity · B + code · E)[point] + t)

    cost = sum robust(|pixel - detected| / sigma)                landmarks
           + sum robust(|the same, upper less lower lids| / sigma)  opened eyes
           + sum robust(normal · (pixel - target) / sigma)       outlines (outline.py)
           + sum robust(|W (pixels - matched pixels)|)           matches of two photos (matches.py)
           + |identity|² + (log size - log expected size)² / sigma²
           + |(code - tracker's code) / sigma|² + (log focal - log guess)² / sigma²

All are robust (Cauchy): MediaPipe invents landmarks that it cannot see, hair moves outlines, and
flow slides. W whitens the four pixel errors of a match: its surface point may lie off the fitted
head by `SHAPE_SIGMA_M`, which moves it in both photos alike.
"""

from dataclasses import replace

import cv2
import numpy as np

from avat3r_ros.capture.fit_terms import (
    CODE_SIGMA,
    FOCAL_GUESS,
    FOCAL_LOG_SIGMA,
    INSIDE_WEIGHT,
    LANDMARK_SIGMA_M,
    LANDMARK_SIGMA_PX,
    LIDS,
    MATCH_SIGMA_M,
    MIN_MATCHES,
    OPENING_SIGMA_M,
    OPENING_SIGMA_PX,
    OUTLINE_SIGMA_M,
    ROBUST_SIGMAS,
    SHAPE_SIGMA_M,
    SIZE_LOG_SIGMA,
    FitState,
    SurfacePoints,
    robust_cost,
    robust_weight,
)
from avat3r_ros.capture.matches import Matches
from avat3r_ros.capture.outline import Outline
from avat3r_ros.expression import ARKIT_52
from avat3r_ros.geometry import intrinsics_matrix
from avat3r_ros.rig import NUM_LANDMARKS, HeadTemplate, LandmarkBias

MAX_ITERATIONS = 40
MIN_FACING = 0.15
"""Least weight of a landmark that is turned away from its camera."""


_OPENINGS = np.zeros((len(LIDS), NUM_LANDMARKS))
"""(2, 478): from what is known of the landmarks to the same of the eyes: upper less lower lids."""
for _eye, (_upper, _lower) in enumerate(LIDS):
    _OPENINGS[_eye, list(_upper)] = 1 / len(_upper)
    _OPENINGS[_eye, list(_lower)] = -1 / len(_lower)


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
        self._bases = tuple(
            values.double().numpy()
            for values in (template.neutral, template.identity_basis, template.expression_basis)
        )
        self._triangles = template.triangles.numpy()
        self._landmarks = self._points_on(
            template.landmark_triangles.numpy(), template.landmark_barycentrics.double().numpy()
        )
        corners = self._triangles[template.landmark_triangles.numpy()]
        self.normals = template.vertex_normals(template.neutral).double().numpy()[corners].mean(1)
        self._outlines: list[tuple[Outline, SurfacePoints]] = []
        self._matches: list[tuple[Matches, SurfacePoints, np.ndarray]] = []
        self.expected_log_size = 0.0
        landmark_weights = template.landmark_weights.double().numpy()
        if not landmark_weights.any():
            raise ValueError("expected a template with measured landmarks, got weights of 0")
        # Change of the face's size per identity coefficient, relative. Weights: were the face's rim
        # to count like its middle, wide heads would shrink the middle to keep the size.
        middle = np.average(self._landmarks.mean, axis=0, weights=landmark_weights)
        weighted = landmark_weights[:, None] * (self._landmarks.mean - middle)
        self._size = (self._landmarks.identity_basis * weighted).sum((1, 2))
        self._size /= (weighted * (self._landmarks.mean - middle)).sum()
        self.fixed_identity = identity is not None
        if identity is not None and identity.shape != (template.num_identity,):
            raise ValueError(
                f"expected an identity of {template.num_identity} values, got {identity.shape}"
            )
        self.detected_px = self._as_detected_px = detected_px
        self.centers_px = centers_px
        self.tracker_codes = tracker_codes.astype(np.float64)
        self.camera_of = camera_of
        self.code_sigmas = np.array(
            [next(s for prefix, s in CODE_SIGMA.items() if n.startswith(prefix)) for n in ARKIT_52]
        )
        self.focal_known = np.array([focal is not None for focal in focals_px])
        self._focal_held = self.focal_known
        self.log_focal_guess = np.log(
            [
                focal or FOCAL_GUESS * size
                for focal, size in zip(focals_px, image_sizes_px, strict=True)
            ]
        )
        self._start(identity)
        focals = np.exp(self.log_focal_guess)[camera_of]
        self._pixels_per_metre = focals / self.start.translations[:, 2]
        self._set_sigmas(landmark_weights)

    def _start(self, identity: np.ndarray | None) -> None:
        """Pose of each photo for the known or mean head in the tracker's expression (PnP)."""
        identity = np.zeros(len(self._bases[1])) if identity is None else identity
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
            points = self._landmarks.in_head(self.start, view)
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
        self._opening_sigmas = np.empty((len(self.detected_px), len(LIDS)))
        for view in range(len(self.detected_px)):
            rotation, translation = self.start.rotations[view], self.start.translations[view]
            points = self._landmarks.in_head(self.start, view) @ rotation.T + translation
            to_camera = -points / np.linalg.norm(points, axis=1, keepdims=True)
            facing = ((self.normals @ rotation.T) * to_camera).sum(1)
            shown = np.clip(2 * facing + MIN_FACING, MIN_FACING, 1)
            weights = landmark_weights * shown
            pixels_per_metre = self._pixels_per_metre[view]
            self.sigmas[view] = np.hypot(LANDMARK_SIGMA_M * pixels_per_metre, LANDMARK_SIGMA_PX)
            self.sigmas[view] /= np.sqrt(weights)
            sigma = np.hypot(OPENING_SIGMA_M * pixels_per_metre, OPENING_SIGMA_PX)
            self._opening_sigmas[view] = sigma / np.sqrt(abs(_OPENINGS) @ shown / 2)

    def _points_on(self, triangles: np.ndarray, weights: np.ndarray) -> SurfacePoints:
        corners = self._triangles[triangles]
        return SurfacePoints(
            *(np.einsum("nk,...nkc->...nc", weights, base[..., corners, :]) for base in self._bases)
        )

    def correct_landmarks(self, bias: LandmarkBias, state: FitState) -> None:
        """Take the tracker's errors at the poses of a solution off the landmarks.

        Args:
            bias: The errors, by direction of the camera.
            state: The solution, roughly right.
        """
        corrected = []
        for view, detected in enumerate(self._as_detected_px):
            rotation, translation = state.rotations[view], state.translations[view]
            shifts = bias.shifts(rotation, translation) @ rotation[:2].T
            focal = np.exp(state.log_focals[self.camera_of[view]])
            corrected.append(detected - shifts * focal / translation[2])
        self.detected_px = np.stack(corrected)

    def expect_focals(self, log_focals: np.ndarray, *, hold: bool) -> None:
        """Let the next `solve` start from other focal lengths of unknown cameras.

        Args:
            log_focals: Logarithm for each camera, pixels.
            hold: They stay as they are; otherwise they are the new guess.
        """
        self.log_focal_guess = log_focals.copy()
        self._focal_held = np.ones_like(self.focal_known) if hold else self.focal_known

    def moved(self, state: FitState, log_focals: np.ndarray) -> FitState:
        """A solution with other focal lengths, and heads at the distances that keep their size."""
        factor = np.exp(log_focals - state.log_focals)[self.camera_of, None]
        translations = state.translations * np.concatenate(
            [np.ones((len(factor), 2)), factor], axis=1
        )
        return replace(state, translations=translations, log_focals=log_focals.copy())

    def focal_evidence(self, state: FitState, matches_share: float) -> float:
        """Cost of landmarks, expressions and a share of that of matches (`focal.py`)."""
        total = float((((state.codes - self.tracker_codes) / self.code_sigmas) ** 2).sum())
        for index in range(len(self._matches)):
            errors = self._match_errors(state, index)
            total += matches_share * robust_cost((errors**2).sum(1))
        for view in range(len(self.detected_px)):
            total += robust_cost((self._errors(state, view) ** 2).sum(1) / self.sigmas[view] ** 2)
        return total

    def log_size(self, state: FitState) -> float:
        """Size of a solution's face, as a logarithm relative to the mean head's."""
        return float(self._size @ state.identity)

    def use_outlines(self, outlines: list[Outline]) -> None:
        """Let the next `solve` also bring the outline of each photo to its matte's edge."""
        self._outlines = [(o, self._points_on(o.triangles, o.barycentrics)) for o in outlines]

    def use_matches(self, matches: list[Matches], state: FitState) -> None:
        """Let the next `solve` also bring matched points of two photos together.

        Args:
            matches: Of pairs of photos.
            state: The fit they were found with; errors are weighed as there.
        """
        self._matches = []
        for match in (m for m in matches if len(m.triangles) >= MIN_MATCHES):
            surface = self._points_on(match.triangles, match.barycentrics)
            slopes, variances = [], []
            for view in (match.first, match.second):
                slopes.append(self._slope(*self._project(surface, state, view)))
                slopes[-1] = slopes[-1] @ state.rotations[view]
                focal = np.exp(state.log_focals[self.camera_of[view]])
                variances += 2 * [(MATCH_SIGMA_M * focal / state.translations[view, 2]) ** 2]
            slope = np.concatenate(slopes, 1)
            covariance = SHAPE_SIGMA_M**2 * slope @ slope.transpose(0, 2, 1) + np.diag(variances)
            self._matches.append((match, surface, np.linalg.inv(np.linalg.cholesky(covariance))))

    def _match_errors(self, state: FitState, index: int) -> np.ndarray:
        """Whitened offsets of one pair's matches in both photos, (n, 4)."""
        match, surface, white = self._matches[index]
        errors = [
            self._project(surface, state, view)[1] + self.centers_px[view] - pixels
            for view, pixels in ((match.first, match.first_px), (match.second, match.second_px))
        ]
        return np.einsum("nij,nj->ni", white, np.concatenate(errors, 1))

    def _match_rows(self, state: FitState, index: int, shared: int) -> np.ndarray:
        """Derivative of `_match_errors` by the shared unknowns and those of both photos."""
        match, surface, white = self._matches[index]
        first, second = (
            self._jacobian(surface, state, view) for view in (match.first, match.second)
        )
        nothing = np.zeros_like(first[..., shared:])
        rows = [
            np.concatenate([first, nothing], 2),
            np.concatenate([second[..., :shared], nothing, second[..., shared:]], 2),
        ]
        return (white @ np.concatenate(rows, 1)).reshape(4 * len(white), -1)

    def _project(
        self, surface: SurfacePoints, state: FitState, view: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Camera-frame points, their pixels relative to the image centre, focal length."""
        points = surface.in_head(state, view) @ state.rotations[view].T
        points = points + state.translations[view]
        focal = np.exp(state.log_focals[self.camera_of[view]])
        return points, focal * points[:, :2] / points[:, 2:], focal

    def _errors(self, state: FitState, view: int) -> np.ndarray:
        """Offsets of the projected from the detected landmarks, (478, 2) pixels."""
        pixels = self._project(self._landmarks, state, view)[1]
        return pixels + self.centers_px[view] - self.detected_px[view]

    def _outline_errors(self, state: FitState, view: int) -> tuple[np.ndarray, np.ndarray]:
        """How far the outline sticks out of the matte, pixels, and the weight of each point."""
        outline, surface = self._outlines[view]
        pixels = self._project(surface, state, view)[1] + self.centers_px[view]
        errors = ((pixels - outline.target_px) * outline.normal).sum(1)
        inside = np.where(outline.one_sided, 0.0, INSIDE_WEIGHT)
        # The first pose sets the scale: with the current one, a far head would be a cheap head.
        sigma = np.hypot(OUTLINE_SIGMA_M * self._pixels_per_metre[view], 1.0)
        return errors, np.where(errors > 0, 1.0, inside) / sigma**2

    def cost(self, state: FitState) -> float:
        """Value that `solve` minimises; infinite when a landmark is not in front of its camera."""
        total = 0.0 if self.fixed_identity else float(state.identity @ state.identity)
        if not self.fixed_identity:
            total += ((self.log_size(state) - self.expected_log_size) / SIZE_LOG_SIGMA) ** 2
        for index in range(len(self._matches)):
            total += robust_cost((self._match_errors(state, index) ** 2).sum(1))
        total += float((((state.codes - self.tracker_codes) / self.code_sigmas) ** 2).sum())
        total += float((((state.log_focals - self.log_focal_guess) / FOCAL_LOG_SIGMA) ** 2).sum())
        for view in range(len(self.detected_px)):
            if not (self._project(self._landmarks, state, view)[0][:, 2] > 0.01).all():
                return np.inf
            errors = self._errors(state, view)
            total += robust_cost((errors**2).sum(1) / self.sigmas[view] ** 2)
            opened = _OPENINGS @ errors
            total += robust_cost((opened**2).sum(1) / self._opening_sigmas[view] ** 2)
            if self._outlines:
                errors, weights = self._outline_errors(state, view)
                total += robust_cost(weights * errors**2)
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
            jacobian = self._jacobian(self._landmarks, state, view)
            errors = self._errors(state, view)
            trust = (
                robust_weight((errors**2).sum(1) / self.sigmas[view] ** 2) / self.sigmas[view] ** 2
            )
            opened = _OPENINGS @ errors
            sigmas = self._opening_sigmas[view]
            trust_opened = robust_weight((opened**2).sum(1) / sigmas**2) / sigmas**2
            opened_rows = np.tensordot(_OPENINGS, jacobian, 1)
            rows = np.concatenate([jacobian, opened_rows]).reshape(-1, jacobian.shape[2])
            offsets = np.concatenate([errors, opened]).reshape(-1)
            trust = np.repeat(np.concatenate([trust, trust_opened]), 2)
            if self._outlines:
                outline, surface = self._outlines[view]
                errors, weights = self._outline_errors(state, view)
                jacobian = self._jacobian(surface, state, view)
                rows = np.concatenate([rows, np.einsum("ni,nik->nk", outline.normal, jacobian)])
                offsets = np.concatenate([offsets, errors])
                trust = np.concatenate([trust, weights * robust_weight(weights * errors**2)])
            weighted = rows * trust[:, None]
            own = shared + block * view
            where = np.r_[0:shared, own : own + block]
            matrix[np.ix_(where, where)] += weighted.T @ rows
            gradient[where] += weighted.T @ offsets
            code = slice(own + 6, own + block)
            diagonal[code] = self.code_sigmas**-2
            gradient[code] += (state.codes[view] - self.tracker_codes[view]) / self.code_sigmas**2
        size_slope = self._size / SIZE_LOG_SIGMA
        matrix[:num_identity, :num_identity] += np.outer(size_slope, size_slope)
        off = (self.log_size(state) - self.expected_log_size) / SIZE_LOG_SIGMA
        gradient[:num_identity] += size_slope * off
        for index, (match, _, _) in enumerate(self._matches):
            errors = self._match_errors(state, index)
            rows = self._match_rows(state, index, shared)
            weighted = rows * np.repeat(robust_weight((errors**2).sum(1)), 4)[:, None]
            own = [shared + block * view + np.arange(block) for view in (match.first, match.second)]
            where = np.r_[0:shared, own[0], own[1]]
            matrix[np.ix_(where, where)] += weighted.T @ rows
            gradient[where] += weighted.T @ errors.reshape(-1)
        matrix[np.arange(size), np.arange(size)] += diagonal
        return matrix, gradient

    @staticmethod
    def _slope(points: np.ndarray, pixels: np.ndarray, focal: float) -> np.ndarray:
        """Derivative of pixels by camera-frame points, (n, 2, 3)."""
        to_pixel = np.zeros((len(points), 2, 3))
        to_pixel[:, 0, 0] = to_pixel[:, 1, 1] = focal / points[:, 2]
        to_pixel[:, :, 2] = -pixels / points[:, 2:]
        return to_pixel

    def _jacobian(self, surface: SurfacePoints, state: FitState, view: int) -> np.ndarray:
        """Derivative of pixels by identity, focals, turn, shift, code of the view: (n, 2, k)."""
        points, pixels, focal = self._project(surface, state, view)
        to_pixel = self._slope(points, pixels, focal)
        from_head = to_pixel @ state.rotations[view]
        turned = points - state.translations[view]
        by_focal = np.zeros((len(points), 2, len(state.log_focals)))
        by_focal[:, :, self.camera_of[view]] = pixels
        return np.concatenate(
            [
                np.einsum("lij,klj->lik", from_head, surface.identity_basis, optimize=True),
                by_focal,
                # d(exp(w) p)/dw = -[p]x, so row a of to_pixel becomes p x a.
                np.cross(turned[:, None], to_pixel),
                to_pixel,
                np.einsum("lij,klj->lik", from_head, surface.expression_basis, optimize=True),
            ],
            axis=2,
        )

    def _frozen(self, state: FitState, gradient: np.ndarray) -> np.ndarray:
        """Unknowns that a step must not move: known ones, and scores pressed against [0, 1]."""
        num_identity = len(state.identity)
        frozen = np.zeros(len(gradient), bool)
        frozen[:num_identity] = self.fixed_identity
        frozen[num_identity : num_identity + len(self.focal_known)] = self._focal_held
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

    def solve(self, state: FitState, *, tolerance: float = 1e-4) -> FitState:
        """Minimise the cost from an earlier solution or `start` (damped, with an active set).

        Args:
            state: Where to start.
            tolerance: Relative gain of a step at which to stop.
        """
        cost, damping = self.cost(state), 1e-3
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
            if improvement < tolerance * cost:
                break
        return state

    def num_matches(self, state: FitState) -> np.ndarray:
        """Matches of each photo with others that the solution explains, (V,)."""
        count = np.zeros(len(self.detected_px), int)
        for index, (match, _, _) in enumerate(self._matches):
            squared = (self._match_errors(state, index) ** 2).sum(1)
            count[[match.first, match.second]] += int((squared < ROBUST_SIGMAS**2).sum())
        return count

    def residual_px(self, state: FitState) -> np.ndarray:
        """Weighted RMS distance of the landmarks in each photo, (V,) pixels."""
        residuals = []
        for view, sigmas in enumerate(self.sigmas):
            weights = sigmas**-2
            squared = (self._errors(state, view) ** 2).sum(1)
            residuals.append(np.sqrt((weights * squared).sum() / weights.sum()))
        return np.array(residuals)
