"""A subscription that a thread of its own waits for, beside the executor of its node.

Before every wait, rclpy's executor gathers all that its node has, in Python: 1 to 2 ms of processor
time per message, in which every other thread waits for Python's lock. Whatever comes at the rate of
a camera or a headset passes it by.
"""

import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import QoSLivelinessChangedInfo, SubscriptionEventCallbacks
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

LOOK_S = 0.2
"""How often `serve` looks whether it shall stop."""


class _Unserved(CallbackGroup):
    """Of subscriptions that executors leave alone."""

    def can_execute(self, entity: object) -> bool:
        return False

    def beginning_execution(self, entity: object) -> bool:
        return False


class NewestMessage:
    """Takes the newest message of a topic; older ones are gone.

    `serve`, `wait_and_take` and `take` belong to one thread.

    Args:
        node: Gets the subscription.
        kind: Of the messages.
        topic: As the node knows it.
        qos: Depth 1; best effort, if not given.
        on_liveliness: Called by the thread that waits, when publishers come or go.

    Attributes:
        info: The middleware's times of the message taken last.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        qos: QoSProfile = NEWEST,
        on_liveliness: Callable[[QoSLivelinessChangedInfo], None] | None = None,
    ) -> None:
        self.info: dict = {}
        self._node = node
        self._subscription = node.create_subscription(
            kind,
            topic,
            lambda _: None,
            qos,
            callback_group=_Unserved(),
            event_callbacks=SubscriptionEventCallbacks(liveliness=on_liveliness),
        )
        self._events = self._subscription.event_handlers
        self._bell = GuardCondition(None, None, context=node.context)
        with node.context.handle:
            self._ready = _rclpy.WaitSet(1, 1, 0, 0, 0, len(self._events), node.context.handle)

    @property
    def topic(self) -> str:
        """Full name."""
        return self._subscription.topic_name

    @property
    def num_publishers(self) -> int:
        """Of the topic, as far as they match."""
        return self._subscription.get_publisher_count()

    def take(self) -> Any | None:
        """Take the message that has arrived, or None at once where there is none."""
        with self._subscription.handle:
            taken = self._subscription.handle.take_message(self._subscription.msg_type, False)
        if taken is None:
            return None
        message, self.info = taken
        return message

    def wait_and_take(self, timeout_s: float) -> Any | None:
        """Wait for a message; None after `timeout_s`, `wake` or an event.

        Events are served here as well: an executor that waits for them would be woken by each
        message, and find nothing to do.
        """
        ready = self._ready
        ready.clear_entities()
        ready.add_subscription(self._subscription.handle)
        ready.add_guard_condition(self._bell.handle)
        for event in self._events:
            event.add_to_wait_set(ready)
        ready.wait(int(1e9 * timeout_s))
        for event in self._events:
            if event.is_ready(ready):
                event.callback(event.take_data())
        return self.take()

    def serve(self, handle: Callable[[Any], None], stop: threading.Event) -> None:
        """Call `handle` with each message from now on, until `stop` is set."""
        self.take()  # of before
        while not stop.is_set():
            message = self.wait_and_take(LOOK_S)
            if message is not None:
                handle(message)

    def wake(self) -> None:
        """End the wait, in any thread."""
        self._bell.trigger()

    def close(self) -> None:
        """Remove the subscription; nobody may wait for it any more."""
        self._node.destroy_subscription(self._subscription)
        self._bell.destroy()
