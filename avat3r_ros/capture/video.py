"""Video files in and out: frames as RGB arrays with their time, and H.264 that plays everywhere."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from avat3r_ros.capture.photos import WORKING_SIDE_PX

TIME_BASE = Fraction(1, 90_000)
"""Ticks of written frames; divides all common frame rates."""


def iter_frames(
    path: str | os.PathLike,
    *,
    max_side_px: int = WORKING_SIDE_PX,
    max_frames: int | None = None,
) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
    """Decode the first video stream frame by frame.

    Args:
        path: Anything FFmpeg reads.
        max_side_px: Larger frames are shrunk to this longer side.
        max_frames: Of more, about this many are given, evenly spread, where the file tells how long
            it is.

    Yields:
        (time_s, image): presentation time from the start of the video, strictly increasing, and the
        upright RGB frame (the file's rotation is applied).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a video, without frames, or damaged; frames before the damage were yielded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(f"{path}: expected a video file ({error})") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path}: expected a video file, got one without pictures")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        last_s, start_s, count = -np.inf, None, 0
        step_s = _length_s(container, stream) / max_frames if max_frames else 0.0
        due_s = 0.0
        try:
            for frame in container.decode(stream):
                time_s = frame.time
                if time_s is None:
                    rate = stream.average_rate or Fraction(30)
                    time_s = float(count / rate)
                start_s = time_s if start_s is None else start_s
                count += 1
                if time_s - start_s <= last_s:  # repeated frames of edited files
                    continue
                last_s = time_s - start_s
                if last_s < due_s:
                    continue
                due_s += step_s
                yield last_s, _upright(frame, max_side_px)
        except av.FFmpegError as error:
            raise ValueError(f"{path}: damaged after {count} frames ({error})") from error
        if count == 0:
            raise ValueError(f"{path}: expected a video, got one without frames")


def _length_s(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """What the file says of its length; 0 if nothing."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _upright(frame: av.VideoFrame, max_side_px: int) -> np.ndarray:
    factor = min(1.0, max_side_px / max(frame.width, frame.height))
    if factor < 1.0:
        width, height = (max(1, round(side * factor)) for side in (frame.width, frame.height))
        image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    else:
        image = frame.to_ndarray(format="rgb24")
    # FFmpeg's display matrix turns counter-clockwise; quarter turns are what cameras write.
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns))


class VideoWriter:
    """Writes an MP4 (H.264, yuv420p, index first) that appears only when it is complete.

    Used as a context manager: a normal end puts the file in place, an exception leaves nothing.

    Args:
        path: Output, ends in .mp4. An existing file is replaced at the end.
        width: Of the images, pixels. Odd sizes are padded by one column or row of the edge, which
            yuv420p demands.
        height: Likewise.
        fps: Frames per second, > 0.
        crf: Quality of x264, 0 (lossless) to 51; 18 looks like the source.

    Raises:
        ValueError: Another file type, a size or rate that is not positive.
        FileNotFoundError: The folder does not exist.
    """

    def __init__(
        self, path: str | os.PathLike, width: int, height: int, fps: float, *, crf: int = 18
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"{path}: expected a name that ends in .mp4")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such folder")
        if width < 2 or height < 2 or not (np.isfinite(fps) and fps > 0):
            raise ValueError(f"expected a positive size and rate, got {width}x{height}, {fps} fps")
        self._size = (height, width)
        self._ticks_per_frame = float(1 / (fps * TIME_BASE))
        self._count = 0
        self._partial = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(4)}.mp4")
        self._container = av.open(str(self._partial), "w", options={"movflags": "+faststart"})
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE
        self._stream.options = {"crf": str(crf), "preset": "veryfast"}

    def write(self, image: np.ndarray) -> None:
        """Append one frame.

        Args:
            image: (H, W, 3) uint8 RGB of the writer's size.

        Raises:
            ValueError: Another shape or dtype.
            RuntimeError: The writer is closed.
        """
        if self._container is None:
            raise RuntimeError(f"{self.path}: the video is closed")
        expected = (*self._size, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"expected a frame {expected} uint8, got {image.shape} {image.dtype}")
        odd = [(0, side % 2) for side in self._size]
        image = np.pad(image, [*odd, (0, 0)], mode="edge") if any(map(any, odd)) else image
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = round(self._count * self._ticks_per_frame), TIME_BASE
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> Path:
        """Finish the file and put it in place; calling it again does nothing.

        Raises:
            ValueError: No frame was written; no file appears.
            OSError: The disk is full; no file appears, and what was at its place stays.
        """
        if self._container is None:
            return self.path
        if self._count == 0:
            self.abort()
            raise ValueError(f"{self.path}: expected at least one frame, got none")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except av.FFmpegError:
            self.abort()
            raise
        self._container = None
        os.replace(self._partial, self.path)
        return self.path

    def abort(self) -> None:
        """Drop the unfinished file."""
        if self._container is not None:
            container, self._container = self._container, None
            # Closing writes what is left, so it fails, too, where a full disk is the reason.
            with contextlib.suppress(av.FFmpegError):
                container.close()
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
