"""Open Sound Control 1.0 messages and bundles from datagrams.

Source: "The Open Sound Control 1.0 Specification" (opensoundcontrol.stanford.edu). Time tags of
bundles are ignored: a live face has no later.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 4
"""Bundles inside bundles; deeper ones are junk."""

_NUMBERS = {"i": ">i", "f": ">f", "h": ">q", "d": ">d", "t": ">Q", "c": ">i", "r": ">I", "m": ">I"}
_CONSTANTS = {"T": True, "F": False, "N": None, "I": float("inf")}


@dataclass(frozen=True)
class OscMessage:
    """An address pattern with its arguments."""

    address: str
    arguments: tuple[object, ...]


def parse_osc(data: bytes) -> list[OscMessage]:
    """All messages of a datagram, those in bundles in their order.

    Raises:
        ValueError: It is not OSC; the message says why.
    """
    return list(_messages(data, 0))


def _messages(data: bytes, depth: int) -> Iterator[OscMessage]:
    if not data or len(data) % 4:
        raise ValueError(f"expected OSC in multiples of 4 bytes, got {len(data)} bytes")
    if data.startswith(b"#bundle\0"):
        if depth >= MAX_DEPTH or len(data) < 16:
            raise ValueError("an OSC bundle is cut or nested too deeply")
        offset = 16
        while offset < len(data):
            size = struct.unpack_from(">i", data, offset)[0]
            offset += 4
            if not 0 < size <= len(data) - offset:
                raise ValueError(f"an OSC bundle announces {size} of {len(data) - offset} bytes")
            yield from _messages(data[offset : offset + size], depth + 1)
            offset += size
        return
    address, offset = _string(data, 0)
    if not address.startswith("/"):
        raise ValueError(f"expected an OSC address beginning with /, got {address[:40]!r}")
    if offset == len(data):
        yield OscMessage(address, ())  # very old senders leave the types out
        return
    types, offset = _string(data, offset)
    if not types.startswith(","):
        raise ValueError(f"{address}: expected OSC type tags, got {types[:40]!r}")
    arguments: list[object] = []
    for kind in types[1:].replace("[", "").replace("]", ""):
        if kind in _CONSTANTS:
            arguments.append(_CONSTANTS[kind])
        elif kind in _NUMBERS:
            layout = _NUMBERS[kind]
            if offset + struct.calcsize(layout) > len(data):
                raise ValueError(f"{address}: the message ends before its arguments")
            arguments.append(struct.unpack_from(layout, data, offset)[0])
            offset += struct.calcsize(layout)
        elif kind in "sS":
            text, offset = _string(data, offset)
            arguments.append(text)
        elif kind == "b" and offset + 4 <= len(data):
            size = struct.unpack_from(">i", data, offset)[0]
            if not 0 <= size <= len(data) - offset - 4:
                raise ValueError(f"{address}: the message ends inside a blob")
            arguments.append(data[offset + 4 : offset + 4 + size])
            offset += 4 + (size + 3) // 4 * 4
        else:
            raise ValueError(f"{address}: unknown OSC type {kind!r}")
    if offset != len(data):
        raise ValueError(f"{address}: {len(data) - offset} bytes are left behind the arguments")
    yield OscMessage(address, tuple(arguments))


def _string(data: bytes, offset: int) -> tuple[str, int]:
    end = data.find(b"\0", offset)
    if end < 0:
        raise ValueError("an OSC string does not end")
    try:
        return data[offset:end].decode("ascii"), end // 4 * 4 + 4
    except UnicodeDecodeError as error:
        raise ValueError("an OSC string is not ASCII") from error
