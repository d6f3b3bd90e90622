"""A subscription whose messages the thread that works on them waits for by itself.

An executor takes a message, hands it to that thread, and prepares its next wait for all that the
node has, most of a millisecond in which the thread waits for Python's lock. At an image every 33 ms
both are worth saving.
"""

from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy


class _Unserved(CallbackGroup):
    """Of subscriptions that executors leave alone."""

    def can_execute(self, entity: object) -> bool:
        return False

    def beginning_execution(self, entity: object) -> bool:
        return False


class NewestMessage:
    """Takes the newest message of a topic, best effort; older ones are gone.

    `wait_and_take` and `take` belong to one thread.

    Args:
        node: Gets the subscription.
        kind: Of the messages.
        topic: As the node knows it.
    """

    def __init__(self, node: Node, kind: type, topic: str) -> None:
        self._node = node
        self._subscription = node.create_subscription(
            kind,
            topic,
            lambda _: None,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=_Unserved(),
        )
        self._bell = GuardCondition(None, None, context=node.context)

    def take(self) -> Any | None:
        """Take the message that has arrived, or None at once where there is none."""
        with self._subscription.handle:
            taken = self._subscription.handle.take_message(self._subscription.msg_type, False)
        return None if taken is None else taken[0]

    def wait_and_take(self, timeout_s: float) -> Any | None:
        """Wait for a message; None after `timeout_s` or `wake`."""
        with self._node.context.handle:
            ready = _rclpy.WaitSet(1, 1, 0, 0, 0, 0, self._node.context.handle)
        ready.clear_entities()
        ready.add_subscription(self._subscription.handle)
        ready.add_guard_condition(self._bell.handle)
        ready.wait(int(1e9 * timeout_s))
        return self.take()

    def wake(self) -> None:
        """End the wait, in any thread."""
        self._bell.trigger()

    def close(self) -> None:
        """Remove the subscription; nobody may wait for it any more."""
        self._node.destroy_subscription(self._subscription)
        self._bell.destroy()
