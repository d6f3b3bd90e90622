"""A headset's face weights, by their names, as an arkit_52 code.

The names are those of OpenXR's XR_FB_face_tracking2, such as XR_FACE_EXPRESSION2_JAW_DROP_FB, of
its predecessor XR_FB_face_tracking (XR_FACE_EXPRESSION_JAW_DROP_FB), or ARKit's own, and HeadYaw,
HeadPitch, HeadRoll; prefix, suffix, case and underscores do not count: `JawDrop` is the same.
`PARTS` says what becomes of them; L and R, Left and Right are the subject's.

Source: the enumeration is the OpenXR registry's. Which muscle is which of ARKit's shapes we chose
by the descriptions of both; no headset was at hand to try it.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from avat3r_ros.drivers.osc_face import HEAD, MAX_HEAD
from avat3r_ros.drivers.sample import FaceSample, check_scores, checked_code
from avat3r_ros.expression import ARKIT_52

SIDED = {
    "browDown": "BROW_LOWERER",
    "browOuterUp": "OUTER_BROW_RAISER",
    "cheekSquint": "CHEEK_RAISER",
    "eyeBlink": "EYES_CLOSED",
    "eyeLookDown": "EYES_LOOK_DOWN",
    "eyeLookUp": "EYES_LOOK_UP",
    "eyeSquint": "LID_TIGHTENER",
    "eyeWide": "UPPER_LID_RAISER",
    "mouthDimple": "DIMPLER",
    "mouthFrown": "LIP_CORNER_DEPRESSOR",
    "mouthLowerDown": "LOWER_LIP_DEPRESSOR",
    "mouthPress": "LIP_PRESSOR",
    "mouthSmile": "LIP_CORNER_PULLER",
    "mouthStretch": "LIP_STRETCHER",
    "mouthUpperUp": "UPPER_LIP_RAISER",
    "noseSneer": "NOSE_WRINKLER",
}
"""`browDownLeft` is BROW_LOWERER_L, and so on."""

PARTS: dict[str, tuple[str, ...]] = {
    **{f"{name}Left": (f"{muscle}_L",) for name, muscle in SIDED.items()},
    **{f"{name}Right": (f"{muscle}_R",) for name, muscle in SIDED.items()},
    "browInnerUp": ("INNER_BROW_RAISER_L", "INNER_BROW_RAISER_R"),
    "cheekPuff": ("CHEEK_PUFF_L", "CHEEK_PUFF_R"),
    "eyeLookInLeft": ("EYES_LOOK_RIGHT_L",),
    "eyeLookInRight": ("EYES_LOOK_LEFT_R",),
    "eyeLookOutLeft": ("EYES_LOOK_LEFT_L",),
    "eyeLookOutRight": ("EYES_LOOK_RIGHT_R",),
    "jawForward": ("JAW_THRUST",),
    "jawLeft": ("JAW_SIDEWAYS_LEFT",),
    "jawOpen": ("JAW_DROP",),
    "jawRight": ("JAW_SIDEWAYS_RIGHT",),
    "mouthClose": ("LIPS_TOWARD",),
    "mouthFunnel": ("LIP_FUNNELER_LB", "LIP_FUNNELER_LT", "LIP_FUNNELER_RB", "LIP_FUNNELER_RT"),
    "mouthLeft": ("MOUTH_LEFT",),
    "mouthPucker": ("LIP_PUCKER_L", "LIP_PUCKER_R"),
    "mouthRight": ("MOUTH_RIGHT",),
    "mouthRollLower": ("LIP_SUCK_LB", "LIP_SUCK_RB"),
    "mouthRollUpper": ("LIP_SUCK_LT", "LIP_SUCK_RT"),
    "mouthShrugLower": ("CHIN_RAISER_B",),
    "mouthShrugUpper": ("CHIN_RAISER_T",),
    "tongueOut": ("TONGUE_OUT",),
}
"""ARKit's shape -> weights whose mean it is, of those that are given."""

WITHOUT_EFFECT = (
    *("CHEEK_SUCK_L", "CHEEK_SUCK_R", "LIP_TIGHTENER_L", "LIP_TIGHTENER_R"),
    *("TONGUE_TIP_INTERDENTAL", "TONGUE_TIP_ALVEOLAR", "TONGUE_FRONT_DORSAL_PALATE"),
    *("TONGUE_MID_DORSAL_PALATE", "TONGUE_BACK_DORSAL_VELAR", "TONGUE_RETREAT"),
)
"""Weights for which ARKit has no shape."""

