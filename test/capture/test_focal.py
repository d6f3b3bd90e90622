"""The focal length of an unknown camera shows in what a wrong one bends."""

import numpy as np
import pytest

from avat3r_ros.capture import focal
from avat3r_ros.capture.fit_terms import FitState
from avat3r_ros.capture.focal import (
    GUESS_WEIGHT,
    OFFSET,
    SLOPE,
    calibrated_log_factor,
    refine_focal,
)
from avat3r_ros.capture.landmark_problem import LandmarkProblem

TRIALS = np.array([-0.3, 0.01, 0.3])
GUESS = np.log(800.0)
CURVATURE = 120.0


class Bent(LandmarkProblem):
    """A problem that bends by the square of its focal length's error."""

    def __init__(self, true_log_factor, known=(False,), photos=4, matches=300):
        self.true = GUESS + true_log_factor
        self.focal_known = np.array(known)
        self.camera_of = [index % len(known) for index in range(photos)]
        self.log_focal_guess = np.full(len(known), GUESS)
        self._matches = matches

    def num_matches(self, state):
        return np.array([self._matches] * 2)

    def expect_focals(self, log_focals, *, hold):
        self.log_focal_guess = log_focals.copy()

    def moved(self, state, log_focals):
        return state_at(log_focals)

    def solve(self, state, *, tolerance=None):
        return state

    def focal_evidence(self, state):
        return CURVATURE * float(state.log_focals[0] - self.true) ** 2 + 700


def state_at(log_focals):
    nothing = np.zeros(0)
    return FitState(nothing, nothing, nothing, nothing, log_focals.copy())


def start(problem):
    return state_at(problem.log_focal_guess)


@pytest.mark.parametrize("true", [-0.25, 0.0, 0.4])
def test_the_lowest_cost_is_found_and_calibrated(true):
    problem = Bent(true)
    found = refine_focal(problem, start(problem))
    lowest = true * CURVATURE / (CURVATURE + GUESS_WEIGHT)
    assert found.log_focals[0] - GUESS == pytest.approx(OFFSET + SLOPE * lowest, abs=1e-6)


@pytest.mark.parametrize(
    "case",
    [
        {"known": (True,)},
        {"known": (False, False)},
        {"photos": focal.MIN_PHOTOS - 1},
        {"matches": focal.MIN_MATCHES - 1},
    ],
)
def test_the_guess_stays_where_photos_cannot_tell(case):
    """A known camera, two unknown ones, too few photos, too few matches."""
    problem = Bent(0.3, **case)
    before = start(problem)
    assert refine_focal(problem, before) is before


def test_costs_without_a_valley_stay_within_limits():
    falling = calibrated_log_factor(TRIALS, np.array([60.0, 30.0, -20.0]))
    rising = calibrated_log_factor(TRIALS, np.array([-20.0, 30.0, 60.0]))
    assert rising < 0 < falling
    assert max(falling, -rising) <= focal.MAX_LOG_FACTOR
