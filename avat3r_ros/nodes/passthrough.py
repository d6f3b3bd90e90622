"""Pictures to show behind the avatar, e.g. what the headset's or the robot's camera sees."""

import threading
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from jaxtyping import UInt8
from sensor_msgs.msg import Image

from avat3r_ros.nodes.images import image_from_msg
from avat3r_ros.nodes.managed import ManagedNode
from avat3r_ros.nodes.newest_message import NewestMessage
from avat3r_ros.nodes.viewpoint import ViewConfig
from avat3r_ros.pictures import middle_cut


def cover(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> np.ndarray:
    """Cut and resize a picture so that it fills `width` x `height` undistorted, from its middle."""
    cut = middle_cut(image, width, height)
    if cut.shape[:2] == (height, width):
        return np.ascontiguousarray(cut)
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)


class Passthrough:
    """Newest picture of background/image_raw, or left/background/image_raw and right/….

    Args:
        node: Gets the subscriptions, and hears of refused messages.
        view: Size, and mono or stereo.
        timeout_s: Older pictures are not shown: a frozen surrounding is worse than none.
        changed: Called when there is a new one.

    Attributes:
        listeners: One for each eye, to be called in a thread of its own with an event that ends it.
    """

    def __init__(
        self, node: ManagedNode, view: ViewConfig, timeout_s: float, changed: Callable[[], None]
    ) -> None:
        self._node, self._view, self._timeout_s, self._changed = node, view, timeout_s, changed
        self._newest: list[tuple[float, np.ndarray] | None] = [None] * len(view.eyes)
        self._inboxes = [
            NewestMessage(node, Image, f"{eye}background/image_raw") for eye in view.eyes
        ]
        self.listeners: list[Callable[[threading.Event], None]] = [
            partial(inbox.serve, partial(self._on_image, index))
            for index, inbox in enumerate(self._inboxes)
        ]

    def wake(self) -> None:
        """End the waits of the listeners."""
        for inbox in self._inboxes:
            inbox.wake()

    def close(self) -> None:
        """Remove the subscriptions; the listeners have ended."""
        for inbox in self._inboxes:
            inbox.close()

    def images(self) -> UInt8[np.ndarray, "c h w 3"] | None:
        """One RGB picture for each eye, or None while one of them is missing or too old."""
        since_s = time.monotonic() - self._timeout_s
        newest = list(self._newest)
        if any(item is None or item[0] < since_s for item in newest):
            return None
        return np.stack([image for _, image in newest])

    def _on_image(self, index: int, msg: Image) -> None:
        try:
            image = cover(image_from_msg(msg), self._view.width, self._view.height)
        except ValueError as error:
            self._node.refuse("background", error)
            return
        self._newest[index] = time.monotonic(), image
        self._changed()
