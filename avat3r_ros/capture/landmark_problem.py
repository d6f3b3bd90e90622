"""The least-squares problem behind the template fit: its cost and its solver.

The errors have closed-form derivatives (reprojection.py), so this is damped Gauss-Newton:

    pixel = project(K(focal), R · (neutral + identity · B + code · E)[point] + t)

    cost = sum robust(|pixel - detected| / sigma)                landmarks
           + sum robust(|the same, above less below| / sigma)       opened eyes and mouth
           + sum robust(normal · (pixel - target) / sigma)       outlines (outline.py)
           + sum robust(|W (pixels - matched pixels)|)           matches of two photos (matches.py)
           + |identity|² + (log size - log expected size)² / sigma²
           + |(code - tracker's code) / sigma|² + (log focal - log guess)² / sigma²

All are robust (Cauchy): MediaPipe invents landmarks that it cannot see, hair moves outlines, and
flow slides.
"""

from collections.abc import Sequence

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
MAX_HELD_ROUNDS = 6
"""How often a step is solved again with more scores at their limits."""

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

    def focal_evidence(self, state: FitState) -> float:
        """Cost of landmarks, expressions and matches (`focal.py`)."""
        total = float((((state.codes - self.tracker_codes) / CODE_SIGMAS) ** 2).sum())
        for index in range(len(self._matches)):
            total += robust_cost((self._match_errors(state, index) ** 2).sum(1))
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
            if not (self._project(self._landmarks, state, view).points[:, 2] > 0.01).all():
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
        own = [slice(start, start + block) for start in range(shared, size, block)]
        for view, place in enumerate(own):
            rows, offsets, trust = self._rows_of_photo(state, view)
            _add_rows(matrix, gradient, (slice(0, shared), place), rows, offsets, trust)
            code = slice(place.start + 6, place.stop)
            diagonal[code] = CODE_SIGMAS**-2
            gradient[code] += (state.codes[view] - self.tracker_codes[view]) / CODE_SIGMAS**2
        size_slope = self._size / SIZE_LOG_SIGMA
        matrix[:num_identity, :num_identity] += np.outer(size_slope, size_slope)
        off = (self.log_size(state) - self.expected_log_size) / SIZE_LOG_SIGMA
        gradient[:num_identity] += size_slope * off
        for index, (match, _, _) in enumerate(self._matches):
            errors = self._match_errors(state, index)
            rows = self._match_rows(state, index, shared)
            trust = np.repeat(robust_weight((errors**2).sum(1)), 4)
            places = (slice(0, shared), own[match.first], own[match.second])
            _add_rows(matrix, gradient, places, rows, errors.reshape(-1), trust)
        matrix[np.arange(size), np.arange(size)] += diagonal
        return matrix, gradient

    def _rows_of_photo(
        self, state: FitState, view: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives, errors and weights of one photo's landmarks, openings and outline."""
        errors = self._errors(state, view)
        opened = OPENINGS @ errors
        variances = self.sigmas[view] ** 2
        of_opened = self._opening_sigmas[view] ** 2
        trust = robust_weight((errors**2).sum(1) / variances) / variances
        trust_opened = robust_weight((opened**2).sum(1) / of_opened) / of_opened
        jacobian = self._jacobian(self._landmarks, state, view)
        rows = [jacobian, np.tensordot(OPENINGS.astype(np.float32), jacobian, 1)]
        rows = [values.reshape(-1, jacobian.shape[2]) for values in rows]
        offsets = [errors.reshape(-1), opened.reshape(-1)]
        trust = [np.repeat(trust, 2), np.repeat(trust_opened, 2)]
        if self._outlines:
            outline, surface = self._outlines[view]
            errors, weights = self._outline_errors(state, view)
            rows.append(self._jacobian(surface, state, view, outline.normal[:, None])[:, 0])
            offsets.append(errors)
            trust.append(weights * robust_weight(weights * errors**2))
        return np.concatenate(rows), np.concatenate(offsets), np.concatenate(trust)

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

    def _step(
        self, state: FitState, matrix: np.ndarray, gradient: np.ndarray, damping: float
    ) -> np.ndarray:
        """Damped Gauss-Newton step that keeps scores in [0, 1].

        Scores that would leave stop at the border, and the others make up for it: were they only
        clipped afterwards, most steps would raise the cost.
        """
        held = self._frozen(state, gradient)
        low, high = np.full((2, len(gradient)), np.inf)
        of_codes = slice(len(state.identity) + len(state.log_focals), None)
        for limit, room in ((low, state.codes), (high, 1 - state.codes)):
            limit[of_codes].reshape(len(state.codes), -1)[:, 6:] = room
        damped = matrix + damping * np.diag(np.diag(matrix))
        step = np.zeros(len(gradient))
        for _ in range(MAX_HELD_ROUNDS):
            free = ~held
            slope = gradient[free] + damped[np.ix_(free, held)] @ step[held]
            step[free] = -np.linalg.solve(damped[np.ix_(free, free)], slope)
            leaving = (step < -low) | (step > high)
            step = step.clip(-low, high)
            if not leaving.any():
                break
            held |= leaving
        return step

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
            improvement = 0.0
            for _ in range(8):
                candidate = self._stepped(state, self._step(state, matrix, gradient, damping))
                candidate_cost = self.cost(candidate)
                if candidate_cost < cost:
                    improvement = cost - candidate_cost
                    state, cost, damping = candidate, candidate_cost, damping / 5
                    break
                damping *= 5
            if improvement < tolerance * cost:
                break
        return state


def _add_rows(
    matrix: np.ndarray,
    gradient: np.ndarray,
    places: Sequence[slice],
    rows: np.ndarray,
    errors: np.ndarray,
    trust: np.ndarray,
) -> None:
    """Add weighted rows, (m, k), to the normal equations, in place.

    Their columns belong to the unknowns of `places`, one place after the other.
    """
    root = np.sqrt(trust).astype(np.float32)
    weighted = rows * root[:, None]
    square, slope = weighted.T @ weighted, weighted.T @ (root * errors.astype(np.float32))
    ends = np.cumsum([place.stop - place.start for place in places])
    parts = [slice(b - p.stop + p.start, b) for b, p in zip(ends, places, strict=True)]
    for place, part in zip(places, parts, strict=True):
        gradient[place] += slope[part]
        for other, of_other in zip(places, parts, strict=True):
            matrix[place, other] += square[part, of_other]
