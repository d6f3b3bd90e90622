"""What a driver says about a face, before it becomes a FaceState."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import validate_code

TOLERANCE = 0.5
"""Senders overshoot [0, 1] a little and are clipped; farther outside, the numbers mean something
else."""


@dataclass(frozen=True)
class FaceSample:
    """A face at one moment, or that there is none.

    Attributes:
        code: arkit_52 in [0, 1]; None when the sender sees no face.
        head: Yaw, pitch and roll in the sender's unit: right-handed turns about the head frame's y
            (up), x (subject's left) and z (out of the face), applied in this order from the
            outside. Positive: to the subject's left, down, towards the right shoulder.
    """

    code: Float[np.ndarray, "52"] | None
    head: Float[np.ndarray, "3"]


class FaceSource(Protocol):
    """Turns datagrams into faces; for one thread."""

    def take(self, data: bytes, host: str, now_s: float) -> None:
        """Read one datagram.

        Args:
            data: All of it.
            host: Who sent it.
            now_s: Monotonic.

        Raises:
            ValueError: It is junk, or out of date; nothing has changed.
        """

    def newest(self) -> dict[str, FaceSample]:
        """Faces that have changed since the last call, by the name of their source."""


def check_scores(scores: Float[np.ndarray, "n"]) -> None:
    """Check blend shapes of somebody else's making.

    Raises:
        ValueError: A score is not finite, or too far outside [0, 1] to be one.
    """
    if not (np.isfinite(scores).all() and (np.abs(scores - 0.5) <= 0.5 + TOLERANCE).all()):
        worst = scores[np.argmax(np.where(np.isfinite(scores), np.abs(scores - 0.5), np.inf))]
        raise ValueError(f"expected blend shapes in [0, 1], got {worst:g}")


def checked_code(scores: Float[np.ndarray, "52"]) -> Float[np.ndarray, "52"]:
    """An arkit_52 code from scores of somebody else's making.

    Raises:
        ValueError: See `check_scores`.
    """
    scores = np.asarray(scores, np.float32)
    check_scores(scores)
    return validate_code("arkit_52", scores)
