"""Whether the operator is there: LIVE -> HOLD -> ease to NEUTRAL -> PLACEHOLDER.

    silence   0 ........ hold_after ........ neutral_after ... + ease ........ placeholder_after
    state     LIVE       HOLD                NEUTRAL                           PLACEHOLDER
    code      newest     newest              newest -> 0       0               0

A code that is older than one already shown, or that was stuck on its way, is refused: old codes are
never replayed. No ROS here: times are plain seconds.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float

from avat3r_ros.nodes.parameters import ranged


class State(IntEnum):
    """Values of RendererStatus.state."""

    LIVE = 0
    HOLD = 1
    NEUTRAL = 2
    PLACEHOLDER = 3


@dataclass(frozen=True)
class PresenceConfig:
    """Seconds of silence until the picture changes. All defaults are ours.

    Attributes:
        hold_after_s: Silence after which the state is HOLD; several missed frames at 30 Hz.
        neutral_after_s: Silence after which the face eases to its neutral expression.
        ease_s: How long the easing takes; longer is calmer.
        placeholder_after_s: Silence after which a placeholder picture replaces the avatar.
        max_delay_s: A code that took this much longer than the fastest one is refused as old.
    """

    hold_after_s: float = ranged(0.22, 0.02, 10.0)
    neutral_after_s: float = ranged(1.5, 0.05, 60.0)
    ease_s: float = ranged(0.6, 0.01, 10.0)
    placeholder_after_s: float = ranged(5.0, 0.1, 3600.0)
    max_delay_s: float = ranged(1.0, 0.05, 60.0)

    def __post_init__(self) -> None:
        if not self.hold_after_s < self.neutral_after_s < self.placeholder_after_s:
            raise ValueError(
                "expected hold_after_s < neutral_after_s < placeholder_after_s, got "
                f"{self.hold_after_s}, {self.neutral_after_s}, {self.placeholder_after_s}"
            )


@dataclass(frozen=True)
class Presence:
    """What to show at one moment.

    Attributes:
        state: Why.
        code: Expression to show; None before the first one.
        stamp_s: Acquisition time of the code's image while it is shown as it came (LIVE, HOLD),
            else None: what is shown then has no moment of its own.
        silence_s: Since the newest usable code; infinite before the first one.
    """

    state: State
    code: Float[np.ndarray, "e"] | None
    stamp_s: float | None
    silence_s: float


class OperatorPresence:
    """Follows the stream of codes; not for several threads at once."""

    def __init__(self, config: PresenceConfig | None = None) -> None:
        self._config = config if config is not None else PresenceConfig()
        self._code: np.ndarray | None = None
        self._stamp_s = -np.inf
        self._arrival_s = -np.inf
        self._fastest_s = np.inf

    def observe(self, code: Float[np.ndarray, "e"], stamp_s: float, now_s: float) -> None:
        """Take a code that arrived now.

        Args:
            code: Checked by the caller; any vector for which 0 is rest.
            stamp_s: Acquisition time on the sender's clock, which may differ from ours.
            now_s: Our time of arrival.

        Raises:
            ValueError: The stamp is not after the last one, or the code was stuck on its way. After
                `placeholder_after_s` of silence any stamp is accepted: the source was restarted.
        """
        if now_s - self._arrival_s >= self._config.placeholder_after_s:
            self._stamp_s, self._fastest_s = -np.inf, np.inf
        if stamp_s <= self._stamp_s:
            raise ValueError(
                f"stamp {stamp_s:.3f} s is not after the last one, {self._stamp_s:.3f} s"
            )
        # Clocks may differ by a constant, so delays are compared with the smallest one seen.
        self._fastest_s = min(self._fastest_s, now_s - stamp_s)
        delay_s = now_s - stamp_s - self._fastest_s
        if delay_s > self._config.max_delay_s:
            raise ValueError(f"arrived {delay_s:.2f} s later than others of this stream")
        self._code, self._stamp_s, self._arrival_s = code, stamp_s, now_s

    def at(self, now_s: float) -> Presence:
        """What to show at this time."""
        silence_s = now_s - self._arrival_s
        config = self._config
        if self._code is None:
            return Presence(State.PLACEHOLDER, None, None, np.inf)
        if silence_s < config.hold_after_s:
            return Presence(State.LIVE, self._code, self._stamp_s, silence_s)
        if silence_s < config.neutral_after_s:
            return Presence(State.HOLD, self._code, self._stamp_s, silence_s)
        t = min(1.0, (silence_s - config.neutral_after_s) / config.ease_s)
        remaining = 1.0 - t * t * (3.0 - 2.0 * t)
        code = (self._code * remaining).astype(np.float32)
        late = silence_s >= config.placeholder_after_s
        return Presence(State.PLACEHOLDER if late else State.NEUTRAL, code, None, silence_s)
