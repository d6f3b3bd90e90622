"""Live video: one packet a frame, nothing held back, keyframes on request, junk refused."""

import av
import numpy as np
import pytest

from avat3r_ros.streaming import VideoDecoder, VideoEncoder, is_keyframe

WIDTH, HEIGHT = 96, 64
ENCODERS = [("vp9", "libvpx-vp9"), ("h264", "libx264")]


def frames(count):
    """A bright square that wanders over a gradient."""
    ramp = np.linspace(40, 160, WIDTH, dtype=np.uint8)
    for i in range(count):
        image = np.repeat(np.tile(ramp, (HEIGHT, 1))[..., None], 3, 2)
        image[20:40, 2 * i % 60 : 2 * i % 60 + 20] = (230, 120, 40)
        yield image


@pytest.fixture(params=ENCODERS, ids=[name for _, name in ENCODERS])
def encoder(request):
    codec, name = request.param
    if name not in av.codecs_available:
        pytest.skip(f"this PyAV has no {name}")
    made = VideoEncoder(codec, WIDTH, HEIGHT, keyframe_every=8, encoder=name)
    made.codec = codec
    return made


def test_every_frame_comes_back_at_once_and_looks_the_same(encoder):
    decoder = VideoDecoder(encoder.codec)
    for i, image in enumerate(frames(20)):
        seen = decoder.decode(encoder.encode(image, i / 30))
        error = np.mean((seen.astype(float) - image) ** 2)
        assert 10 * np.log10(255**2 / error) > 28.0, "the orange square loses some of its colour"


def test_groups_are_short_and_a_newcomer_gets_a_keyframe(encoder):
    keys = []
    for i, image in enumerate(frames(20)):
        if i == 13:
            encoder.request_keyframe()
        keys.append(is_keyframe(encoder.codec, encoder.encode(image, i / 30)))
    assert keys[0] and keys[8] and keys[13] and sum(keys) <= 5


def test_who_comes_late_waits_for_the_keyframe(encoder):
    packets = [encoder.encode(image, i / 30) for i, image in enumerate(frames(12))]
    decoder = VideoDecoder(encoder.codec)
    seen = [decoder.decode(packet) is not None for packet in packets[3:]]
    assert seen == [False] * 5 + [True] * 4


def test_a_lost_packet_is_forgotten_with_the_next_keyframe(encoder):
    decoder = VideoDecoder(encoder.codec)
    pictures = list(frames(12))
    packets = [encoder.encode(image, i / 30) for i, image in enumerate(pictures)]
    for i in (0, 1, 2, 5, 6, 7, 8, 9):
        try:
            seen = decoder.decode(packets[i])
        except ValueError:
            continue
    error = np.mean((seen.astype(float) - pictures[9]) ** 2)
    assert 10 * np.log10(255**2 / error) > 28.0


def test_stamps_that_stand_still_or_go_back_are_no_problem(encoder):
    decoder = VideoDecoder(encoder.codec)
    for time_s, image in zip((5.0, 5.0, 4.0, 1e9), frames(4), strict=True):
        assert decoder.decode(encoder.encode(image, time_s)) is not None


@pytest.mark.parametrize("codec", ["vp9", "h264"])
def test_junk_is_refused_and_the_next_keyframe_is_taken(codec):
    decoder = VideoDecoder(codec)
    assert decoder.decode(b"junk that is no keyframe") is None
    with pytest.raises(ValueError, match="no bytes"):
        decoder.decode(b"")
    broken = b"\x80\x49\x83\x42" if codec == "vp9" else b"\x00\x00\x01\x65\xff\xff"
    assert is_keyframe(codec, broken)
    try:
        assert decoder.decode(broken) is None
    except ValueError as error:
        assert codec in str(error)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="codec of"):
        VideoEncoder("mpeg1", WIDTH, HEIGHT)
    with pytest.raises(ValueError, match="even size"):
        VideoEncoder("vp9", 95, HEIGHT)
    with pytest.raises(ValueError, match="positive"):
        VideoEncoder("vp9", WIDTH, HEIGHT, keyframe_every=0)
    with pytest.raises(ValueError, match="expected an encoder of"):
        VideoEncoder("h264", WIDTH, HEIGHT, encoder="libvpx-vp9")
    with pytest.raises(ValueError, match="expected a frame"):
        VideoEncoder("vp9", WIDTH, HEIGHT).encode(np.zeros((8, 8, 3), np.uint8), 0.0)


def test_x264_is_never_taken_unasked():
    try:
        encoder = VideoEncoder("h264", WIDTH, HEIGHT)
    except RuntimeError as error:
        assert "libx264 would do if named: its licence is GPL" in str(error)
    else:
        assert encoder.encoder != "libx264"
