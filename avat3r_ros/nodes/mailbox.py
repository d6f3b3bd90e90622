"""Hand-over between threads in which only the newest thing counts.

A live picture must never wait for old work: whoever is late finds the newest item, and those in
between are gone, counted.
"""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item; a new one replaces it.

    Args:
        bell: Set whenever an item arrives; one bell may serve several boxes, so that one thread can
            wait for all of them. A bell of its own if None.

    Attributes:
        num_dropped: Items that were replaced before anyone took them.
    """

    def __init__(self, bell: threading.Event | None = None) -> None:
        self.bell = bell if bell is not None else threading.Event()
        self.num_dropped = 0
        self._lock = threading.Lock()
        self._item: T | None = None

    def put(self, item: T) -> None:
        """Leave an item and ring the bell."""
        with self._lock:
            self.num_dropped += self._item is not None
            self._item = item
        self.bell.set()

    def take(self) -> T | None:
        """Take the item out, or None at once where there is none."""
        with self._lock:
            item, self._item = self._item, None
        return item

    def wait_and_take(self, timeout_s: float) -> T | None:
        """Wait for an item; None after `timeout_s`. For boxes with a bell of their own."""
        self.bell.wait(timeout_s)
        self.bell.clear()
        return self.take()

    def wake(self) -> None:
        """End the wait."""
        self.bell.set()
