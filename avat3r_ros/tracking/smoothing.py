"""One Euro filters: jitter is removed at rest, fast movement passes with little delay.

The cutoff of a first-order low-pass rises with the speed of the signal:
`cutoff = min_cutoff + beta * |filtered speed|`.

Source: Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012. Deviations: a time step that is not
positive returns the last estimate instead of dividing by it; rotations are filtered on the group.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_52
from avat3r_ros.geometry import pose_matrix


@dataclass(frozen=True)
class SmoothingConfig:
    """How much to smooth. Lower cutoffs are calmer at rest; higher betas follow movement sooner.

    All defaults are ours, for 30 images/s; those of scores by benchmarks/smoothing.py, which weighs
    jitter at rest against delay.

    Attributes:
        code_min_cutoff_hz: Of expression scores at rest.
        code_beta: Cutoff gained per score unit and second.
        blink_min_cutoff_hz: Of eyeBlink scores: a blink lasts 0.1-0.2 s and must reach the bottom.
        blink_beta: Likewise, for eyeBlink scores.
        landmark_min_cutoff_hz: Of landmarks, before scores and pose are read from them.
        landmark_beta: Cutoff gained per size of the face and second.
        rotation_min_cutoff_hz: Of the head's rotation.
        rotation_beta: Cutoff gained per rad/s.
        translation_min_cutoff_hz: Of the head's translation.
        translation_beta: Cutoff gained per m/s.
        speed_cutoff_hz: Of the speed estimate itself.
        reset_gap_s: After a longer silence the next image starts afresh.
    """

    code_min_cutoff_hz: float = 2.0
    code_beta: float = 4.0
    blink_min_cutoff_hz: float = 3.0
    blink_beta: float = 16.0
    landmark_min_cutoff_hz: float = 0.05
    landmark_beta: float = 80.0
    rotation_min_cutoff_hz: float = 2.0
    rotation_beta: float = 6.0
    translation_min_cutoff_hz: float = 2.0
    translation_beta: float = 30.0
    speed_cutoff_hz: float = 5.0
    reset_gap_s: float = 0.5

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            lowest_allowed = value >= 0 if item.name.endswith("beta") else value > 0
            if not (np.isfinite(value) and lowest_allowed):
                sign = "not be negative" if item.name.endswith("beta") else "be positive"
                raise ValueError(f"{item.name} must {sign} and finite, got {value}")


def _alpha(cutoff_hz, dt_s: float):
    """Weight of the newest sample in a first-order low-pass."""
    turns = 2 * np.pi * cutoff_hz * dt_s
    return turns / (turns + 1.0)


class OneEuroFilter:
    """Filter for a vector of independent channels.

    Args:
        min_cutoff_hz: Scalar or one per channel.
        beta: Hz per unit/s; scalar or one per channel.
        speed_cutoff_hz: Low-pass of the speed estimate.
    """

    def __init__(self, min_cutoff_hz, beta, speed_cutoff_hz: float = 5.0) -> None:
        self._min_cutoff_hz = min_cutoff_hz
        self._beta = beta
        self._speed_cutoff_hz = speed_cutoff_hz
        self.reset()

    def reset(self) -> None:
        """Forget the past; the next sample passes unchanged."""
        self._estimate: np.ndarray | None = None
        self._sample: np.ndarray | None = None
        self._speed: np.ndarray | float = 0.0

    def filter(
        self, sample: Float[np.ndarray, "..."], dt_s: float, unit: float = 1.0
    ) -> Float[np.ndarray, "..."]:
        """Take the sample `dt_s` seconds after the last one; return the new estimate.

        Args:
            sample: In any unit.
            dt_s: Since the last sample.
            unit: What counts as 1 in `beta`, in the samples' unit.
        """
        sample = np.asarray(sample, np.float64)
        if self._estimate is None:
            self._estimate = self._sample = sample
        elif dt_s > 0:
            speed = (sample - self._sample) / dt_s
            self._speed = self._speed + _alpha(self._speed_cutoff_hz, dt_s) * (speed - self._speed)
            cutoff_hz = self._min_cutoff_hz + self._beta * np.abs(self._speed) / unit
            weight = _alpha(cutoff_hz, dt_s)
            self._estimate = self._estimate + weight * (sample - self._estimate)
            self._sample = sample
        return self._estimate


class PoseFilter:
    """One Euro filter of a rigid transform: rotation on SO(3), translation per axis."""

    def __init__(self, config: SmoothingConfig) -> None:
        self._config = config
        self._translation = OneEuroFilter(
            config.translation_min_cutoff_hz, config.translation_beta, config.speed_cutoff_hz
        )
        self.reset()

    def reset(self) -> None:
        """Forget the past; the next pose passes unchanged."""
        self._translation.reset()
        self._rotation: np.ndarray | None = None
        self._sample: np.ndarray | None = None
        self._speed = 0.0

    def filter(self, a_from_b: Float[np.ndarray, "4 4"], dt_s: float) -> Float[np.ndarray, "4 4"]:
        """Take the pose `dt_s` seconds after the last one; return the new estimate."""
        rotation = np.asarray(a_from_b, np.float64)[:3, :3]
        if self._rotation is None:
            self._rotation = self._sample = rotation
        elif dt_s > 0:
            config = self._config
            turned = np.linalg.norm(_rotation_vector(rotation @ self._sample.T))
            self._speed += _alpha(config.speed_cutoff_hz, dt_s) * (turned / dt_s - self._speed)
            cutoff_hz = config.rotation_min_cutoff_hz + config.rotation_beta * self._speed
            step = _alpha(cutoff_hz, dt_s) * _rotation_vector(rotation @ self._rotation.T)
            self._rotation = cv2.Rodrigues(step)[0] @ self._rotation
            self._sample = rotation
        return pose_matrix(self._rotation, self._translation.filter(a_from_b[:3, 3], dt_s))


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    return cv2.Rodrigues(rotation)[0].ravel()


def code_filter(config: SmoothingConfig) -> OneEuroFilter:
    """Filter for an `arkit_52` code with the blink channels kept crisp."""
    blink = np.array([name.startswith("eyeBlink") for name in ARKIT_52])
    return OneEuroFilter(
        np.where(blink, config.blink_min_cutoff_hz, config.code_min_cutoff_hz),
        np.where(blink, config.blink_beta, config.code_beta),
        config.speed_cutoff_hz,
    )


def landmark_filter(config: SmoothingConfig) -> OneEuroFilter:
    """Filter for landmarks, whose unit is the size of the face."""
    return OneEuroFilter(
        config.landmark_min_cutoff_hz, config.landmark_beta, config.speed_cutoff_hz
    )
