"""Live Link Face packets: what is in them, and what is refused."""

import numpy as np
import pytest
from datagrams import live_link_packet

from avat3r_ros.drivers.live_link_face import MAX_DEVICES, LiveLinkFace, parse_packet
from avat3r_ros.expression import ARKIT_52, arkit_code


def test_a_packet_by_its_bytes():
    """A reference of its own: nothing here is built by the code under test."""
    data = live_link_packet(arkit_code(jawOpen=0.5), (0.1, 0.2, 0.3))
    assert data[:5] == b"\x06\x00\x00\x00\x09" and len(data) == 1 + 13 + 10 + 16 + 1 + 244
    packet = parse_packet(data)
    assert (packet.device, packet.subject) == ("AB12-CD34", "iPhone")
    assert packet.time_s == pytest.approx(1000.25 / 60)
    assert packet.values[ARKIT_52.index("jawOpen")] == 0.5
    assert packet.values[52:55] == pytest.approx([0.1, 0.2, 0.3])


def test_order_of_the_blend_shapes():
    """The places that differ between the app's list and other lists of ARKit's shapes."""
    assert [ARKIT_52[i] for i in (0, 14, 15, 16, 17, 21, 22, 43, 51)] == [
        *("eyeBlinkLeft", "jawForward", "jawLeft", "jawRight", "jawOpen"),
        *("mouthLeft", "mouthRight", "browInnerUp", "tongueOut"),
    ]


def test_the_app_without_a_face_says_so():
    source = LiveLinkFace()
    source.take(live_link_packet(face=False), "", 0.0)
    (sample,) = source.newest().values()
    assert sample.code is None
    assert source.newest() == {}


GOOD = live_link_packet()
VALUES = len(GOOD) - 244


@pytest.mark.parametrize(
    ("junk", "says"),
    [
        (b"", "version 6, got 0 bytes"),
        (b"\x07" + GOOD[1:], "version 6"),
        (b"hello", "version 6, got 5 bytes beginning with 68 65"),
        (GOOD[:3], "inside its names"),
        (b"\x06\x7f\xff\xff\xff" + GOOD[5:], "at most 256 bytes"),
        (b"\x06\xff\xff\xff\xff" + GOOD[5:], "at most 256 bytes"),
        (GOOD[:5] + b"\xff" + GOOD[6:], "UTF-8"),
        (GOOD[: VALUES - 9], "inside its time"),
        (GOOD[: VALUES - 9] + b"\0\0\0\0" + GOOD[VALUES - 5 :], "frame time"),
        (GOOD[:-4], "expected 61 values, got 61 in 240 bytes"),
        (GOOD + b"\0", "61 in 245"),
        (GOOD[: VALUES - 1] + b"\x34" + GOOD[VALUES:], "got 52"),
        (GOOD[:VALUES] + b"\x7f\xc0\0\0" + GOOD[VALUES + 4 :], "not finite"),
        (GOOD[:VALUES] + b"\x7f\x7f\0\0" + GOOD[VALUES + 4 :], r"in \[0, 1\]"),
    ],
)
def test_junk_is_refused_with_the_reason_and_changes_nothing(junk, says):
    source = LiveLinkFace()
    with pytest.raises(ValueError, match=says):
        source.take(junk, "", 0.0)
    assert source.newest() == {}


def test_random_bytes_never_do_worse_than_a_value_error():
    rng = np.random.default_rng(0)
    source = LiveLinkFace()
    for _ in range(3000):
        data = bytearray(GOOD)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        try:
            source.take(bytes(data[: rng.integers(len(data) + 1)]), "", 0.0)
        except ValueError:
            continue
    for sample in source.newest().values():
        assert sample.code is None or (np.isfinite(sample.code).all() and sample.code.max() <= 1)


def test_an_overtaken_packet_is_refused_but_a_new_clock_is_taken():
    source = LiveLinkFace()
    source.take(live_link_packet(frame=1000), "", 0.0)
    with pytest.raises(ValueError, match=r"0\.033 s behind"):
        source.take(live_link_packet(frame=998), "", 0.0)
    source.take(live_link_packet(frame=10), "", 0.0)
    source.take(live_link_packet(frame=11), "", 0.0)


def test_two_phones_of_one_name_are_two_sources():
    source = LiveLinkFace()
    source.take(live_link_packet(device="AB12-CD34"), "", 0.0)
    source.take(live_link_packet(device="AB12-EF56", frame=2), "", 0.0)
    assert set(source.newest()) == {"iPhone_CD34", "iPhone_EF56"}


def test_ever_new_devices_do_not_fill_the_memory():
    source = LiveLinkFace()
    for i in range(200):
        source.take(live_link_packet(device=f"{i:08d}"), "", 0.0)
    assert len(source._times_s) == MAX_DEVICES
