"""A face from OSC messages that carry one value each.

The last part of the address names the value, whatever stands before it: `/jawOpen`,
`/avatar/parameters/FT/v2/JawOpen` and `/face/jaw_open` are the same, and `EyeBlink_L` is
`eyeBlinkLeft`. Known are ARKit's 52 names and HeadYaw, HeadPitch, HeadRoll. Other names are
ignored: programs send much that is not a face. A value stays until it is sent again.
"""

import re

import numpy as np

from avat3r_ros.drivers.osc import parse_osc
from avat3r_ros.drivers.sample import FaceSample, checked_code
from avat3r_ros.expression import ARKIT_52

PORT = 9000
FORGET_S = 2.0
"""After this silence a sender starts afresh: it may not send again what was set before."""

MAX_HOSTS = 16
HEAD = ("headyaw", "headpitch", "headroll")
MAX_HEAD = 360.0


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


INDEX = {_plain(name): i for i, name in enumerate(ARKIT_52)}
INDEX |= {name: len(ARKIT_52) + i for i, name in enumerate(HEAD)}


class OscFace:
    """Newest face of each sender; see `FaceSource`.

    Attributes:
        unknown: An address that named nothing we know, while no known one has come; "" else.
    """

    def __init__(self) -> None:
        self.unknown = ""
        self._values: dict[str, np.ndarray] = {}
        self._heard_s: dict[str, float] = {}
        self._changed: set[str] = set()

    def take(self, data: bytes, host: str, now_s: float) -> None:
        """See `FaceSource`."""
        known: dict[int, float] = {}
        messages = parse_osc(data)
        for message in messages:
            index = index_of(message.address)
            if index is None or not message.arguments:
                continue
            value = message.arguments[0]
            if not isinstance(value, int | float):
                raise ValueError(f"{message.address}: expected a number, got {value!r}")
            if index >= len(ARKIT_52) and not abs(value) <= MAX_HEAD:
                raise ValueError(f"{message.address}: expected an angle, got {value!r}")
            known[index] = float(value)
        if not known:
            if messages and not self._values:
                self.unknown = messages[0].address
            return
        values = self._values.get(host)
        if values is None or now_s - self._heard_s[host] > FORGET_S:
            values = np.zeros(len(INDEX), np.float32)
        values = values.copy()
        values[list(known)] = list(known.values())
        checked_code(values[: len(ARKIT_52)])
        self.unknown = ""
        for memory, item in ((self._values, values), (self._heard_s, now_s)):
            memory.pop(host, None)
            memory[host] = item
            if len(memory) > MAX_HOSTS:
                del memory[next(iter(memory))]
        self._changed.add(host)

    def newest(self) -> dict[str, FaceSample]:
        """See `FaceSource`."""
        changed, self._changed = self._changed, set()
        return {
            re.sub(r"\W", "_", host): FaceSample(
                checked_code(values[: len(ARKIT_52)]), values[len(ARKIT_52) :].copy()
            )
            for host, values in self._values.items()
            if host in changed
        }


def index_of(address: str) -> int | None:
    """Place of the value that an address names, None where it names none of ours."""
    name = address.rsplit("/", 1)[-1]
    for short, side in (("_L", "Left"), ("_R", "Right")):
        if name.endswith(short):
            name = name.removesuffix(short) + side
    return INDEX.get(_plain(name))
