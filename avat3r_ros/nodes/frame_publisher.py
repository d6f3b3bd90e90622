"""What leaves the renderer: images of one or two eyes with their cameras, depth, status, points."""

import time
from dataclasses import dataclass

import numpy as np
from avat3r.msg import RendererStatus
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from jaxtyping import UInt8
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from avat3r_ros.nodes.conversions import (
    camera_info_from_camera,
    msg_from_viewer_from_body,
    point_cloud_from_gaussians,
)
from avat3r_ros.nodes.encoded_output import EncodedOutput, EncodingConfig
from avat3r_ros.nodes.frame_times import FrameTimes, msg_from_frame_times
from avat3r_ros.nodes.images import msg_from_image
from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.overlay import draw_badge, veil_over
from avat3r_ros.nodes.parameters import ranged
from avat3r_ros.nodes.qos import LATCHED, ImageQosConfig
from avat3r_ros.nodes.scene_renderer import Frame, Scene
from avat3r_ros.nodes.viewpoint import ViewConfig, placeholder_picture
from avat3r_ros.types import Gaussians

NOBODY_TEXT = "nobody there"
"""Words of the placeholder that follows a long silence."""


@dataclass(frozen=True)
class OutputConfig:
    """Parameters of what is published.

    Attributes:
        frame_id: The avatar's head frame at rest (REP-155 axes), in which viewer poses are given.
        badge: Mark pictures that do not show the operator's present face (HOLD, NEUTRAL) with a dot
            and a word in the upper right corner.
        depth: Publish depth/image_raw (32FC1, metres) of each eye.
        points_rate_hz: Rate of ~/gaussians while somebody listens; 0 never.
    """

    frame_id: str = "avatar"
    badge: bool = True
    depth: bool = False
    points_rate_hz: float = ranged(1.0, 0.0, 30.0)


class FramePublisher:
    """Publishes finished frames; one thread at a time.

    Args:
        node: Gets the publishers.
        view: Size and eyes.
        output: What is published.
        encoding: What is offered compressed.
        qos: Of the images.
        rate_hz: Frames per second to expect.

    Raises:
        RuntimeError: See EncodedOutput.
        ValueError: See EncodedOutput.
    """

    def __init__(
        self,
        node: ManagedNode,
        view: ViewConfig,
        output: OutputConfig,
        encoding: EncodingConfig,
        qos: ImageQosConfig,
        rate_hz: float,
    ) -> None:
        self._node, self._view, self._output = node, view, output
        self._publishers: list = []
        profile, size = qos.profile(), (view.width, view.height)
        self._images = {eye: self._make(Image, f"{eye}image_raw", profile) for eye in view.eyes}
        self._infos = {
            eye: self._make(CameraInfo, f"{eye}camera_info", profile) for eye in view.eyes
        }
        self._encoded = {
            eye: EncodedOutput(node, eye, encoding, size, rate_hz, profile) for eye in view.eyes
        }
        depth_eyes = view.eyes if output.depth else ()
        self._depths = {
            eye: self._make(Image, f"{eye}depth/image_raw", profile) for eye in depth_eyes
        }
        self._pose = self._make(PoseStamped, "~/render_pose")
        self._points = self._make(PointCloud2, "~/gaussians")
        self._times = self._make(DiagnosticArray, "~/frame_times")
        self._status = self._make(RendererStatus, "~/status", LATCHED)
        self._points_sent_s = -np.inf
        self._placeholder = placeholder_picture(view.width, view.height, NOBODY_TEXT)

    @property
    def body_frame(self) -> str:
        """Frame in which viewers are placed."""
        return self._output.frame_id

    def start(self) -> None:
        """Let the encoders work, until the node's workers are stopped."""
        for encoded in self._encoded.values():
            encoded.start()

    def wake(self) -> None:
        """End the encoders' waits."""
        for encoded in self._encoded.values():
            encoded.wake()

    def close(self) -> None:
        """Remove the publishers."""
        for encoded in self._encoded.values():
            encoded.close()
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, frame: Frame, scene: Scene, stamp: Time) -> None:
        """Publish the images of all eyes, their cameras, the viewer pose and the depth.

        Nothing is made that nobody listens to: making a message costs more than sending it.
        """
        for i, eye in enumerate(self._view.eyes):
            header = self._header(eye, stamp)
            self._publish_image(eye, frame.images[i], frame.encoding, scene, header)
            if self._infos[eye].get_subscription_count():
                baseline_m = frame.baselines_m[i]
                info = camera_info_from_camera(frame.cameras[i], header, baseline_m=baseline_m)
                self._infos[eye].publish(info)
            wanted = eye in self._depths and self._depths[eye].get_subscription_count()
            if wanted and frame.depth_m is not None:
                self._depths[eye].publish(msg_from_image(frame.depth_m[i], "32FC1", header))
        if self._pose.get_subscription_count():
            pose = PoseStamped(header=Header(stamp=stamp, frame_id=self.body_frame))
            pose.pose = msg_from_viewer_from_body(frame.viewer_from_body)
            self._pose.publish(pose)

    def publish_points(self, gaussians: Gaussians, stamp: Time) -> None:
        """Publish the Gaussians as points while somebody listens, at `points_rate_hz`."""
        rate = self._output.points_rate_hz
        if rate == 0 or self._points.get_subscription_count() == 0:
            return
        if time.monotonic() - self._points_sent_s >= 1 / rate:
            self._points_sent_s = time.monotonic()
            header = Header(stamp=stamp, frame_id=self.body_frame)
            self._points.publish(point_cloud_from_gaussians(gaussians, header))

    def publish_times(self, times: FrameTimes, stamp: Time) -> None:
        """Note when a frame with a new expression passed each stage; publish it if asked for."""
        times.record(self._node.times)
        if self._times.get_subscription_count():
            self._times.publish(msg_from_frame_times(times, stamp))

    def publish_status(self, **fields: object) -> None:
        """Publish ~/status with the given fields."""
        msg = RendererStatus(**fields)
        msg.header.stamp = self._node.get_clock().now().to_msg()
        self._status.publish(msg)

    def _publish_image(
        self, eye: str, image: np.ndarray, encoding: str, scene: Scene, header: Header
    ) -> None:
        """Send one eye's image, raw and to the encoder, as far as anybody listens."""
        raw = self._images[eye].get_subscription_count() > 0
        encoded = self._encoded[eye].is_wanted
        if not (raw or encoded):
            return
        msg = msg_from_image(image, encoding, header)
        # The message's own pixels: the renderer may warp or reuse `image`.
        pixels = np.frombuffer(msg.data, np.uint8).reshape(image.shape)
        self._lay_over(pixels, encoding, scene)
        if raw:
            self._images[eye].publish(msg)
        if encoded:
            self._encoded[eye].offer(pixels, encoding, header)

    def _lay_over(self, pixels: UInt8[np.ndarray, "h w c"], encoding: str, scene: Scene) -> None:
        """Veil and badge, where the picture is not the operator's present face."""
        if scene.gaussians is None:
            return
        if scene.veil > 0:
            veil_over(pixels, self._placeholder, scene.veil)
        if self._output.badge:
            draw_badge(pixels, scene.state, encoding)

    def _make(self, kind: type, topic: str, qos: QoSProfile = qos_profile_sensor_data):
        publisher = self._node.create_lifecycle_publisher(kind, topic, qos)
        self._publishers.append(publisher)
        return publisher

    def _header(self, eye: str, stamp: Time) -> Header:
        name = eye.strip("/") or "viewer"
        return Header(stamp=stamp, frame_id=f"{self.body_frame}_{name}_optical_frame")
