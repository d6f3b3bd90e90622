"""expression_driver: real UDP sockets, junk among the packets, recordings; and who drives."""

import dataclasses
import pathlib
import socket
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from avat3r.msg import Expression, RendererStatus
from diagnostic_msgs.msg import DiagnosticStatus
from node_stand_ins import FakeAnimator, face_state, small_avatar
from rclpy.qos import qos_profile_sensor_data as sensor
from rclpy.serialization import serialize_message
from rosbag2_stand_in import rosbag2_with
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "drivers"))
from datagrams import live_link_packet, osc_bundle, osc_message

from avat3r_ros.code_file import write_codes
from avat3r_ros.expression import ARKIT_52, arkit_code
from avat3r_ros.nodes import expression_driver
from avat3r_ros.nodes.avatar_renderer import LATCHED, AvatarRendererNode
from avat3r_ros.nodes.conversions import (
    expression_from_face,
    face_from_expression,
    msg_from_avatar,
)
from avat3r_ros.nodes.expression_driver import ExpressionDriverNode
from avat3r_ros.nodes.viewpoint import head_turn

JAW = ARKIT_52.index("jawOpen")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Phone:
    """A sender of datagrams beside a driver node that listens."""

    def __init__(self, graph, overrides, driver, **parameters):
        self.port = free_port()
        options = overrides(driver=driver, address="127.0.0.1", port=self.port, **parameters)
        self.node = graph.start(ExpressionDriverNode(**options))
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.heard = graph.listen(Expression, "expression", sensor)

    def send(self, data):
        self.socket.sendto(data, ("127.0.0.1", self.port))


@pytest.fixture
def phone(graph, overrides):
    made = []

    def build(driver, **parameters):
        made.append(Phone(graph, overrides, driver, **parameters))
        return made[-1]

    yield build
    for one in made:
        one.socket.close()


def test_a_live_link_packet_becomes_an_expression(phone, graph):
    iphone = phone("live_link_face")

    def heard():
        iphone.send(live_link_packet(arkit_code(jawOpen=0.75), (0.3, 0.2, -0.1)))
        return iphone.heard

    graph.until(heard)
    msg = iphone.heard[0]
    face = face_from_expression(msg)
    assert face.detected and face.code[JAW] == 0.75 and msg.num_faces == 1
    assert msg.header.frame_id == "live_link_face_iPhone_CD34"
    assert abs(msg.header.stamp.sec - time.time()) < 5
    # First order: yaw about y (up), pitch about x (subject's left), roll about z (out).
    assert head_turn(face.camera_from_head) == pytest.approx([0.2, 0.3, -0.1], abs=0.05)
    assert iphone.node.health()[0] == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("angles", "ahead"),
    [
        ((0.5, 0, 0), (np.sin(0.5), 0, np.cos(0.5))),  # to the subject's left, +x
        ((0, 0.5, 0), (0, -np.sin(0.5), np.cos(0.5))),  # down
    ],
)
def test_directions_of_the_head(angles, ahead):
    from avat3r_ros import geometry
    from avat3r_ros.nodes.expression_driver import camera_from_turned_head

    turned = camera_from_turned_head(np.degrees(angles))[:3, :3]
    nose = geometry.CAMERA_FROM_HEAD_AXES.T @ turned @ [0, 0, 1]
    assert nose == pytest.approx(ahead)


def test_degrees_are_taken_by_parameter(phone, graph):
    desk = phone("osc", head_unit_deg=1.0)

    def heard():
        desk.send(osc_bundle(osc_message("/HeadYaw", 30.0)))
        return desk.heard

    graph.until(heard)
    turn = head_turn(face_from_expression(desk.heard[0]).camera_from_head)
    assert np.degrees(turn) == pytest.approx([0, 30, 0], abs=0.01)


def test_the_app_without_a_face_is_an_answer(phone, graph):
    iphone = phone("live_link_face")

    def heard():
        iphone.send(live_link_packet(face=False))
        return iphone.heard

    graph.until(heard)
    assert not iphone.heard[0].detected and not any(iphone.heard[0].values)


@pytest.mark.parametrize("driver", ["live_link_face", "osc"])
def test_junk_between_packets_is_counted_and_the_face_goes_on(phone, graph, driver):
    desk = phone(driver)
    good = {"live_link_face": live_link_packet(), "osc": osc_message("/jawOpen", 0.5)}[driver]
    rng = np.random.default_rng(0)
    for size in (0, 1, 3, 60, 500, 60000):
        desk.send(rng.bytes(size))
    graph.until(lambda: desk.node.refusals.total >= 6, "six refusals")
    assert not desk.heard and "packet: from 127.0.0.1:" in desk.node.refusals.newest

    def heard():
        desk.send(good)
        return desk.heard

    graph.until(heard)
    assert desk.node.is_active and not desk.node.failed


