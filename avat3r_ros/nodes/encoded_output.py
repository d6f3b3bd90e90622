"""Compressed images, encoded beside the render thread; only the newest frame is ever encoded.

    render thread ──newest frame──► encode thread ─┬─ image_raw/compressed  JPEG
                                                   └─ image_raw/video       VP9 or H.264

Nothing is encoded that nobody listens to. A new listener of the video gets a keyframe at once.
"""

import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from avat3r_ros.nodes.images import compressed_from_image, compressed_from_packet
from avat3r_ros.nodes.mailbox import Mailbox
from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.streaming import CODECS, VideoEncoder

TO_RGB = {"bgr8": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB}
WAIT_S = 0.2


@dataclass(frozen=True)
class EncodingConfig:
    """Parameters of compressed images.

    Attributes:
        jpeg_quality: Of image_raw/compressed; 0 does not offer it. Encoded while somebody listens.
        video: "vp9" (libvpx, BSD) or "h264" offers image_raw/video; empty does not.
        video_encoder: FFmpeg's name; "auto" takes what is there and has a clear licence. H.264 on a
            CPU needs "libx264" here, which is GPL-2.0-or-later.
        kbit_per_s: Bit rate of the video, of each eye.
        keyframe_every: Frames from one keyframe to the next; less: a lost packet is forgotten
            sooner, more: fewer bits.
        foxglove: Send the video as foxglove_msgs/CompressedVideo (must be installed) instead of
            CompressedImage with the codec's name as format.
    """

    jpeg_quality: int = ranged(85, 0, 100)
    video: str = ""
    video_encoder: str = "auto"
    kbit_per_s: int = ranged(4000, 100, 100000)
    keyframe_every: int = ranged(30, 1, 600)
    foxglove: bool = False

    def __post_init__(self) -> None:
        if self.video not in ("", *CODECS):
            raise ValueError(f"expected video of '' or {sorted(CODECS)}, got {self.video!r}")


@dataclass(frozen=True)
class Picture:
    """One finished image of one eye; nobody writes to its pixels any more."""

    pixels: UInt8[np.ndarray, "h w c"]
    encoding: str
    header: Header
    handed_over_s: float


class EncodedOutput:
    """Publishes one eye's images compressed.

    Args:
        node: Gets publishers and worker.
        eye: Topic prefix: "", "left/" or "right/".
        config: What is offered.
        size: Width and height of the images, pixels.
        rate_hz: Frames per second to expect.
        qos: Of both topics.

    Raises:
        RuntimeError: No encoder of the wanted video works, or foxglove_msgs is not installed.
        ValueError: An odd size, which video cannot have.
    """

    def __init__(
        self,
        node: ManagedNode,
        eye: str,
        config: EncodingConfig,
        size: tuple[int, int],
        rate_hz: float,
        qos: QoSProfile,
    ) -> None:
        self._node, self._eye, self._config = node, eye, config
        self._newest: Mailbox[Picture] = Mailbox()
        self._jpeg = self._video = self._encoder = None
        self._listeners = 0
        make = node.create_lifecycle_publisher
        if config.video:
            self._encoder = VideoEncoder(
                config.video,
                *size,
                rate_hz=rate_hz,
                kbit_per_s=config.kbit_per_s,
                keyframe_every=config.keyframe_every,
                encoder=config.video_encoder,
            )
            kind = _foxglove_video() if config.foxglove else CompressedImage
            self._video = make(kind, f"{eye}image_raw/video", qos)
        if config.jpeg_quality:
            self._jpeg = make(CompressedImage, f"{eye}image_raw/compressed", qos)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return any(p.get_subscription_count() for p in (self._jpeg, self._video) if p is not None)

    def start(self) -> None:
        """Encode from now on, until the node's workers are stopped."""
        self._newest.take()  # of before a pause
        if self._jpeg is not None or self._video is not None:
            self._node.start_worker(f"encode-{self._eye.strip('/') or 'mono'}", self._work)

    def offer(self, pixels: UInt8[np.ndarray, "h w c"], encoding: str, header: Header) -> None:
        """Hand a finished image over; it must not be changed afterwards."""
        self._newest.put(Picture(pixels, encoding, header, time.monotonic()))

    def close(self) -> None:
        """Remove the publishers; the worker has ended."""
        for publisher in (self._jpeg, self._video):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)

    def wake(self) -> None:
        """End the worker's wait."""
        self._newest.bell.set()

    def _work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            picture = self._newest.wait_and_take(WAIT_S)
            if picture is None or stop.is_set():
                continue
            try:
                self._encode(picture)
            except (ValueError, RuntimeError) as error:
                self._node.refuse("frame to encode", error)  # the raw images go on

    def _encode(self, picture: Picture) -> None:
        rgb = picture.pixels
        if picture.encoding in TO_RGB:
            rgb = cv2.cvtColor(rgb, TO_RGB[picture.encoding])
        if self._jpeg is not None and self._jpeg.get_subscription_count():
            self._send_jpeg(rgb, picture.header)
        if self._video is not None:
            self._send_video(rgb, picture)
        self._node.times.record("rendered to encoded", time.monotonic() - picture.handed_over_s)

    def _send_jpeg(self, rgb: np.ndarray, header: Header) -> None:
        with self._node.times.measure("encode jpeg"):
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            msg = compressed_from_image(bgr, self._config.jpeg_quality, header)
        self._jpeg.publish(msg)

    def _send_video(self, rgb: np.ndarray, picture: Picture) -> None:
        listeners = self._video.get_subscription_count()
        if listeners > self._listeners:
            self._encoder.request_keyframe()
        self._listeners = listeners
        if not listeners:
            return
        with self._node.times.measure(f"encode {self._config.video}"):
            # Not the stamp: several frames may show one image, and bits are shared out by the time.
            packet = self._encoder.encode(rgb, picture.handed_over_s)
        wrap = _foxglove_msg if self._config.foxglove else compressed_from_packet
        self._video.publish(wrap(packet, self._config.video, picture.header))


def _foxglove_video() -> type:
    try:
        from foxglove_msgs.msg import CompressedVideo
    except ImportError:
        raise RuntimeError(
            "encoding.foxglove needs foxglove_msgs (apt-get install "
            "ros-$ROS_DISTRO-foxglove-msgs); without it the same packets come as CompressedImage"
        ) from None
    return CompressedVideo


def _foxglove_msg(packet: bytes, codec: str, header: Header):
    msg = _foxglove_video()(timestamp=header.stamp, frame_id=header.frame_id, format=codec)
    msg.data = compressed_from_packet(packet, codec, header).data
    return msg
