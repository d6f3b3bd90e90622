"""ROS images to numpy and back. BGR, bytes and padding end here: inside, images are RGB.

The five 8-bit encodings that cameras and displays use are converted with numpy, the same way with
and without a ROS installation. Any other encoding goes through cv_bridge where ROS has it.
"""

import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
"""Encodings that need no cv_bridge."""


def image_from_msg(msg: Image) -> np.ndarray:
    """Return an image as RGB.

    Args:
        msg: Any encoding of CHANNELS, rows padded or not; others if cv_bridge is installed.

    Returns:
        (height, width, 3) uint8, contiguous. It may share memory with the message: do not write.

    Raises:
        ValueError: Empty, shorter than it says, big endian with more than one byte per channel, or
            an encoding that cannot be converted here.
    """
    channels = CHANNELS.get(msg.encoding)
    if channels is None:
        return _with_cv_bridge(msg)
    pixels = _rows(msg, np.dtype(np.uint8), channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    order = slice(None, 3) if msg.encoding.startswith("rgb") else slice(2, None, -1)
    return np.ascontiguousarray(pixels[:, :, order])


def depth_from_msg(msg: Image) -> np.ndarray:
    """Return a 32FC1 depth image as (height, width) float32 metres.

    Raises:
        ValueError: Another encoding, or see `image_from_msg`.
    """
    if msg.encoding != "32FC1":
        raise ValueError(f"expected a depth image 32FC1, got {msg.encoding!r}")
    return _rows(msg, np.dtype(np.float32), 1)[:, :, 0]


def msg_from_image(image: np.ndarray, encoding: str, header: Header) -> Image:
    """Wrap an image; the pixels are copied once.

    Args:
        image: (H, W, C) uint8 in the channel order of `encoding`, or (H, W) float32 for 32FC1.
        encoding: A key of CHANNELS, or 32FC1.
        header: Taken as it is.

    Raises:
        ValueError: Shape or dtype do not fit the encoding.
    """
    image = np.ascontiguousarray(image)
    if encoding == "32FC1":
        fits = image.ndim == 2 and image.dtype == np.float32
    else:
        channels = CHANNELS.get(encoding)
        shape = image.shape if image.ndim == 3 else (*image.shape, 1)
        fits = len(shape) == 3 and shape[2] == channels and image.dtype == np.uint8
    if not fits:
        raise ValueError(f"expected an image for {encoding}, got {image.shape} {image.dtype}")
    msg = Image(header=header, encoding=encoding)
    msg.height, msg.width = image.shape[:2]
    msg.step = image.nbytes // image.shape[0]
    # Assigning a list or an array would convert byte by byte: 100 ms for a large image.
    data = array.array("B")
    data.frombytes(memoryview(image).cast("B"))
    msg.data = data
    return msg


def image_from_compressed(msg: CompressedImage) -> np.ndarray:
    """Decode a JPEG or PNG to RGB (height, width, 3) uint8.

    Raises:
        ValueError: The data is not an image or is cut off.
    """
    data = np.frombuffer(msg.data, np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if decoded is None:
        raise ValueError(f"{len(data)} bytes of format {msg.format!r} are not an image")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def compressed_from_image(image_bgr: np.ndarray, quality: int, header: Header) -> CompressedImage:
    """Encode (H, W, 3) uint8 BGR as JPEG of a quality in 1..100."""
    done, data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot encode an image {image_bgr.shape} {image_bgr.dtype} as JPEG")
    msg = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    msg.data = array.array("B", data.tobytes())
    return msg


def compressed_from_packet(packet: bytes, codec: str, header: Header) -> CompressedImage:
    """Wrap one packet of a video; `codec` ("vp9", "h264") becomes the format."""
    msg = CompressedImage(header=header, format=codec)
    data = array.array("B")
    data.frombytes(packet)
    msg.data = data
    return msg


def _rows(msg: Image, dtype: np.dtype, channels: int) -> np.ndarray:
    """View the data as (height, width, channels) without its row padding."""
    row_bytes = msg.width * channels * dtype.itemsize
    if msg.width == 0 or msg.height == 0:
        raise ValueError(f"empty image, {msg.width}x{msg.height}")
    if msg.step < row_bytes:
        raise ValueError(
            f"expected rows of at least {row_bytes} bytes for {msg.width} {msg.encoding} pixels, "
            f"got step {msg.step}"
        )
    if len(msg.data) < msg.step * (msg.height - 1) + row_bytes:
        raise ValueError(
            f"expected {msg.height} rows of {msg.step} bytes, got {len(msg.data)} bytes in all"
        )
    if msg.is_bigendian and dtype.itemsize > 1:
        raise ValueError(f"big-endian {msg.encoding} images are not supported")
    data = np.frombuffer(msg.data, np.uint8, count=min(len(msg.data), msg.step * msg.height))
    if len(data) < msg.step * msg.height:  # the last row may come without its padding
        data = np.pad(data, (0, msg.step * msg.height - len(data)))
    rows = data.reshape(msg.height, msg.step)[:, :row_bytes]
    return np.ascontiguousarray(rows).view(dtype).reshape(msg.height, msg.width, channels)


def _with_cv_bridge(msg: Image) -> np.ndarray:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise ValueError(
            f"expected an image of encoding {', '.join(CHANNELS)}, got {msg.encoding!r} (others "
            "need ROS's cv_bridge: apt-get install ros-$ROS_DISTRO-cv-bridge)"
        ) from None
    try:
        return CvBridge().imgmsg_to_cv2(msg, "rgb8")
    except CvBridgeError as error:
        raise ValueError(f"cv_bridge cannot convert {msg.encoding!r}: {error}") from error
