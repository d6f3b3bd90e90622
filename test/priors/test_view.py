"""A reference view says nothing beyond its photo."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avat3r_ros.priors.view import ReferenceView

SIZE, CUT_ROW = 96, 40


@pytest.fixture(scope="module")
def crops(make_exact_crops):
    """One view whose photo ends above a row, through the forehead."""
    whole = make_exact_crops([0], size=SIZE)
    shown = (torch.arange(SIZE) >= CUT_ROW)[None, None, :, None].expand(1, 1, SIZE, SIZE)
    return replace(
        whole, images=whole.images * shown, masks=whole.masks * shown, shown=shown, told=shown
    )


def test_nothing_is_outside_where_the_photo_ends(crops, template):
    view = ReferenceView(crops, template, 0)
    assert (view.outside_m[:CUT_ROW] == 0).all()
    assert view.outside_m[CUT_ROW:].max() > 0.05
    whole = ReferenceView(replace(crops, told=None), template, 0)
    assert whole.outside_m[:CUT_ROW].max() > 0.05
    np.testing.assert_allclose(whole.outside_m[CUT_ROW:], view.outside_m[CUT_ROW:], atol=1e-6)


def test_the_border_is_the_photos(crops, template):
    view = ReferenceView(crops, template, 0)
    rows = np.array([CUT_ROW - 1, CUT_ROW, CUT_ROW + 7, SIZE - 1, SIZE - 3, SIZE - 3])
    columns = np.array([48, 48, 48, 48, 48, 1])
    np.testing.assert_array_equal(view.to_border(rows, columns), [-1, 0, 7, 0, 2, 1])
