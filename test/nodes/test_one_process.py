"""Nodes of one process hand images and expressions over by reference, and publish them as well."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Expression
from node_stand_ins import FakeAnimator, FakeTracker, small_avatar
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from avat3r_ros.nodes import telepresence
from avat3r_ros.nodes.avatar_renderer import LATCHED, AvatarRendererNode
from avat3r_ros.nodes.camera import CameraNode
from avat3r_ros.nodes.conversions import msg_from_avatar
from avat3r_ros.nodes.expression_driver import ExpressionDriverNode
from avat3r_ros.nodes.expression_tracker import ExpressionTrackerNode
from avat3r_ros.nodes.hand_over import HandOver
from avat3r_ros.nodes.presence import State


class Source:
    """Grey images, fresh ones; remembers them."""

    intrinsics = None

    def __init__(self):
        self.given = []

    def read(self):
        time.sleep(0.02)
        self.given.append(np.full((48, 64, 3), 100, np.uint8))
        return self.given[-1]

    def close(self):
        """Nothing is held."""


class Tracker(ExpressionTrackerNode):
    def make_tracker(self, config, smoothing):
        class Watching(FakeTracker):
            seen = []

            def track(self, image, stamp_s, intrinsics=None):
                self.seen.append(image)
                return super().track(image, stamp_s, intrinsics)

        return Watching()


class Renderer(AvatarRendererNode):
    def make_animator(self, avatar):
        return FakeAnimator(avatar)


@pytest.fixture
def together(graph, overrides, monkeypatch):
    """Camera, tracker and renderer with one hand-over, started."""
    source = Source()
    monkeypatch.setattr("avat3r_ros.nodes.camera.open_source", lambda *_, **__: source)
    local = HandOver("image_raw", "camera_info", "expression")
    options = overrides(view__width=48, view__height=32, num_threads=1)
    nodes = [
        graph.start(node(local=local, **kwargs))
        for node, kwargs in ((CameraNode, {}), (Tracker, {}), (Renderer, options))
    ]
    return source, *nodes


def test_the_tracker_sees_the_cameras_own_pixels(together, graph):
    source, camera, tracker, _ = together
    graph.until(lambda: len(tracker._tracker.seen) > 3)
    given = {id(image) for image in source.given}
    assert all(id(image) in given for image in tracker._tracker.seen)
    assert tracker._info is not None, "the calibration is handed over too"
    assert camera.count_subscribers("image_raw") == 0


def test_an_image_drives_the_avatar_without_the_middleware(together, graph):
    _, _, _, renderer = together
    images = graph.listen(Image, "avat3r_test/none", sensor)  # matched with nothing
    avatars = graph.publisher(type(msg_from_avatar(small_avatar(), Header())), "avatar", LATCHED)
    avatars.publish(msg_from_avatar(small_avatar(), Header()))
    graph.until(lambda: renderer._display.scene.state == State.LIVE)
    assert renderer.count_subscribers("expression") == 0 and not images
    graph.until(lambda: "captured to published" in renderer.times.summary_ms())
    assert renderer.refusals.total == 0, renderer.refusals.newest


def test_who_listens_from_outside_hears_the_topics(together, graph):
    images = graph.listen(Image, "image_raw", sensor)
    expressions = graph.listen(Expression, "expression", sensor)

    def of_camera():  # without remapping the renderer's images are on the same topic
        return [image for image in images if image.header.frame_id == "camera_optical_frame"]

    graph.until(lambda: of_camera() and expressions)
    assert bytes(of_camera()[0].data[:3]) == bytes([100] * 3)
    assert expressions[0].header.frame_id == "camera_optical_frame"


def test_a_tracker_that_was_cleaned_up_is_given_nothing_until_it_comes_back(together, graph):
    _, _, tracker, _ = together
    graph.until(lambda: tracker._tracker.seen)
    tracker.trigger_deactivate()
    tracker.trigger_cleanup()
    assert tracker.local._takers["image_raw"] == ()
    seen = tracker._tracker.seen
    seen.clear()
    graph.spin(0.2)
    assert not seen
    assert tracker.autostart()
    graph.until(lambda: tracker._tracker.seen, "images again")


def test_alone_in_its_process_a_node_uses_topics(graph):
    tracker = graph.start(Tracker())
    assert tracker.count_subscribers("image_raw") == 1
    assert tracker.local is not None and not tracker.local.carries("image_raw")


@pytest.mark.parametrize(
    ("driver", "camera", "names", "images_by_reference"),
    [
        ("camera", True, ["camera", "expression_tracker"], True),
        ("camera", False, ["expression_tracker"], False),
        ("osc", True, ["expression_driver"], False),
    ],
)
def test_which_nodes_share_a_process(graph, driver, camera, names, images_by_reference):
    nodes = [graph.add(node) for node in telepresence.make_nodes(driver, camera=camera)]
    assert [n.get_name() for n in nodes] == [*names, "avatar_builder", "avatar_renderer"]
    assert len({id(node.local) for node in nodes}) == 1
    assert nodes[0].local.carries("image_raw") == images_by_reference
    assert isinstance(nodes[0], ExpressionDriverNode) == (driver == "osc")
