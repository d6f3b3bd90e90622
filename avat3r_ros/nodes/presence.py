"""Whether the operator is there: LIVE -> HOLD -> ease to NEUTRAL -> PLACEHOLDER, and eased back.

    silence   0 ..... hold_after ..... neutral_after .. + ease ..... placeholder_after .. + fade
    state     LIVE    HOLD             NEUTRAL                       PLACEHOLDER
    code      newest  newest           newest -> 0      0            0
    veil      0       0                0                0            0 -> 1

A code that is older than one already shown, or that was stuck on its way, is refused: old codes are
never replayed. No ROS here: times are plain seconds.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float

from avat3r_ros.nodes.parameters import ranged

CLOCK_SET_S = 0.5
"""Codes with impossible stamps are a living stream under another clock once they have kept pace
with ours for so long; a burst of old codes never does."""

PACE_S = 0.15
"""How far such stamps may lead or lag meanwhile."""

DRIFT = 1e-3
"""Seconds per second that two clocks may drift apart: ten times what bad quartz does."""


class State(IntEnum):
    """Values of RendererStatus.state."""

    LIVE = 0
    HOLD = 1
    NEUTRAL = 2
    PLACEHOLDER = 3


class SecondSourceError(ValueError):
    """A code of somebody else while one source drives already."""


@dataclass(frozen=True)
class PresenceConfig:
    """Seconds of silence until the picture changes. All defaults are ours.

    Attributes:
        hold_after_s: Silence after which the state is HOLD; several missed frames at 30 Hz.
        neutral_after_s: Silence after which the face eases to its neutral expression. Also how long
            a source must have been silent before another one may take over.
        ease_s: How long the easing takes; longer is calmer, 0 jumps.
        placeholder_after_s: Silence after which a placeholder picture replaces the avatar.
        fade_s: How long the placeholder takes to appear and to vanish; 0 is at once.
        return_s: How long the face takes from what is shown to the operator's when codes come
            again; 0 is at once.
        max_delay_s: A code that took this much longer than the fastest one is refused as old.
        driver: frame_id of the only source whose codes are taken; empty: who comes first drives.
    """

    hold_after_s: float = ranged(0.22, 0.02, 10.0)
    neutral_after_s: float = ranged(1.5, 0.05, 60.0)
    ease_s: float = ranged(0.6, 0.0, 10.0)
    placeholder_after_s: float = ranged(5.0, 0.1, 3600.0)
    fade_s: float = ranged(0.4, 0.0, 10.0)
    return_s: float = ranged(0.25, 0.0, 10.0)
    max_delay_s: float = ranged(1.0, 0.05, 60.0)
    driver: str = ""

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
        veil: How far the placeholder covers the avatar, 0 to 1.
        easing: Whether the next moment will look different without any new code.
        lasts_s: Until the state changes by itself.
    """

    state: State
    code: Float[np.ndarray, "e"] | None
    stamp_s: float | None
    silence_s: float
    veil: float = 0.0
    easing: bool = False
    lasts_s: float = np.inf