LATE_S = 1.0
"""A message older than the last by up to this was overtaken; by more: a clock was set."""

MAX_UNKNOWN, MAX_SOURCES = 64, 16
"""What is remembered; junk with ever new names must not fill the memory."""

NO_EFFECT, UNKNOWN = -1, -2


def _plain(name: str) -> str:
    stem = re.sub(r"^XR_FACE_EXPRESSION2?_|_FB$", "", name)
    return re.sub(r"[^a-z]", "", stem.lower())


PLACES = {
    **{_plain(name): i for i, name in enumerate(ARKIT_52)},
    **{name: len(ARKIT_52) + i for i, name in enumerate(HEAD)},
    **{_plain(w): ARKIT_52.index(name) for name, weights in PARTS.items() for w in weights},
    **{_plain(weight): NO_EFFECT for weight in WITHOUT_EFFECT},
}
"""Plain name -> place in the code; behind it yaw, pitch and roll of the head."""


@functools.lru_cache(maxsize=1024)
def place_of(name: str) -> int:
    """Place of the value that a name means, or NO_EFFECT, or UNKNOWN."""
    return PLACES.get(_plain(name), UNKNOWN)


class FaceWeights:
    """Faces from named weights.

    Attributes:
        unknown: Names that meant nothing to us so far, at most MAX_UNKNOWN.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self._times_s: dict[str, float] = {}

    def take(
        self, names: Sequence[str], weights: Sequence[float], source: str, stamp_s: float
    ) -> FaceSample:
        """Read one message.

        Args:
            names: See the module; unknown ones are remembered and passed over.
            weights: In [0, 1], one for each name; head angles in the sender's unit. Empty as the
                names are: the headset sees no face.
            source: Who sent it.
            stamp_s: When it was measured, by the sender's clock; 0 if it does not say.

        Returns:
            The face; shapes that no name stands for are 0.

        Raises:
            ValueError: As many names as weights, each at most once, at least one of them known,
                values that can be weights, and a message that none has overtaken are expected.
        """
        if len(names) != len(weights):
            raise ValueError(f"expected a weight for each name, got {len(names)}, {len(weights)}")
        sample = FaceSample(None, np.zeros(3, np.float32))
        if len(names):
            sample = self._face(names, np.asarray(weights, np.float32))
        self._check_time(source, stamp_s)
        return sample

    def _face(self, names: Sequence[str], weights: Float[np.ndarray, "n"]) -> FaceSample:
        places = np.array([place_of(name) for name in names])
        new = [name for name, place in zip(names, places, strict=True) if place == UNKNOWN]
        self.unknown |= set(new[: MAX_UNKNOWN - len(self.unknown)])
        known = places != UNKNOWN
        if not known.any():
            raise ValueError(f"expected names of face weights, got {', '.join(names[:3])} …")
        if len({_plain(name) for name, k in zip(names, known, strict=True) if k}) < known.sum():
            raise ValueError("a name is there twice")
        is_head = places >= len(ARKIT_52)
        check_scores(weights[known & ~is_head])
        angles = weights[is_head]
        if not (np.abs(angles) <= MAX_HEAD).all():
            raise ValueError(f"expected angles of the head, got {angles.tolist()}")
        used = places >= 0
        size = len(ARKIT_52) + len(HEAD)
        sums = np.bincount(places[used], weights[used], minlength=size)
        means = sums / np.bincount(places[used], minlength=size).clip(1)
        code, head = means[: len(ARKIT_52)], means[len(ARKIT_52) :].astype(np.float32)
        return FaceSample(checked_code(code), head)

    def _check_time(self, source: str, stamp_s: float) -> None:
        if stamp_s <= 0:
            return
        behind_s = self._times_s.get(source, -np.inf) - stamp_s
        if 0 < behind_s < LATE_S:
            raise ValueError(f"a message came {behind_s:.3f} s behind a newer one")
        self._times_s.pop(source, None)  # the last heard of is the last to be forgotten
        self._times_s[source] = stamp_s
        if len(self._times_s) > MAX_SOURCES:
            del self._times_s[next(iter(self._times_s))]