@pytest.mark.realtime
def test_values_that_come_one_by_one_become_one_expression(phone, graph):
    """52 datagrams a face: as many expressions would only replace each other."""
    desk = phone("osc")
    graph.until_heard("expression")
    for round_ in range(5):
        for name in ARKIT_52:
            desk.send(osc_message(f"/avatar/parameters/{name}", 0.1 * round_))
        graph.spin(0.1)
    graph.until(
        lambda: face_from_expression(desk.heard[-1]).code == pytest.approx(np.full(52, 0.4)),
        "all values of the last round",
    )
    assert len(desk.heard) <= 52, "of 260 datagrams"


@pytest.mark.realtime
def test_of_packets_that_were_stuck_only_the_newest_is_published(phone, graph, monkeypatch):
    # This process also sends and spins: reading eight packets may take longer than usual.
    monkeypatch.setattr(expression_driver, "MAX_GATHER_S", 1.0)
    iphone = phone("live_link_face")
    graph.until_heard("expression")
    iphone.node.trigger_deactivate()
    iphone.node.trigger_activate()
    held = iphone.node._source.take
    gate = {"open": False}

    def slow(*arguments):
        if not gate["open"]:
            time.sleep(0.2)  # while the others arrive
            gate["open"] = True
        held(*arguments)

    iphone.node._source.take = slow
    for frame in range(8):
        iphone.send(live_link_packet(arkit_code(jawOpen=frame / 8), frame=100 + frame))
    graph.until(lambda: iphone.heard)
    graph.spin(0.1)
    assert [round(m.values[JAW], 2) for m in iphone.heard] == [0.88]


def test_only_the_named_sender_is_taken(phone, graph):
    iphone = phone("live_link_face", sender="10.1.2.3")
    iphone.send(live_link_packet())
    graph.until(lambda: "127.0.0.1 is not 10.1.2.3" in iphone.node.refusals.newest)
    assert not iphone.heard


def test_disabled_it_is_silent_and_says_nothing_old_afterwards(phone, graph):
    iphone = phone("live_link_face")
    graph.until_heard("expression")
    assert graph.call(SetBool, "expression_driver/enable", SetBool.Request(data=False)).success
    iphone.send(live_link_packet())
    graph.spin(0.3)
    assert graph.call(SetBool, "expression_driver/enable", SetBool.Request(data=True)).success
    graph.spin(0.3)
    assert not iphone.heard
    level, text = iphone.node.health()
    assert level == DiagnosticStatus.WARN and f"127.0.0.1:{iphone.port}" in text


def test_a_port_in_use_is_said_and_free_again_after_deactivation(phone, graph, overrides, capfd):
    iphone = phone("live_link_face")
    options = overrides(driver="osc", address="127.0.0.1", port=iphone.port)
    second = graph.add(ExpressionDriverNode(**options))
    assert not second.autostart()
    assert f"cannot listen on UDP 127.0.0.1:{iphone.port}" in capfd.readouterr().err
    iphone.node.trigger_deactivate()
    assert second.trigger_activate().name == "SUCCESS"


class Headset:
    """A publisher of face weights beside a driver node that reads them."""

    def __init__(self, graph, overrides, **parameters):
        self.node = graph.start(
            ExpressionDriverNode(**overrides(driver="face_weights", **parameters))
        )
        self.heard = graph.listen(Expression, "expression", sensor)
        self.publisher = graph.publisher(JointState, "face_weights", sensor)
        graph.until_heard("expression")

    def send(self, frame_id="quest", stamp_s=0.0, **weights):
        msg = JointState(name=list(weights), position=list(map(float, weights.values())))
        msg.header.frame_id = frame_id
        msg.header.stamp.sec = int(stamp_s)
        self.publisher.publish(msg)


@pytest.fixture
def headset(graph, overrides):
    return Headset(graph, overrides)