class OperatorPresence:
    """Follows the stream of codes; not for several threads at once."""

    def __init__(self, config: PresenceConfig | None = None) -> None:
        self._config = config if config is not None else PresenceConfig()
        self._code: np.ndarray | None = None
        self._source = ""
        self._stamp_s = self._arrival_s = -np.inf
        self._fastest_s = np.inf
        self._strangers: list[tuple[float, float]] = []
        # What was shown when the operator came back, and when that was.
        self._before: Presence | None = None
        self._back_s = -np.inf

    @property
    def source(self) -> str:
        """Whose codes are shown; empty before the first one."""
        return self._source

    def observe(
        self, code: Float[np.ndarray, "e"], stamp_s: float, now_s: float, source: str = ""
    ) -> None:
        """Take a code that arrived now.

        Args:
            code: Checked by the caller; any vector for which 0 is rest.
            stamp_s: Acquisition time on the sender's clock, which may differ from ours.
            now_s: Our time of arrival.
            source: Who sent it.

        Raises:
            SecondSourceError: Another source drives; this one may take over once that has been
                silent for `neutral_after_s`.
            ValueError: The stamp is not after the last one, or the code was stuck on its way. A
                stream that keeps pace under another clock is accepted after CLOCK_SET_S: the
                source's clock was set, or it was restarted elsewhere.
        """
        silence_s = now_s - self._arrival_s
        self._check_source(source, silence_s)
        if source != self._source:
            self._stamp_s, self._fastest_s = -np.inf, np.inf
        elif np.isfinite(self._fastest_s):
            self._fastest_s += DRIFT * silence_s
        delay_s = now_s - stamp_s
        if reason := self._refusal(stamp_s, delay_s):
            if not self._keeps_pace(stamp_s, now_s):
                raise ValueError(reason)
            self._fastest_s = delay_s
        self._strangers.clear()
        # Clocks may differ by a constant, so delays are compared with the smallest one seen.
        self._fastest_s = min(self._fastest_s, delay_s)
        shown = self.at(now_s)
        if shown.state != State.LIVE:
            self._before, self._back_s = shown, now_s
        self._code, self._stamp_s, self._arrival_s = code, stamp_s, now_s
        self._source = source

    def at(self, now_s: float) -> Presence:
        """What to show at this time."""
        config, silence_s = self._config, now_s - self._arrival_s
        if self._code is None:
            return Presence(State.PLACEHOLDER, None, None, np.inf, veil=1.0)
        code, veil, easing = self._coming_back(now_s)
        if silence_s < config.hold_after_s:
            lasts_s = config.hold_after_s - silence_s
            return Presence(State.LIVE, code, self._stamp_s, silence_s, veil, easing, lasts_s)
        if silence_s < config.neutral_after_s:
            lasts_s = config.neutral_after_s - silence_s
            return Presence(State.HOLD, code, self._stamp_s, silence_s, veil, easing, lasts_s)
        eased = _eased(silence_s - config.neutral_after_s, config.ease_s)
        code = (code * (1.0 - eased)).astype(np.float32)
        if silence_s < config.placeholder_after_s:
            easing = easing or bool(eased < 1.0)
            lasts_s = config.placeholder_after_s - silence_s
            return Presence(State.NEUTRAL, code, None, silence_s, veil, easing, lasts_s)
        faded = _eased(silence_s - config.placeholder_after_s, config.fade_s)
        veil = max(veil, faded)
        return Presence(State.PLACEHOLDER, code, None, silence_s, veil, bool(faded < 1.0))

    def _coming_back(self, now_s: float) -> tuple[np.ndarray, float, bool]:
        """Newest code and veil, on the way from what was shown before the operator came back."""
        before, since_s, config = self._before, now_s - self._back_s, self._config
        if before is None or since_s >= max(config.return_s, config.fade_s):
            return self._code, 0.0, False
        code, share = self._code, _eased(since_s, config.return_s)
        if before.code is not None and len(before.code) == len(code):
            code = (before.code + share * (code - before.code)).astype(np.float32)
        return code, before.veil * (1.0 - _eased(since_s, config.fade_s)), True

    def _check_source(self, source: str, silence_s: float) -> None:
        wanted, after_s = self._config.driver, self._config.neutral_after_s
        if wanted and source != wanted:
            raise SecondSourceError(f"from {source!r}, but presence.driver is {wanted!r}")
        if self._code is not None and source != self._source and silence_s < after_s:
            raise SecondSourceError(
                f"from {source!r} while {self._source!r} drives; it may take over when that has "
                f"been silent for {after_s:g} s"
            )

    def _refusal(self, stamp_s: float, delay_s: float) -> str:
        if stamp_s <= self._stamp_s:
            return f"stamp {stamp_s:.3f} s is not after the last one, {self._stamp_s:.3f} s"
        late_s = delay_s - self._fastest_s
        if np.isfinite(self._fastest_s) and late_s > self._config.max_delay_s:
            return f"arrived {late_s:.2f} s later than others of this stream"
        return ""

    def _keeps_pace(self, stamp_s: float, now_s: float) -> bool:
        """Whether codes that would be refused have come like a living stream's for long enough."""
        if self._strangers:
            (first_stamp_s, first_s), (last_stamp_s, _) = self._strangers[0], self._strangers[-1]
            lead_s = (stamp_s - first_stamp_s) - (now_s - first_s)
            if stamp_s <= last_stamp_s or abs(lead_s) > PACE_S:
                self._strangers.clear()
        self._strangers.append((stamp_s, now_s))
        long_enough = now_s - self._strangers[0][1] >= CLOCK_SET_S
        return bool(long_enough and len(self._strangers) >= 5)


def _eased(elapsed_s: float, lasts_s: float) -> float:
    """Ease in and out: 0 to 1 without a jump in speed; 1 at once where it lasts no time."""
    share = 1.0 if elapsed_s >= lasts_s else max(elapsed_s, 0.0) / lasts_s
    return share * share * (3.0 - 2.0 * share)
