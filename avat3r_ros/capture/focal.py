"""The focal length of an unknown camera, by what its perspective does to several photos.

A fit explains a wrong focal length away: heads move back, faces grow flat, expressions change. But
not all of it. Solved again at other focal lengths, a fit costs most where it has to bend:

    evidence(focal) = cost of landmarks, expressions and matches + guess's
    log focal = offset + slope * lowest point of the parabola through three trials

Outlines and the identity are left out: hair that is taken for the head's edge speaks for long
lenses. Offset and slope take off what the rest misjudges; they are measured on drawn people.
"""

import numpy as np
from jaxtyping import Float

from avat3r_ros.capture.fit_terms import FitState
from avat3r_ros.capture.landmark_problem import LandmarkProblem

TRIED = (0.75, 1.35)
"""Factors of the first guess, beside the guess itself."""

TRIAL_TOLERANCE = 1e-3
"""Relative change of the cost at which trials end."""

GUESS_WEIGHT = 40.0
"""Cost of a focal length that differs from the guess by a factor e. That of drawn people's trials
is 160; video from one side has a third of it, and stays nearer to the guess."""

OFFSET, SLOPE = 0.05, 1.51
"""Log of the true factor = offset + slope * that of the lowest point. Measured on 32 people of
our own, 4 photos each, focal lengths of 0.75 to 1.6 longer sides: correlation 0.90, 9 % left."""

MIN_PHOTOS, MIN_MATCHES = 3, 60
"""Fewer photos of the camera, or matches in all, keep the guess."""

MAX_LOG_FACTOR = 0.6


def refine_focal(problem: LandmarkProblem, state: FitState) -> FitState:
    """Find one unknown focal length and solve again with it.

    Args:
        problem: With matches.
        state: Its solution near the guess.

    Returns:
        The state as it is where there is nothing to find: no unknown camera or several of them,
        or too few photos or matches.
    """
    unknown = np.flatnonzero(~problem.focal_known)
    photos = problem.camera_of.count(int(unknown[0])) if len(unknown) == 1 else 0
    if photos < MIN_PHOTOS or problem.num_matches(state).sum() / 2 < MIN_MATCHES:
        return state
    guess = problem.log_focal_guess.copy()
    trials = [state]
    for factor in TRIED:
        log_focals = guess + np.log(factor) * ~problem.focal_known
        problem.expect_focals(log_focals, hold=True)
        moved = problem.moved(state, log_focals)
        trials.append(problem.solve(moved, tolerance=TRIAL_TOLERANCE))
    at = np.array([trial.log_focals[unknown[0]] - guess[unknown[0]] for trial in trials])
    evidence = np.array([problem.focal_evidence(trial) for trial in trials])
    log_focals = guess + calibrated_log_factor(at, evidence) * ~problem.focal_known
    problem.expect_focals(log_focals, hold=False)
    return problem.solve(problem.moved(state, log_focals))


def calibrated_log_factor(
    log_factors: Float[np.ndarray, "n"], evidence: Float[np.ndarray, "n"]
) -> float:
    """Logarithm of the true focal length over the guess.

    Args:
        log_factors: Of at least three trials.
        evidence: Their costs.
    """
    bend, slope, _ = np.polyfit(log_factors, evidence + GUESS_WEIGHT * log_factors**2, 2)
    limit = MAX_LOG_FACTOR
    # Costs that do not rise on both sides only tell a direction.
    lowest = -slope / (2 * bend) if bend > 1e-6 else -np.sign(slope) * limit
    return float(np.clip(OFFSET + SLOPE * np.clip(lowest, -limit, limit), -limit, limit))
