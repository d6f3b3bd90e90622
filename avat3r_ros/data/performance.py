"""The script that the synthetic operator performs: head turns for the capture, then expressions.

0 s ────────────── CAPTURE_S ──────────────────────────────────────────► (repeats)
  front, left, right,       jaw, blink, brows, smile ... each up, held and down, then speech
  up, down, front           and a look around; the head sways gently
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import arkit_code

Phase = Literal["capture", "performance"]

CAPTURE_S = 10.0
"""Length of the capture phase."""

_TURNS = (  # time, yaw (+ subject's left), pitch (+ up), degrees
    (0.0, 0, 0), (0.9, 0, 0), (2.2, 25, 1), (2.8, 25, 1), (4.6, -25, -1), (5.2, -25, -1),
    (6.4, 0, 12), (6.9, 0, 12), (8.1, 0, -12), (8.6, 0, -12), (9.6, 0, 0), (CAPTURE_S, 0, 0),
)  # fmt: skip

_UNITS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.75},
    {"eyeBlink": 1.0},
    {"browInnerUp": 0.8, "browOuterUp": 0.9},
    {"mouthSmile": 0.9, "cheekSquint": 0.4, "mouthDimple": 0.2},
    {"browDown": 0.9, "eyeSquint": 0.25},
    {"mouthPucker": 0.9},
    {"mouthFrown": 0.8, "mouthShrugLower": 0.4, "browInnerUp": 0.3},
    {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.4},
    {"jawOpen": 0.45, "mouthSmile": 0.6, "mouthUpperUp": 0.3},
    {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.4},
    {"mouthFunnel": 0.8, "jawOpen": 0.25},
    {"eyeLookOutLeft": 0.7, "eyeLookInRight": 0.7},
    {"eyeLookInLeft": 0.7, "eyeLookOutRight": 0.7},
)
_RAMP_S, _HOLD_S, _REST_S = 0.30, 0.55, 0.20
_UNIT_S = 2 * _RAMP_S + _HOLD_S + _REST_S
_SPEECH_S = 7.0

_VISEMES = (
    {"jawOpen": 0.55, "mouthLowerDown": 0.3},
    {"mouthSmile": 0.3, "jawOpen": 0.18, "mouthStretch": 0.3, "mouthUpperUp": 0.2},
    {"mouthPucker": 0.6, "jawOpen": 0.12},
    {"mouthFunnel": 0.55, "jawOpen": 0.3},
    {"mouthPress": 0.5, "mouthRollLower": 0.3},
    {"mouthRollLower": 0.35, "mouthUpperUp": 0.3, "jawOpen": 0.06},
)
_VISEME_S = 0.17

PERFORMANCE_S = len(_UNITS) * _UNIT_S + _SPEECH_S
"""Length of one pass through the performance."""


@dataclass(frozen=True)
class Performance:
    """What an operator does; a pure function of time.

    Attributes:
        seed: Chooses sway, blinks and speech; the order of the units is fixed.
    """

    seed: int

    def phase(self, time_s: float) -> Phase:
        """Which part of the script a moment belongs to."""
        return "capture" if time_s < CAPTURE_S else "performance"

    def code(self, time_s: float) -> Float[np.ndarray, "52"]:
        """Return the `arkit_52` code at a moment."""
        idle = self._idle(time_s)
        if time_s < CAPTURE_S:
            return idle
        inside = (time_s - CAPTURE_S) % PERFORMANCE_S
        if inside < len(_UNITS) * _UNIT_S:
            index = int(inside // _UNIT_S)
            acted = _unit_weight(inside - index * _UNIT_S) * arkit_code(**_UNITS[index])
        else:
            acted = self._speech(inside - len(_UNITS) * _UNIT_S)
        return np.maximum(idle, acted).clip(0, 1).astype(np.float32)

    def head_turn(self, time_s: float) -> tuple[float, float, float]:
        """Yaw (+ to the subject's left), pitch (+ up) and roll at a moment, radians."""
        sway = [
            np.sin(2 * np.pi * time_s / period + phase)
            for period, phase in zip((7.3, 5.1, 9.7), self._phases(0), strict=True)
        ]
        if time_s < CAPTURE_S:
            times, yaws, pitches = np.array(_TURNS, float).T
            yaw = _ease(time_s, times, yaws) + 0.6 * sway[0]
            pitch = _ease(time_s, times, pitches) + 0.5 * sway[1]
            return np.radians(yaw), np.radians(pitch), np.radians(0.8 * sway[2])
        rise = min((time_s - CAPTURE_S) / 1.5, 1.0)  # from standing still into motion
        return (
            np.radians(0.6 * sway[0] + 6.0 * rise * sway[0]),
            np.radians(0.5 * sway[1] + 3.0 * rise * sway[1]),
            np.radians(0.8 * sway[2] + 2.0 * rise * sway[2]),
        )

    def _phases(self, salt: int) -> np.ndarray:
        return np.random.default_rng([self.seed, salt]).uniform(0, 2 * np.pi, 3)

    def _idle(self, time_s: float) -> np.ndarray:
        """Small changes of a face at rest; eyes stay open."""
        a, b, c = (0.5 + 0.5 * np.sin(time_s * f + p) for f, p in
                   zip((0.9, 0.63, 1.7), self._phases(1), strict=True))  # fmt: skip
        return arkit_code(
            mouthSmile=0.14 * a * a,
            browInnerUp=0.10 * b * b,
            mouthPress=0.08 * c,
            eyeSquint=0.1 * b,
        )

    def _speech(self, time_s: float) -> np.ndarray:
        """Visemes in random order, blended into each other, in phrases, with blinks and brows."""
        index = int(time_s // _VISEME_S)
        blend = _smoothstep((time_s - index * _VISEME_S) / _VISEME_S)
        mouth = (1 - blend) * self._viseme(index) + blend * self._viseme(index + 1)
        ends = _smoothstep(time_s / 0.4) * _smoothstep((_SPEECH_S - time_s) / 0.4)
        pause = _smoothstep(2.5 + 6 * np.sin(time_s * 2.1 + self._phases(2)[0]))
        blink = max(_pulse(time_s, 1.4), _pulse(time_s, 4.6))
        brows = 0.5 * _smoothstep(np.sin(time_s * 1.7 + self._phases(2)[1]))
        upper = arkit_code(eyeBlink=blink, browInnerUp=brows, browOuterUp=0.8 * brows)
        return mouth * ends * (0.15 + 0.85 * pause) + upper * ends

    def _viseme(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 3, index])
        return rng.uniform(0.5, 1.0) * arkit_code(**_VISEMES[rng.integers(len(_VISEMES))])


def _smoothstep(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _unit_weight(time_s: float) -> float:
    """Up, held, down, rest."""
    return _smoothstep(time_s / _RAMP_S) * _smoothstep((2 * _RAMP_S + _HOLD_S - time_s) / _RAMP_S)


def _pulse(time_s: float, at_s: float) -> float:
    """A blink: 0.08 s down, 0.14 s up."""
    early = _smoothstep((time_s - at_s) / 0.08)
    return early * _smoothstep(1 - (time_s - at_s - 0.08) / 0.14)


def _ease(time_s: float, times: np.ndarray, values: np.ndarray) -> float:
    """Interpolate smoothly between key values."""
    index = int(np.clip(np.searchsorted(times, time_s, side="right") - 1, 0, len(times) - 2))
    share = _smoothstep((time_s - times[index]) / (times[index + 1] - times[index]))
    return float(values[index] + share * (values[index + 1] - values[index]))
