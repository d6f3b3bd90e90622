"""Charts are looked at; here: that they show what they were given, and refuse nothing to show."""

import numpy as np
import pytest

from avat3r_ros.charts import COLORS, PAPER, Span, histogram_picture, timeline_picture


def pixels_of(picture, color):
    return np.argwhere((picture == np.array(color)).all(-1))


def test_histogram_bars_stand_where_the_values_are():
    picture = histogram_picture({"a": [10.0] * 50, "b": [90.0] * 50}, "title", "ms")
    first, second = (pixels_of(picture, color) for color in COLORS[:2])
    assert first[:, 1].max() < second[:, 1].min() and first[:, 0].max() < second[:, 0].min()


def test_an_empty_histogram_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        histogram_picture({"a": []}, "title", "ms")


def test_timeline_spans_are_as_long_as_they_last():
    red, blue = (250, 10, 10), (10, 10, 250)
    spans = [Span(0.0, 2.0, "LIVE", red), Span(2.0, 3.0, "HOLD", blue)]
    picture = timeline_picture({"state": spans}, {"mouth": [(0.0, 0.0), (3.0, 1.0)]}, [], "run")
    long, short = (np.ptp(pixels_of(picture, color)[:, 1]) for color in (red, blue))
    assert long / short == pytest.approx(2.0, rel=0.02)
    curve = pixels_of(picture, COLORS[0])
    assert curve[curve[:, 1].argmax(), 0] < curve[curve[:, 1].argmin(), 0], "it rises"
    assert (picture[-1] == PAPER).all()
