"""Only the newest item counts."""

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes.mailbox import Mailbox


def test_newest_item_replaces_and_counts_the_older():
    box = Mailbox()
    for item in (1, 2, 3):
        box.put(item)
    assert box.take() == 3
    assert box.take() is None
    assert box.num_dropped == 2


def test_waiting_ends_when_an_item_arrives():
    box = Mailbox()
    threading.Timer(0.05, box.put, ["late"]).start()
    start = time.monotonic()
    assert box.wait_and_take(2.0) == "late"
    assert time.monotonic() - start < 1.0


def test_waiting_ends_without_an_item():
    assert Mailbox().wait_and_take(0.01) is None


def test_boxes_may_share_a_bell():
    bell = threading.Event()
    first, second = Mailbox(bell), Mailbox(bell)
    second.put("x")
    assert bell.is_set()
    assert first.take() is None and second.take() == "x"
