"""The viewer as the renderer hears of it: poses by topic or TF, and the headset's calibrations.

viewer_pose ─────────────────────┐ [listen()] ┌──► ViewerMotion ──latch()──► render thread
viewer/{left,right}/camera_info ─┘            └──► Eyes ─────────eyes──────►
TF (looked up by latch()) ───────────────────────► ViewerMotion
"""

import threading
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from jaxtyping import Float
from sensor_msgs.msg import CameraInfo

from avat3r_ros.geometry import invert_pose
from avat3r_ros.nodes.conversions import (
    HEAD_FROM_FACE,
    intrinsics_from_camera_info,
    stamp_s_from_msg,
    viewer_from_body_from_msg,
)
from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.nodes.transforms import TransformReader
from avat3r_ros.nodes.viewer_motion import ViewerConfig, ViewerMotion
from avat3r_ros.nodes.viewpoint import Eyes, ViewConfig, default_viewer_from_body

CALIBRATION_S = 0.2
"""Without poses, calibrations are looked for so often."""

MAX_IPD_M = 0.2
"""Calibrations that put the eyes farther apart are not those of a headset."""


class ViewerInput:
    """Listens for one viewer: `listen` in a thread of its own, `latch` in the render thread.

    Args:
        node: Gets the subscriptions, and hears of refused messages.
        view: Size, and projections until calibrations arrive.
        viewer: How poses are carried on.
        body_frame: The avatar's head frame at rest.
        viewer_frame: TF frame of the viewer's eyes; empty listens to viewer_pose.
        changed: Called when there is something new to draw for.

    Attributes:
        eyes: Projections of the eyes by now.
    """

    def __init__(
        self,
        node: ManagedNode,
        view: ViewConfig,
        viewer: ViewerConfig,
        body_frame: str,
        viewer_frame: str,
        changed: Callable[[], None],
    ) -> None:
        self._node, self._body_frame, self._viewer_frame = node, body_frame, viewer_frame
        self._changed = changed
        self.eyes = Eyes.of(view)
        self._resting = default_viewer_from_body(view)
        self._motion = ViewerMotion(viewer, eye_offset_m=self.eyes.offsets_m[-1])
        self._display_delay_s = viewer.display_delay_s
        self._transforms = TransformReader(node) if viewer_frame else None
        self._transform_stamp_s = -1.0
        self._poses = NewestMessage(node, PoseStamped, "viewer_pose")
        self._calibrations = [
            NewestMessage(node, CameraInfo, f"viewer/{eye}camera_info")
            for eye in (view.eyes if view.camera_info else ())
        ]

    def listen(self, stop: threading.Event) -> None:
        """Take poses as they come, and calibrations with them, until `stop` is set."""
        while not stop.is_set():
            pose = self._poses.wait_and_take(CALIBRATION_S)
            if pose is not None:
                self._on_pose(pose)
            for index, inbox in enumerate(self._calibrations):
                calibration = inbox.take()
                if calibration is not None:
                    self._on_calibration(index, calibration)

    def wake(self) -> None:
        """End the wait of `listen`."""
        self._poses.wake()

    def close(self) -> None:
        """Remove the subscriptions; `listen` has ended."""
        for inbox in (self._poses, *self._calibrations):
            inbox.close()

    def latch(self, lead_s: float) -> Float[np.ndarray, "4 4"]:
        """viewer_from_body at the time at which an image is seen that is published in `lead_s`."""
        if self._transforms is not None:
            self._look_up()
        body_from_viewer = self._motion.at(self._now_s() + lead_s + self._display_delay_s)
        return self._resting if body_from_viewer is None else invert_pose(body_from_viewer)

    def moving(self) -> bool:
        """Whether poses are coming in."""
        return self._motion.moving(self._now_s())

    def _now_s(self) -> float:
        """The clock of the stamps."""
        return self._node.get_clock().now().nanoseconds * 1e-9

    def _on_pose(self, msg: PoseStamped) -> None:
        if self._transforms is not None:
            self._node.refuse(
                "viewer_pose", f"the viewer is read from TF frame {self._viewer_frame!r} instead"
            )
            return
        if msg.header.frame_id not in ("", self._body_frame):
            self._node.refuse(
                "viewer_pose",
                f"expected frame {self._body_frame!r}, got {msg.header.frame_id!r} (for other "
                "frames set viewer_frame, which uses TF)",
            )
            return
        try:
            pose = invert_pose(viewer_from_body_from_msg(msg.pose))
            self._motion.observe(pose, stamp_s_from_msg(msg.header.stamp), self._now_s())
        except ValueError as error:
            self._node.refuse("viewer_pose", error)
            return
        self._changed()

    def _look_up(self) -> None:
        """Take the viewer's newest pose from TF, if it is another one than before."""
        try:
            found = self._transforms.newest(self._body_frame, self._viewer_frame)
            if found is not None and found[1] != self._transform_stamp_s:
                pose, self._transform_stamp_s = found
                self._motion.observe(HEAD_FROM_FACE @ pose, found[1], self._now_s())
        except ValueError as error:
            self._node.refuse("viewer_frame", error)

    def _on_calibration(self, index: int, msg: CameraInfo) -> None:
        try:
            intrinsics = intrinsics_from_camera_info(msg, msg.width, msg.height)
            if intrinsics is None or msg.width == 0 or msg.height == 0:
                raise ValueError(
                    f"expected a calibration, got size {msg.width}x{msg.height} and K {msg.k}"
                )
            baseline_m = None
            if index == 1 and msg.p[0] > 0 and msg.p[3] != 0:
                baseline_m = -float(msg.p[3] / msg.p[0])
                if not 0 < baseline_m <= MAX_IPD_M:
                    raise ValueError(
                        f"expected eyes at most {MAX_IPD_M} m apart, the right one to the right, "
                        f"got {baseline_m:g} m in P"
                    )
            eyes = self.eyes.with_calibration(
                index, intrinsics, msg.width, msg.height, baseline_m=baseline_m
            )
        except ValueError as error:
            self._node.refuse("viewer camera_info", error)
            return
        same = np.array_equal(eyes.intrinsics, self.eyes.intrinsics)
        if not same or eyes.offsets_m != self.eyes.offsets_m:
            self.eyes = eyes
            self._changed()
