"""Contact sheets keep every picture whole and leave no half-written file."""

import numpy as np
from PIL import Image

from avat3r_ros.pictures import CAPTION_PX, contact_sheet, fit_square, write_png


def test_wide_picture_keeps_its_shape():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:] = (255, 0, 0)
    square = fit_square(image, 64)
    red = (square == (255, 0, 0)).all(-1)
    assert red.sum() == 64 * 32
    assert red[16:48].all()


def test_sheet_places_rows_below_each_other(tmp_path):
    red, green = (np.full((8, 8, 3), color, np.uint8) for color in ((255, 0, 0), (0, 255, 0)))
    sheet = contact_sheet([("a", [red, red]), ("b", [green])], size=32)
    assert sheet.shape == (2 * (32 + CAPTION_PX), 64, 3)
    assert (sheet[CAPTION_PX : CAPTION_PX + 32] == (255, 0, 0)).all()
    assert (sheet[-32:, :32] == (0, 255, 0)).all()
    write_png(sheet, tmp_path / "deep" / "sheet.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "deep" / "sheet.png")), sheet)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["sheet.png"]
