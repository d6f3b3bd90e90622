"""Expressions out of a bag that `ros2 bag record` wrote: a folder, an .mcap or a .db3 file.

ROS's own rosbag2_py reads it where it is installed, else `rosbags` from PyPI, which needs no ROS.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

from avat3r.msg import Expression
from rclpy.serialization import deserialize_message

from avat3r_ros.nodes.conversions import face_from_expression
from avat3r_ros.types import FaceState

EXPRESSION = "avat3r/msg/Expression"

MIN_BYTES = 100
"""Less cannot be an Expression: header, two texts, gaze and pose are in each."""

Serialized = tuple[int, bytes]


def read_bag(path: str | os.PathLike, topic: str = "") -> tuple[list[FaceState], list[str]]:
    """Read the expressions of a bag.

    Args:
        path: Folder or file.
        topic: Of the bag; empty takes the only one that has expressions.

    Returns:
        Faces, whose stamps are the seconds at which the bag heard them, and one line for each kind
        of message that was left out: broken ones, those of a second source, and those heard no
        later than their predecessor.

    Raises:
        ValueError: No bag, a cut or damaged one, no expressions in it, or several such topics.
        RuntimeError: Nothing that reads bags is installed; says what to install.
    """
    states: list[FaceState] = []
    left_out: dict[str, tuple[int, str]] = {}
    source: str | None = None
    for time_ns, data in _expressions(str(path), topic):
        try:
            msg = _unpacked(data)
            face = face_from_expression(msg)
            if source is None:
                source = msg.header.frame_id
            kind, reason = "of a second source", msg.header.frame_id
            wanted = msg.header.frame_id == source
            if wanted and states and 1e-9 * time_ns <= states[-1].stamp_s:
                kind, reason, wanted = "out of order", f"at {1e-9 * time_ns:.3f} s", False
        except ValueError as error:
            kind, reason, wanted = "broken", str(error), False
        if wanted:
            states.append(replace(face, stamp_s=1e-9 * time_ns))
        else:
            count, first = left_out.get(kind, (0, reason))
            left_out[kind] = count + 1, first
    notes = [f"{n} messages {kind} are left out: {why}" for kind, (n, why) in left_out.items()]
    if len(states) < 2:
        raise ValueError(
            f"{path}: expected expressions to play, got {len(states)}"
            + "".join(f"; {note}" for note in notes)
        )
    return states, notes


def _unpacked(data: bytes) -> Expression:
    if len(data) < MIN_BYTES:
        raise ValueError(f"expected an Expression, got {len(data)} bytes")
    try:
        return deserialize_message(data, Expression)
    except Exception as error:  # the middleware's own, which differ
        raise ValueError(f"{len(data)} bytes are no Expression: {error}") from error


def _expressions(path: str, topic: str) -> Iterator[Serialized]:
    """Times and bytes of the wanted topic's messages, in the order in which they were heard."""
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such bag")
    try:
        import rosbag2_py
    except ModuleNotFoundError:
        yield from _with_rosbags(path, topic)
        return
    try:
        yield from _with_rosbag2_py(rosbag2_py, path, topic)
    except RuntimeError as error:  # what rosbag2 raises for whatever it cannot read
        raise _damaged(path, error) from error


def _with_rosbag2_py(rosbag2_py, path: str, topic: str) -> Iterator[Serialized]:
    reader = rosbag2_py.SequentialReader()
    reader.open(
        rosbag2_py.StorageOptions(uri=path, storage_id=""), rosbag2_py.ConverterOptions("", "")
    )
    kinds = {t.name: t.type for t in reader.get_all_topics_and_types()}
    chosen = _chosen(path, kinds, topic)
    reader.set_filter(rosbag2_py.StorageFilter(topics=[chosen]))
    while reader.has_next():
        _, data, time_ns = reader.read_next()
        yield time_ns, data


def _with_rosbags(path: str, topic: str) -> Iterator[Serialized]:
    try:
        from rosbags.rosbag2 import Reader, ReaderError
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "nothing here reads bags: apt-get install ros-$ROS_DISTRO-rosbag2-py, or without ROS "
            "`pip install rosbags`"
        ) from error
    try:
        with Reader(path) as reader:
            chosen = _chosen(path, {c.topic: c.msgtype for c in reader.connections}, topic)
            connections = [c for c in reader.connections if c.topic == chosen]
            for _, time_ns, data in reader.messages(connections):
                yield time_ns, bytes(data)
    except GeneratorExit:
        raise
    except ReaderError as error:
        raise _damaged(path, error) from error
    except ValueError:
        raise
    except Exception as error:  # of the many parts below it: SQLite, zstd, struct
        raise _damaged(path, error) from error


def _chosen(path: str, kinds: dict[str, str], topic: str) -> str:
    """Name of the wanted topic."""
    having = sorted(name for name, kind in kinds.items() if kind == EXPRESSION)
    if topic:
        having = [name for name in having if name.strip("/") == topic.strip("/")]
    if len(having) != 1:
        found = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items())) or "nothing"
        wanted = topic or "one topic; name it in `bag_topic`"
        raise ValueError(f"{path}: expected {EXPRESSION} on {wanted}, got {found}")
    return having[0]


def _damaged(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: not a bag, or cut or damaged; `ros2 bag reindex` may save it ({error})"
    )
