"""Renders the avatar with the operator's expression from the viewer's eyes.

    avatar, expression -> [animate thread] -> Scene -> [Display's threads] <- viewer_pose, read late
                                                            |
                             image_raw, camera_info (or left/..., right/...), compressed, depth

Three clocks that never wait for each other: codes come when they come, animation takes the newest
code, rendering the newest scene and the newest viewer pose. Subscribes: avatar, expression,
viewer_pose (or TF). Publishes besides the images: ~/render_pose, ~/status, ~/gaussians.
Services: ~/enable.
"""

import threading
import time
from functools import partial

import numpy as np
import torch
from avat3r.msg import Avatar as AvatarMsg
from avat3r.msg import CompactExpression, Expression
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.event_handler import QoSLivelinessChangedInfo
from std_srvs.srv import SetBool

from avat3r_ros.animation import Animator
from avat3r_ros.nodes.conversions import (
    avatar_from_msg,
    face_from_expression,
    stamp_s_from_msg,
)
from avat3r_ros.nodes.display import Display
from avat3r_ros.nodes.encoded_output import EncodingConfig
from avat3r_ros.nodes.expression_topics import COMPACT_TOPIC, TOPIC, whole_expression
from avat3r_ros.nodes.frame_publisher import NOBODY_TEXT, FramePublisher, OutputConfig
from avat3r_ros.nodes.frame_times import FrameTimes, arrived
from avat3r_ros.nodes.mailbox import Mailbox
from avat3r_ros.nodes.managed import EXPECTED_ERRORS, ManagedNode, run
from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.nodes.parameters import threads
from avat3r_ros.nodes.passthrough import Passthrough
from avat3r_ros.nodes.presence import (
    OperatorPresence,
    Presence,
    PresenceConfig,
    SecondSourceError,
    State,
)
from avat3r_ros.nodes.qos import LATCHED, ImageQosConfig, expression_request
from avat3r_ros.nodes.quality import QualityConfig
from avat3r_ros.nodes.renderer_config import RendererConfig
from avat3r_ros.nodes.scene_renderer import Scene, SceneRenderer
from avat3r_ros.nodes.viewer_input import ViewerInput
from avat3r_ros.nodes.viewer_motion import ViewerConfig
from avat3r_ros.nodes.viewpoint import (
    ViewConfig,
    body_from_turned_head,
    head_turn,
    limited_turn,
)
from avat3r_ros.rendering import FrameRenderer
from avat3r_ros.types import Avatar, Gaussians

TICK_S, EASING_TICK_S = 0.03, 1 / 60
"""How often the animation looks at the clock while nothing arrives; and while the face eases."""

LAG_S = 0.02
"""Silence counts from when the newest code was taken, not from when it came; but from no longer
before than this, as its stamp may be of another clock."""


