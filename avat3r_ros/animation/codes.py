"""Expression codes at which an avatar is evaluated to be compiled, and others to check it at.

`arkit_52`: every blendshape alone, frequent pairs, and codes as drivers produce them. Other spaces
have no such meaning; their entries are independent with unit variance (`Avat3rConfig.code_norm`).
"""

import itertools

import numpy as np
from jaxtyping import Float

from avat3r_ros.data.expressions import random_code
from avat3r_ros.data.performance import CAPTURE_S, PERFORMANCE_S, Performance
from avat3r_ros.expression import CODE_SPACES, arkit_code

ARKIT_SPACE = "arkit_52"

FREQUENT = (
    "jawOpen", "mouthSmile", "mouthFunnel", "mouthPucker", "mouthFrown", "mouthStretch",
    "mouthUpperUp", "mouthLowerDown", "mouthPress", "browDown", "browInnerUp", "browOuterUp",
    "eyeBlink", "eyeSquint", "cheekSquint", "noseSneer",
)  # fmt: skip
"""Movements that drivers combine; every two of them are a frequent pair."""

PAIR_SCORE = 0.8
CLOSED_LIPS = {"jawOpen": 0.8, "mouthClose": 0.7}
TONGUE = {"jawOpen": 0.9, "tongueOut": 1.0}


def frequent_pairs() -> dict[str, Float[np.ndarray, "52"]]:
    """Return the pairs of `FREQUENT` movements by name ("jawOpen + mouthSmile")."""
    pairs = {
        f"{a} + {b}": arkit_code(**{a: PAIR_SCORE, b: PAIR_SCORE})
        for a, b in itertools.combinations(FREQUENT, 2)
    }
    pairs["jawOpen + mouthClose"] = arkit_code(**CLOSED_LIPS)
    pairs["jawOpen + tongueOut"] = arkit_code(**TONGUE)
    return pairs


def random_codes(code_space: str, count: int, rng: np.random.Generator) -> Float[np.ndarray, "s e"]:
    """Codes as drivers produce them, in no order."""
    if code_space != ARKIT_SPACE:
        return rng.standard_normal((count, CODE_SPACES[code_space]), np.float32)
    return np.stack([random_code(rng) for _ in range(count)])


def compile_codes(code_space: str, count: int, seed: int = 0) -> Float[np.ndarray, "s e"]:
    """Choose codes to evaluate: the neutral one first, then units, then pairs and random codes.

    Args:
        code_space: Key of `expression.CODE_SPACES`.
        count: How many at least; units and neutral are always there.
        seed: Of the random ones.
    """
    rng = np.random.default_rng([seed, 17])
    length = CODE_SPACES[code_space]
    codes = [np.zeros(length, np.float32), *np.eye(length, dtype=np.float32)]
    rest = max(1, count - len(codes))  # at least one, to check the fit by
    if code_space != ARKIT_SPACE:
        return np.stack([*codes, *random_codes(code_space, rest, rng)])
    pairs = list(frequent_pairs().values())
    chosen = rng.permutation(len(pairs))[: rest // 3]
    # Half scores as well, so that what is not linear in one movement shows.
    codes += [pairs[i] * rng.uniform(0.5, 1.25) for i in chosen]
    codes += [*random_codes(code_space, max(1, count - len(codes)), rng)]
    return np.stack(codes).clip(0, 1)


def driven_codes(code_space: str, count: int, seed: int = 1) -> Float[np.ndarray, "s e"]:
    """Codes of a performance, evenly spaced in time: none is among the compiled ones."""
    if code_space != ARKIT_SPACE:
        return random_codes(code_space, count, np.random.default_rng([seed, 23]))
    performance = Performance(seed)
    times = CAPTURE_S + PERFORMANCE_S * (np.arange(count) + 0.5) / count
    return np.stack([performance.code(time) for time in times])