def test_weights_of_a_headset_become_an_expression(headset, graph):
    def heard():
        headset.send(XR_FACE_EXPRESSION2_JAW_DROP_FB=0.75, HeadYaw=0.3)
        return headset.heard

    graph.until(heard)
    msg = headset.heard[0]
    face = face_from_expression(msg)
    assert face.detected and face.code[JAW] == 0.75 and face.code.sum() == 0.75
    assert msg.header.frame_id == "face_weights_quest"
    assert abs(msg.header.stamp.sec - time.time()) < 5
    assert head_turn(face.camera_from_head) == pytest.approx([0, 0.3, 0], abs=0.01)
    assert headset.node.health()[0] == DiagnosticStatus.OK
    headset.heard.clear()
    graph.until(lambda: headset.send() or headset.heard)
    graph.until(lambda: not headset.heard[-1].detected, "a headset that sees no face says so")


def test_junk_weights_are_refused_and_unknown_names_are_said_once(headset, graph, capfd):
    for junk in ({"JawDrop": float("nan")}, {"JawDrop": 7}, {"wheel": 0}, {"a": 0, "b": 1}):
        total = headset.node.refusals.total
        graph.until(lambda junk=junk, t=total: headset.send(**junk) or (
            headset.node.refusals.total > t))  # fmt: skip
    assert not headset.heard and "from quest" in headset.node.refusals.newest
    for _ in range(5):
        graph.until(lambda: headset.send(JawDrop=0.5, wheel=3) or headset.heard)
        headset.heard.clear()
    assert capfd.readouterr().err.count("that are no face weights: a, b, wheel") == 1
    headset.publisher.publish(JointState(name=["JawDrop"], position=[]))
    graph.until(lambda: "a weight for each name" in headset.node.refusals.newest)
    assert headset.node.is_active and not headset.node.failed


def test_overtaken_weights_are_refused(headset, graph):
    graph.until(lambda: headset.send(stamp_s=1000, JawDrop=0.9) or headset.heard)
    msg = JointState(name=["JawDrop"], position=[0.1])
    msg.header.frame_id, msg.header.stamp.sec, msg.header.stamp.nanosec = "quest", 999, 900_000_000
    graph.until(
        lambda: headset.publisher.publish(msg) or "behind a newer" in headset.node.refusals.newest
    )
    assert {round(m.values[JAW], 2) for m in headset.heard} == {0.9}


def test_disabled_it_ignores_weights_and_warns_while_none_come(headset, graph):
    assert headset.node.health() == (DiagnosticStatus.WARN, "no face comes on /face_weights")
    assert graph.call(SetBool, "expression_driver/enable", SetBool.Request(data=False)).success
    headset.send(JawDrop=0.5)
    graph.spin(0.3)
    assert not headset.heard
    graph.probe.create_publisher(JointState, "face_weights", sensor)
    assert graph.call(SetBool, "expression_driver/enable", SetBool.Request(data=True)).success
    graph.until(lambda: headset.node.health()[1] == "2 publishers of /face_weights")


def test_after_clean_up_nothing_listens_any_more(headset, graph):
    headset.node.trigger_deactivate()
    headset.send(JawDrop=0.5)
    graph.spin(0.2)
    assert not headset.heard
    headset.node.trigger_cleanup()
    graph.until(lambda: headset.publisher.get_subscription_count() == 0)


@pytest.fixture
def code_file(tmp_path):
    path = tmp_path / "codes.jsonl"
    states = [dataclasses.replace(face_state(jaw_open=i / 10), stamp_s=i * 0.02) for i in range(10)]
    write_codes(states, path)
    return str(path)


@pytest.mark.realtime
def test_a_recording_is_played_in_a_loop_and_can_be_paused(graph, overrides, code_file):
    node = graph.start(ExpressionDriverNode(**overrides(driver="recording", recording=code_file)))
    heard = graph.listen(Expression, "expression", sensor)

    def jaws():
        return np.array([round(10 * m.values[JAW]) for m in heard])

    graph.until(
        lambda: (
            len(heard) > 25 and set(jaws()) == set(range(10)) and (np.diff(jaws()) < 0).sum() > 1
        ),
        "every code, and again from the beginning",
    )
    stamps = np.array([m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in heard])
    steps, frames = np.diff(stamps), np.diff(jaws()) % 10
    assert (steps > 0).all()
    # Of frames that did not reach the test in time the next one tells how many they were.
    assert np.median(steps / np.maximum(frames, 1)) == pytest.approx(0.02, abs=0.01)
    assert graph.call(SetBool, "expression_driver/pause", SetBool.Request(data=True)).success
    graph.until(
        lambda: len(heard) > 5 and len({m.values[JAW] for m in heard[-5:]}) == 1,
        "the face stays, and is alive",
    )
    assert node.health()[1] == "paused"