class AvatarRendererNode(ManagedNode):
    """See the module."""

    def __init__(self, **options: object) -> None:
        configs = {
            "": RendererConfig,
            "view.": ViewConfig,
            "viewer.": ViewerConfig,
            "quality.": QualityConfig,
            "presence.": PresenceConfig,
            "output.": OutputConfig,
            "encoding.": EncodingConfig,
            "qos.": ImageQosConfig,
        }
        super().__init__("avatar_renderer", configs, **options)
        self._animate_bell = threading.Event()
        self._avatars: Mailbox[AvatarMsg] = Mailbox(self._animate_bell)
        self._expressions: Mailbox[tuple[Expression, float, FrameTimes]] = Mailbox(
            self._animate_bell
        )
        self._codes: NewestMessage | None = None
        self._viewer: ViewerInput | None = None
        self._passthrough: Passthrough | None = None
        self._display: Display | None = None
        self._frames: FramePublisher | None = None
        self._animator: Animator | None = None
        self._avatar_id = self._avatar_sha256 = ""

    def configure(self) -> None:
        """Read parameters and create the interface."""
        self._config: RendererConfig = self.config()
        self._view: ViewConfig = self.config("view.")
        self._presence = OperatorPresence(self.config("presence."))
        torch.set_num_threads(threads(self._config.num_threads))
        output: OutputConfig = self.config("output.")
        config = self._config
        if config.background_mode == "image":
            self._passthrough = Passthrough(
                self, self._view, config.background_timeout_s, self._something_new
            )
        drawing = SceneRenderer(
            self.make_renderer(),
            self._view,
            config.background,
            transparent=config.background_mode == "transparent",
            passthrough=None if self._passthrough is None else self._passthrough.images,
            depth=output.depth,
            num_threads=threads(self._config.num_threads),
        )
        drawing.warm_up(self._device())
        self._frames = FramePublisher(
            self,
            self._view,
            output,
            self.config("encoding."),
            self.config("qos."),
            config.max_rate_hz,
        )
        self._viewer = ViewerInput(
            self,
            self._view,
            self.config("viewer."),
            output.frame_id,
            config.viewer_frame,
            self._something_new,
        )
        self._display = Display(
            self,
            drawing,
            self._frames,
            self._viewer,
            self.config("quality."),
            config.max_rate_hz,
            config.idle_rate_hz,
            self._report,
        )
        self._display.show(self._placeholder("no avatar yet"))
        self._avatar_subscription = self.create_subscription(
            AvatarMsg, "avatar", self._avatars.put, LATCHED
        )
        if self.local.carries("expression"):
            self.local.listen("expression", self._on_expression)
        else:
            compact = self._config.compact_expressions
            self._codes = NewestMessage(
                self,
                CompactExpression if compact else Expression,
                COMPACT_TOPIC if compact else TOPIC,
                expression_request(self._config.driver_lease_s),
                self._on_liveliness,
            )
        self._enable_service = self.create_service(SetBool, "~/enable", self._on_enable)

    def make_renderer(self) -> FrameRenderer:
        """Create the rasterizer; a test puts its own here."""
        return FrameRenderer(self._config.backend, num_threads=threads(self._config.num_threads))

    def make_animator(self, avatar: Avatar) -> Animator:
        """Create the animator of a new avatar; a test puts its own here."""
        return Animator(avatar, path=self._config.animation_path, device=self._device())

    def _device(self) -> str:
        if self._config.device != "auto":
            return self._config.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def activate(self) -> None:
        """Start the threads."""
        self._frames.start()
        if self._codes is not None:
            compact = self._config.compact_expressions
            heard = self._on_compact_expression if compact else self._on_expression
            self.start_worker("listen", partial(self._codes.serve, heard))
        self.start_worker("view", self._viewer.listen)
        if self._passthrough is not None:
            for listen in self._passthrough.listeners:
                self.start_worker("background", listen)
        self.start_worker("animate", self._animate)
        self.start_worker("draw", self._display.draw)
        self.start_worker("warp", self._display.warp)

    def cleanup(self) -> None:
        """Remove the interface and forget the avatar."""
        self.local.leave("expression", self._on_expression)
        self._frames.close()
        for inbox in (self._viewer, self._codes, self._passthrough):
            if inbox is not None:
                inbox.close()
        self._viewer = self._codes = self._passthrough = None
        self.destroy_subscription(self._avatar_subscription)
        self.destroy_service(self._enable_service)
        self._animator = None
        self._avatar_id = self._avatar_sha256 = ""

    def wake_workers(self) -> None:
        """End the waits of the threads."""
        if self._frames is not None:
            self._frames.wake()
        self._animate_bell.set()
        if self._display is not None:
            self._display.wake()
        for inbox in (self._viewer, self._codes, self._passthrough):
            if inbox is not None:
                inbox.wake()

    def health(self) -> tuple[bytes, str]:
        """Anything but LIVE is worth a warning."""
        if not self.is_active:
            return super().health()
        scene, facts = self._display.scene, self._display.facts
        level = DiagnosticStatus.OK if scene.state == State.LIVE else DiagnosticStatus.WARN
        text = f"{scene.state.name} at {facts['rendered_hz']:.0f} frames/s"
        if facts["reprojected"]:
            text += f", reprojected to {facts['reprojected_hz']:.0f}"
        if facts["render_scale"] < 1:
            text += f", resolution {facts['render_scale']:.0%}"
        drivers = 0 if self._codes is None else self._codes.num_publishers
        if drivers > 1:
            level, text = DiagnosticStatus.WARN, f"{text}, {drivers} publishers of expressions"
        return level, text + (f": {scene.text}" if scene.text else "")

    # Callbacks: they only put things down for the threads

    def _on_expression(self, msg: Expression) -> None:
        info = None if self._codes is None else self._codes.info
        times = arrived(stamp_s_from_msg(msg.header.stamp), info)
        lag_s = min(max(times.received_s - times.captured_s, 0.0), LAG_S)
        self._expressions.put((msg, time.monotonic() - lag_s, times))

    def _on_compact_expression(self, msg: CompactExpression) -> None:
        self._on_expression(whole_expression(msg))

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response):
        self._display.enabled = request.data
        self._display.wake()
        response.success = True
        response.message = "rendering" if request.data else "idle; no images are published"
        return response

    def _on_liveliness(self, info: QoSLivelinessChangedInfo) -> None:
        """A driver's process has come or gone; its silence is seen by the state machine anyway."""
        if info.alive_count_change < 0 or info.not_alive_count_change > 0:
            self.get_logger().warning(f"a driver is gone; {info.alive_count} left")
        self._animate_bell.set()

    # Animation thread

    def _animate(self, stop: threading.Event) -> None:
        animated: tuple[object, bytes] | None = None
        gaussians: Gaussians | None = None
        wait_s = TICK_S
        while not stop.is_set():
            self._animate_bell.wait(wait_s)
            self._animate_bell.clear()
            self._take_avatar()
            self._take_expression()
            presence = self._presence.at(time.monotonic())
            wait_s = min(EASING_TICK_S if presence.easing else TICK_S, presence.lasts_s)
            if self._animator is None or presence.code is None or presence.veil >= 1:
                text = "no avatar yet" if self._animator is None else NOBODY_TEXT
                if self._display.scene.gaussians is not None or self._display.scene.text != text:
                    self._display.show(self._placeholder(text))
                continue
            code, turn = presence.code[:-3], presence.code[-3:]
            wanted = (self._animator, code.tobytes())
            if wanted != animated:
                with self.times.measure("animate"):
                    gaussians = self._animator.animate(code)
                animated = wanted
            scene = self._scene_of(presence, gaussians, turn)
            if not _same(scene, self._display.scene):
                self._display.show(scene)

    def _take_avatar(self) -> None:
        msg = self._avatars.take()
        if msg is None or (self._avatar_id and msg.sha256 == self._avatar_sha256):
            return
        try:
            with self.times.measure("load avatar"):
                avatar = avatar_from_msg(msg)
                self._animator = self.make_animator(avatar)
        except EXPECTED_ERRORS as error:
            self.refuse("avatar", error)
            return
        self._avatar_id, self._avatar_sha256 = avatar.avatar_id, msg.sha256
        path = self._animator.path
        self.get_logger().info(
            f"avatar {avatar.avatar_id[:12]} ({avatar.model}) is loaded, {path} animation"
        )

    def _take_expression(self) -> None:
        item = self._expressions.take()
        if item is None:
            return
        msg, taken_s, times = item
        space = self._animator.code_space if self._animator is not None else "arkit_52"
        try:
            face = face_from_expression(msg, space)
            if not face.detected:
                return  # nobody there: silence, not an error
            turn = np.zeros(3, np.float32)
            if self._config.head_motion == "rotation":
                turn = limited_turn(
                    head_turn(face.camera_from_head), np.radians(self._config.head_max_turn_deg)
                ).astype(np.float32)
            performance = np.concatenate([face.code, turn])
            stamp_s = stamp_s_from_msg(msg.header.stamp)
            self._presence.observe(performance, stamp_s, taken_s, msg.header.frame_id)
        except SecondSourceError as error:
            self.refuse("second source", error)
            return
        except ValueError as error:
            self.refuse("expression", error)
            return
        self._newest = (msg.header.stamp, times)

    def _scene_of(self, presence: Presence, gaussians: Gaussians, turn: np.ndarray) -> Scene:
        stamp, times = self._newest
        return Scene(
            state=presence.state,
            gaussians=gaussians,
            body_from_head=body_from_turned_head(turn),
            stamp=stamp if presence.stamp_s is not None else None,
            times=times.now("animated"),
            veil=presence.veil,
        )

    def _placeholder(self, text: str) -> Scene:
        return Scene(State.PLACEHOLDER, None, np.eye(4), None, FrameTimes(), text)

    def _something_new(self) -> None:
        self._display.bell.set()

    def _report(self, scene: Scene) -> None:
        silence_s = self._presence.at(time.monotonic()).silence_s
        self._frames.publish_status(
            state=int(scene.state),
            avatar_id=self._avatar_id,
            silence_s=silence_s if np.isfinite(silence_s) else -1.0,
            **self._display.facts,
            refused=self.refusals.total,
            last_refusal=self.refusals.newest,
        )


def _same(a: Scene, b: Scene) -> bool:
    """Whether showing `a` after `b` would change nothing, not even the stamp."""
    same_parts = a.state == b.state and a.gaussians is b.gaussians and a.stamp is b.stamp
    return same_parts and a.veil == b.veil and np.array_equal(a.body_from_head, b.body_from_head)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process of its own."""
    return run(AvatarRendererNode, args)
