"""Hand-over by reference between nodes of one process.

rclpy has no intra-process transport: a message to a node of the same process is serialized, goes
through the middleware and is unpacked again. Nodes that are given a HandOver pass images, camera
calibrations and expressions on as the objects that they are; their topics are published as well
where anybody listens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from std_msgs.msg import Header


@dataclass(frozen=True)
class LocalImage:
    """An image that is not copied; nobody writes to its pixels any more.

    Attributes:
        pixels: RGB.
        header: As of the message that it would be.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    header: Header


class HandOver:
    """Who takes what inside this process. Configure and clean up nodes in one thread.

    Args:
        topics: Names that are handed over; all others take the middleware.
    """

    def __init__(self, *topics: str) -> None:
        self._takers: dict[str, tuple[Callable, ...]] = dict.fromkeys(topics, ())

    def carries(self, topic: str) -> bool:
        """Whether a topic is handed over: its reader needs no subscription."""
        return topic in self._takers

    def listen(self, topic: str, taker: Callable) -> None:
        """Call `taker(item)` for each item of a topic, in the giver's thread: be quick."""
        self._takers[topic] += (taker,)

    def leave(self, topic: str, taker: Callable) -> None:
        """End `listen`; nothing happens where there is none."""
        if topic in self._takers:
            self._takers[topic] = tuple(t for t in self._takers[topic] if t != taker)

    def give(self, topic: str, item: object) -> None:
        """Hand an item to all who listen."""
        for taker in self._takers.get(topic, ()):
            taker(item)


NOTHING = HandOver()
"""Of a node that is alone in its process."""
