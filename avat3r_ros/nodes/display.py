"""From a scene to published frames: a thread that draws, and one that warps where that is too slow.

    show(scene) ──► draw thread ──┬── fast enough: frame for the newest viewer pose ────► publisher
    newest viewer pose ──────────►└── too slow: layer ──► warp thread, every display ───►
                                                          period, newest viewer pose

Whether layers are warped in between is decided in quality.py. While they are, nothing else is
published, so that the picture has one clock; drawing then goes on at `target_hz`.
"""

import threading
import time
from collections.abc import Callable

import numpy as np

from avat3r_ros.nodes.frame_publisher import FramePublisher
from avat3r_ros.nodes.frame_times import FrameTimes
from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.presence import State
from avat3r_ros.nodes.quality import QualityConfig, QualityControl
from avat3r_ros.nodes.scene_renderer import DrawnLayer, Frame, Scene, SceneRenderer
from avat3r_ros.nodes.viewer_input import ViewerInput

REPORT_PERIOD_S = 1.0
"""How often the state is reported when nothing changes."""

SMOOTHING = 0.2
"""Share of the newest measurement in the expected time of a stage."""

STILL = 1e-5
"""Poses (metres, direction cosines) that differ by less than this show the same picture."""


class Pace:
    """Keeps a loop at a period: by as much as one turn begins late, the next pause is shorter.

    Where each pause began anew, every wake-up's delay would lower the rate.
    """

    def __init__(self) -> None:
        self._due_s = -np.inf

    def next_s(self, start_s: float, period_s: float) -> float:
        """When the turn after one that began at `start_s` may begin.

        A turn that is late by half a period or more waited for something: time runs from it anew.
        """
        punctual = start_s - self._due_s < 0.5 * period_s
        self._due_s = (self._due_s if punctual else start_s) + period_s
        return self._due_s


class Display:
    """Draws and publishes the newest scene; see the module.

    Args:
        node: For times, clock and refusals.
        drawing: Scenes to frames.
        frames: Frames to topics.
        viewer: Read as late as possible.
        quality: Resolution and reprojection.
        max_rate_hz: Frames per second are not more than this.
        idle_rate_hz: Frames per second while nothing changes.
        report: Called by the draw thread when the state changes, and every second.

    Attributes:
        enabled: False publishes nothing.
        bell: Wakes the draw thread: something is new.
    """

    def __init__(
        self,
        node: ManagedNode,
        drawing: SceneRenderer,
        frames: FramePublisher,
        viewer: ViewerInput,
        quality: QualityConfig,
        max_rate_hz: float,
        idle_rate_hz: float,
        report: Callable[[Scene], None],
    ) -> None:
        self._node, self._drawing, self._frames, self._viewer = node, drawing, frames, viewer
        self._quality_config, self._report = quality, report
        self._quality = QualityControl(quality, max_rate_hz)
        self._period_s, self._idle_s = 1 / max_rate_hz, 1 / idle_rate_hz
        self.enabled = True
        self.bell, self._layer_bell = threading.Event(), threading.Event()
        self._publishing = threading.Lock()
        self._layer: DrawnLayer | None = None
        self._timed: Scene | None = None
        self._draw_s = self._warp_s = 0.0

    def show(self, scene: Scene) -> None:
        """Show a scene from now on."""
        self.scene = scene
        self.bell.set()

    def wake(self) -> None:
        """End the waits of both threads."""
        self.bell.set()
        self._layer_bell.set()

    @property
    def facts(self) -> dict[str, float | bool]:
        """What RendererStatus says about drawing."""
        times = self._node.times
        return {
            "rendered_hz": times.rate_hz("render"),
            "reprojected": self._layer is not None,
            "reprojected_hz": times.rate_hz("reproject"),
            "render_scale": self._quality.scale,
        }

    def draw(self, stop: threading.Event) -> None:
        """Body of the draw thread."""
        reported: tuple[State, bool] | None = None
        reported_s = -np.inf
        pace = Pace()
        while not stop.is_set():
            self.bell.wait(self._idle_s)
            self.bell.clear()
            start_s = time.monotonic()
            scene = self.scene
            if self.enabled and not stop.is_set():
                self._draw_one(scene)
            shown = (scene.state, self._layer is not None)
            if shown != reported or start_s - reported_s > REPORT_PERIOD_S:
                self._report(scene)
                reported, reported_s = shown, start_s
            # Warped frames fill the time between two drawings: leave them the processor.
            period_s = self._period_s
            if self._layer is not None:
                period_s = max(period_s, 1 / self._quality_config.target_hz)
            stop.wait(max(0.0, pace.next_s(start_s, period_s) - time.monotonic()))

    def warp(self, stop: threading.Event) -> None:
        """Body of the warp thread."""
        shown: tuple[DrawnLayer, np.ndarray] | None = None
        pace = Pace()
        while not stop.is_set():
            layer = self._layer
            if layer is None or not self.enabled:
                self._layer_bell.wait(self._idle_s)
                self._layer_bell.clear()
                continue
            start_s = time.monotonic()
            viewer_from_body = self._viewer.latch(self._warp_s)
            if (
                shown is None
                or shown[0] is not layer
                or np.abs(shown[1] - viewer_from_body).max() > STILL
            ):
                with self._node.times.measure("reproject"):
                    frame = self._drawing.warp(layer, viewer_from_body)
                with self._publishing:
                    if self._layer is not None:  # else a frame drawn meanwhile is newer
                        self._publish(frame, layer.scene, layer.times)
                shown = layer, viewer_from_body
                self._warp_s += SMOOTHING * (time.monotonic() - start_s - self._warp_s)
            stop.wait(max(0.0, pace.next_s(start_s, self._period_s) - time.monotonic()))

    def _draw_one(self, scene: Scene) -> None:
        start_s = time.monotonic()
        viewer_from_body = self._viewer.latch(self._draw_s)
        self._drawing.eyes = self._viewer.eyes
        scale = self._quality.scale
        if self._quality.warping and scene.gaussians is not None:
            with self._node.times.measure("render"):
                overscan = self._quality_config.overscan
                layer = self._drawing.layer(scene, viewer_from_body, scale, overscan)
            self._observe(time.monotonic() - start_s)
            self._layer = layer
            self._layer_bell.set()
        else:
            with self._node.times.measure("render"):
                frame = self._drawing.draw(scene, viewer_from_body, scale)
            times = scene.times.now("rendered")
            if scene.gaussians is not None:
                self._observe(time.monotonic() - start_s)
            with self._publishing:
                self._layer = None
                self._publish(frame, scene, times)
        self._draw_s += SMOOTHING * (time.monotonic() - start_s - self._draw_s)

    def _observe(self, drawing_s: float) -> None:
        self._quality.observe(drawing_s, self._viewer.moving(), time.monotonic())

    def _publish(self, frame: Frame, scene: Scene, times: FrameTimes) -> None:
        """Publish with the driver's stamp, or the present where nothing drives; one at a time."""
        stamp = scene.stamp
        if stamp is None:
            stamp = self._node.get_clock().now().to_msg()
        with self._node.times.measure("publish"):
            self._frames.publish(frame, scene, stamp)
        # A frame that is shown again, or held, says nothing about how fast it came.
        if scene is not self._timed and scene.state == State.LIVE:
            self._frames.publish_times(times.now("published"), stamp)
        self._timed = scene
        if scene.gaussians is not None:
            self._frames.publish_points(scene.gaussians, stamp)
