"""Publishes images of a webcam, a video file, or the synthetic operator.

Publishes: image_raw, image_raw/compressed (option), camera_info, ~/truth (option, synthetic only).
"""

import threading
from dataclasses import dataclass

import numpy as np
import torch
from avat3r.msg import Expression
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from avat3r_ros.data.operator import OperatorTruth
from avat3r_ros.geometry import intrinsics_matrix
from avat3r_ros.nodes.conversions import camera_info_from_camera, expression_from_face
from avat3r_ros.nodes.hand_over import LocalImage
from avat3r_ros.nodes.images import compressed_from_image, msg_from_image
from avat3r_ros.nodes.managed import ManagedNode, run
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.nodes.qos import ImageQosConfig
from avat3r_ros.nodes.sources import ImageSource, SourceLostError, Synthetic, open_source
from avat3r_ros.types import Camera, FaceState

RETRY_S = 2.0


@dataclass(frozen=True)
class CameraConfig:
    """Parameters of the camera node.

    Attributes:
        source: "synthetic", a camera (0, /dev/video0) or a video file; "flashing" is the operator
            of `avat3r latency`, whose mouth jumps open and shut.
        width: Wanted image width in pixels; a video keeps its own size.
        height: Wanted image height in pixels.
        fps: Wanted frames per second; a video keeps its own rate.
        loop: Start a video file again at its end.
        seed: Which person the synthetic operator is.
        focal_px: Focal length in pixels for camera_info; 0 where it is not known.
        frame_id: The camera's optical frame.
        compressed_quality: JPEG quality of image_raw/compressed; 0 does not publish it.
        publish_truth: Publish on ~/truth what the synthetic operator really does, for scores.
    """

    source: str = "synthetic"
    width: int = ranged(640, 64, 4096)
    height: int = ranged(480, 64, 4096)
    fps: float = ranged(30.0, 1.0, 240.0)
    loop: bool = True
    seed: int = ranged(0, 0, 2**31 - 1)
    focal_px: float = ranged(0.0, 0.0, 100000.0)
    frame_id: str = "camera_optical_frame"
    compressed_quality: int = ranged(0, 0, 100)
    publish_truth: bool = False


class CameraNode(ManagedNode):
    """See the module."""

    def __init__(self, **options: object) -> None:
        super().__init__("camera", {"": CameraConfig, "qos.": ImageQosConfig}, **options)
        self._problem = ""

    def configure(self) -> None:
        """Create the publishers; the source is opened when the node is activated."""
        self._config: CameraConfig = self.config()
        make, qos = self.create_lifecycle_publisher, self.config("qos.").profile()
        self._image = make(Image, "image_raw", qos)
        self._info = make(CameraInfo, "camera_info", qos)
        self._compressed = make(CompressedImage, "image_raw/compressed", qos)
        self._truth = make(Expression, "~/truth", qos_profile_sensor_data)

    def activate(self) -> None:
        """Start grabbing."""
        self.start_worker("grab", self._grab)

    def cleanup(self) -> None:
        """Remove the publishers."""
        for publisher in (self._image, self._info, self._compressed, self._truth):
            self.destroy_lifecycle_publisher(publisher)

    def health(self) -> tuple[bytes, str]:
        """An absent source is an error that may pass."""
        if self._problem:
            return DiagnosticStatus.ERROR, self._problem
        return super().health()

    def _grab(self, stop: threading.Event) -> None:
        """Open, read and publish; a source that is not there is tried again every RETRY_S."""
        config = self._config
        while not stop.is_set():
            source = None
            try:
                source = open_source(
                    config.source,
                    width=config.width,
                    height=config.height,
                    fps=config.fps,
                    loop=config.loop,
                    seed=config.seed,
                )
                if not self._publish_all(source, stop):
                    self.get_logger().info(f"{config.source} has ended")
                    return
            except SourceLostError as error:
                if str(error) != self._problem:
                    self.get_logger().error(f"{error}; trying again every {RETRY_S:g} s")
                self._problem = str(error)
            finally:
                if source is not None:
                    source.close()
            stop.wait(RETRY_S)

    def _publish_all(self, source: ImageSource, stop: threading.Event) -> bool:
        """Publish until told to stop (True) or the source ends (False)."""
        config = self._config
        while not stop.is_set():
            with self.times.measure("grab"):
                image = source.read()
            if image is None:
                return False
            if self._problem:
                self.get_logger().info(f"{config.source} gives images again")
                self._problem = ""
            with self.times.measure("publish"):
                header = Header(stamp=self.get_clock().now().to_msg(), frame_id=config.frame_id)
                self.local.give("image_raw", LocalImage(image, header))
                if self._image.get_subscription_count():
                    self._image.publish(msg_from_image(image, "rgb8", header))
                self._publish_info(source, image.shape[1], image.shape[0], header)
                if config.publish_truth and isinstance(source, Synthetic):
                    self._truth.publish(expression_from_truth(source.truth, header))
                if config.compressed_quality:
                    bgr = image[:, :, ::-1]
                    quality = config.compressed_quality
                    self._compressed.publish(compressed_from_image(bgr, quality, header))
        return True

    def _publish_info(self, source: ImageSource, width: int, height: int, header: Header) -> None:
        intrinsics = source.intrinsics
        if self._config.focal_px > 0:
            intrinsics = intrinsics_matrix(self._config.focal_px, width / 2, height / 2)
        if intrinsics is None:
            info = CameraInfo(header=header, width=width, height=height)
        else:
            camera = Camera(torch.as_tensor(intrinsics), torch.eye(4), width, height)
            info = camera_info_from_camera(camera, header)
        self.local.give("camera_info", info)
        self._info.publish(info)


def expression_from_truth(truth: OperatorTruth, header: Header) -> Expression:
    """Pack what the synthetic operator really does, as the tracker would have sent it."""
    face = FaceState(
        stamp_s=0.0,
        detected=True,
        confidence=1.0,
        code=truth.code,
        gaze=np.zeros(2, np.float32),
        camera_from_head=truth.camera.camera_from_head.double().numpy(),
        landmarks_px=np.zeros((0, 2), np.float32),
    )
    return expression_from_face(face, header)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process of its own."""
    torch.set_num_threads(1)  # the cores belong to animation and rendering
    return run(CameraNode, args)
