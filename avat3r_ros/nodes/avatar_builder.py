"""Builds an avatar from photos or from the camera topic, and publishes it once.

Subscribes (while it builds from the topic): image_raw or image_raw/compressed, camera_info.
Publishes: avatar, ~/status. Action: ~/build. Services: ~/load, ~/save.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from avat3r.action import BuildAvatar
from avat3r.msg import Avatar as AvatarMsg
from avat3r.msg import BuilderStatus
from avat3r.srv import AvatarFile
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_msgs.msg import Header

from avat3r_ros.animation import compile_avatar, is_compiled, quick
from avat3r_ros.avatar_file import load_avatar, save_avatar
from avat3r_ros.nodes.conversions import msg_from_avatar
from avat3r_ros.nodes.managed import EXPECTED_ERRORS, ManagedNode, run
from avat3r_ros.nodes.qos import LATCHED
from avat3r_ros.nodes.view_capture import CaptureConfig, CaptureProgress, capture_views
from avat3r_ros.pipeline import (
    BuildCancelledError,
    BuildResult,
    build_avatar_from_images,
    build_avatar_from_photos,
)
from avat3r_ros.types import Avatar

Report = Callable[[str, float, CaptureProgress | None], None]


@dataclass(frozen=True)
class BuilderConfig:
    """Parameters of the avatar builder.

    Attributes:
        avatar_path: .avat3r file that is loaded and published at activation.
        build_on_start: Without avatar_path, build from the image topic at activation.
        output_path: Where an avatar built on start is saved; empty does not save it.
        preset: Network preset.
        trained: Use the preset's shipped weights; false builds on the untrained base guess.
        compiled: Make the compiled animation too, and publish the avatar again with it: the
            renderer then needs a tenth of the time per frame.
    """

    avatar_path: str = ""
    build_on_start: bool = False
    output_path: str = ""
    preset: str = "tiny"
    trained: bool = True
    compiled: bool = True


class AvatarBuilderNode(ManagedNode):
    """See the module. One build at a time; the published avatar stays until the next is there."""

    def __init__(self, **options: object) -> None:
        super().__init__(
            "avatar_builder", {"": BuilderConfig, "capture.": CaptureConfig}, **options
        )
        self._busy = threading.Lock()
        self._avatar: Avatar | None = None
        self._status = BuilderStatus()

    def configure(self) -> None:
        """Create the interface."""
        self._config: BuilderConfig = self.config()
        self._capture: CaptureConfig = self.config("capture.")
        self._publisher = self.create_lifecycle_publisher(AvatarMsg, "avatar", LATCHED)
        self._status_publisher = self.create_lifecycle_publisher(BuilderStatus, "~/status", LATCHED)
        # A build blocks its callback: cancelling and images need to get through beside it.
        self._group = ReentrantCallbackGroup()
        self._services_made = [
            self.create_service(AvatarFile, "~/load", self._on_load, callback_group=self._group),
            self.create_service(AvatarFile, "~/save", self._on_save, callback_group=self._group),
        ]
        self._action = ActionServer(
            self,
            BuildAvatar,
            "~/build",
            execute_callback=self._on_build,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=self._group,
        )

    def activate(self) -> None:
        """Publish what there is, or start building if the parameters say so."""
        if self._avatar is None and self._config.avatar_path:
            self._avatar = load_avatar(self._config.avatar_path)
        if self._avatar is not None:
            self._publish(self._avatar)
        elif self._config.build_on_start:
            self.start_worker("build on start", self._build_on_start)
        else:
            self._report_state(BuilderStatus.EMPTY, "waiting for a build or load request")

    def cleanup(self) -> None:
        """Remove the interface; the avatar is forgotten."""
        self._action.destroy()
        for service in self._services_made:
            self.destroy_service(service)
        for publisher in (self._publisher, self._status_publisher):
            self.destroy_lifecycle_publisher(publisher)
        self._avatar = None

    def health(self) -> tuple[bytes, str]:
        """The last failure is worth a warning."""
        status = self._status
        failed = status.state == BuilderStatus.FAILED
        level = DiagnosticStatus.WARN if failed else DiagnosticStatus.OK
        return level, status.message or f"{status.stage} {status.progress:.0%}"

    # Requests

    def _on_goal(self, goal: BuildAvatar.Goal) -> GoalResponse:
        if not self.is_active or self._busy.locked():
            why = "another build is under way" if self.is_active else "the node is not active"
            self.refuse("build request", why)
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_build(self, handle: ServerGoalHandle) -> BuildAvatar.Result:
        goal: BuildAvatar.Goal = handle.request
        stop = self._stop

        def report(stage: str, progress: float, capture: CaptureProgress | None) -> None:
            feedback = BuildAvatar.Feedback(stage=stage, progress=float(progress))
            if capture is not None:
                feedback.views_chosen = capture.num_views
                feedback.wanted_views = list(capture.wanted)
            handle.publish_feedback(feedback)

        def cancelled() -> bool:
            return handle.is_cancel_requested or stop.is_set()

        start_s = time.monotonic()
        result = BuildAvatar.Result()
        try:
            avatar, warnings = self._build(goal, report, cancelled)
        except BuildCancelledError as error:
            result.message = str(error)
            # Cancelled by the client, or because the node stops working.
            (handle.canceled if handle.is_cancel_requested else handle.abort)()
        except EXPECTED_ERRORS as error:
            result.message = str(error)
            handle.abort()
        else:
            result.success = True
            result.message = "avatar built and published"
            result.avatar_id = avatar.avatar_id
            result.path = goal.output_path
            result.warnings = warnings
            handle.succeed()
        result.duration_s = time.monotonic() - start_s
        return result

    def _build_on_start(self, stop: threading.Event) -> None:
        """Try until an avatar is there: the operator may come later."""
        goal = BuildAvatar.Goal(output_path=self._config.output_path)
        while not stop.is_set():
            try:
                self._build(goal, lambda *_: None, stop.is_set)
            except BuildCancelledError:
                return
            except EXPECTED_ERRORS as error:
                if not self.context.ok():
                    return  # told to end: the publishers are gone
                self.get_logger().warning(f"{error}; trying again")
                stop.wait(1.0)
            else:
                return

    def _on_load(self, request: AvatarFile.Request, response: AvatarFile.Response):
        try:
            avatar = load_avatar(request.path)
        except EXPECTED_ERRORS as error:
            self.refuse("avatar file", error)
            response.message = str(error)
            return response
        self._avatar = avatar
        self._publish(avatar)
        response.success, response.avatar_id = True, avatar.avatar_id
        response.message = f"published {request.path}"
        return response

    def _on_save(self, request: AvatarFile.Request, response: AvatarFile.Response):
        if self._avatar is None:
            response.message = "there is no avatar yet: build or load one first"
            return response
        try:
            saved = save_avatar(self._avatar, request.path)
        except EXPECTED_ERRORS as error:
            response.message = str(error)
            return response
        response.success, response.avatar_id = True, saved.avatar_id
        response.message = f"saved {request.path}"
        return response

    # Work

    def _build(
        self, goal: BuildAvatar.Goal, report: Report, cancelled: Callable[[], bool]
    ) -> tuple[Avatar, list[str]]:
        """Build and publish; the avatar with its id, and its weaknesses."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("another build is under way")
        try:
            return self._build_alone(goal, report, cancelled)
        except BuildCancelledError as error:
            state = BuilderStatus.EMPTY if self._avatar is None else BuilderStatus.READY
            self._report_state(state, str(error))
            raise
        except Exception as error:
            self._report_state(BuilderStatus.FAILED, str(error))
            raise
        finally:
            self._busy.release()

    def _build_alone(
        self, goal: BuildAvatar.Goal, report: Report, cancelled: Callable[[], bool]
    ) -> tuple[Avatar, list[str]]:
        def progress(stage: str, fraction: float, capture: CaptureProgress | None = None) -> None:
            self._report_state(BuilderStatus.BUILDING, "", stage, fraction, capture)
            report(stage, fraction, capture)

        options = {
            "preset": goal.preset or self._config.preset,
            "trained": self._config.trained,
            "progress": progress,
            "cancelled": cancelled,
            "metadata": {"owner": goal.owner} if goal.owner else None,
            # The weights' full path is three times as slow: rather some seconds later than halting.
            "compiled": self._config.compiled and self._config.trained,
        }
        if goal.output_path and not Path(goal.output_path).parent.is_dir():
            raise ValueError(f"{goal.output_path}: the folder does not exist")
        if goal.image_paths:
            from avat3r_ros.capture.photos import load_photo

            photos = [load_photo(path) for path in goal.image_paths]
            built = self.build_from_photos(photos, **options)
        else:
            capture = self._capture
            if goal.num_views:
                capture = replace(capture, num_views=goal.num_views)
            frames, focals = capture_views(
                self, capture, lambda c: progress("choosing views", 0.0, c), cancelled
            )
            with self.times.measure("build"):
                built = self.build_from_images(
                    [frame.image for frame in frames],
                    names=[f"view {i + 1}" for i in range(len(frames))],
                    faces=[frame.face for frame in frames],
                    focals_px=focals,
                    **options,
                )
        avatar = built.avatar
        if goal.output_path:
            avatar = save_avatar(avatar, goal.output_path)
        avatar = self._publish(avatar)
        for warning in built.warnings:
            self.get_logger().warning(warning)
        if self._config.compiled and not is_compiled(avatar):
            path = goal.output_path
            self.start_worker("compile", lambda stop: self._compile_later(avatar, path, stop))
        return avatar, list(built.warnings)

    def _compile_later(self, avatar: Avatar, output_path: str, stop: threading.Event) -> None:
        """Bring the compiled animation after: nobody waits for it to see the head."""

        def progress(stage: str, fraction: float) -> None:
            if stop.is_set() or self._avatar is not avatar:
                raise BuildCancelledError(f"compiling ended during {stage}")

        try:
            with self.times.measure("compile"):
                compiled = self.compile(avatar, progress)
            progress("publishing", 1.0)
            if output_path:
                compiled = save_avatar(compiled, output_path)
        except BuildCancelledError:
            return  # the node stops, or a newer avatar is there
        except EXPECTED_ERRORS as error:
            self.get_logger().warning(f"the avatar stays without compiled animation: {error}")
            return
        self._publish(compiled)

    def compile(self, avatar: Avatar, progress: Callable[[str, float], None]) -> Avatar:
        """The core's quick compilation; a test puts its own here."""
        return compile_avatar(avatar, quick(), progress=progress)

    def build_from_images(self, images: list[np.ndarray], **options: object) -> BuildResult:
        """The core's build; a test puts its own here."""
        return build_avatar_from_images(images, **options)

    def build_from_photos(self, photos: list, **options: object) -> BuildResult:
        """The core's build from loaded photos; a test puts its own here."""
        return build_avatar_from_photos(photos, **options)

    def _publish(self, avatar: Avatar) -> Avatar:
        stamp = self.get_clock().now().to_msg()
        msg = msg_from_avatar(avatar, Header(stamp=stamp))
        self._publisher.publish(msg)
        self._avatar = replace(avatar, avatar_id=msg.avatar_id)
        size_mb = len(msg.data) / 1e6
        text = f"avatar {msg.avatar_id[:12]} published ({size_mb:.1f} MB)"
        self.get_logger().info(text)
        self._report_state(BuilderStatus.READY, text)
        return self._avatar

    def _report_state(
        self,
        state: int,
        message: str,
        stage: str = "",
        progress: float = 0.0,
        capture: CaptureProgress | None = None,
    ) -> None:
        status = BuilderStatus(state=state, message=message, stage=stage, progress=float(progress))
        status.header.stamp = self.get_clock().now().to_msg()
        if self._avatar is not None:
            status.avatar_id = self._avatar.avatar_id
        if capture is not None:
            status.views_chosen = capture.num_views
            status.wanted_views = list(capture.wanted)
        self._status = status
        self._status_publisher.publish(status)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process of its own."""
    torch.set_num_threads(1)  # what is live comes first
    return run(AvatarBuilderNode, args, lambda: MultiThreadedExecutor(num_threads=4))
