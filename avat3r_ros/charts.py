"""Charts for reports that are looked at: histograms of times, and states over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT = (250, 250, 250), (20, 20, 20), (205, 205, 205)
COLORS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189))

LEFT, RIGHT, TOP, BOTTOM = 60, 20, 46, 40
"""Borders around the axes, pixels."""


def histogram_picture(
    series: Mapping[str, ArrayLike], title: str, unit: str, *, width: int = 900
) -> np.ndarray:
    """One histogram a row over a common axis, with its 50th, 95th and 99th percentile.

    Args:
        series: Name -> values; empty ones are left out.
        title: Written above.
        unit: Of the values.
        width: Of the picture, pixels.

    Returns:
        RGB, uint8, (H, W, 3).

    Raises:
        ValueError: No series has a value.
    """
    shown = {name: np.asarray(v, float) for name, v in series.items() if np.size(v)}
    if not shown:
        raise ValueError("expected at least one value to draw, got none")
    row_px = 150
    sheet = Image.new("RGB", (width, TOP + row_px * len(shown) + BOTTOM), PAPER)
    draw = ImageDraw.Draw(sheet)
    font, large = ImageFont.load_default(size=13), ImageFont.load_default(size=17)
    draw.text((LEFT, 12), title, fill=INK, font=large)
    highest = float(max(np.quantile(v, 0.995) for v in shown.values())) * 1.05
    axis = _Axis(0.0, max(highest, 1e-9), LEFT, width - RIGHT)
    bottom = TOP + row_px * len(shown)
    for tick in axis.ticks():
        draw.line((axis.px(tick), TOP, axis.px(tick), bottom), fill=FAINT)
        draw.text((axis.px(tick), bottom + 4), f"{tick:g}", fill=INK, font=font, anchor="ma")
    draw.text((width - RIGHT, bottom + 20), unit, fill=INK, font=font, anchor="ra")
    for row, (name, values) in enumerate(shown.items()):
        base, color = TOP + row_px * (row + 1) - 4, COLORS[row % len(COLORS)]
        counts, edges = np.histogram(values.clip(0, axis.end), bins=60, range=(0, axis.end))
        for count, left, right in zip(counts, edges, edges[1:], strict=False):
            if count:
                tall = (row_px - 42) * count / counts.max()
                draw.rectangle((axis.px(left), base - tall, axis.px(right) - 1, base), fill=color)
        p50, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99])
        text = f"{name}: p50 {p50:.1f}  p95 {p95:.1f}  p99 {p99:.1f} {unit}, {len(values)} values"
        draw.text((LEFT + 4, base - row_px + 10), text, fill=INK, font=font)
        draw.line((LEFT, base, width - RIGHT, base), fill=INK)
        for value in (p50, p95):
            if value <= axis.end:
                x = axis.px(value)
                draw.line((x, base - row_px + 32, x, base), fill=INK)
    return np.asarray(sheet)


@dataclass(frozen=True)
class Span:
    """A stretch of time in a lane of a timeline.

    Attributes:
        start_s: Begin, seconds.
        end_s: End, seconds.
        text: Written inside where it fits.
        color: RGB.
    """

    start_s: float
    end_s: float
    text: str
    color: tuple[int, int, int]


def timeline_picture(
    lanes: Mapping[str, Sequence[Span]],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    marks: Sequence[tuple[float, str]],
    title: str,
    *,
    width: int = 1400,
) -> np.ndarray:
    """States as coloured spans, values as curves, events as marks, over one time axis.

    Args:
        lanes: Name -> spans that do not overlap.
        curves: Name -> (seconds, value in [0, 1]).
        marks: (seconds, what happened then).
        title: Written above.
        width: Of the picture, pixels.

    Returns:
        RGB, uint8, (H, W, 3).
    """
    lane_px, curve_px, left = 40, 90, 130
    ends = [s.end_s for spans in lanes.values() for s in spans]
    ends += [at_s for points in curves.values() for at_s, _ in points]
    ends += [at_s for at_s, _ in marks]
    marks_px = 16 * min(len(marks), 3) + 8 if marks else 0
    bottom = TOP + marks_px + lane_px * len(lanes) + curve_px * len(curves)
    sheet = Image.new("RGB", (width, bottom + BOTTOM), PAPER)
    draw = ImageDraw.Draw(sheet)
    font, large = ImageFont.load_default(size=12), ImageFont.load_default(size=17)
    draw.text((16, 12), title, fill=INK, font=large)
    axis = _Axis(0.0, max(ends, default=1.0), left, width - RIGHT)
    for tick in axis.ticks():
        draw.line((axis.px(tick), TOP + marks_px, axis.px(tick), bottom), fill=FAINT)
        draw.text((axis.px(tick), bottom + 4), f"{tick:g}", fill=INK, font=font, anchor="ma")
    draw.text((width - RIGHT, bottom + 20), "seconds", fill=INK, font=font, anchor="ra")
    top = TOP + marks_px
    for name, spans in lanes.items():
        draw.text((left - 8, top + lane_px / 2), name, fill=INK, font=font, anchor="rm")
        for span in spans:
            box = (axis.px(span.start_s), top + 6, axis.px(span.end_s), top + lane_px - 6)
            draw.rectangle(box, fill=span.color)
            if font.getlength(span.text) + 6 < box[2] - box[0]:
                middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
                draw.text(middle, span.text, fill=INK, font=font, anchor="mm")
        top += lane_px
    for row, (name, points) in enumerate(curves.items()):
        draw.text((left - 8, top + curve_px / 2), name, fill=INK, font=font, anchor="rm")
        draw.line((left, top + curve_px - 8, width - RIGHT, top + curve_px - 8), fill=FAINT)
        line = [(axis.px(at_s), top + curve_px - 8 - (curve_px - 18) * v) for at_s, v in points]
        if len(line) > 1:
            draw.line(line, fill=COLORS[row % len(COLORS)], width=2)
        top += curve_px
    for i, (at_s, text) in enumerate(marks):
        x = axis.px(at_s)
        draw.line((x, TOP + 16 * (i % 3), x, bottom), fill=(120, 120, 120))
        draw.text((x + 3, TOP + 16 * (i % 3)), text, fill=INK, font=font)
    return np.asarray(sheet)


class _Axis:
    """Values to pixels, and where to write numbers."""

    def __init__(self, start: float, end: float, left_px: int, right_px: int) -> None:
        self.start, self.end = start, end
        self._left_px, self._per_unit = left_px, (right_px - left_px) / (end - start)

    def px(self, value: float) -> float:
        return self._left_px + (value - self.start) * self._per_unit

    def ticks(self) -> np.ndarray:
        """Between 5 and 14 round values."""
        rough = (self.end - self.start) / 9
        decade = 10.0 ** np.floor(np.log10(rough))
        step = decade * min((1, 2, 5, 10), key=lambda m: abs(m * decade - rough))
        return np.arange(self.start, self.end + 1e-9, step).round(9)
