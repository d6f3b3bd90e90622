"""expression_tracker: image in, expression out, the same stamp; bad images are refused."""

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Expression
from node_stand_ins import FakeTracker
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.nodes.expression_tracker import ExpressionTrackerNode
from avat3r_ros.nodes.images import compressed_from_image, msg_from_image


class Tracker(ExpressionTrackerNode):
    def make_tracker(self, config, smoothing):
        self.fake = FakeTracker()
        return self.fake


def image(stamp_s, brightness=255, frame_id="cam"):
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = int(stamp_s), 123_456_789
    return msg_from_image(np.full((4, 4, 3), brightness, np.uint8), "rgb8", header)


@pytest.fixture
def tracker(graph):
    """A started tracker with a publisher of images and the list of its expressions."""
    node = graph.start(Tracker())
    expressions = graph.listen(Expression, "expression", sensor)
    images = graph.publisher(Image, "image_raw", sensor)
    graph.until_heard("expression")

    def send(msg, expect=True):
        count = len(expressions)
        images.publish(msg)
        if expect:
            graph.until(lambda: len(expressions) > count, "no expression")
            return expressions[-1]
        graph.until(lambda: node.refusals.total > 0, "nothing was refused")
        graph.spin(0.1)
        assert len(expressions) == count
        return None

    node.send = send
    return node


def test_stamp_and_frame_travel_unchanged(tracker):
    msg = tracker.send(image(7, brightness=51))
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (7, 123_456_789)
    assert msg.header.frame_id == "cam"
    assert msg.detected and msg.code_space == "arkit_52"
    assert msg.values[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.2)


def test_nobody_in_the_image_is_an_answer(tracker):
    msg = tracker.send(image(7, brightness=0))
    assert not msg.detected and msg.confidence == 0.0
    assert tracker.refusals.total == 0
    assert "no face" in tracker.health()[1]


def test_backward_stamps_are_refused_and_the_next_good_one_passes(tracker):
    tracker.send(image(7))
    tracker.send(image(5), expect=False)
    assert "before the last one" in tracker.refusals.newest
    assert tracker.send(image(8)).header.stamp.sec == 8


def test_a_clock_that_was_set_back_is_followed_after_a_moment(tracker, graph, monkeypatch):
    monkeypatch.setattr("avat3r_ros.nodes.expression_tracker.CLOCK_SET_BACK_S", 0.2)
    tracker.send(image(1000))
    graph.spin(0.25)
    assert tracker.send(image(5)).header.stamp.sec == 5
    assert tracker.fake.resets == 1


@pytest.mark.parametrize("what", ["encoding", "cut", "empty"])
def test_broken_images_are_refused(tracker, what):
    msg = image(7)
    if what == "encoding":
        msg.encoding = "bayer_rggb8"
    elif what == "cut":
        msg.data = array.array("B", b"123")
    else:
        msg.width = msg.height = 0
    tracker.send(msg, expect=False)
    assert tracker.refusals.counts["image"] == 1
    assert tracker.send(image(8)).detected


def test_camera_info_reaches_the_tracker_with_the_half_pixel(tracker, graph):
    info = CameraInfo(width=4, height=4)
    info.k = np.array([5.0, 0, 1.5, 0, 5.0, 1.5, 0, 0, 1])
    publisher = graph.publisher(CameraInfo, "camera_info", sensor)
    publisher.publish(info)
    for stamp_s in range(7, 100):  # they may overtake each other
        tracker.send(image(stamp_s))
        if tracker.fake.intrinsics is not None:
            break
    assert tracker.fake.intrinsics[0, 2] == 2.0


def test_enable_and_disable(tracker, graph):
    graph.call(SetBool, "expression_tracker/enable", SetBool.Request(data=False))
    before = tracker.times.summary_ms()
    graph.probe.create_publisher(Image, "image_raw", sensor).publish(image(7))
    graph.spin(0.2)
    assert tracker.times.summary_ms() == before
    graph.call(SetBool, "expression_tracker/enable", SetBool.Request(data=True))
    assert tracker.send(image(8)).detected


def test_calibration_answers_why_it_failed_and_then_works(tracker, graph):
    answer = graph.call(Trigger, "expression_tracker/calibrate", Trigger.Request())
    assert not answer.success and "at least 3 images" in answer.message
    for stamp_s in range(7, 14):
        tracker.send(image(stamp_s, brightness=100))
    answer = graph.call(Trigger, "expression_tracker/calibrate", Trigger.Request())
    assert not answer.success, "only images of the last moments count"
    for nanosec in (0, 10**8, 2 * 10**8, 3 * 10**8):
        msg = image(14, brightness=100)
        msg.header.stamp.nanosec = nanosec
        tracker.send(msg)
    answer = graph.call(Trigger, "expression_tracker/calibrate", Trigger.Request())
    assert answer.success, answer.message


def test_compressed_images(graph, overrides):
    graph.start(Tracker(**overrides(compressed=True)))
    expressions = graph.listen(Expression, "expression", sensor)
    images = graph.publisher(CompressedImage, "image_raw/compressed", sensor)
    header = Header()
    header.stamp.sec = 3
    white = np.full((16, 16, 3), 255, np.uint8)

    def arrived():
        images.publish(compressed_from_image(white, 90, header))
        return bool(expressions)

    graph.until(arrived)
    assert expressions[0].header.stamp.sec == 3


def test_tf_without_ros_says_what_to_install(graph, overrides, capfd):
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        node = graph.add(Tracker(**overrides(publish_tf=True)))
        assert not node.autostart()
        assert "tf2_ros" in capfd.readouterr().err
    else:
        assert graph.start(Tracker(**overrides(publish_tf=True))).is_active


def test_the_real_tracker_sees_a_real_face(graph):
    """From the message to MediaPipe and back, once, without a stand-in."""
    from skimage import data

    graph.start(ExpressionTrackerNode())
    expressions = graph.listen(Expression, "expression", sensor)
    images = graph.publisher(Image, "image_raw", sensor)
    graph.until_heard("expression")
    portrait = np.ascontiguousarray(data.astronaut())
    images.publish(msg_from_image(portrait[..., ::-1].copy(), "bgr8", Header()))
    graph.until(lambda: expressions, "the real tracker gave no answer")
    assert expressions[0].detected and expressions[0].confidence > 0.9
    smile = expressions[0].values[ARKIT_INDEX["mouthSmileLeft"]]
    assert smile > 0.5, "she smiles"