@pytest.mark.realtime
def test_a_bag_is_played_as_it_was_heard(graph, overrides, tmp_path, monkeypatch):
    """Its silence is silence, and what is left out of it is said."""
    at_ms = (0, 20, 40, 60, 600, 620)
    messages = [
        ("/expression", serialize_message(expression_from_face(face_state(jaw_open=i / 10),
         _header())), at * 10**6) for i, at in enumerate(at_ms)]  # fmt: skip
    messages.insert(2, ("/expression", b"junk", 30 * 10**6))
    bags = rosbag2_with(messages, {"/expression": "avat3r/msg/Expression"})
    monkeypatch.setitem(sys.modules, "rosbag2_py", bags)
    heard = graph.listen(Expression, "expression", sensor)
    options = overrides(driver="rosbag", recording=str(tmp_path))
    node = graph.start(ExpressionDriverNode(**options))
    graph.until(lambda: len(heard) > 8)
    stamps = np.array([m.header.stamp.sec % 100 + 1e-9 * m.header.stamp.nanosec for m in heard])
    jaws = np.round([m.values[JAW] for m in heard], 2)
    # A busy machine leaves frames out: whatever is left on both sides of the silence.
    silences = np.diff(stamps)[(jaws[:-1] < 0.35) & (jaws[1:] > 0.35)]
    assert len(silences) and silences.min() > 0.4
    assert heard[0].header.frame_id == "rosbag"
    assert node.health()[0] == DiagnosticStatus.OK


def test_a_recording_without_loop_ends_and_says_so(graph, overrides, code_file):
    options = overrides(driver="recording", recording=code_file, loop=False)
    node = graph.start(ExpressionDriverNode(**options))
    node._heard_s = -np.inf
    graph.until(lambda: "has ended" in node.health()[1])
    assert node.is_active and not node.failed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"driver": "telepathy"}, "telepathy"),
        ({"driver": "recording"}, "avat3r track"),
        ({"driver": "recording", "recording": "/no/such/file"}, "/no/such/file"),
        ({"driver": "recording", "recording": __file__}, "not an avat3r code file"),
        ({"driver": "rosbag"}, "ros2 bag record"),
        ({"driver": "rosbag", "recording": "/no/such/bag"}, "/no/such/bag: no such bag"),
    ],
)
def test_settings_that_cannot_work_keep_it_unconfigured(graph, overrides, options, says, capfd):
    node = graph.add(ExpressionDriverNode(**overrides(**options)))
    assert not node.autostart()
    assert says in capfd.readouterr().err


def test_a_phone_cannot_be_paused(phone, graph):
    phone("live_link_face")
    answer = graph.call(SetBool, "expression_driver/pause", SetBool.Request(data=True))
    assert not answer.success and "recording" in answer.message


class Renderer(AvatarRendererNode):
    def make_animator(self, avatar):
        return FakeAnimator(avatar)


@pytest.fixture
def renderer(graph, overrides):
    options = {"view__width": 32, "view__height": 32, "num_threads": 1}
    made = graph.start(
        Renderer(**overrides(**options, presence__hold_after_s=0.2, presence__neutral_after_s=0.4))
    )
    avatar = msg_from_avatar(small_avatar(), _header())
    graph.publisher(type(avatar), "avatar", LATCHED).publish(avatar)
    return made


def test_of_two_phones_one_drives_until_it_is_silent(phone, graph, renderer):
    iphone = phone("live_link_face")
    frame = [0]

    def say(*devices):
        frame[0] += 1
        for device in devices:
            iphone.send(live_link_packet(device=device, frame=frame[0]))
        return True

    graph.until(lambda: say("device-A") and renderer._presence.at(time.monotonic()).stamp_s)
    graph.until(lambda: say("device-A", "device-B") and "second source" in renderer.refusals.newest)
    assert "ce_B" not in renderer._presence._source and renderer._presence._source
    graph.until(lambda: say("device-B") and renderer._presence._source.endswith("ce_B"), "B")
    graph.until(lambda: say("device-B") and _state(renderer) == RendererStatus.LIVE)


def test_of_two_headsets_on_one_topic_one_drives(headset, graph, renderer):
    graph.until(lambda: headset.send("a", JawDrop=0.5) or renderer._presence._source)
    turns = iter(range(10_000))

    def both():
        headset.send("ab"[next(turns) % 2], JawDrop=0.5)
        return "second source" in renderer.refusals.newest

    graph.until(both)
    assert renderer._presence._source == "face_weights_a"


def _header():
    from std_msgs.msg import Header

    return Header()


def _state(renderer):
    return int(renderer._display.scene.state)
