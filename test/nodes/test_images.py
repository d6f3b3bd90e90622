"""ROS images to RGB and back: channel order, padding, bad input."""

import array

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2: `make env`, or source a workspace")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from avat3r_ros.nodes.images import (
    compressed_from_image,
    depth_from_msg,
    image_from_compressed,
    image_from_msg,
    msg_from_image,
)

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def message(pixels, encoding, pad=0):
    """An Image with `pad` bytes of rubbish after each row."""
    rows = pixels.reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    msg = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    msg.step = padded.shape[1]
    msg.data = array.array("B", padded.tobytes())
    return msg


def with_alpha(pixels):
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 200)], -1)


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", with_alpha(RGB)),
        ("bgra8", with_alpha(RGB[..., ::-1])),
    ],
)
def test_every_colour_encoding_becomes_the_same_rgb(encoding, pixels, pad):
    image = image_from_msg(message(pixels, encoding, pad))
    np.testing.assert_array_equal(image, RGB)
    assert image.flags.c_contiguous


@pytest.mark.parametrize("pad", [0, 3])
def test_grey_is_repeated_in_three_channels(pad):
    image = image_from_msg(message(RGB[..., :1], "mono8", pad))
    np.testing.assert_array_equal(image, np.repeat(RGB[..., :1], 3, -1))


def test_the_last_row_may_come_without_padding():
    msg = message(RGB, "rgb8", pad=4)
    msg.data = msg.data[:-4]
    np.testing.assert_array_equal(image_from_msg(msg), RGB)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "rgba8", "bgra8"])
def test_numpy_to_message_and_back(encoding):
    channels = {"mono8": 1, "rgba8": 4, "bgra8": 4}.get(encoding, 3)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, channels)).astype(np.uint8)
    header = Header(frame_id="cam")
    msg = msg_from_image(pixels, encoding, header)
    assert (msg.height, msg.width, msg.step, msg.header) == (4, 5, 5 * channels, header)
    assert bytes(msg.data) == pixels.tobytes()
    assert image_from_msg(msg).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"width": 0}, "empty image"),
        ({"step": 8}, "rows of at least 9 bytes"),
        ({"height": 3}, "expected 3 rows"),
        ({"encoding": "yuv422"}, "rgb8, bgr8"),
    ],
)
def test_images_that_contradict_themselves_are_refused(change, match):
    msg = message(RGB, "rgb8")
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(ValueError, match=match):
        image_from_msg(msg)


def test_depth_keeps_metres_and_refuses_big_endian():
    depth = np.array([[0.5, np.nan], [1.25, 2.0]], np.float32)
    msg = msg_from_image(depth, "32FC1", Header())
    np.testing.assert_array_equal(depth_from_msg(msg), depth)
    msg.is_bigendian = 1
    with pytest.raises(ValueError, match="big-endian"):
        depth_from_msg(msg)


def test_byte_order_means_nothing_for_bytes():
    msg = message(RGB, "rgb8")
    msg.is_bigendian = 1
    np.testing.assert_array_equal(image_from_msg(msg), RGB)


@pytest.mark.parametrize(
    ("image", "encoding"),
    [
        (np.zeros((2, 3, 3), np.float32), "rgb8"),
        (np.zeros((2, 3, 4), np.uint8), "rgb8"),
        (np.zeros((2, 3), np.float64), "32FC1"),
        (np.zeros((2, 3, 3), np.uint8), "yuv422"),
    ],
)
def test_arrays_that_do_not_fit_the_encoding_are_refused(image, encoding):
    with pytest.raises(ValueError, match="expected an image for"):
        msg_from_image(image, encoding, Header())


def test_jpeg_keeps_channel_order():
    red_bgr = np.zeros((32, 32, 3), np.uint8)
    red_bgr[..., 2] = 220
    image = image_from_compressed(compressed_from_image(red_bgr, 90, Header()))
    assert image[..., 0].mean() > 200 and image[..., 2].mean() < 20


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_bytes_that_are_no_picture_are_refused(data):
    msg = CompressedImage(format="jpeg", data=array.array("B", data))
    with pytest.raises(ValueError, match="not an image"):
        image_from_compressed(msg)
