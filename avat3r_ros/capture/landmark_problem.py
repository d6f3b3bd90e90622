"""The least-squares problem behind the template fit: its cost and its solver.

The errors have closed-form derivatives (reprojection.py), so this is damped Gauss-Newton:

    pixel = project(K(focal), R · (neutral + identity · B + code · E)[point] + t)

    cost = sum robust(|pixel - detected| / sigma)                landmarks
           + sum robust(|the same, upper less lower lids| / sigma)  opened eyes
           + sum robust(normal · (pixel - target) / sigma)       outlines (outline.py)
           + sum robust(|W (pixels - matched pixels)|)           matches of two photos (matches.py)
           + |identity|² + (log size - log expected size)² / sigma²
           + |(code - tracker's code) / sigma|² + (log focal - log guess)² / sigma²

All are robust (Cauchy): MediaPipe invents landmarks that it cannot see, hair moves outlines, and
flow slides.
"""

import cv2
import numpy as np

from avat3r_ros.capture.fit_terms import (
    CODE_SIGMA,
    FOCAL_LOG_SIGMA,
    SIZE_LOG_SIGMA,
    FitState,
    robust_cost,
    robust_weight,
)
from avat3r_ros.capture.reprojection import OPENINGS, ReprojectionErrors
from avat3r_ros.expression import ARKIT_52

MAX_ITERATIONS = 40

CODE_SIGMAS = np.array(
    [next(s for prefix, s in CODE_SIGMA.items() if n.startswith(prefix)) for n in ARKIT_52]
)
"""`CODE_SIGMA` of each score."""


class LandmarkProblem(ReprojectionErrors):
    """One fit: its cost, with what is believed beforehand, and the damped Gauss-Newton steps.

    Made like `ReprojectionErrors`.

    Attributes:
        expected_log_size: What `log_size` should be.
    """

    expected_log_size = 0.0
    _hold_focals = False

    def expect_focals(self, log_focals: np.ndarray, *, hold: bool) -> None:
        """Let the next `solve` start from other focal lengths of unknown cameras.

        Args:
            log_focals: Logarithm for each camera, pixels.
            hold: They stay as they are; otherwise they are the new guess.
        """
        self.log_focal_guess = log_focals.copy()
        self._hold_focals = hold

    def focal_evidence(self, state: FitState, matches_share: float) -> float:
        """Cost of landmarks, expressions and a share of that of matches (`focal.py`)."""
        total = float((((state.codes - self.tracker_codes) / CODE_SIGMAS) ** 2).sum())
        for index in range(len(self._matches)):
            errors = self._match_errors(state, index)
            total += matches_share * robust_cost((errors**2).sum(1))
        for view in range(len(self.detected_px)):
            total += robust_cost((self._errors(state, view) ** 2).sum(1) / self.sigmas[view] ** 2)
        return total

    def cost(self, state: FitState) -> float:
        """Value that `solve` minimises; infinite when a landmark is not in front of its camera."""
        total = 0.0 if self.fixed_identity else float(state.identity @ state.identity)
        if not self.fixed_identity:
            total += ((self.log_size(state) - self.expected_log_size) / SIZE_LOG_SIGMA) ** 2
        for index in range(len(self._matches)):
            total += robust_cost((self._match_errors(state, index) ** 2).sum(1))
        total += float((((state.codes - self.tracker_codes) / CODE_SIGMAS) ** 2).sum())
        total += float((((state.log_focals - self.log_focal_guess) / FOCAL_LOG_SIGMA) ** 2).sum())
        for view in range(len(self.detected_px)):
            if not (self._project(self._landmarks, state, view)[0][:, 2] > 0.01).all():
                return np.inf
            errors = self._errors(state, view)
            total += robust_cost((errors**2).sum(1) / self.sigmas[view] ** 2)
            opened = OPENINGS @ errors
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
            opened = OPENINGS @ errors
            sigmas = self._opening_sigmas[view]
            trust_opened = robust_weight((opened**2).sum(1) / sigmas**2) / sigmas**2
            opened_rows = np.tensordot(OPENINGS, jacobian, 1)
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
            diagonal[code] = CODE_SIGMAS**-2
            gradient[code] += (state.codes[view] - self.tracker_codes[view]) / CODE_SIGMAS**2
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

    def _frozen(self, state: FitState, gradient: np.ndarray) -> np.ndarray:
        """Unknowns that a step must not move: known ones, and scores pressed against [0, 1]."""
        num_identity = len(state.identity)
        shared = num_identity + len(self.focal_known)
        frozen = np.zeros(len(gradient), bool)
        frozen[:num_identity] = self.fixed_identity
        frozen[num_identity:shared] = self.focal_known | self._hold_focals
        blocks = gradient[shared:].reshape(len(state.codes), -1)
        pressed = (state.codes <= 0) & (blocks[:, 6:] > 0) | (state.codes >= 1) & (
            blocks[:, 6:] < 0
        )
        own = frozen[shared:].reshape(len(state.codes), -1)
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
