"""Live video, one packet a frame: no B-frames, short groups of pictures, nothing held back.

A packet holds everything to show one frame, given the packets since the last keyframe. H.264 is
Annex B with its parameter sets in each keyframe; VP9 is one superframe. This is what Foxglove's
CompressedVideo and WebCodecs expect.

Licences. VP9 is encoded by libvpx (BSD), free of royalties. H.264 is encoded by the graphics card
or by OpenH264 (BSD) where PyAV has them; x264 is inside PyAV's wheels, but it is GPL-2.0-or-later
and is used only when it is asked for by name. Decoders are FFmpeg's own (LGPL).
"""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

TIME_BASE = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Codec:
    """A way to compress video.

    Attributes:
        encoders: FFmpeg's names, best first; the first that works is taken.
        on_request: Encoders that are used only when named, with the reason.
        decoder: FFmpeg's name.
    """

    encoders: tuple[str, ...]
    on_request: dict[str, str]
    decoder: str


CODECS = {
    "vp9": Codec(("libvpx-vp9",), {}, "vp9"),
    "h264": Codec(
        ("h264_nvenc", "h264_qsv", "h264_vaapi", "libopenh264"),
        {"libx264": "its licence is GPL-2.0-or-later"},
        "h264",
    ),
}

_OPTIONS = {
    "libvpx-vp9": {
        "deadline": "realtime",
        "cpu-used": "8",
        "lag-in-frames": "0",
        "error-resilient": "1",
        "auto-alt-ref": "0",
        "row-mt": "1",
    },
    "libx264": {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "repeat-headers=1:annexb=1:scenecut=0",
    },
    "h264_nvenc": {"preset": "p1", "tune": "ull", "zerolatency": "1", "forced-idr": "1"},
    "h264_qsv": {"preset": "veryfast", "async_depth": "1"},
    "libopenh264": {"allow_skip_frames": "0"},
}


class VideoEncoder:
    """Encodes RGB frames as they come; not for several threads at once.

    Args:
        codec: "vp9" or "h264".
        width: Of the frames, pixels, even.
        height: Likewise.
        rate_hz: Frames per second to expect; the bit rate is shared out by it.
        kbit_per_s: Wanted bit rate.
        keyframe_every: Frames from one keyframe to the next; less: a lost packet is forgotten
            sooner, more: fewer bits.
        encoder: FFmpeg's name; "auto" takes the first of `CODECS` that works here.

    Attributes:
        encoder: Name of the encoder in use.

    Raises:
        ValueError: An unknown codec or encoder, an odd size, or a number that is not positive.
        RuntimeError: No encoder works; the message says what helps.
    """

    def __init__(
        self,
        codec: str,
        width: int,
        height: int,
        *,
        rate_hz: float = 30.0,
        kbit_per_s: int = 4000,
        keyframe_every: int = 30,
        encoder: str = "auto",
    ) -> None:
        if codec not in CODECS:
            raise ValueError(f"expected a codec of {sorted(CODECS)}, got {codec!r}")
        if width % 2 or height % 2 or min(width, height) < 2:
            raise ValueError(f"expected an even size for video, got {width}x{height}")
        if not (rate_hz > 0 and kbit_per_s > 0 and keyframe_every > 0):
            raise ValueError(
                "expected positive rate_hz, kbit_per_s and keyframe_every, got "
                f"{rate_hz}, {kbit_per_s}, {keyframe_every}"
            )
        self._size = (height, width)
        self._settings = (rate_hz, kbit_per_s, keyframe_every)
        self._keyframe_wanted = False
        self._last_ticks = -1
        self.encoder, self._context = self._open(codec, encoder)

    def encode(self, image: UInt8[np.ndarray, "h w 3"], time_s: float) -> bytes:
        """Encode one RGB frame.

        Args:
            image: Of the size given at construction.
            time_s: Any clock; a frame that is not later than the last is put just behind it.

        Returns:
            The packet.

        Raises:
            ValueError: An image of another size.
            RuntimeError: The encoder fails or holds the frame back.
        """
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"expected a frame {(*self._size, 3)} uint8, got {image.shape} {image.dtype}"
            )
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
        self._last_ticks = max(int(time_s / TIME_BASE), self._last_ticks + 1)
        frame.pts, frame.time_base = self._last_ticks, TIME_BASE
        if self._keyframe_wanted:
            frame.pict_type = av.video.frame.PictureType.I
            self._keyframe_wanted = False
        try:
            packets = self._context.encode(frame)
        except av.FFmpegError as error:
            raise RuntimeError(f"{self.encoder} cannot encode a frame: {error}") from error
        if not packets:
            raise RuntimeError(f"{self.encoder} holds frames back")
        return b"".join(bytes(packet) for packet in packets)

    def request_keyframe(self) -> None:
        """Make the next frame one that can be decoded alone: somebody has just tuned in."""
        self._keyframe_wanted = True

    def _open(self, codec: str, encoder: str) -> tuple[str, av.VideoCodecContext]:
        known = CODECS[codec]
        if encoder != "auto" and encoder not in (*known.encoders, *known.on_request):
            raise ValueError(
                f"expected an encoder of {[*known.encoders, *known.on_request]} for {codec}, got "
                f"{encoder!r}"
            )
        names = known.encoders if encoder == "auto" else (encoder,)
        problems = []
        for name in names:
            try:
                return name, self._context_of(name)
            except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
                problems.append(f"{name}: {error}")
        named = "".join(f"; {n} would do if named: {why}" for n, why in known.on_request.items())
        raise RuntimeError(
            f"no {codec} encoder works here ({'; '.join(problems)}){named}; vp9 and JPEG need none"
        )

    def _context_of(self, name: str) -> av.VideoCodecContext:
        rate_hz, kbit_per_s, keyframe_every = self._settings
        context = av.CodecContext.create(name, "w")
        context.height, context.width = self._size
        context.pix_fmt = "yuv420p"
        context.time_base = TIME_BASE
        context.framerate = Fraction(rate_hz).limit_denominator(1001)
        context.bit_rate = 1000 * kbit_per_s
        context.gop_size = keyframe_every
        context.max_b_frames = 0
        context.thread_count = 1
        context.options = _OPTIONS.get(name, {})
        context.open()
        return context


