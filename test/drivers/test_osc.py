"""OSC: messages and bundles, names of blend shapes, and what is refused."""

import struct

import numpy as np
import pytest
from datagrams import osc_bundle, osc_message, osc_text

from avat3r_ros.drivers.osc import OscMessage, parse_osc
from avat3r_ros.drivers.osc_face import FORGET_S, MAX_HOSTS, OscFace, index_of
from avat3r_ros.expression import ARKIT_52


def test_the_examples_of_the_specification():
    """ "OSC Message Examples" of the OSC 1.0 specification, byte by byte."""
    oscillator = bytes.fromhex("2f6f7363696c6c61746f722f342f6672657175656e6379002c66000043dc0000")
    assert parse_osc(oscillator) == [OscMessage("/oscillator/4/frequency", (440.0,))]
    foo = bytes.fromhex(
        "2f666f6f000000002c69697366660000000003e8ffffffff68656c6c6f0000003f9df3b640b5b22d"
    )
    (message,) = parse_osc(foo)
    assert message.arguments[:3] == (1000, -1, "hello")
    assert message.arguments[3:] == pytest.approx((1.234, 5.678), abs=1e-6)


def test_bundles_inside_bundles_keep_the_order():
    data = osc_bundle(osc_message("/a", 1), osc_bundle(osc_message("/b", 2.0)), osc_message("/c"))
    assert [m.address for m in parse_osc(data)] == ["/a", "/b", "/c"]


NESTED = osc_message("/a")
for _ in range(9):
    NESTED = osc_bundle(NESTED)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"abc",
        b"\xff" * 16,
        b"no slash\0\0\0\0",
        b"/abc",
        osc_text("/a") + b"xyz\0",
        osc_text("/a") + osc_text(",f"),
        osc_text("/a") + osc_text(",q"),
        osc_text("/a") + osc_text(",b") + struct.pack(">i", 1000),
        osc_text("/a") + osc_text(",b") + struct.pack(">i", -4),
        osc_message("/a", 1.0) + b"\0\0\0\0",
        osc_bundle(osc_message("/a", 1.0))[:-4],
        b"#bundle\0\0\0\0\0",
        b"#bundle\0" + b"\0" * 8 + struct.pack(">i", 0) * 2,
        NESTED,
    ],
)
def test_junk_is_refused(junk):
    with pytest.raises(ValueError, match="OSC|message|expected|left"):
        parse_osc(junk)


def test_random_bytes_never_do_worse_than_a_value_error():
    rng = np.random.default_rng(0)
    good = osc_bundle(osc_message("/jawOpen", 0.5, "x", True), osc_message("/EyeBlink_L", 1))
    source, refused = OscFace(), 0
    for _ in range(3000):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        try:
            source.take(bytes(data), "host", 0.0)
        except ValueError:
            refused += 1
    assert refused > 500
    for sample in source.newest().values():
        assert np.isfinite(sample.code).all() and 0 <= sample.code.min() <= sample.code.max() <= 1


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/jawOpen", "jawOpen"),
        ("/avatar/parameters/JawOpen", "jawOpen"),
        ("/avatar/parameters/FT/v2/JawOpen", "jawOpen"),
        ("/face/jaw_open", "jawOpen"),
        ("/EyeBlink_L", "eyeBlinkLeft"),
        ("/mouth_smile_R", "mouthSmileRight"),
        ("/avatar/parameters/VelocityX", None),
        ("/", None),
    ],
)
def test_names(address, name):
    assert index_of(address) == (None if name is None else ARKIT_52.index(name))


def test_values_of_one_sender_add_up_and_two_senders_stay_apart():
    source = OscFace()
    source.take(osc_message("/jawOpen", 0.5), "10.0.0.1", 0.0)
    source.take(osc_message("/HeadYaw", 0.25), "10.0.0.1", 0.01)
    source.take(osc_message("/jawOpen", 1), "10.0.0.2", 0.01)
    faces = source.newest()
    assert set(faces) == {"10_0_0_1", "10_0_0_2"} and source.newest() == {}
    assert faces["10_0_0_1"].code[ARKIT_52.index("jawOpen")] == 0.5
    assert faces["10_0_0_1"].head.tolist() == [0.25, 0, 0]
    assert faces["10_0_0_2"].code[ARKIT_52.index("jawOpen")] == 1.0


def test_after_a_silence_old_values_are_forgotten():
    source = OscFace()
    source.take(osc_message("/tongueOut", 1.0), "host", 0.0)
    source.take(osc_message("/jawOpen", 0.5), "host", FORGET_S + 0.1)
    code = source.newest()["host"].code
    assert code[ARKIT_52.index("tongueOut")] == 0 and code[ARKIT_52.index("jawOpen")] == 0.5


@pytest.mark.parametrize("value", ["open", float("nan"), float("inf"), 100.0, -3])
def test_values_that_are_no_scores_are_refused_and_change_nothing(value):
    source = OscFace()
    data = osc_bundle(osc_message("/jawOpen", 0.5), osc_message("/jawLeft", value))
    with pytest.raises(ValueError, match="expected"):
        source.take(data, "h", 0)
    with pytest.raises(ValueError, match="angle"):
        source.take(osc_message("/HeadYaw", float("nan")), "h", 0)
    assert source.newest() == {}


def test_programs_that_send_other_things_are_ignored_and_named():
    source = OscFace()
    source.take(osc_message("/avatar/parameters/VelocityX", 0.5), "host", 0.0)
    assert source.newest() == {} and source.unknown == "/avatar/parameters/VelocityX"
    source.take(osc_message("/jawOpen", 0.5), "host", 0.0)
    assert source.unknown == ""


def test_ever_new_senders_do_not_fill_the_memory():
    source = OscFace()
    for i in range(100):
        source.take(osc_message("/jawOpen", 0.5), f"host{i}", 0.0)
    assert len(source._values) == len(source._heard_s) == MAX_HOSTS
