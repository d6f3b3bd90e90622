"""Random expression codes with the statistics of faces: units, blends, speech, mostly symmetric."""

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_INDEX, arkit_code

_UNITS = (
    "jawOpen", "eyeBlink", "mouthSmile", "browDown", "browInnerUp", "browOuterUp", "mouthPucker",
    "mouthFunnel", "mouthFrown", "eyeSquint", "eyeWide", "cheekPuff", "cheekSquint", "noseSneer",
    "mouthStretch", "mouthPress", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthUpperUp", "mouthLowerDown", "mouthDimple", "jawForward",
)  # fmt: skip
_SIDED = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
_COMMON = ("jawOpen", "eyeBlink", "mouthSmile", "browInnerUp", "browOuterUp", "browDown",
           "mouthPucker", "mouthFunnel", "mouthFrown", "mouthUpperUp", "mouthLowerDown",
           "mouthStretch", "eyeSquint")  # fmt: skip


def random_code(rng: np.random.Generator) -> Float[np.ndarray, "52"]:
    """A code as a driver produces it: neutral, one unit, a blend or speech, with some gaze."""
    kind = rng.choice(4, p=(0.08, 0.32, 0.35, 0.25))
    scores: dict[str, float] = {}
    if kind == 1:
        units = _UNITS + _SIDED if rng.random() < 0.5 else _COMMON
        scores[units[rng.integers(len(units))]] = rng.uniform(0.3, 1.0)
    elif kind == 2:
        for name in rng.choice(_UNITS, rng.integers(2, 6), replace=False):
            scores[str(name)] = rng.uniform(0.0, 0.8)
    elif kind == 3:
        scores["jawOpen"] = rng.uniform(0.0, 0.6)
        scores[("mouthFunnel", "mouthPucker", "mouthSmile", "mouthStretch")[rng.integers(4)]] = (
            rng.uniform(0.0, 0.7)
        )
        scores["mouthLowerDown"], scores["mouthUpperUp"] = rng.uniform(0, 0.4, 2)
        scores["browInnerUp"] = scores["browOuterUp"] = rng.uniform(0, 0.6) * (rng.random() < 0.4)
    if rng.random() < 0.15:
        scores["eyeBlink"] = rng.uniform(0.3, 1.0)
    code = arkit_code(**scores) * _asymmetry(rng)
    jaw = float(code[ARKIT_INDEX["jawOpen"]])
    if jaw > 0.2 and rng.random() < 0.12:  # lips closed over an open jaw: never more than it opens
        code[ARKIT_INDEX["mouthClose"]] = rng.uniform(0.3, 0.9) * jaw
    if jaw > 0.3 and rng.random() < 0.06:
        code[ARKIT_INDEX["tongueOut"]] = rng.uniform(0.3, 1.0)
    return np.maximum(code, _gaze(rng) * (rng.random() < 0.5)).clip(0, 1).astype(np.float32)


def random_photo_code(rng: np.random.Generator) -> Float[np.ndarray, "52"]:
    """A code as faces have it in photos taken for an avatar: calm, eyes open."""
    scores = {
        "mouthSmile": rng.uniform(0, 0.5) * (rng.random() < 0.5),
        "jawOpen": rng.uniform(0, 0.35) * (rng.random() < 0.25),
        "browInnerUp": rng.uniform(0, 0.3) * (rng.random() < 0.3),
        "browDown": rng.uniform(0, 0.3) * (rng.random() < 0.2),
        "mouthPress": rng.uniform(0, 0.3) * (rng.random() < 0.3),
        "mouthPucker": rng.uniform(0, 0.3) * (rng.random() < 0.15),
        "eyeSquint": rng.uniform(0, 0.3) * (rng.random() < 0.3),
        "eyeBlink": rng.uniform(0, 0.15),
    }
    code = arkit_code(**scores) * _asymmetry(rng)
    return np.maximum(code, 0.4 * _gaze(rng) * (rng.random() < 0.3)).clip(0, 1).astype(np.float32)


def _asymmetry(rng: np.random.Generator) -> np.ndarray:
    """Factors per score: sides differ a little, and now and then one side does not move."""
    factors = rng.uniform(0.85, 1.0, 52)
    if rng.random() < 0.2:
        side = ("Left", "Right")[rng.integers(2)]
        for name, index in ARKIT_INDEX.items():
            if name.endswith(side) and not name.startswith(("eyeLook", "jaw")):
                factors[index] *= rng.uniform(0.0, 0.5)
    return factors


def _gaze(rng: np.random.Generator) -> np.ndarray:
    """Both eyes turn together."""
    across, up = rng.uniform(-0.8, 0.8), rng.uniform(-0.6, 0.6)
    scores = {}
    for side, outward in (("Left", across), ("Right", -across)):
        scores[f"eyeLookOut{side}"], scores[f"eyeLookIn{side}"] = max(outward, 0), max(-outward, 0)
        scores[f"eyeLookUp{side}"], scores[f"eyeLookDown{side}"] = max(up, 0), max(-up, 0)
    return arkit_code(**scores)
