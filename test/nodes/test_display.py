"""Slow drawing, moving viewers and backgrounds, with the real node in a real graph."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Avatar, Expression, RendererStatus
from geometry_msgs.msg import PoseStamped
from node_stand_ins import FakeAnimator, face_state, small_avatar
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from avat3r_ros import geometry
from avat3r_ros.expression import arkit_code
from avat3r_ros.nodes.avatar_renderer import LATCHED, AvatarRendererNode
from avat3r_ros.nodes.conversions import (
    expression_from_face,
    msg_from_avatar,
    msg_from_viewer_from_body,
    viewer_from_body_from_msg,
)
from avat3r_ros.nodes.images import depth_from_msg, image_from_msg, msg_from_image
from avat3r_ros.nodes.viewpoint import Eyes, ViewConfig
from avat3r_ros.rendering import FrameRenderer

WIDTH, HEIGHT = 96, 64
# Nothing drives after the first code: every frame is stamped with its own present.
OPTIONS = {
    "view__width": WIDTH,
    "view__height": HEIGHT,
    "num_threads": 1,
    "idle_rate_hz": 30.0,
    "output__badge": False,
    "presence__hold_after_s": 0.02,
    "presence__neutral_after_s": 0.05,
    "presence__placeholder_after_s": 3600.0,
}


class SlowRenderer(FrameRenderer):
    """Takes a fixed time for each pixel on top of its own."""

    def __init__(self, full_s):
        super().__init__("cpu", num_threads=1)
        self.full_s = full_s

    def render_u8(self, gaussians, camera, *args, **kwargs):
        time.sleep(self.full_s * camera.width * camera.height / (WIDTH * HEIGHT))
        return super().render_u8(gaussians, camera, *args, **kwargs)

    def render_layer(self, gaussians, camera):
        time.sleep(self.full_s * camera.width * camera.height / (WIDTH * HEIGHT))
        return super().render_layer(gaussians, camera)


class Renderer(AvatarRendererNode):
    full_s = 0.0

    def make_animator(self, avatar):
        return FakeAnimator(avatar)

    def make_renderer(self):
        return SlowRenderer(self.full_s)


class Stage:
    """A renderer whose avatar is shown, and a display."""

    def __init__(self, graph, full_s, options):
        self.graph = graph
        kind = type("Renderer", (Renderer,), {"full_s": full_s})
        self.node = graph.start(kind(**options))
        self.frames = graph.listen(Image, "image_raw", sensor)
        self.poses = graph.listen(PoseStamped, "avatar_renderer/render_pose", sensor)
        self.statuses = graph.listen(RendererStatus, "avatar_renderer/status", LATCHED)
        graph.publisher(Avatar, "avatar", LATCHED).publish(
            msg_from_avatar(small_avatar(), Header())
        )
        self.viewers = graph.publisher(PoseStamped, "viewer_pose", sensor)
        self.start_s = time.time()
        codes = graph.publisher(Expression, "expression", sensor)
        graph.until(lambda: self.node._animator is not None)
        codes.publish(expression_from_face(face_state(), Header(frame_id="cam")))
        graph.until(lambda: self.shown(), "the avatar is not shown")

    def shown(self):
        """Whether the avatar is there, without the placeholder's veil."""
        scene = self.node._display.scene
        return scene.gaussians is not None and scene.veil == 0 and self.statuses

    def look_until(self, condition, timeout_s=60.0):
        """A viewer who moves until something has happened."""
        start_s = time.monotonic()
        while not condition():
            assert time.monotonic() < start_s + timeout_s, "did not happen while the viewer moved"
            self.look(0.25)

    def look(self, seconds, speed_m_s=0.15, rate_hz=100.0):
        """A viewer who moves sideways to and fro."""
        start_s = next_s = time.time()
        while time.time() < start_s + seconds:
            if time.time() >= next_s:
                next_s += 1 / rate_hz
                now_s = time.time()
                swing_s = now_s - self.start_s  # one movement, however often it is called
                pose = geometry.invert_pose(geometry.look_at_head(0.0, 0.0, 0.5))
                pose[0, 3] += 0.03 * np.sin(speed_m_s / 0.03 * swing_s)
                msg = PoseStamped(pose=msg_from_viewer_from_body(geometry.invert_pose(pose)))
                msg.header.stamp.sec = int(now_s)
                msg.header.stamp.nanosec = int(now_s % 1 * 1e9)
                self.viewers.publish(msg)
            self.graph.executor.spin_once(timeout_sec=0.002)

    def pairs(self):
        """Frames with the viewer poses that they were made for."""
        poses = {(p.header.stamp.sec, p.header.stamp.nanosec): p.pose for p in self.poses}
        stamped = [((f.header.stamp.sec, f.header.stamp.nanosec), f) for f in self.frames]
        return [
            (image_from_msg(frame), viewer_from_body_from_msg(poses[stamp]))
            for stamp, frame in stamped
            if stamp in poses
        ]