class VideoDecoder:
    """Decodes packets as they arrive; not for several threads at once.

    Args:
        codec: "vp9" or "h264".

    Raises:
        ValueError: An unknown codec.
    """

    def __init__(self, codec: str) -> None:
        if codec not in CODECS:
            raise ValueError(f"expected a codec of {sorted(CODECS)}, got {codec!r}")
        self._codec = codec
        self._context: av.VideoCodecContext | None = None

    def decode(self, data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
        """Decode one packet.

        Returns:
            The frame, RGB; None while no keyframe has come yet.

        Raises:
            ValueError: Not a packet of this codec; the next keyframe starts afresh.
        """
        if not data:
            raise ValueError(f"expected a packet of {self._codec}, got no bytes")
        if self._context is None:
            if not is_keyframe(self._codec, data):
                return None
            self._context = av.CodecContext.create(CODECS[self._codec].decoder, "r")
            self._context.thread_count = 1  # more threads hold frames back
        try:
            frames = self._context.decode(av.Packet(data))
        except av.FFmpegError as error:
            self._context = None
            raise ValueError(
                f"{len(data)} bytes are no packet of {self._codec}: {error}"
            ) from error
        return frames[-1].to_ndarray(format="rgb24") if frames else None


def is_keyframe(codec: str, data: bytes) -> bool:
    """Whether a packet can be decoded without any before it.

    Source: H.264 (ITU-T H.264, 7.3.1 and Annex B): start codes, NAL unit type 5 is an IDR slice.
    VP9 (bitstream specification 0.6, 6.2): frame marker 2, profile, show_existing_frame,
    frame_type.
    """
    if codec == "vp9":
        first = data[0] if data else 0
        return first >> 6 == 2 and not first & 0x0C
    position = data.find(b"\x00\x00\x01")
    while 0 <= position < len(data) - 3:
        if data[position + 3] & 0x1F == 5:
            return True
        position = data.find(b"\x00\x00\x01", position + 3)
    return False
