"""Expressions for narrow links: small, and the same but for rounding."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import CompactExpression, Expression
from node_stand_ins import FakeAnimator, FakeTracker, face_state, small_avatar
from rclpy.qos import qos_profile_sensor_data as sensor
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from avat3r_ros import geometry
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.nodes.avatar_renderer import LATCHED, AvatarRendererNode
from avat3r_ros.nodes.conversions import (
    expression_from_face,
    face_from_expression,
    msg_from_avatar,
)
from avat3r_ros.nodes.expression_topics import COMPACT_TOPIC, compact_expression, whole_expression
from avat3r_ros.nodes.expression_tracker import ExpressionTrackerNode
from avat3r_ros.nodes.images import image_from_msg, msg_from_image

WIRE_BITS_PER_S, RATE_HZ = 50_000, 30


def an_expression(stamp_s=7):
    rng = np.random.default_rng(0)
    face = face_state(jaw_open=0.4)
    face.code[:] = rng.random(52)
    face.gaze[:] = (0.31, -0.12)
    face.camera_from_head[:] = geometry.look_at_head(0.4, -0.2, 0.61)
    header = Header(frame_id="camera_optical_frame")
    header.stamp.sec, header.stamp.nanosec = stamp_s, 123_456_789
    return expression_from_face(face, header)


def test_thirty_a_second_stay_within_fifty_kilobits():
    size = len(serialize_message(compact_expression(an_expression())))
    assert 8 * size * RATE_HZ < WIRE_BITS_PER_S
    assert size < 0.5 * len(serialize_message(an_expression()))


def test_what_is_sent_compactly_arrives_but_for_rounding():
    sent = an_expression()
    msg = whole_expression(compact_expression(sent))
    assert msg.header == sent.header and msg.code_space == sent.code_space
    seen, truth = face_from_expression(msg), face_from_expression(sent)
    np.testing.assert_allclose(seen.code, truth.code, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(seen.gaze, truth.gaze, atol=1e-4)
    np.testing.assert_allclose(seen.camera_from_head, truth.camera_from_head, atol=2e-4)
    assert seen.detected and seen.confidence == pytest.approx(truth.confidence, abs=0.002)


def test_a_nobody_stays_nobody():
    nobody = expression_from_face(face_state(detected=False), Header(frame_id="cam"))
    msg = whole_expression(compact_expression(nobody))
    assert not msg.detected and msg.confidence == 0.0 and not any(msg.values)


def test_junk_is_refused_like_that_of_whole_expressions():
    msg = compact_expression(an_expression())
    msg.position[1] = np.nan
    with pytest.raises(ValueError, match="finite pose"):
        face_from_expression(whole_expression(msg))
    msg = compact_expression(an_expression())
    msg.orientation[:] = 0
    with pytest.raises(ValueError, match="unit quaternion"):
        face_from_expression(whole_expression(msg))
    msg = compact_expression(an_expression())
    msg.values = msg.values[:10]
    with pytest.raises(ValueError, match="52"):
        face_from_expression(whole_expression(msg))


class Tracker(ExpressionTrackerNode):
    def make_tracker(self, config, smoothing):
        return FakeTracker()


def test_the_tracker_sends_both_where_somebody_listens(graph):
    node = graph.start(Tracker())
    whole = graph.listen(Expression, "expression", sensor)
    compact = graph.listen(CompactExpression, COMPACT_TOPIC, sensor)
    images = graph.publisher(Image, "image_raw", sensor)
    graph.until(lambda: node._publisher._compact.get_subscription_count() == 1)
    header = Header(frame_id="cam")
    for second in range(1, 100):
        header.stamp.sec = second
        images.publish(msg_from_image(np.full((4, 4, 3), 51, np.uint8), "rgb8", header))
        graph.spin(0.05)
        if whole and compact:
            break
    assert compact[-1].values[ARKIT_INDEX["jawOpen"]] == 51
    assert compact[-1].header.frame_id == whole[-1].header.frame_id == "cam"


class Renderer(AvatarRendererNode):
    def make_animator(self, avatar):
        return FakeAnimator(avatar)


def test_compact_expressions_drive_the_renderer(graph, overrides):
    options = {
        "view__width": 48, "view__height": 32, "num_threads": 1, "compact_expressions": True,
        "presence__fade_s": 0.0, "presence__return_s": 0.0, "presence__hold_after_s": 10.0,
        "presence__neutral_after_s": 60.0, "presence__placeholder_after_s": 600.0,
    }  # fmt: skip
    node = graph.start(Renderer(**overrides(**options)))
    frames = graph.listen(Image, "image_raw", sensor)
    avatar = msg_from_avatar(small_avatar(), Header())
    graph.publisher(type(avatar), "avatar", LATCHED).publish(avatar)
    expressions = graph.publisher(CompactExpression, COMPACT_TOPIC, sensor)
    graph.until(lambda: node._animator is not None)
    header = Header(frame_id="cam")
    header.stamp.sec = 5
    msg = compact_expression(expression_from_face(face_state(jaw_open=1.0), header))
    expressions.publish(msg)
    graph.until(lambda: any(f.header.stamp == header.stamp for f in frames))
    opened = image_from_msg(next(f for f in frames if f.header.stamp == header.stamp))
    assert opened[..., 1].max() > 200 and opened[..., 0].max() == 0
