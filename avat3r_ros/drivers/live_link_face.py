"""Epic's iPhone app Live Link Face, mode "Live Link (ARKit)": one UDP packet a frame, port 11111.

    uint8    version, 6
    int32 n, n bytes UTF-8      device id
    int32 n, n bytes UTF-8      subject name
    int32 frame, float32 part of a frame, int32 rate numerator, int32 rate denominator
    uint8    61
    61 float32                  52 blend shapes, head yaw pitch roll, left eye's, right eye's

All big-endian. The blend shapes are ARKit's in the order of `ARKIT_52`. A packet that ends after
the time, or says 0 instead of 61, means that the app sees no face.

Source: the layout as open receivers document it (PyLiveLinkFace and others). That the head's angles
are right-handed turns about the face's y, x and z follows from Unreal's axes. We had no phone to
check their unit and signs; see `head_unit_deg` of the node.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from avat3r_ros.drivers.sample import FaceSample, checked_code

PORT = 11111
VERSION = 6
NUM_VALUES, NUM_SHAPES = 61, 52
MAX_NAME = 256
MAX_DEVICES = 16
"""Devices that are remembered; junk with ever new names must not fill the memory."""

LATE_S = 1.0
"""A packet older than the last by up to this was overtaken; by more: the app's clock was set."""

_TIME = struct.Struct(">ifii")


@dataclass(frozen=True)
class Packet:
    """One packet's contents.

    Attributes:
        device: The app's own id.
        subject: Name that the user gave.
        time_s: Of the frame, by the phone's timecode; None where the packet has none.
        values: None when no face was seen.
    """

    device: str
    subject: str
    time_s: float | None
    values: Float[np.ndarray, "61"] | None


def parse_packet(data: bytes) -> Packet:
    """Read a packet.

    Raises:
        ValueError: It is not one; the message says where it departs from the layout.
    """
    if not data or data[0] != VERSION:
        raise ValueError(
            f"expected a Live Link Face packet of version {VERSION}, got {len(data)} bytes "
            f"beginning with {data[:4].hex(' ')}"
        )
    device, offset = _text(data, 1)
    subject, offset = _text(data, offset)
    if len(data) <= offset:
        return Packet(device, subject, None, None)
    if len(data) < offset + _TIME.size:
        raise ValueError(f"the packet ends inside its time, after {len(data)} bytes")
    frame, part, numerator, denominator = _TIME.unpack_from(data, offset)
    if numerator <= 0 or denominator <= 0 or not 0.0 <= part <= 1.0:
        raise ValueError(
            f"expected a frame time, got {frame} + {part:g} at {numerator}/{denominator}"
        )
    time_s = (frame + part) * denominator / numerator
    values = data[offset + _TIME.size :]
    if not values or values == b"\0":
        return Packet(device, subject, time_s, None)
    if values[0] != NUM_VALUES or len(values) != 1 + 4 * NUM_VALUES:
        raise ValueError(
            f"expected {NUM_VALUES} values, got {values[0]} in {len(values) - 1} bytes"
        )
    floats = np.frombuffer(values[1:], ">f4").astype(np.float32)
    if not np.isfinite(floats).all():
        raise ValueError(f"{int((~np.isfinite(floats)).sum())} values are not finite")
    return Packet(device, subject, time_s, floats)


class LiveLinkFace:
    """Newest face of each phone; see `FaceSource`."""

    def __init__(self) -> None:
        self._times_s: dict[str, float] = {}
        self._newest: dict[str, FaceSample] = {}

    def take(self, data: bytes, host: str, now_s: float) -> None:
        """See `FaceSource`."""
        packet = parse_packet(data)
        sample = FaceSample(None, np.zeros(3, np.float32))
        if packet.values is not None:
            head = packet.values[NUM_SHAPES : NUM_SHAPES + 3]
            sample = FaceSample(checked_code(packet.values[:NUM_SHAPES]), head)
        if packet.time_s is not None:
            behind_s = self._times_s.get(packet.device, -np.inf) - packet.time_s
            if 0 < behind_s < LATE_S:
                raise ValueError(f"a packet came {behind_s:.3f} s behind a newer one")
            self._times_s.pop(packet.device, None)  # the last heard of is the last to be forgotten
            self._times_s[packet.device] = packet.time_s
            if len(self._times_s) > MAX_DEVICES:
                del self._times_s[next(iter(self._times_s))]
        self._newest[_name(packet)] = sample

    def newest(self) -> dict[str, FaceSample]:
        """See `FaceSource`."""
        newest, self._newest = self._newest, {}
        return newest


def _text(data: bytes, offset: int) -> tuple[str, int]:
    if len(data) < offset + 4:
        raise ValueError(f"the packet ends inside its names, after {len(data)} bytes")
    (length,) = struct.unpack_from(">i", data, offset)
    end = offset + 4 + length
    if not 0 <= length <= MAX_NAME or end > len(data):
        raise ValueError(f"expected a name of at most {MAX_NAME} bytes, got {length}")
    try:
        return data[offset + 4 : end].decode(), end
    except UnicodeDecodeError as error:
        raise ValueError(f"a name is not UTF-8: {error}") from error


def _name(packet: Packet) -> str:
    """Two phones may bear the same name: the device id tells them apart."""
    words = f"{packet.subject[:32]}_{packet.device[-4:]}"
    return re.sub(r"\W", "_", words, flags=re.ASCII)