@pytest.fixture
def stage(graph, overrides):
    def start(full_s=0.0, **options):
        return Stage(graph, full_s, overrides(**{**OPTIONS, **options}))

    return start


def true_render(viewer_from_body):
    eyes = Eyes.of(ViewConfig(width=WIDTH, height=HEIGHT))
    gaussians = FakeAnimator(small_avatar()).animate(arkit_code())
    return FrameRenderer("cpu").render_u8(gaussians, eyes.cameras(viewer_from_body, np.eye(4)))[0]


def column_of_red(image):
    return np.average(np.arange(image.shape[1]), weights=image[..., 0].sum(0) + 1e-9)


def test_a_slow_renderer_still_answers_the_viewer_and_says_how(stage, graph):
    scene = stage(full_s=0.1, quality__min_scale=1.0)
    graph.until(lambda: not scene.statuses[-1].reprojected)
    scene.look_until(lambda: scene.statuses[-1].reprojected)
    scene.frames.clear()
    scene.poses.clear()
    # A busy machine draws and warps late: the rates are waited for.
    scene.look_until(
        lambda: scene.statuses[-1].reprojected_hz > 2 * scene.statuses[-1].rendered_hz > 0
    )
    assert scene.statuses[-1].render_scale == 1.0
    scene.look_until(lambda: len(scene.pairs()) > 20)
    pairs = scene.pairs()
    errors_px = []
    for image, viewer_from_body in pairs:
        expected = true_render(viewer_from_body)
        errors_px.append(abs(column_of_red(image) - column_of_red(expected)))
        assert np.abs(image.astype(int) - expected).mean() < 3.0
    moved_px = np.ptp([column_of_red(image) for image, _ in pairs])
    assert moved_px > 5 and max(errors_px) < 0.35, "each frame is where its render_pose says"


def test_when_the_viewer_rests_frames_are_drawn_ones_again(stage, graph):
    scene = stage(full_s=0.05, quality__min_scale=1.0)
    scene.look_until(lambda: scene.statuses[-1].reprojected)
    graph.until(lambda: not scene.statuses[-1].reprojected)
    scene.frames.clear()
    graph.until(lambda: len(scene.pairs()) > 3)
    image, viewer_from_body = scene.pairs()[-1]
    difference = np.abs(image.astype(int) - true_render(viewer_from_body))
    assert difference.max() <= 1, "a drawing, but for the rounding of its pose in the message"


def test_reprojection_can_be_switched_off(stage):
    scene = stage(full_s=0.05, quality__reproject="off", quality__min_scale=1.0)
    scene.look(1.5)
    assert not any(status.reprojected for status in scene.statuses)
    assert scene.node.times.rate_hz("reproject") == 0


def test_resolution_goes_down_to_hold_the_rate_and_what_is_published_stays_right(stage, graph):
    scene = stage(full_s=0.12, quality__target_hz=20.0, quality__reproject="off")
    infos = graph.listen(CameraInfo, "camera_info", sensor)
    graph.until(lambda: scene.statuses[-1].render_scale < 0.7)
    scene.frames.clear()
    scene.poses.clear()
    graph.until(lambda: len(scene.pairs()) > 2 and infos)
    image, viewer_from_body = scene.pairs()[-1]
    expected = true_render(viewer_from_body)
    assert image.shape == expected.shape
    assert abs(column_of_red(image) - column_of_red(expected)) < 0.3
    assert np.abs(image.astype(int) - expected).mean() < 3.0
    assert (infos[-1].width, infos[-1].height) == (WIDTH, HEIGHT)
    focal = Eyes.of(ViewConfig(width=WIDTH, height=HEIGHT)).intrinsics[0, 0, 0]
    assert infos[-1].k[0] == pytest.approx(focal, rel=1e-5)


