"""Datagrams as phones and programs send them, written from the formats' descriptions."""

import struct

import numpy as np

from avat3r_ros.expression import arkit_code


def live_link_packet(
    code=None, head=(0.0, 0.0, 0.0), *, frame=1000, subject="iPhone", device="AB12-CD34", face=True
):
    """One packet at 60 frames/s."""
    names = b"".join(struct.pack(">i", len(n)) + n.encode() for n in (device, subject))
    time = struct.pack(">ifii", frame, 0.25, 60, 1)
    if not face:
        return b"\x06" + names + time
    code = arkit_code() if code is None else code
    values = np.concatenate([code, head, np.zeros(6)]).astype(">f4")
    return b"\x06" + names + time + b"\x3d" + values.tobytes()


def osc_text(text):
    data = text.encode() + b"\0"
    return data + b"\0" * (-len(data) % 4)


def osc_message(address, *values):
    kinds = {bool: lambda v: "T" if v else "F", int: lambda _: "i", float: lambda _: "f"}
    types = "," + "".join(kinds.get(type(v), lambda _: "s")(v) for v in values)
    packed = b"".join(
        osc_text(v) if isinstance(v, str) else struct.pack(">i" if type(v) is int else ">f", v)
        for v in values
        if not isinstance(v, bool)
    )
    return osc_text(address) + osc_text(types) + packed


def osc_bundle(*elements):
    return (
        b"#bundle\0"
        + struct.pack(">Q", 1)
        + b"".join(struct.pack(">i", len(e)) + e for e in elements)
    )
