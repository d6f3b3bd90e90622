"""Messages that a thread waits for by itself, beside an executor that serves the same node."""

import threading
import time

import rclpy
from std_msgs.msg import Header

from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.nodes.qos import EXPRESSION_OFFER, expression_request


def test_only_the_newest_message_is_left_for_the_one_who_waits(graph):
    node = graph.add(rclpy.create_node("reader"))
    messages = NewestMessage(node, Header, "words")
    publisher = graph.publisher(Header, "words")
    assert messages.wait_and_take(0.01) is None
    for word in ("first", "second"):
        publisher.publish(Header(frame_id=word))
    graph.spin(0.3)  # the executor must not take them
    assert messages.wait_and_take(5.0).frame_id == "second"
    assert messages.take() is None
    messages.close()


def test_waking_ends_the_wait_of_another_thread(graph):
    node = graph.add(rclpy.create_node("reader"))
    messages = NewestMessage(node, Header, "words")
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(messages.wait_and_take(30.0)))
    waiting.start()
    time.sleep(0.05)
    messages.wake()
    waiting.join(timeout=10.0)
    assert got == [None]
    messages.close()


def test_publishers_that_come_and_go_are_noticed_by_the_one_who_waits(graph):
    node = graph.add(rclpy.create_node("reader"))
    seen: list[int] = []
    messages = NewestMessage(
        node,
        Header,
        "words",
        expression_request(lease_s=2.0),
        lambda info: seen.append(info.alive_count),
    )
    publisher = graph.publisher(Header, "words", EXPRESSION_OFFER)
    publisher.publish(Header())  # who says nothing is not known to live
    graph.spin(0.1)
    assert not seen  # events are not the executor's
    wait_until(lambda: seen == [1], messages)
    assert messages.num_publishers == 1
    graph.probe.destroy_publisher(publisher)
    wait_until(lambda: seen[-1] == 0, messages)
    messages.close()


def wait_until(condition, messages):
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        messages.wait_and_take(1.0)