@pytest.mark.realtime
def test_a_camera_faster_than_the_renderer_never_makes_it_late(stage, graph):
    """Codes come 60 times a second, frames take 0.1 s: each frame shows the newest code."""
    calm = {"presence__hold_after_s": 10.0, "presence__neutral_after_s": 60.0}
    scene = stage(full_s=0.1, quality__min_scale=1.0, **calm)
    codes = graph.publisher(Expression, "expression", sensor)
    ages_s, stamps = [], []

    def on_frame(msg):
        stamps.append(msg.header.stamp.sec + 1e-9 * msg.header.stamp.nanosec)
        ages_s.append(time.time() - stamps[-1])

    graph.probe.create_subscription(Image, "image_raw", on_frame, sensor)
    sent, next_s, end_s = 0, time.time(), time.time() + 3.0
    while time.time() < end_s:
        if time.time() >= next_s:
            next_s += 1 / 60
            sent += 1
            header = Header(frame_id="cam", stamp=graph.probe.get_clock().now().to_msg())
            codes.publish(expression_from_face(face_state(jaw_open=sent % 2), header))
        graph.executor.spin_once(timeout_sec=0.002)
    assert len(set(stamps)) < sent / 2, "slower than the codes"
    assert np.all(np.diff(stamps) >= 0)
    # One drawing, and the one before it that was under way: a queue would be seconds long by now.
    assert np.median(ages_s[len(ages_s) // 2 :]) < 0.5
    assert scene.statuses[-1].state == RendererStatus.LIVE and scene.node.refusals.total == 0


def test_transparent_frames_carry_straight_alpha_and_depth_of_the_same_moment(stage, graph):
    scene = stage(background_mode="transparent", output__depth=True)
    depths = graph.listen(Image, "depth/image_raw", sensor)
    stamps = lambda got: {(m.header.stamp.sec, m.header.stamp.nanosec) for m in got}  # noqa: E731

    def newest():
        assert scene.frames[-1].encoding == "rgba8"
        return np.frombuffer(scene.frames[-1].data, np.uint8).reshape(HEIGHT, WIDTH, 4)

    def unveiled():
        return scene.frames and (newest()[0, 0] == 0).all() and newest()[..., 3].max() > 240

    graph.until(unveiled, "a frame without the placeholder's veil")
    graph.until(lambda: stamps(scene.frames) & stamps(depths) & stamps(scene.poses))
    pixels = newest()
    faint = (pixels[..., 3] > 40) & (pixels[..., 3] < 120)
    assert faint.any() and (pixels[faint, 0] > 240).all(), "red is not darkened by alpha"
    metres = depth_from_msg(depths[-1])
    solid = pixels[..., 3] >= 130
    assert np.isnan(metres[0, 0]) and np.isfinite(metres[solid]).all()


def test_a_passthrough_picture_is_shown_behind_until_it_is_old(stage, graph):
    scene = stage(background_mode="image", background=[0.0, 0.0, 1.0], background_timeout_s=0.4)
    graph.until(lambda: tuple(image_from_msg(scene.frames[-1])[0, 0]) == (0, 0, 255))
    surroundings = graph.publisher(Image, "background/image_raw", sensor)
    picture = np.zeros((2 * HEIGHT, 4 * WIDTH, 3), np.uint8)  # wider than the frame
    picture[:, WIDTH : 3 * WIDTH, 1] = 200
    surroundings.publish(msg_from_image(picture, "rgb8", Header()))
    graph.until(lambda: tuple(image_from_msg(scene.frames[-1])[0, 0]) == (0, 200, 0))
    newest = image_from_msg(scene.frames[-1])
    assert (newest[0, :, 1] == 200).all(), "cut from the middle, undistorted"
    assert newest[..., 0].max() > 200, "the avatar is before it"
    surroundings.publish(Image(encoding="rgb8"))
    graph.until(lambda: scene.node.refusals.counts["background"] == 1)
    assert "empty image" in scene.node.refusals.newest
    graph.until(lambda: tuple(image_from_msg(scene.frames[-1])[0, 0]) == (0, 0, 255))


def test_the_drivers_head_turns_the_avatar_only_so_far(stage, graph):
    calm = {"presence__hold_after_s": 10.0, "presence__neutral_after_s": 60.0}
    scene = stage(head_max_turn_deg=10.0, **calm)
    turn = geometry.pose_from_twist(np.array([0, 0.8, 0, 0, 0, 0.0]))[:3, :3]
    header = Header(frame_id="cam")
    header.stamp.sec = 5
    codes = graph.publisher(Expression, "expression", sensor)
    codes.publish(expression_from_face(face_state(turn=turn), header))
    sines = []

    def eased_there():
        sines.append(scene.node._display.scene.body_from_head[0, 2])
        return sines[-1] > 0.999 * np.sin(np.radians(10))

    graph.until(eased_there)
    assert max(sines) == pytest.approx(np.sin(np.radians(10)), abs=1e-3)


@pytest.mark.parametrize(
    ("option", "value"),
    [("background_mode", "green"), ("quality__reproject", "maybe"), ("view__left_fov_deg", [1.0])],
)
def test_impossible_parameters_keep_the_node_from_starting(graph, overrides, option, value):
    node = graph.add(Renderer(**overrides(**{**OPTIONS, option: value})))
    assert not node.autostart()
