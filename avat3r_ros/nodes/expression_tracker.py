"""Turns camera images into expression messages.

Subscribes: image_raw or image_raw/compressed, camera_info. Publishes: expression, TF (option).
Services: ~/calibrate, ~/enable.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from avat3r_ros.nodes.conversions import (
    expression_from_face,
    intrinsics_from_camera_info,
    stamp_s_from_msg,
)
from avat3r_ros.nodes.expression_topics import ExpressionPublisher
from avat3r_ros.nodes.frame_times import FrameTimes
from avat3r_ros.nodes.hand_over import LocalImage
from avat3r_ros.nodes.images import image_from_compressed, image_from_msg
from avat3r_ros.nodes.mailbox import Mailbox
from avat3r_ros.nodes.managed import ManagedNode, run
from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.nodes.parameters import ranged, threads
from avat3r_ros.nodes.transforms import TransformSender
from avat3r_ros.tracking import FaceTracker, SmoothingConfig
from avat3r_ros.types import FaceState

CALIBRATION_S = 1.5
CLOCK_SET_BACK_S = 0.5
"""After this long with nothing but stamps from the past, the camera's clock has been set back."""


@dataclass(frozen=True)
class TrackerConfig:
    """Parameters of the expression tracker.

    Attributes:
        model_path: face_landmarker.task; searched for if empty.
        max_faces: Faces looked for; the largest is tracked, the others are only counted.
        smooth: Remove jitter (smoothing.*); off passes measurements through.
        full_range: Stretch scores so that 1 is the full movement, and learn the driver's range; off
            passes the landmarker's scores above rest.
        compressed: Subscribe to image_raw/compressed instead of image_raw.
        publish_tf: Broadcast the face's frame face_<face_id> (REP-155); needs ROS's tf2_ros.
        face_id: Identifier in the name of the face's frame.
        num_threads: Threads of the networks that follow the face; 0 takes half of the cores, but
            two where there are two.
    """

    model_path: str = ""
    max_faces: int = ranged(2, 1, 8)
    smooth: bool = True
    full_range: bool = True
    compressed: bool = False
    publish_tf: bool = False
    face_id: str = "operator"
    num_threads: int = ranged(0, 0, 64)


