"""Expression code spaces: which number means which movement, in which order.

A code never travels alone: its space's name and length go with it and are checked at every entry.
`arkit_52` is Apple's list of 52 blendshape coefficients, each in [0, 1], 0 at rest. Left and right
are the *subject's*. MediaPipe scores 51 of them; it has no `tongueOut`.
"""

import difflib

import numpy as np
from numpy.typing import ArrayLike

ARKIT_52 = (
    "eyeBlinkLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight",
    "eyeLookDownRight",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeSquintRight",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
ARKIT_INDEX = {name: i for i, name in enumerate(ARKIT_52)}

CODE_SPACES: dict[str, int] = {"arkit_52": 52, "ava256_256": 256}
"""Name -> length of every code space this package knows."""


def validate_code(space: str, values: ArrayLike) -> np.ndarray:
    """Return `values` as a fresh float32 vector after checking it against its code space.

    Args:
        space: Name of the code space, a key of `CODE_SPACES`.
        values: One code, any real dtype.

    Returns:
        The code, shape (CODE_SPACES[space],), float32. `arkit_52` is clipped to [0, 1].

    Raises:
        ValueError: Unknown space, wrong length, or a value that is not finite.
    """
    if space not in CODE_SPACES:
        close = difflib.get_close_matches(space, CODE_SPACES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"unknown code space {space!r}, expected one of {sorted(CODE_SPACES)}{hint}"
        )
    try:
        code = np.array(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected {CODE_SPACES[space]} numbers, got {values!r}") from error
    if code.shape != (CODE_SPACES[space],):
        raise ValueError(
            f"expected a {space} code of {CODE_SPACES[space]} values, got shape {code.shape}"
        )
    if not np.isfinite(code).all():
        raise ValueError(
            f"{space} code has {int((~np.isfinite(code)).sum())} values that are not finite"
        )
    return code.clip(0.0, 1.0) if space == "arkit_52" else code


def arkit_code(**scores: float) -> np.ndarray:
    """Build an `arkit_52` code from named scores; all others are 0.

    A name without side (`eyeBlink`, `mouthSmile`) sets left and right.

    Raises:
        ValueError: A name that is neither an ARKit blendshape nor a left/right pair.
    """
    code = np.zeros(len(ARKIT_52), np.float32)
    for name, value in scores.items():
        names = [n for n in (name, f"{name}Left", f"{name}Right") if n in ARKIT_INDEX]
        if not names:
            close = difflib.get_close_matches(name, ARKIT_52, n=1)
            raise ValueError(f"unknown ARKit blendshape {name!r}; closest: {close}")
        for n in names:
            code[ARKIT_INDEX[n]] = value
    return validate_code("arkit_52", code)
