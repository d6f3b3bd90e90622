"""avatar_builder: action with feedback and cancel, load and save, one build at a time."""

import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.action import BuildAvatar
from avat3r.msg import Avatar, BuilderStatus
from avat3r.srv import AvatarFile
from node_stand_ins import FakeTracker, face_state, small_avatar
from rclpy.action import ActionClient
from rclpy.qos import qos_profile_sensor_data as sensor
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from avat3r_ros.avatar_file import load_avatar, save_avatar
from avat3r_ros.capture.frame_selection import SelectedFrame
from avat3r_ros.nodes import view_capture
from avat3r_ros.nodes.avatar_builder import LATCHED, AvatarBuilderNode
from avat3r_ros.nodes.conversions import avatar_from_msg
from avat3r_ros.nodes.images import msg_from_image
from avat3r_ros.pipeline import BuildCancelledError, BuildError


class Builder(AvatarBuilderNode):
    """Builds at once, or waits until the test lets it go on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.go_on = threading.Event()
        self.go_on.set()
        self.compile_on = threading.Event()
        self.error = self.compile_error = None
        self.got = None

    def build_from_images(self, images, *, progress, cancelled, **options):
        self.got = SimpleNamespace(images=images, **options)
        progress("fitting the head template", 0.5)
        while not self.go_on.wait(0.01):
            if cancelled():
                raise BuildCancelledError("build cancelled before mapping positions")
        if self.error is not None:
            raise self.error
        return SimpleNamespace(avatar=small_avatar(0.25), warnings=["the sides are guessed"])

    build_from_photos = build_from_images

    def compile(self, avatar, progress):
        while not self.compile_on.wait(0.01):
            progress("finding components", 0.5)
        if self.compile_error is not None:
            raise self.compile_error
        return dataclasses.replace(avatar, avatar_id="", metadata={"compiled": True})


class FakeSelector:
    """Wants three images."""

    def __init__(self, num_views):
        self.frames = []

    def offer(self, image, face):
        self.frames.append(SelectedFrame(image, face, 0.0, 0.0, 1.0, 0.0))
        return SimpleNamespace(complete=len(self.frames) >= 3, reason="")

    def selected(self):
        return self.frames[:4]

    def wanted(self):
        return () if len(self.frames) >= 3 else ("turn your head a little to your left",)


@pytest.fixture
def client(graph):
    made = ActionClient(graph.probe, BuildAvatar, "avatar_builder/build")
    yield made
    made.destroy()


@pytest.fixture
def build(graph, client):
    """Send a goal; returns the accepted handle (or None) and the list of its feedback."""

    def send(**goal):
        graph.until(client.server_is_ready, "no action server")
        feedback = []
        future = client.send_goal_async(
            BuildAvatar.Goal(**goal), feedback_callback=lambda m: feedback.append(m.feedback)
        )
        graph.until(future.done)
        return (future.result() if future.result().accepted else None), feedback

    return send


def result_of(graph, handle):
    future = handle.get_result_async()
    graph.until(future.done, "no result")
    return future.result().result


@pytest.fixture
def photos(tmp_path):
    from PIL import Image as Picture

    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for path in paths:
        Picture.new("RGB", (128, 128), "grey").save(path)
    return paths


def test_the_compiled_animation_comes_after(graph, build, photos, tmp_path):
    node = graph.start(Builder())
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    path = tmp_path / "me.avat3r"
    handle, _ = build(image_paths=photos, output_path=str(path))
    assert result_of(graph, handle).success, "waits for nothing"
    graph.until(lambda: avatars)
    assert "compiled" not in load_avatar(path).metadata
    node.compile_on.set()
    graph.until(lambda: len(avatars) == 2)
    assert avatar_from_msg(avatars[1]).metadata["compiled"]
    assert load_avatar(path).metadata["compiled"]


def test_a_newer_avatar_is_not_replaced_by_an_older_compiled_one(graph, build, photos):
    node = graph.start(Builder())
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    for count in (1, 2):
        handle, _ = build(image_paths=photos)
        assert result_of(graph, handle).success
        graph.until(lambda count=count: len(avatars) == count)
    node.compile_on.set()
    graph.until(lambda: len(avatars) == 3)
    graph.spin(0.3)
    assert len(avatars) == 3


def test_an_avatar_that_cannot_be_compiled_stays(graph, build, photos):
    node = graph.start(Builder())
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    node.compile_error = ValueError("no room")
    node.compile_on.set()
    handle, _ = build(image_paths=photos)
    assert result_of(graph, handle).success
    graph.spin(0.3)
    assert len(avatars) == 1
    assert not node.failed


def test_build_from_photos_publishes_saves_and_reports(graph, build, photos, tmp_path):
    node = graph.start(Builder())
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    path = str(tmp_path / "me.avat3r")
    handle, feedback = build(image_paths=photos, output_path=path, owner="me")
    result = result_of(graph, handle)
    assert result.success, result.message
    assert list(result.warnings) == ["the sides are guessed"]
    assert node.got.metadata == {"owner": "me"} and len(node.got.images) == 3
    graph.until(lambda: avatars)
    received = avatar_from_msg(avatars[0])
    assert received.avatar_id == result.avatar_id and float(received.tensors["mark"]) == 0.25
    assert (tmp_path / "me.avat3r").stat().st_size == len(avatars[0].data)
    assert [(f.stage, f.progress) for f in feedback] == [("fitting the head template", 0.5)]


def test_build_from_the_topic_tells_the_operator_what_is_wanted(graph, build, monkeypatch):
    monkeypatch.setattr(view_capture, "FaceTracker", lambda *_, **__: FakeTracker())
    monkeypatch.setattr(view_capture, "FrameSelector", FakeSelector)
    monkeypatch.setattr(view_capture, "REPORT_PERIOD_S", 0.0)
    from rclpy.parameter import Parameter

    quick = [Parameter("capture.settle_s", value=0.0)]
    node = graph.start(Builder(parameter_overrides=quick))
    statuses = graph.listen(BuilderStatus, "avatar_builder/status", LATCHED)
    handle, feedback = build(num_views=3)
    images = graph.publisher(Image, "image_raw", sensor)
    future = handle.get_result_async()
    stamp = Header()

    def built():
        stamp.stamp.sec += 1
        images.publish(Image(encoding="rgb8", header=stamp))  # of size zero
        graph.spin(0.02)
        images.publish(msg_from_image(np.full((4, 4, 3), 9, np.uint8), "rgb8", stamp))
        graph.spin(0.05)
        return future.done()

    graph.until(built)
    assert future.result().result.success
    assert len(node.got.images) >= 3 and node.got.faces[0].detected
    assert all(image.size for image in node.got.images)
    assert "empty image, 0x0" in node.refusals.newest
    assert "turn your head a little to your left" in feedback[0].wanted_views
    graph.until(lambda: statuses[-1].state == BuilderStatus.READY)
    assert images.get_subscription_count() == 0, "images are only wanted while building"


def test_no_images_end_the_build_with_a_hint(graph, build, overrides):
    graph.start(Builder(**overrides(capture__timeout_s=1.0)))
    statuses = graph.listen(BuilderStatus, "avatar_builder/status", LATCHED)
    handle, _ = build()
    result = result_of(graph, handle)
    assert not result.success and "is a camera publishing" in result.message
    graph.until(lambda: statuses[-1].state == BuilderStatus.FAILED)


def test_cancel_stops_the_build(graph, build, photos):
    node = graph.start(Builder())
    node.go_on.clear()
    handle, feedback = build(image_paths=photos)
    graph.until(lambda: feedback)
    cancelling = handle.cancel_goal_async()
    graph.until(cancelling.done)
    result = result_of(graph, handle)
    assert not result.success and "cancelled" in result.message
    assert node._avatar is None


def test_a_second_build_is_rejected_while_one_runs(graph, build, photos):
    node = graph.start(Builder())
    node.go_on.clear()
    first, feedback = build(image_paths=photos)
    graph.until(lambda: feedback)
    second, _ = build(image_paths=photos)
    assert second is None and "under way" in node.refusals.newest
    node.go_on.set()
    assert result_of(graph, first).success


def test_deactivating_ends_a_running_build(graph, build, photos):
    node = graph.start(Builder())
    node.go_on.clear()
    handle, feedback = build(image_paths=photos)
    graph.until(lambda: feedback)
    node.trigger_deactivate()
    assert not result_of(graph, handle).success


@pytest.mark.parametrize("bad", ["missing", "not a picture", "folder"])
def test_bad_requests_say_why_and_keep_the_avatar(graph, build, photos, tmp_path, bad):
    node = graph.start(Builder())
    assert result_of(graph, build(image_paths=photos)[0]).success
    kept = node._avatar
    broken = tmp_path / "broken.png"
    goal = {"image_paths": [*photos, str(broken)]}
    if bad == "not a picture":
        broken.write_text("hello")
    elif bad == "folder":
        goal = {"image_paths": photos, "output_path": str(tmp_path / "no" / "me.avat3r")}
    result = result_of(graph, build(**goal)[0])
    expected = "folder does not exist" if bad == "folder" else "broken.png"
    assert not result.success and expected in result.message
    assert node._avatar is kept


def test_a_build_error_reaches_the_client_in_its_own_words(graph, build, photos):
    node = graph.start(Builder())
    node.error = BuildError("photo 2: no face found; use a sharp photo")
    result = result_of(graph, build(image_paths=photos)[0])
    assert result.message == "photo 2: no face found; use a sharp photo"


def test_load_and_save(graph, tmp_path):
    node = graph.start(Builder())
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    save, load = "avatar_builder/save", "avatar_builder/load"
    target = str(tmp_path / "copy.avat3r")
    answer = graph.call(AvatarFile, save, AvatarFile.Request(path=target))
    assert not answer.success and "no avatar yet" in answer.message
    original = tmp_path / "me.avat3r"
    saved = save_avatar(small_avatar(0.75), original)
    answer = graph.call(AvatarFile, load, AvatarFile.Request(path=str(original)))
    assert answer.success and answer.avatar_id == saved.avatar_id
    graph.until(lambda: avatars)
    assert graph.call(AvatarFile, save, AvatarFile.Request(path=target)).success
    original.write_bytes(original.read_bytes()[:-5])
    answer = graph.call(AvatarFile, load, AvatarFile.Request(path=str(original)))
    assert not answer.success and "truncated" in answer.message
    assert node._avatar.avatar_id == saved.avatar_id


def test_an_avatar_file_is_published_at_start_and_a_missing_one_stops_the_start(
    graph, overrides, tmp_path, capfd
):
    path = tmp_path / "me.avat3r"
    saved = save_avatar(small_avatar(), path)
    graph.start(Builder(**overrides(avatar_path=str(path))))
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    graph.until(lambda: avatars)
    assert avatars[0].avatar_id == saved.avatar_id
    node = graph.add(Builder(**overrides(avatar_path=str(tmp_path / "none.avat3r"))))
    assert not node.autostart()
    assert "none.avat3r" in capfd.readouterr().err


def test_build_on_start_tries_until_there_is_an_avatar(graph, overrides, monkeypatch, capfd):
    frame = SelectedFrame(np.zeros((4, 4, 3), np.uint8), face_state(), 0.0, 0.0, 1.0, 0.0)
    answers = iter([BuildError("only 1 of 4 views"), ([frame] * 3, [None] * 3)])

    def capture(*_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("avat3r_ros.nodes.avatar_builder.capture_views", capture)
    graph.start(Builder(**overrides(build_on_start=True)))
    avatars = graph.listen(Avatar, "avatar", LATCHED)
    graph.until(lambda: avatars)
    assert "only 1 of 4 views; trying again" in capfd.readouterr().err
