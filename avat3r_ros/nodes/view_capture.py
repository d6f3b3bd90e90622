"""Chooses reference views from the image topic while the operator moves the head."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from avat3r_ros.capture.frame_selection import FrameSelector, SelectedFrame
from avat3r_ros.nodes.conversions import intrinsics_from_camera_info, stamp_s_from_msg
from avat3r_ros.nodes.images import image_from_compressed, image_from_msg
from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.pipeline import BuildCancelledError, BuildError
from avat3r_ros.tracking import FaceTracker

REPORT_PERIOD_S = 0.5


@dataclass(frozen=True)
class CaptureConfig:
    """Parameters of choosing views from the topic.

    Attributes:
        num_views: Views to choose; 4 is what the network was trained with.
        timeout_s: A build without enough views by then fails and says what is missing.
        settle_s: Go on looking for better views this long after there are enough.
        compressed: Subscribe to image_raw/compressed instead of image_raw.
        model_path: face_landmarker.task; searched for if empty.
    """

    num_views: int = ranged(4, 3, 6)
    timeout_s: float = ranged(60.0, 1.0, 3600.0)
    settle_s: float = ranged(1.0, 0.0, 60.0)
    compressed: bool = False
    model_path: str = ""


@dataclass(frozen=True)
class CaptureProgress:
    """What is chosen, and what the operator should do next."""

    num_views: int
    wanted: tuple[str, ...]


def capture_views(
    node: ManagedNode,
    config: CaptureConfig,
    report: Callable[[CaptureProgress], None],
    cancelled: Callable[[], bool],
) -> tuple[list[SelectedFrame], list[float | None]]:
    """Subscribe, watch the operator, and return the chosen views with their focal lengths.

    Blocks; the topics are read in this thread. An executor would read them too, but it fails when
    another thread removes a subscription just as it gathers what to wait for (ros2/rclpy#1284).

    Raises:
        BuildError: Not enough views in time; the message says what is missing.
        BuildCancelledError: `cancelled` returned True.
    """
    topic, kind = ("image_raw", Image)
    if config.compressed:
        topic, kind = ("image_raw/compressed", CompressedImage)
    images = NewestMessage(node, kind, topic)
    infos = NewestMessage(node, CameraInfo, "camera_info")
    try:
        with FaceTracker(config.model_path or None, smoothing=None) as tracker:
            watch = _Watch(node, config, tracker)
            return watch.run(images, infos, report, cancelled)
    finally:
        images.close()
        infos.close()


class _Watch:
    """One capture: offers every image to the selector until enough views are there."""

    def __init__(self, node: ManagedNode, config: CaptureConfig, tracker: FaceTracker) -> None:
        self._node, self._config, self._tracker = node, config, tracker
        self._selector = FrameSelector(config.num_views)
        self._focal_px: float | None = None
        self._info: CameraInfo | None = None
        self._num_images = 0
        self._last_reason = ""

    def run(
        self,
        images: NewestMessage,
        infos: NewestMessage,
        report: Callable[[CaptureProgress], None],
        cancelled: Callable[[], bool],
    ) -> tuple[list[SelectedFrame], list[float | None]]:
        end_s = time.monotonic() + self._config.timeout_s
        enough_s = reported_s = None
        while True:
            now_s = time.monotonic()
            if cancelled():
                raise BuildCancelledError("build cancelled while choosing views")
            if enough_s is not None and now_s >= enough_s + self._config.settle_s:
                frames = self._selector.selected()
                return frames, [self._focal_px] * len(frames)
            if now_s >= end_s:
                raise BuildError(self._missing())
            if reported_s is None or now_s - reported_s >= REPORT_PERIOD_S:
                wanted = self._selector.wanted()
                report(CaptureProgress(len(self._selector.selected()), wanted))
                reported_s = now_s
            self._info = infos.take() or self._info
            msg = images.wait_and_take(0.1)
            if msg is not None and self._offer(msg) and enough_s is None:
                enough_s = time.monotonic()

    def _offer(self, msg: Image | CompressedImage) -> bool:
        """Consider one image; whether there are enough views now."""
        try:
            compressed = isinstance(msg, CompressedImage)
            image = image_from_compressed(msg) if compressed else image_from_msg(msg)
            intrinsics = None
            if self._info is not None:
                height, width = image.shape[:2]
                intrinsics = intrinsics_from_camera_info(self._info, width, height)
            face = self._tracker.track(image, stamp_s_from_msg(msg.header.stamp), intrinsics)
            status = self._selector.offer(image, face)
        except ValueError as error:
            self._node.refuse("image", error)
            return False
        self._num_images += 1
        self._focal_px = None if intrinsics is None else float(intrinsics[0, 0])
        self._last_reason = status.reason or self._last_reason
        return status.complete

    def _missing(self) -> str:
        if not self._num_images:
            return (
                f"no image arrived within {self._config.timeout_s:g} s; is a camera publishing on "
                "the builder's image_raw?"
            )
        found = len(self._selector.selected())
        wanted = "; ".join(self._selector.wanted()) or self._last_reason
        return (
            f"only {found} of {self._config.num_views} views within {self._config.timeout_s:g} s "
            f"of {self._num_images} images; still wanted: {wanted}"
        )
