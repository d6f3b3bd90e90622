"""The scalars of a run: one line of JSON each few steps, a picture of their course, TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from avat3r_ros.files import write_text
from avat3r_ros.pictures import write_png

LOG, PICTURE = "log.jsonl", "curves.png"

_PANELS = (
    ("moving points, mm", ("moving_mm", "base_moving_mm")),
    ("all points, mm", ("all_mm", "base_all_mm")),
    ("error of moving points, 1 is the base guess's", ("moving_mm/base_moving_mm",)),
    ("error of all points, 1 is the base guess's", ("all_mm/base_all_mm",)),
    ("perceptual", ("perceptual",)),
    ("l1", ("l1",)),
    ("1 - SSIM", ("ssim",)),
    ("loss", ("loss",)),
)
"""Titles, and what is drawn: the network's in red, the base guess's in grey; a/b divides two."""

_COLORS = ((200, 60, 40), (130, 130, 130))
_WIDTH, _HEIGHT, _MARGIN = 420, 220, 36
_MEAN_OVER = 12
"""Lines that a mean looks back on: people differ by more than a network learns."""


class RunLog:
    """Writes scalars; use as a context manager.

    Args:
        folder: Of the run.
        tensorboard: Also write TensorBoard events into `folder`/tensorboard.

    Raises:
        RuntimeError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise RuntimeError(
                    f"--tensorboard needs tensorboard ({error}); remedy: pip install tensorboard"
                ) from error
            self._writer = SummaryWriter(folder / "tensorboard")
        self._file = open(folder / LOG, "a")  # noqa: SIM115 (closed in __exit__)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Add one line."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> list[dict[str, float]]:
    """Lines of a run's log, oldest first."""
    path = folder / LOG
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def cut_log(folder: Path, step: int) -> None:
    """Drop lines written after a checkpoint: those steps are done again."""
    lines = [line for line in read_log(folder) if line["step"] <= step]
    write_text(folder / LOG, "".join(json.dumps(line) + "\n" for line in lines))


def draw_curves(folder: Path) -> None:
    """Draw the course of a run's scalars into `curves.png`: values pale, their means on top."""
    lines = read_log(folder)
    panels = []
    for title, names in _PANELS:
        series = [[(line["step"], _value(line, name)) for line in lines] for name in names]
        series = [[(x, y) for x, y in one if math.isfinite(y)] for one in series]
        if any(series):
            panels.append(_panel(title, series))
    if panels:
        while len(panels) % 2:
            panels.append(np.full_like(panels[0], 255))
        rows = [np.concatenate(pair, 1) for pair in zip(panels[::2], panels[1::2], strict=True)]
        write_png(np.concatenate(rows), folder / PICTURE)


def _value(line: dict[str, float], name: str) -> float:
    above, _, below = name.partition("/")
    value = line.get(above, math.nan)
    return value / (line.get(below) or math.nan) if below else value


def _means(values: list[float]) -> list[float]:
    """Means over the last lines, as far back as there are any."""
    return [
        float(np.mean(values[max(0, end - _MEAN_OVER) : end])) for end in range(1, len(values) + 1)
    ]


def _panel(title: str, series: list[list[tuple[float, float]]]) -> np.ndarray:
    """One small diagram of finite values, from 0 to the largest of them."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    known = [point for one in series for point in one]
    last, top = (max(values) or 1.0 for values in zip(*known, strict=True))
    right, bottom = _WIDTH - 12, _HEIGHT - _MARGIN
    draw.text((_MARGIN, 6), title, fill=(0, 0, 0))
    draw.line([(_MARGIN, 24), (_MARGIN, bottom), (right, bottom)], fill=(0, 0, 0))
    draw.text((2, 20), f"{top:.3g}", fill=(0, 0, 0))
    draw.text((right - 30, bottom + 4), f"{last:.0f}", fill=(0, 0, 0))

    def line(points: list[tuple[float, float]], color: tuple[int, ...], width: int) -> None:
        at = [
            (_MARGIN + x / last * (right - _MARGIN), bottom - y / top * (bottom - 24))
            for x, y in points
        ]
        if len(at) > 1:
            draw.line(at, fill=color, width=width)

    drawn = [(one, color) for one, color in zip(series, _COLORS, strict=False) if one][::-1]
    for one, color in drawn:
        line(one, tuple((255 * 2 + part) // 3 for part in color), 1)
    for one, color in drawn:
        xs, ys = zip(*one, strict=True)
        line(list(zip(xs, _means(list(ys)), strict=True)), color, 2)
    return np.asarray(image)