class ExpressionTrackerNode(ManagedNode):
    """See the module."""

    def __init__(self, **options: object) -> None:
        configs = {"": TrackerConfig, "smoothing.": SmoothingConfig}
        super().__init__("expression_tracker", configs, **options)
        self._images: Mailbox[LocalImage] | NewestMessage = Mailbox()
        self._infos: Mailbox[CameraInfo] | NewestMessage = Mailbox()
        self._info: CameraInfo | None = None
        self._enabled = True
        self._tracker_lock = threading.Lock()
        self._states: deque[FaceState] = deque(maxlen=300)
        self._problem = "no image has arrived yet"
        self._newest_stamp_s = self._newest_arrival_s = -np.inf

    def configure(self) -> None:
        """Load the model and create the interface."""
        config: TrackerConfig = self.config()
        smoothing = self.config("smoothing.") if config.smooth else None
        self._tracker = self.make_tracker(config, smoothing)
        self._transforms = TransformSender(self) if config.publish_tf else None
        self._config = config
        self._publisher = ExpressionPublisher(self)
        image = ("image_raw", Image)
        if config.compressed:
            image = ("image_raw/compressed", CompressedImage)
        self._images = Mailbox()
        if self.local.carries(image[0]):
            self.local.listen(image[0], self._on_local_image)
        else:
            self._images = NewestMessage(self, image[1], image[0])
        self._infos = Mailbox()
        if self.local.carries("camera_info"):
            self.local.listen("camera_info", self._on_local_info)
        else:
            self._infos = NewestMessage(self, CameraInfo, "camera_info")
        self._services_made = [
            self.create_service(Trigger, "~/calibrate", self._on_calibrate),
            self.create_service(SetBool, "~/enable", self._on_enable),
        ]

    def make_tracker(self, config: TrackerConfig, smoothing: SmoothingConfig | None) -> FaceTracker:
        """Create the tracker; a test puts its own here."""
        return FaceTracker(
            config.model_path or None,
            smoothing=smoothing,
            max_faces=config.max_faces,
            full_range=config.full_range,
            num_threads=threads(config.num_threads),
        )

    def activate(self) -> None:
        """Start tracking the newest image."""
        self.start_worker("track", self._track)

    def cleanup(self) -> None:
        """Free the tracker and the interface."""
        self._tracker.close()
        self._publisher.close()
        self.local.leave("image_raw", self._on_local_image)
        self.local.leave("camera_info", self._on_local_info)
        for inbox in (self._images, self._infos):
            if isinstance(inbox, NewestMessage):
                inbox.close()
        self._images, self._infos = Mailbox(), Mailbox()
        for service in self._services_made:
            self.destroy_service(service)

    def wake_workers(self) -> None:
        """End the wait for an image."""
        self._images.wake()

    def health(self) -> tuple[bytes, str]:
        """Warn while there is nothing to track."""
        if not self.is_active:
            return super().health()
        if not self._enabled:
            return DiagnosticStatus.OK, "disabled by ~/enable"
        if self._problem:
            return DiagnosticStatus.WARN, self._problem
        return DiagnosticStatus.OK, f"tracking at {self.times.rate_hz('track'):.0f} images/s"

    def _on_local_image(self, image: LocalImage) -> None:
        if self.is_active and self._enabled:
            self._images.put(image)

    def _on_local_info(self, msg: CameraInfo) -> None:
        self._infos.put(msg)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response):
        self._enabled = request.data
        response.success = True
        response.message = "tracking" if request.data else "idle; images are ignored"
        return response

    def _on_calibrate(self, _: Trigger.Request, response: Trigger.Response):
        """Take the last moments as the resting face: relax first, then call."""
        with self._tracker_lock:
            states = list(self._states)
            recent = [s for s in states if s.stamp_s >= states[-1].stamp_s - CALIBRATION_S]
            try:
                self._tracker.calibrate_neutral(recent)
            except ValueError as error:
                response.message = str(error)
                return response
        response.success = True
        response.message = f"neutral face taken from the last {len(recent)} images"
        return response

    def _track(self, stop: threading.Event) -> None:
        self._images.take()  # of before the activation
        while not stop.is_set():
            msg = self._images.wait_and_take(0.2)
            if msg is None or not self._enabled or stop.is_set():
                continue
            try:
                with self.times.measure("decode"):
                    if isinstance(msg, LocalImage):
                        image = msg.pixels
                    elif isinstance(msg, CompressedImage):
                        image = image_from_compressed(msg)
                    else:
                        image = image_from_msg(msg)
                with self.times.measure("track"), self._tracker_lock:
                    face = self._track_one(image, stamp_s_from_msg(msg.header.stamp))
            except ValueError as error:
                self.refuse("image", error)
                continue
            self._problem = "" if face.detected else "no face in the image"
            expression = expression_from_face(face, msg.header)
            self.local.give("expression", expression)
            self._publisher.publish(expression)
            if face.detected and self._transforms is not None:
                self._transforms.send_face(face, msg.header, f"face_{self._config.face_id}")
            self._record_age(face.stamp_s)

    def _track_one(self, image: np.ndarray, stamp_s: float) -> FaceState:
        now_s = time.monotonic()  # our own clock may be set as well
        if stamp_s < self._newest_stamp_s:
            if now_s - self._newest_arrival_s < CLOCK_SET_BACK_S:
                raise ValueError(
                    f"stamp {stamp_s:.3f} s lies before the last one, {self._newest_stamp_s:.3f} s"
                )
            self.get_logger().warning("the camera's clock was set back; starting afresh")
            self._tracker.reset()
            self._states.clear()
        intrinsics = None
        self._info = self._infos.take() or self._info
        if self._info is not None:
            try:
                height, width = image.shape[:2]
                intrinsics = intrinsics_from_camera_info(self._info, width, height)
            except ValueError as error:
                self.refuse("camera_info", error)
        face = self._tracker.track(image, stamp_s, intrinsics)
        self._newest_stamp_s, self._newest_arrival_s = stamp_s, now_s
        self._states.append(face)
        return face

    def _record_age(self, stamp_s: float) -> None:
        """Time since the image was taken, where the camera's clock is ours."""
        FrameTimes(captured_s=stamp_s).now("tracked").record(self.times)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process of its own."""
    torch.set_num_threads(1)  # the cores belong to animation and rendering
    return run(ExpressionTrackerNode, args)
