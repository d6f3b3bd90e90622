"""Nodes that are served beside everything else that a process does, by threads of their own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.utilities import get_default_context


def spin_quietly(executor: Executor) -> None:
    """Serve an executor's nodes until its context ends, by a signal or from another thread."""
    try:
        executor.spin()
    except ExternalShutdownException:
        return
    except (rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle):
        # The context may end after the executor has looked at it and before it waits, and another
        # thread may then shut the executor down while it serves a callback.
        if executor.context.ok():
            raise


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Serve a node while the block runs; then end its context and destroy it."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    thread = threading.Thread(
        target=spin_quietly, args=(executor,), name=node.get_name(), daemon=True
    )
    try:
        thread.start()
        yield
    finally:
        # Ended by name, the default context could not be begun again in this process.
        is_default = node.context is get_default_context()
        rclpy.try_shutdown(context=None if is_default else node.context)
        thread.join(timeout=2.0)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()


@contextmanager
def side_node(name: str) -> Iterator[Node]:
    """A node with a context of its own, served while the block runs."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node(name, context=context, enable_rosout=False)
    with spinning(node):
        yield node
