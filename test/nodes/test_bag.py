"""Bags: what is read of them, with either library, and what is said about broken ones."""

import pathlib
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")
pytest.importorskip("avat3r.msg", reason="needs this package's messages: `make env`")

from builtin_interfaces.msg import Time
from node_stand_ins import face_state
from rclpy.serialization import serialize_message
from rosbag2_stand_in import EXPRESSION, rosbag2_with
from std_msgs.msg import Header, String

from avat3r_ros.expression import ARKIT_52
from avat3r_ros.nodes.bag import read_bag
from avat3r_ros.nodes.conversions import expression_from_face

ROOT = pathlib.Path(__file__).resolve().parents[2]
JAW = ARKIT_52.index("jawOpen")
START_NS = 1_700_000_000 * 10**9


def said(jaw_open, source="camera", **changes):
    """Bytes of an expression, with fields changed."""
    header = Header(stamp=Time(sec=5), frame_id=source)
    msg = expression_from_face(face_state(jaw_open=jaw_open), header)
    for name, value in changes.items():
        setattr(msg, name, value)
    return serialize_message(msg)


def spoken(*items, topic="/expression", step_ns=20_000_000):
    return [(topic, data, START_NS + i * step_ns) for i, data in enumerate(items)]


def write_bag(path, messages, kinds=None, storage="MCAP", compress=False):
    """A bag as `ros2 bag record` leaves it."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs `pip install rosbags`")
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    definition = (ROOT / "msg" / "Expression.msg").read_text()
    store.register(typesys.get_types_from_msg(definition, EXPRESSION))
    writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin[storage])
    if compress:
        mode = rosbag2.CompressionMode.STORAGE if storage == "MCAP" else None
        writer.set_compression(
            mode or rosbag2.CompressionMode.MESSAGE, rosbag2.CompressionFormat.ZSTD
        )
    with writer:
        kinds = kinds or {"/expression": EXPRESSION}
        topics = {n: writer.add_connection(n, kind, typestore=store) for n, kind in kinds.items()}
        for topic, data, time_ns in messages:
            writer.write(topics[topic], time_ns, data)
    return path


SPOKEN = spoken(*(said(i / 10) for i in range(6)))


@pytest.mark.parametrize(("storage", "compress"), [("MCAP", False), ("MCAP", True),
                         ("SQLITE3", False), ("SQLITE3", True)])  # fmt: skip
def test_faces_of_a_bag_with_the_times_at_which_they_were_heard(tmp_path, storage, compress):
    path = write_bag(tmp_path / "bag", SPOKEN, storage=storage, compress=compress)
    states, left_out = read_bag(path)
    assert [round(float(s.code[JAW]), 3) for s in states] == [i / 10 for i in range(6)]
    assert np.diff([s.stamp_s for s in states]) == pytest.approx([0.02] * 5, abs=1e-6)
    assert not left_out and all(s.detected for s in states)


def test_a_single_file_is_a_bag_too(tmp_path):
    (file,) = write_bag(tmp_path / "bag", SPOKEN).glob("*.mcap")
    assert len(read_bag(file)[0]) == 6


def test_broken_and_second_sources_are_left_out_and_named(tmp_path):
    items = [said(0.1), said(0.2, values=[float("nan")] * 52), said(0.9, source="other")]
    items += [b"\0\1\0\0junk", said(0.3, code_space="flame"), said(0.4)]
    path = write_bag(tmp_path / "bag", [*spoken(*items), *spoken(said(0.5))])
    states, left_out = read_bag(path)
    assert [round(float(s.code[JAW]), 2) for s in states] == [0.1, 0.4]
    text = "\n".join(left_out)
    assert "3 messages broken" in text and "52 values that are not finite" in text
    assert "1 messages of a second source are left out: other" in text
    assert "1 messages out of order" in text


KINDS = {"/a/expression": EXPRESSION, "/b/expression": EXPRESSION, "/chat": "std_msgs/msg/String"}


def test_of_several_topics_one_must_be_named(tmp_path):
    both = [*spoken(said(0.1), said(0.2), topic="/a/expression")]
    both += spoken(said(0.8), said(0.9), topic="/b/expression")
    chat = spoken(serialize_message(String(data="hello")), topic="/chat")
    path = write_bag(tmp_path / "bag", [*both, *chat], KINDS)
    with pytest.raises(ValueError, match=r"bag_topic.*/a/expression.*/b/expression.*/chat"):
        read_bag(path)
    assert read_bag(path, "b/expression")[0][0].code[JAW] == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"Expression on /chat"):
        read_bag(path, "/chat")


def test_a_bag_without_expressions_says_what_it_has(tmp_path):
    chat = spoken(serialize_message(String(data="hello")), topic="/chat")
    path = write_bag(tmp_path / "bag", chat, {"/chat": "std_msgs/msg/String"})
    with pytest.raises(ValueError, match=r"got /chat \(std_msgs/msg/String\)"):
        read_bag(path)
    with pytest.raises(ValueError, match="to play, got 1"):
        read_bag(write_bag(tmp_path / "short", SPOKEN[:1]))


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_bag_is_refused_with_its_name(tmp_path, storage, keep):
    many = spoken(*(said(i / 200) for i in range(200)))
    path = write_bag(tmp_path / "bag", many, storage=storage)
    (file,) = [f for f in path.iterdir() if f.suffix in (".mcap", ".db3")]
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    try:
        states, left_out = read_bag(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: not a bag, or cut or damaged")
    else:  # SQLite gives zeros for the missing end of its last page
        assert storage == "SQLITE3" and keep > 0.99
        assert "1 messages broken" in left_out[0] and len(states) == 199


def test_what_is_no_bag_is_refused(tmp_path):
    pytest.importorskip("rosbags.rosbag2", reason="needs `pip install rosbags`")
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.mcap").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.txt").write_text("hello")
    for name in ("empty", "junk.mcap", "text.txt"):
        with pytest.raises(ValueError, match="not a bag"):
            read_bag(tmp_path / name)
    with pytest.raises(ValueError, match="no such bag"):
        read_bag(tmp_path / "nothing")


def test_random_bytes_among_the_messages_never_do_worse(tmp_path):
    rng = np.random.default_rng(0)
    items = [said(0.1)]
    for _ in range(300):
        data = bytearray(said(0.5))
        for at in rng.integers(4, len(data), 3):
            data[at] = rng.integers(256)
        items.append(bytes(data[: rng.integers(len(data) + 1)]))
    states, left_out = read_bag(write_bag(tmp_path / "bag", [*spoken(*items, said(0.2))]))
    assert left_out and all(np.isfinite(s.code).all() and s.code.max() <= 1 for s in states)


def test_without_any_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbag2_py", None)
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(RuntimeError, match="pip install rosbags"):
        read_bag(tmp_path)


def test_rosbag2_py_is_taken_where_it_is(tmp_path, monkeypatch):
    messages = [*SPOKEN, *spoken(b"", topic="/chat")]
    kinds = {"/expression": EXPRESSION, "/chat": "std_msgs/msg/String"}
    monkeypatch.setitem(sys.modules, "rosbag2_py", rosbag2_with(messages, kinds))
    states, left_out = read_bag(tmp_path)
    assert len(states) == 6 and not left_out
    (tmp_path / "damaged").mkdir()
    with pytest.raises(ValueError, match="not a bag.*No storage"):
        read_bag(tmp_path / "damaged")
