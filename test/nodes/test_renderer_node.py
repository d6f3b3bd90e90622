"""avatar_renderer: codes in, frames out; silence and bad input are states."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Avatar, Expression, RendererStatus
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from node_stand_ins import FakeAnimator, face_state, small_avatar
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from avat3r_ros import geometry
from avat3r_ros.nodes.avatar_renderer import LAG_S, LATCHED, AvatarRendererNode
from avat3r_ros.nodes.conversions import (
    expression_from_face,
    msg_from_avatar,
    msg_from_viewer_from_body,
)
from avat3r_ros.nodes.images import depth_from_msg, image_from_compressed, image_from_msg

SMALL = {
    "view__width": 48,
    "view__height": 32,
    "num_threads": 1,
    "idle_rate_hz": 30.0,
    # The first picture of a code is then all it will be, however slow the machine.
    "presence__fade_s": 0.0,
    "presence__return_s": 0.0,
}
QUICK = {
    "presence__hold_after_s": 0.3,
    "presence__neutral_after_s": 0.8,
    "presence__ease_s": 0.2,
    "presence__placeholder_after_s": 1.8,
}
CALM = {
    "presence__hold_after_s": 10.0,
    "presence__neutral_after_s": 60.0,
    "presence__placeholder_after_s": 600.0,
}


class Renderer(AvatarRendererNode):
    def make_animator(self, avatar):
        return FakeAnimator(avatar)


class Stage:
    """A renderer with an operator and a display, both played by the test."""

    def __init__(self, graph, options):
        self.graph = graph
        self.node = graph.start(Renderer(**options))
        self.frames = graph.listen(Image, "image_raw", sensor)
        self.statuses = graph.listen(RendererStatus, "avatar_renderer/status", LATCHED)
        self._avatars = graph.publisher(Avatar, "avatar", LATCHED)
        self._expressions = graph.publisher(Expression, "expression", sensor)
        self._sec = 100

    def send_avatar(self, avatar):
        msg = msg_from_avatar(avatar, Header()) if not isinstance(avatar, Avatar) else avatar
        self._avatars.publish(msg)
        return msg

    def send(self, jaw_open=0.0, **changes):
        """Send an expression with the next stamp; returns the message."""
        self._sec += 1
        header = Header(frame_id="cam")
        header.stamp.sec, header.stamp.nanosec = changes.pop("sec", self._sec), 123_456_789
        msg = expression_from_face(face_state(jaw_open=jaw_open, **changes.pop("face", {})), header)
        for name, value in changes.items():
            setattr(msg, name, value)
        self._expressions.publish(msg)
        return msg

    def frame_with(self, stamp):
        """The newest frame with this stamp, once there is one."""

        def found():
            return [f for f in self.frames if f.header.stamp == stamp]

        self.graph.until(found, f"no picture with {stamp}")
        return found()[-1]

    def state(self):
        return self.statuses[-1].state if self.statuses else None


@pytest.fixture
def stage(graph, overrides):
    def start(**options):
        return Stage(graph, overrides(**{**SMALL, **CALM, **options}))

    return start


def test_a_placeholder_is_shown_before_any_avatar(stage, graph):
    scene = stage()
    graph.until(lambda: scene.frames and scene.statuses)
    picture = image_from_msg(scene.frames[-1])
    assert picture.shape == (32, 48, 3) and picture.std() > 5
    assert scene.state() == RendererStatus.PLACEHOLDER
    scene.send()
    graph.spin(0.2)
    assert scene.state() == RendererStatus.PLACEHOLDER, "a code without an avatar shows nobody"


def test_stamp_of_the_driver_travels_to_image_camera_and_pose(stage, graph):
    scene = stage()
    infos = graph.listen(CameraInfo, "camera_info", sensor)
    poses = graph.listen(PoseStamped, "avatar_renderer/render_pose", sensor)
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    stamp = scene.send(jaw_open=0.0).header.stamp
    frame = scene.frame_with(stamp)
    assert frame.encoding == "rgb8" and frame.header.frame_id == "avatar_viewer_optical_frame"
    graph.until(lambda: any(i.header.stamp == stamp for i in infos))
    graph.until(lambda: any(p.header.stamp == stamp for p in poses))
    assert poses[-1].header.frame_id == "avatar"
    assert poses[-1].pose.position.x == pytest.approx(0.54)  # 0.6 m from mid-head, not sellion
    graph.until(lambda: scene.state() == RendererStatus.LIVE)


@pytest.mark.parametrize(
    ("ago_s", "counted_s"), [(0.012, 0.012), (-0.5, 0.0), (3600.0, LAG_S)], ids=str
)
def test_silence_counts_from_when_a_code_was_taken_as_far_as_its_stamp_tells(
    stage, monkeypatch, ago_s, counted_s
):
    scene = stage()
    put = []
    monkeypatch.setattr(scene.node._expressions, "put", put.append)
    header = Header(frame_id="cam")
    now_s = time.time()
    header.stamp.sec = int(now_s - ago_s)
    header.stamp.nanosec = int((now_s - ago_s) % 1 * 1e9)
    monkeypatch.setattr(time, "time", lambda: now_s)
    before_s = time.monotonic()
    scene.node._on_expression(expression_from_face(face_state(), header))
    (_, taken_s, _) = put[-1]
    assert before_s - 1e-4 <= taken_s + counted_s <= time.monotonic() + 1e-4


def test_the_code_changes_the_picture(stage, graph):
    scene = stage()
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    closed = image_from_msg(scene.frame_with(scene.send(jaw_open=0.0).header.stamp))
    opened = image_from_msg(scene.frame_with(scene.send(jaw_open=1.0).header.stamp))
    assert closed[..., 0].max() > 200 and closed[..., 1].max() == 0
    assert opened[..., 1].max() > 200 and opened[..., 0].max() == 0


@pytest.mark.realtime
def test_silence_holds_then_eases_to_neutral_then_shows_the_placeholder(stage, graph):
    scene = stage(**QUICK)
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    scene.send(jaw_open=1.0)
    graph.until(lambda: any(s.state == RendererStatus.HOLD for s in scene.statuses))
    graph.until(lambda: scene.state() == RendererStatus.PLACEHOLDER)
    seen = [s.state for s in scene.statuses]
    states = seen[seen.index(RendererStatus.HOLD) :]
    assert states == sorted(states) and set(states) == {1, 2, 3}, f"states were {seen}"
    held = [f for f in scene.frames if f.header.stamp.sec == 101]
    assert image_from_msg(held[-1])[..., 1].max() > 200, "HOLD keeps the opened jaw"
    after = [image_from_msg(f) for f in scene.frames if f.header.stamp.sec > 10**6]
    red = [p for p in after if p[..., 0].max() > 200 and p[..., 1].max() == 0]
    assert red, "NEUTRAL ended with the jaw closed, stamped with the present"


def test_nobody_in_the_image_counts_as_silence(stage, graph):
    scene = stage(**QUICK)
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    scene.send(jaw_open=1.0)
    graph.until(lambda: scene.node._presence.at(time.monotonic()).code is not None)

    def nobody_came():
        scene.send(face={"detected": False})
        graph.spin(0.03)
        return scene.state() == RendererStatus.NEUTRAL

    graph.until(nobody_came)
    assert scene.node.refusals.total == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"values": [float("nan")] * 52}, "not finite"),
        ({"values": [0.0] * 3}, "52 values"),
        ({"code_space": "flame_100"}, "unknown code space"),
        ({"code_space": "ava256_256", "values": [0.0] * 256}, "expected a code of arkit_52"),
        ({"sec": 50}, "not after the last one"),
        ({"head_pose": Pose(position=Point(x=float("nan")))}, "finite pose"),
        ({"head_pose": Pose(orientation=Quaternion(w=0.0))}, "unit quaternion"),
        ({"confidence": float("nan")}, "confidence"),
    ],
)
def test_bad_codes_are_refused_and_the_last_good_one_stays(stage, graph, changes, reason):
    scene = stage()
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    good = scene.send(jaw_open=1.0).header.stamp
    scene.frame_with(good)
    scene.send(jaw_open=0.0, **changes)
    graph.until(lambda: scene.node.refusals.total == 1)
    assert reason in scene.node.refusals.newest
    scene.frames.clear()
    assert image_from_msg(scene.frame_with(good))[..., 1].max() > 200
    scene.frame_with(scene.send(jaw_open=0.0).header.stamp)


def test_a_corrupt_avatar_is_refused_and_the_old_one_stays(stage, graph):
    scene = stage()
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    before = scene.node._animator
    broken = msg_from_avatar(small_avatar(0.9), Header())
    broken.data[-1] ^= 255
    scene.send_avatar(broken)
    graph.until(lambda: scene.node.refusals.counts["avatar"] == 1)
    assert scene.node._animator is before
    scene.frame_with(scene.send(jaw_open=1.0).header.stamp)
    graph.until(lambda: scene.statuses[-1].refused == 1)
    assert scene.statuses[-1].last_refusal.startswith("avatar: expected data of sha256")


def test_a_new_avatar_replaces_the_old_one_and_the_same_one_does_not(stage, graph):
    scene = stage()
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    first = scene.node._animator
    scene.send_avatar(small_avatar())
    graph.spin(0.3)
    assert scene.node._animator is first
    sent = scene.send_avatar(small_avatar(0.9))
    graph.until(lambda: scene.node._animator is not first)
    graph.until(lambda: scene.statuses[-1].avatar_id == sent.avatar_id)


def test_an_avatar_sent_before_the_renderer_started_arrives(graph, overrides):
    graph.probe.create_publisher(Avatar, "avatar", LATCHED).publish(
        msg_from_avatar(small_avatar(), Header())
    )
    node = graph.start(Renderer(**overrides(**SMALL)))
    graph.until(lambda: node._animator is not None)


def test_the_viewer_pose_moves_the_picture(stage, graph):
    scene = stage()
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    stamp = scene.send().header.stamp
    before = image_from_msg(scene.frame_with(stamp))
    viewers = graph.publisher(PoseStamped, "viewer_pose", sensor)
    from_left = geometry.look_at_head(0.0, 0.0, 0.3)
    from_left[0, 3] -= 0.05
    pose = PoseStamped(pose=msg_from_viewer_from_body(from_left))
    viewers.publish(pose)
    graph.until(
        lambda: (image_from_msg(scene.frames[-1]) != before).any(), "the picture did not move"
    )
    assert scene.frames[-1].header.stamp == stamp, "still the same expression"
    moved = image_from_msg(scene.frames[-1])
    pose.header.frame_id = "map"
    viewers.publish(pose)
    graph.until(lambda: scene.node.refusals.counts["viewer_pose"] == 1)
    assert "expected frame 'avatar'" in scene.node.refusals.newest
    pose.header.frame_id = "avatar"
    pose.pose.position.x = float("nan")
    viewers.publish(pose)
    graph.until(lambda: scene.node.refusals.counts["viewer_pose"] == 2)
    pose.pose.position.x, pose.pose.orientation.w = 0.3, float("inf")
    viewers.publish(pose)
    graph.until(lambda: scene.node.refusals.counts["viewer_pose"] == 3)
    pose.pose = msg_from_viewer_from_body(from_left)
    pose.pose.position.x = 0.02
    viewers.publish(pose)
    graph.until(lambda: scene.node.refusals.counts["viewer_pose"] == 4)
    assert "inside the head" in scene.node.refusals.newest
    scene.frames.clear()
    graph.until(lambda: len(scene.frames) > 2)
    np.testing.assert_array_equal(image_from_msg(scene.frames[-1]), moved, "the last good one")


@pytest.mark.realtime
@pytest.mark.parametrize("predict", [True, False])
def test_the_viewer_is_predicted_to_the_time_of_display(stage, graph, predict):
    speed_m_s, delay_s = 0.4, 0.1
    stage(
        viewer__predict=predict,
        viewer__display_delay_s=delay_s,
        viewer__horizon_s=0.3,
        viewer__stale_after_s=2.0,
        view__width=16,
    )
    viewers = graph.publisher(PoseStamped, "viewer_pose", sensor)
    start_s = time.time()

    def truth_m(time_s):
        return -0.2 + speed_m_s * (time_s - start_s)

    ahead_m = []

    def on_render_pose(msg, info):
        published_s = 1e-9 * info["source_timestamp"]  # whenever the probe gets to see it
        ahead_m.append(msg.pose.position.y - truth_m(published_s))

    graph.probe.create_subscription(
        PoseStamped, "avatar_renderer/render_pose", on_render_pose, sensor
    )
    next_s = start_s
    while time.time() < start_s + 1.2:
        if time.time() >= next_s:
            next_s += 0.01
            stamp_s = time.time()
            pose = geometry.invert_pose(geometry.look_at_head(0.0, 0.0, 0.6))
            pose[0, 3] = truth_m(stamp_s)  # the subject's left is +y in the face frame
            msg = PoseStamped(pose=msg_from_viewer_from_body(geometry.invert_pose(pose)))
            msg.header.stamp.sec = int(stamp_s)
            msg.header.stamp.nanosec = int((stamp_s % 1) * 1e9)
            viewers.publish(msg)
        graph.executor.spin_once(timeout_sec=0.002)
    # A machine that is busy makes single frames later than expected, which brings them nearer.
    farthest_m = max(ahead_m[len(ahead_m) // 3 :])
    if predict:  # as far ahead as the display is late
        assert 0.5 * speed_m_s * delay_s < farthest_m < 3 * speed_m_s * delay_s
    else:  # behind, for its pose is old
        assert farthest_m < 0.0


def test_the_operators_head_turns_the_avatar_only_if_wanted(stage, graph):
    to_left = np.array([[0.9, 0, 0.43589], [0, 1, 0], [-0.43589, 0, 0.9]])
    scene = stage()
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    still = image_from_msg(scene.frame_with(scene.send().header.stamp))
    turned = image_from_msg(scene.frame_with(scene.send(face={"turn": to_left}).header.stamp))
    assert (still != turned).any()
    calls = scene.node._animator.calls
    assert calls == 1, "the same expression is not animated again for a turn of the head"


def test_head_motion_can_be_switched_off(stage, graph):
    to_left = np.array([[0.9, 0, 0.43589], [0, 1, 0], [-0.43589, 0, 0.9]])
    scene = stage(head_motion="none")
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    still = image_from_msg(scene.frame_with(scene.send().header.stamp))
    turned = image_from_msg(scene.frame_with(scene.send(face={"turn": to_left}).header.stamp))
    np.testing.assert_array_equal(still, turned)


def test_stereo_depth_compressed_and_points(stage, graph):
    scene = stage(
        view__stereo=True,
        output__depth=True,
        encoding__jpeg_quality=90,
        background=[0.0, 0.0, 1.0],
    )
    left = graph.listen(Image, "left/image_raw", sensor)
    right = graph.listen(Image, "right/image_raw", sensor)
    right_info = graph.listen(CameraInfo, "right/camera_info", sensor)
    jpeg = graph.listen(CompressedImage, "left/image_raw/compressed", sensor)
    depth = graph.listen(Image, "right/depth/image_raw", sensor)
    points = graph.listen(PointCloud2, "avatar_renderer/gaussians", sensor)
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    stamp = scene.send().header.stamp

    def pair():
        return [[f for f in got if f.header.stamp == stamp] for got in (left, right)]

    def unveiled():
        return all(f and image_from_msg(f[-1])[0, 0, 2] == 255 for f in pair())

    graph.until(lambda: unveiled() and depth and points and right_info and jpeg)
    left_image, right_image = (image_from_msg(frames[-1]) for frames in pair())
    column = [
        np.average(np.arange(48), weights=i[..., 0].sum(0)) for i in (left_image, right_image)
    ]
    assert column[0] > column[1] + 3, "near things lie farther right in the left eye"
    assert left_image[0, 0, 2] == 255, "the background"
    assert right_info[-1].p[3] < 0
    # Two blobs of a few pixels at half the colour resolution: red on blue, but dull.
    graph.until(lambda: (image_from_compressed(jpeg[-1])[..., 0] > 100).any())
    metres = depth_from_msg(depth[-1])
    assert np.isnan(metres[0, 0]) and 0.4 < np.nanmedian(metres) < 0.6
    assert points[-1].width == 2 and not scene.frames


def test_enable_and_disable(stage, graph):
    scene = stage()
    graph.until(lambda: scene.frames)
    graph.call(SetBool, "avatar_renderer/enable", SetBool.Request(data=False))
    graph.spin(0.2)
    scene.frames.clear()
    graph.spin(0.3)
    assert not scene.frames
    graph.call(SetBool, "avatar_renderer/enable", SetBool.Request(data=True))
    graph.until(lambda: scene.frames)


def test_diagnostics_name_stages_and_refusals(stage, graph):
    from diagnostic_msgs.msg import DiagnosticArray

    scene = stage()
    arrays = graph.listen(DiagnosticArray, "/diagnostics")
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    scene.frame_with(scene.send().header.stamp)
    scene.send(values=[])
    graph.until(lambda: scene.node.refusals.total == 1)
    arrays.clear()
    graph.until(lambda: arrays)
    status = arrays[-1].status[0]
    values = {v.key: v.value for v in status.values}
    assert status.name == "avat3r: /avatar_renderer"
    assert {"animate", "render", "publish", "tracked to received", "received to animated"} <= set(
        values
    )
    assert values["refused expression"] == "1" and "p95" in values["render"]


def calibration(width=480, height=320, fx=600.0, cx=300.0, baseline_m=None):
    info = CameraInfo(width=width, height=height)
    info.k = np.array([fx, 0, cx - 0.5, 0, fx, height / 2 - 0.5, 0, 0, 1.0])
    info.p = np.hstack([info.k.reshape(3, 3), np.zeros((3, 1))]).ravel()
    if baseline_m is not None:
        info.p[3] = -fx * baseline_m
    return info


def test_the_headsets_calibration_sets_projection_and_eye_distance(stage, graph):
    scene = stage(view__stereo=True, view__camera_info=True)
    infos = graph.listen(CameraInfo, "right/camera_info", sensor)
    headset = graph.publisher(CameraInfo, "viewer/right/camera_info", sensor)
    graph.until(lambda: infos)
    assert infos[-1].p[3] / infos[-1].p[0] == pytest.approx(-0.063, rel=1e-4)
    headset.publish(calibration(baseline_m=0.07))
    graph.until(lambda: infos[-1].k[0] == pytest.approx(60.0))
    assert infos[-1].k[2] == pytest.approx(30.0 - 0.5), "a tenth of the size, centres at integers"
    assert infos[-1].p[3] / infos[-1].p[0] == pytest.approx(-0.07, rel=1e-4)
    for broken in (
        CameraInfo(),
        calibration(fx=float("nan")),
        calibration(cx=1e30),
        calibration(baseline_m=-0.06),
        calibration(width=0),
    ):
        total = scene.node.refusals.total
        headset.publish(broken)
        graph.until(lambda total=total: scene.node.refusals.total == total + 1)
        assert "viewer camera_info" in scene.node.refusals.newest
    infos.clear()
    graph.until(lambda: infos)
    assert infos[-1].k[0] == pytest.approx(60.0), "the last good one stays"


@pytest.mark.parametrize(("video", "encoder"), [("vp9", "auto"), ("h264", "libx264")])
def test_video_of_the_rendered_head_can_be_decoded_from_the_first_packet_on(
    stage, graph, video, encoder
):
    av = pytest.importorskip("av")
    if encoder != "auto" and encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no {encoder}")
    from avat3r_ros.streaming import VideoDecoder, is_keyframe

    scene = stage(encoding__video=video, encoding__video_encoder=encoder)
    scene.send_avatar(small_avatar())
    graph.until(lambda: scene.node._animator is not None)
    graph.spin(0.2)  # frames have been drawn before anybody tunes in
    packets = graph.listen(CompressedImage, "image_raw/video", sensor)
    graph.until(lambda: packets)
    assert packets[0].format == video and is_keyframe(video, bytes(packets[0].data))
    decoder, shown = VideoDecoder(video), []

    def jaw_is_open():
        scene.send(jaw_open=1.0)
        while packets:
            assert packets[0].header.frame_id
            shown.append(decoder.decode(bytes(packets.pop(0).data)))
        # Two blobs of a few pixels at half the colour resolution: they are green, but dull.
        return shown and shown[-1][..., 1].max() > shown[-1][..., 0].max() + 30

    graph.until(jaw_is_open)
    assert shown[0].shape == (32, 48, 3) and shown[-1][..., 1].max() > 100
    assert "encode " + video in scene.node.times.summary_ms()
    assert {"rendered to encoded"} <= set(scene.node.times.summary_ms())


def test_h264_without_a_clear_encoder_says_what_to_do(graph, overrides, capfd):
    node = graph.add(Renderer(**overrides(**SMALL, encoding__video="h264")))
    if node.autostart():
        pytest.skip("this machine has an H.264 encoder of its own")
    assert "libx264 would do if named" in capfd.readouterr().err


def test_images_can_be_reliable_by_parameter(stage, graph):
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    scene = stage(qos__reliability="reliable", qos__depth=2)
    reliable = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
    images = graph.listen(Image, "image_raw", reliable)
    graph.until(lambda: images)
    assert scene.node.is_active


def test_a_driver_that_promises_nothing_is_left_out_if_asked_for(graph, overrides):
    from avat3r_ros.nodes.qos import EXPRESSION_OFFER

    node = graph.start(Renderer(**overrides(**SMALL, driver_lease_s=1.5)))
    plain = graph.probe.create_publisher(Expression, "expression", sensor)
    promising = graph.publisher(Expression, "expression", EXPRESSION_OFFER)
    assert plain.get_subscription_count() == 0 and node._codes.num_publishers == 1
    graph.probe.destroy_publisher(promising)
    graph.until(lambda: node._codes.num_publishers == 0)


def test_a_frame_that_cannot_be_encoded_is_refused_and_the_face_goes_on(stage, graph):
    from avat3r_ros.nodes.encoded_output import VideoEncoder

    scene = stage(encoding__video="vp9")
    encoder = scene.node._frames._encoded[""]._encoder
    assert isinstance(encoder, VideoEncoder)

    def fail(*_):
        raise RuntimeError("the graphics card is gone")

    encoder.encode = fail
    graph.listen(CompressedImage, "image_raw/video", sensor)
    graph.until(lambda: "frame to encode" in scene.node.refusals.newest, "the refusal")
    assert scene.node.is_active and not scene.node.failed
    images = graph.listen(Image, "image_raw", sensor)
    graph.until(lambda: images)


def test_what_waited_to_be_encoded_before_a_pause_is_not_sent_after_it(stage, graph):
    scene = stage()
    encoded = scene.node._frames._encoded[""]
    scene.node.trigger_deactivate()
    encoded.offer(np.zeros((2, 2, 3), np.uint8), "rgb8", Header(frame_id="long ago"))
    got = graph.listen(CompressedImage, "image_raw/compressed", sensor)
    graph.spin(0.2)
    scene.node.trigger_activate()
    graph.until(lambda: got)
    assert not [msg for msg in got if msg.header.frame_id == "long ago"]
