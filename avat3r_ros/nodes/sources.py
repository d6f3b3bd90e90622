"""Where the camera node's images come from: a webcam, a video file, or a synthetic operator."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from avat3r_ros.nodes.flashing import Flashing

FLASHING = "flashing"
SYNTHETIC = "synthetic"


class SourceLostError(RuntimeError):
    """No image could be had; the message says why. Trying again later may help."""


@runtime_checkable
class ImageSource(Protocol):
    """An open source of images."""

    intrinsics: Float[np.ndarray, "3 3"] | None
    """Pinhole matrix (centres at +0.5), None where it is not known."""

    def read(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """Wait for the next RGB image; None at the end of a file that is not looped.

        Raises:
            SourceLostError: The device no longer answers.
        """

    def close(self) -> None:
        """Free the device or file."""


class Webcam:
    """A V4L2 camera; sets the wanted size and rate, and takes what the camera makes of it."""

    intrinsics = None

    def __init__(self, device: int | str, width: int, height: int, fps: float) -> None:
        self._device = device
        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceLostError(
                f"cannot open camera {device}: not there, occupied by another program, or no "
                "permission (group 'video')"
            )
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FPS, fps)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """See ImageSource."""
        done, image = self._capture.read()
        if not done:
            raise SourceLostError(f"camera {self._device} no longer gives images; unplugged?")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """See ImageSource."""
        self._capture.release()


class VideoFile:
    """A video at its own speed; frames that come too late are left out."""

    intrinsics = None

    def __init__(self, path: str, loop: bool) -> None:
        self._path = path
        self._loop = loop
        self._frames: Iterator | None = None
        self._start_s = 0.0
        if not Path(path).is_file():
            raise SourceLostError(f"{path}: no such video file")

    def read(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """See ImageSource."""
        from avat3r_ros.capture.video import iter_frames

        while True:
            if self._frames is None:
                if not Path(self._path).is_file():
                    raise SourceLostError(f"{self._path}: the video file is gone")
                self._frames = iter_frames(self._path, max_side_px=1920)
                self._start_s = time.monotonic()
            try:
                time_s, image = next(self._frames)
            except StopIteration:
                self._frames = None
                if not self._loop:
                    return None
                continue
            except ValueError as error:
                raise SourceLostError(str(error)) from error
            ahead_s = self._start_s + time_s - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
            if ahead_s > -0.1:
                return image

    def close(self) -> None:
        """See ImageSource."""
        self._frames = None


class Synthetic:
    """A rendered head that performs a script in real time.

    Attributes:
        truth: What the operator did in the image that was read last.
    """

    def __init__(self, seed: int, width: int, height: int, fps: float) -> None:
        from avat3r_ros.data.operator import SyntheticOperator

        self._operator = SyntheticOperator(seed, width, height)
        self._period_s = 1.0 / fps
        self._start_s = time.monotonic()
        self._next_s = 0.0
        self.truth = self._operator.truth(0.0)
        self.intrinsics = self.truth.camera.intrinsics.reshape(3, 3).double().numpy()

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """See ImageSource."""
        now_s = time.monotonic() - self._start_s
        if now_s < self._next_s:
            time.sleep(self._next_s - now_s)
        else:  # rendering takes longer than a frame lasts: leave frames out
            self._next_s = now_s
        image = self._operator.frame(self._next_s)
        self.truth = self._operator.truth(self._next_s)
        self._next_s += self._period_s
        return image

    def close(self) -> None:
        """See ImageSource."""


def open_source(
    name: str, *, width: int, height: int, fps: float, loop: bool, seed: int
) -> ImageSource:
    """Open a source by its name.

    Args:
        name: "synthetic", "flashing" (flashing.py), a camera number or device path ("0",
            "/dev/video2"), or a video file.
        width: Wanted image width; a video keeps its own size.
        height: Wanted image height.
        fps: Wanted frames per second; a video keeps its own rate.
        loop: Start a video again at its end.
        seed: Person of the synthetic operator.

    Raises:
        SourceLostError: It cannot be opened now.
        ValueError: The name is empty.
    """
    if not name:
        raise ValueError("expected a source: synthetic, a camera (0, /dev/video0) or a video file")
    if name == SYNTHETIC:
        return Synthetic(seed, width, height, fps)
    if name == FLASHING:
        return Flashing(seed, width, height, fps)
    if name.isdigit():
        return Webcam(int(name), width, height, fps)
    if name.startswith("/dev/"):
        return Webcam(name, width, height, fps)
    return VideoFile(name, loop)
