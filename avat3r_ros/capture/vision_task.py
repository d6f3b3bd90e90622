"""MediaPipe's vision tasks as capture uses them: one still image in, its result out.

The only file of `capture/` that knows mediapipe.
"""

import os
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from jaxtyping import UInt8

from avat3r_ros.model_files import find_model, without_drawing, without_start_up_chatter


class VisionTask(AbstractContextManager):
    """One of MediaPipe's tasks; close it, or use it as a context manager.

    Args:
        kind: Its class in `mediapipe.tasks.python.vision`.
        method: Method of that class that looks at an image.
        purpose: What it is for, as a message calls it where mediapipe is missing.
        model: Name of its model file (model_files.py).
        model_path: That file; searched for if None.
        side_px: Side of the images it will get.
        options: Fields of the task's options.

    Raises:
        RuntimeError: mediapipe is not installed.
        FileNotFoundError: The model file is nowhere; the message has the remedy.
        ValueError: The model file is not the published one.
    """

    def __init__(
        self,
        *,
        kind: str,
        method: str,
        purpose: str,
        model: str,
        model_path: str | os.PathLike | None,
        side_px: int,
        **options: Any,
    ) -> None:
        path = find_model(model, model_path)
        try:
            with without_drawing():
                import mediapipe
                from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise RuntimeError(
                f"{purpose} needs mediapipe ({error}); remedy: pip install mediapipe==1.2.2"
            ) from error
        self._image_class = mediapipe.Image
        self._srgb = mediapipe.ImageFormat.SRGB
        self._method = method
        base = BaseOptions(model_asset_path=str(path))
        with without_start_up_chatter():
            self._task = getattr(vision, kind).create_from_options(
                getattr(vision, f"{kind}Options")(base_options=base, **options)
            )
            # The native start-up goes on until the first image has passed.
            self._result(np.zeros((side_px, side_px, 3), np.uint8))

    def _result(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
        """What the task finds in an RGB image."""
        if self._task is None:
            raise RuntimeError(f"this {type(self).__name__} is closed")
        picture = self._image_class(image_format=self._srgb, data=np.ascontiguousarray(image))
        return getattr(self._task, self._method)(picture)

    def close(self) -> None:
        """Free the native task; calling it again does nothing."""
        if self._task is not None:
            self._task.close()
            self._task = None

    def __exit__(self, *_: object) -> None:
        self.close()
