"""`avat3r telepresence --record`: the operator beside what the audience sees, as an MP4.

    camera/image_raw ────► kept by stamp ──┐
    rendered/image_raw ──► newest ─────────┴──► [film thread, FPS times a second] ──► file

A rendered image bears the stamp of the image that drove it, so the two that belong together stand
side by side. Filming begins with the first LIVE frame and keeps real time: where no new image came,
the last one is shown again. It never disturbs the graph; what goes wrong ends the film alone.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from avat3r.msg import RendererStatus
from jaxtyping import UInt8
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from avat3r_ros.capture.video import VideoWriter
from avat3r_ros.nodes.conversions import Stamp, stamp_of
from avat3r_ros.nodes.images import image_from_msg
from avat3r_ros.nodes.qos import LATCHED
from avat3r_ros.pictures import fit_square

FPS = 30.0
DRIVERS_KEPT = 15
"""Camera images that wait for the rendered one with their stamp: half a second at 30 Hz."""


class Film:
    """Films from the first LIVE frame on, until `close`.

    Args:
        path: An .mp4 file; it appears, or is replaced, when the film is complete.
        size: Side of each picture, pixels; the camera's is fitted in.
        eyes: Prefixes of the rendered images: ("",) or ("left/", "right/").
        camera: Whether there is a camera whose images stand beside them.
        say: Gets a line about the end of the film.

    Raises:
        ValueError: The name does not end in .mp4.
        OSError: The folder does not exist or cannot be written to.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        size: int,
        eyes: tuple[str, ...],
        camera: bool,
        say: Callable[[str], None],
    ) -> None:
        self._path, self._size, self._eyes, self._say = Path(path), size, eyes, say
        width = size * (len(eyes) + camera)
        self._writer: VideoWriter | None = VideoWriter(self._path, width, size, FPS)
        self._camera = camera
        self._lock = threading.Lock()
        self._live, self._begun_s, self._written = False, None, 0
        self._drivers: OrderedDict[Stamp, Image] = OrderedDict()
        self._rendered: dict[str, Image] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="film", daemon=True)

    def start(self, node: Node, namespace: str = "") -> None:
        """Listen to the graph of a namespace through `node`."""
        prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"

        def listen(topic: str, take: Callable[[Image], None]) -> None:
            node.create_subscription(Image, f"{prefix}{topic}", take, qos_profile_sensor_data)

        for eye in self._eyes:
            listen(f"rendered/{eye}image_raw", lambda msg, eye=eye: self._on_rendered(eye, msg))
        if self._camera:
            listen("camera/image_raw", self._on_driver)
        status = f"{prefix}avatar_renderer/status"
        node.create_subscription(RendererStatus, status, self._on_status, LATCHED)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Length of what has been filmed."""
        return self._written / FPS

    def close(self) -> None:
        """End the film and put the file in place."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        if self._writer is None:
            return
        if not self._written:
            self._give_up("the operator was never LIVE")
            return
        try:
            self._writer.close()
        except (OSError, ValueError) as error:
            self._give_up(error)
            return
        self._writer = None
        self._say(f"{self._path}: {self.seconds:.1f} s of film")

    def _on_driver(self, msg: Image) -> None:
        with self._lock:
            self._drivers[stamp_of(msg)] = msg
            while len(self._drivers) > DRIVERS_KEPT:
                self._drivers.popitem(last=False)

    def _on_rendered(self, eye: str, msg: Image) -> None:
        with self._lock:
            self._rendered[eye] = msg

    def _on_status(self, msg: RendererStatus) -> None:
        self._live |= msg.state == RendererStatus.LIVE

    def _work(self) -> None:
        try:
            while not self._stop.wait(0.5 / FPS):
                self._film_until_now()
        except (OSError, ValueError) as error:  # a full disk, above all
            self._stop.set()
            self._give_up(f"{error}; telepresence goes on")

    def _film_until_now(self) -> None:
        with self._lock:
            rendered = [self._rendered.get(eye) for eye in self._eyes]
            if not self._live or None in rendered:
                return
            pictures = rendered
            if self._camera:
                driver = self._drivers.get(stamp_of(rendered[0]))
                if driver is None and self._drivers:  # nobody drives now: who is there?
                    driver = next(reversed(self._drivers.values()))
                pictures = [driver, *rendered]
        if self._begun_s is None:
            self._begun_s = time.monotonic()
        due = int((time.monotonic() - self._begun_s) * FPS) + 1
        if self._written >= due:
            return
        frame = np.concatenate([self._square(picture) for picture in pictures], axis=1)
        while self._written < due and not self._stop.is_set():
            self._writer.write(frame)
            self._written += 1

    def _square(self, msg: Image | None) -> UInt8[np.ndarray, "s s 3"]:
        if msg is None:
            return np.full((self._size, self._size, 3), 128, np.uint8)
        try:
            image = image_from_msg(msg)
        except ValueError:  # a broken one: tracker and display say so
            return self._square(None)
        if image.shape[:2] == (self._size, self._size):
            return image
        return fit_square(image, self._size)

    def _give_up(self, why: object) -> None:
        """Leave nothing behind, and say why."""
        writer, self._writer = self._writer, None
        writer.abort()
        self._say(f"{self._path} was not filmed: {why}")
