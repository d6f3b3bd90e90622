"""The operator of `avat3r latency`: a face whose mouth jumps open and shut at known moments.

The moments are a function of the machine's monotonic clock alone, which all its processes share.
So who watches the display knows when the face before the camera changed, without any stamp.
"""

import bisect
import time

import numpy as np
from jaxtyping import Float, UInt8

SLOT_S = 0.8
"""One change falls into each slot of this length ..."""

JITTER_S = 0.25
"""... at any moment of its first part, so that changes do not keep in step with a camera."""

_SHUT_S, _OPEN_S = 9.90, 10.55
"""Moments of the synthetic operator's script with a resting face and with an opened mouth; the
head stands almost still between them."""

_VARIANTS = 5
"""Frames of each kind, with different sensor noise."""


def change_s(slot: int) -> float:
    """When the mouth changes in a slot: monotonic seconds. It opens in even slots."""
    # A cheap hash of the slot: a run that starts later must see the same moments.
    scrambled = (slot * 2654435761 + 12345) % 2**32
    return (slot + JITTER_S / SLOT_S * scrambled / 2**32) * SLOT_S


def changes_between(start_s: float, end_s: float) -> list[tuple[float, bool]]:
    """Moments of [start_s, end_s) at which the mouth changes, and whether it opens then."""
    slots = range(int(start_s // SLOT_S), int(end_s // SLOT_S) + 1)
    moments = [(change_s(slot), slot % 2 == 0) for slot in slots]
    return [item for item in moments if start_s <= item[0] < end_s]


def is_open(now_s: float) -> bool:
    """Whether the mouth is open at a moment of the monotonic clock."""
    slot = int(now_s // SLOT_S)
    return bool((slot if now_s >= change_s(slot) else slot - 1) % 2 == 0)


def settled(now_s: float, margin_s: float) -> bool:
    """Whether the last change is at least `margin_s` ago and the next one still to come."""
    changes = [moment for moment, _ in changes_between(now_s - 2 * SLOT_S, now_s + 1e-9)]
    last = bisect.bisect_right(changes, now_s) - 1
    return last >= 0 and bool(now_s - changes[last] >= margin_s)


class Flashing:
    """An image source for the camera node; see sources.py.

    Attributes:
        intrinsics: Of the camera that looks at the operator.
    """

    def __init__(self, seed: int, width: int, height: int, fps: float) -> None:
        from avat3r_ros.data.operator import SyntheticOperator

        operator = SyntheticOperator(seed, width, height)
        self._frames = {
            mouth: [operator.frame(at_s + 0.001 * i) for i in range(_VARIANTS)]
            for mouth, at_s in ((False, _SHUT_S), (True, _OPEN_S))
        }
        camera = operator.truth(0.0).camera
        self.intrinsics: Float[np.ndarray, "3 3"] | None = (
            camera.intrinsics.reshape(3, 3).double().numpy()
        )
        self._period_s = 1.0 / fps
        self._next_s = time.monotonic()
        self._count = 0

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """Wait for the next frame's time and look at the face as it is then."""
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = max(self._next_s + self._period_s, time.monotonic())
        self._count += 1
        return self._frames[is_open(time.monotonic())][self._count % _VARIANTS]

    def close(self) -> None:
        """Nothing is held."""
