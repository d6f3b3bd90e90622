"""How finely a frame is drawn, and whether earlier frames are warped in between. No ROS here.

Two rules that do not know of each other:

    resolution     the median of the last drawings takes more than 90 % of 1 / target_hz: one step
                   down. A finer step would, by its number of pixels, have stayed below 70 % for a
                   second: one step up. A step is about 1.4 times as many pixels.
    reprojection   drawing takes longer than a display period while the viewer moves: drawn layers
                   are warped to the newest viewer pose at every display period, until drawing would
                   keep up again with room to spare, or the viewer has stood still for a while.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from avat3r_ros.nodes.parameters import ranged

STEPS = (1.0, 0.84, 0.71, 0.59, 0.5, 0.42, 0.35, 0.3, 0.25)
"""Layer pixels for each image pixel and axis."""

WINDOW = 7
"""Drawings whose median counts: one that was interrupted changes nothing."""

TOO_SLOW, FAST_ENOUGH = 0.9, 0.7
"""Shares of the period; the gap between them keeps the resolution from swinging."""

CALM_S = 1.0
"""How long it must have been fast enough, and how long the viewer must stand still."""

REPROJECT_MODES = ("auto", "always", "off")


@dataclass(frozen=True)
class QualityConfig:
    """Parameters of resolution and reprojection. All defaults are ours.

    Attributes:
        target_hz: The resolution goes down until frames are drawn this often.
        min_scale: Least resolution of a drawing relative to the published image, per axis; 1 never
            draws more coarsely.
        reproject: "auto" warps drawn frames to the newest viewer pose, max_rate_hz times a second,
            while the viewer moves and drawing is slower than that; "always" whenever the viewer
            moves; "off" publishes drawn frames alone.
        overscan: Margin that is drawn around a frame that will be warped, as a share of its width
            and height on each side.
    """

    target_hz: float = ranged(30.0, 1.0, 240.0)
    min_scale: float = ranged(0.5, 0.25, 1.0)
    reproject: str = "auto"
    overscan: float = ranged(0.08, 0.0, 0.5)

    def __post_init__(self) -> None:
        if self.reproject not in REPROJECT_MODES:
            raise ValueError(f"expected reproject of {REPROJECT_MODES}, got {self.reproject!r}")


class QualityControl:
    """Follows how long drawing takes; used by the render thread alone.

    Attributes:
        scale: Resolution to draw at.
        warping: Whether drawn frames should be warped to newer viewer poses.
    """

    def __init__(self, config: QualityConfig, display_hz: float) -> None:
        self._config = config
        self._display_s = 1.0 / display_hz
        self._steps = [s for s in STEPS if s > config.min_scale] + [config.min_scale]
        self._step = 0
        self._drawings_s: deque[float] = deque(maxlen=WINDOW)
        self._calm_since_s: float | None = None
        self._warp_since_s: float | None = None
        self.warping = False

    @property
    def scale(self) -> float:
        """Layer pixels for each image pixel and axis."""
        return self._steps[self._step]

    def observe(self, drawing_s: float, viewer_moves: bool, now_s: float) -> None:
        """Take the time of a drawing at the present scale that has just ended.

        Args:
            drawing_s: Wall clock.
            viewer_moves: Whether viewer poses are coming in.
            now_s: Any clock that does not jump.
        """
        self._drawings_s.append(drawing_s)
        typical_s = float(np.median(self._drawings_s))
        self._choose_warping(typical_s, viewer_moves, now_s)
        if len(self._drawings_s) == WINDOW:
            self._choose_step(typical_s * self._config.target_hz, now_s)

    def _choose_step(self, share: float, now_s: float) -> None:
        """Args: share: Of the period that a drawing takes."""
        if share > TOO_SLOW:
            self._calm_since_s = None
            if self._step + 1 < len(self._steps):
                self._go_to(self._step + 1)
            return
        finer = max(0, self._step - 1)
        expected = share * (self._steps[finer] / self.scale) ** 2
        if finer == self._step or expected > FAST_ENOUGH:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= CALM_S:
            self._go_to(finer)

    def _go_to(self, step: int) -> None:
        self._step, self._calm_since_s = step, None
        self._drawings_s.clear()  # those of another resolution say nothing about this one

    def _choose_warping(self, typical_s: float, viewer_moves: bool, now_s: float) -> None:
        mode = self._config.reproject
        slow = typical_s > self._display_s or mode == "always"
        wanted = mode != "off" and viewer_moves and slow
        # A few of the first drawings tell nothing: they fill caches.
        if wanted and (len(self._drawings_s) >= 3 or mode == "always"):
            self.warping, self._warp_since_s = True, now_s
        elif self.warping:
            keep_s = FAST_ENOUGH * self._display_s
            if viewer_moves and (typical_s > keep_s or mode == "always"):
                self._warp_since_s = now_s
            elif now_s - self._warp_since_s >= CALM_S:
                self.warping = False
