"""A node beside everything else that a process does: its own context, spun by its own thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


@contextmanager
def side_node(name: str) -> Iterator[Node]:
    """A node whose callbacks run in a thread of their own while the block runs."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node(name, context=context, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, name=name, daemon=True)
    try:
        thread.start()
        yield node
    finally:
        rclpy.try_shutdown(context=context)
        thread.join(timeout=2.0)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
