"""One person is cut out: the one of the face box, with edges where the photo has them."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from avat3r_ros.capture import matting as matting_module
from avat3r_ros.capture.matting import Matting, guided_filter, only_one_person, refined_edges
from avat3r_ros.model_files import find_model

FACE_BOX = (180.0, 70.0, 270.0, 176.0)
"""Of the astronaut's landmarks."""


@pytest.fixture(scope="module")
def matting():
    try:
        find_model("selfie_segmenter")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with Matting() as opened:
        yield opened


def test_face_is_in_and_background_out(matting):
    matte = matting.matte(astronaut(), FACE_BOX)
    assert matte.shape == (512, 512)
    assert matte.dtype == np.float32
    assert matte[80:160, 195:250].min() > 0.95
    assert matte[40:60, 200:240].min() > 0.9, "hair"
    assert matte[:100, :120].max() < 0.05, "the wall left of her"


def test_a_face_that_fills_the_photo_is_in(matting):
    """Most of the square lies outside such photos and is made up."""
    for rows, columns in ((slice(39, 187), slice(127, 323)), (slice(50, 182), slice(0, 482))):
        left, top, right, bottom = FACE_BOX
        across, down = columns.start, rows.start
        box = (left - across, top - down, right - across, bottom - down)
        matte = matting.matte(np.ascontiguousarray(astronaut()[rows, columns]), box)
        assert matte[84 - down : 164 - down, 193 - across : 257 - across].min() > 0.95


def test_result_does_not_depend_on_where_the_face_is(matting):
    image = np.zeros((700, 800, 3), np.uint8) + np.array([200, 190, 185], np.uint8)
    image[150:662, 250:762] = astronaut()
    left, top, right, bottom = FACE_BOX
    moved = matting.matte(image, (left + 250, top + 150, right + 250, bottom + 150))
    still = matting.matte(astronaut(), FACE_BOX)
    head = (slice(20, 220), slice(130, 330))
    # The surroundings differ, so the network's answer does too; measured mean difference 0.003.
    assert np.abs(moved[150:, 250:][head] - still[head]).mean() < 0.02


def test_large_photos_get_a_matte_of_their_size(matting):
    image = astronaut().repeat(4, 0).repeat(4, 1)
    matte = matting.matte(image, tuple(4 * side for side in FACE_BOX))
    small = matting.matte(astronaut(), FACE_BOX)
    assert matte.shape == (2048, 2048)
    shrunk = matte.reshape(512, 4, 512, 4).mean((1, 3))
    assert np.abs(shrunk - small)[20:220, 130:330].mean() < 0.02


def test_the_other_person_is_left_out(matting):
    """Two heads inside one square; a strip of wall keeps them apart."""
    head = astronaut()[:190, 128:328]
    wall = np.full((190, 60, 3), 180, np.uint8)
    pair = np.concatenate([head, wall, head], 1)
    left, top, right, bottom = FACE_BOX
    first = matting.matte(pair, (left - 128, top, right - 128, bottom))
    second = matting.matte(pair, (left + 132, top, right + 132, bottom))
    face, other = (slice(80, 150), slice(70, 120)), (slice(80, 150), slice(330, 380))
    assert first[face].mean() > 0.95 and first[other].mean() < 0.05
    assert second[other].mean() > 0.95 and second[face].mean() < 0.05
    whole = matting.matte(pair)
    kept = sorted([whole[face].mean(), whole[other].mean()])
    assert kept[0] < 0.05 and kept[1] > 0.95, "without a box one person is kept"


def test_without_a_box_the_person_is_found(matting):
    matte = matting.matte(astronaut())
    assert matte[80:160, 195:250].min() > 0.9
    assert matting.matte(np.full((256, 256, 3), 127, np.uint8)).max() < 0.5


def test_dark_pictures_are_brightened_and_others_stay():
    image, box = astronaut(), FACE_BOX
    assert matting_module._well_lit(image, box) is image
    lit = matting_module._well_lit((image * 0.2).astype(np.uint8), box)
    face = lit[70:176, 180:270].mean() / 255
    assert abs(face - matting_module.LIT_FACE) < 0.05


def test_components_follow_the_box():
    matte = np.zeros((64, 64), np.float32)
    matte[10:40, 5:25] = 1.0
    matte[10:60, 40:60] = 1.0
    matte[10:40, 25:27] = 0.3  # soft edge of the first
    kept = only_one_person(matte, np.array([8.0, 12, 22, 30]))
    assert kept[20, 10] == 1.0 and kept[20, 26] == np.float32(0.3) and kept[20, 50] == 0.0
    assert only_one_person(matte, None)[20, 50] == 1.0, "the largest without a box"
    assert only_one_person(np.full((8, 8), 0.2, np.float32), None).max() == 0.0


@pytest.mark.parametrize("other_side", [0, 150, (220, 170, 160)])
@pytest.mark.parametrize("offset_px", [-1, 0, 2])
def test_edges_move_to_the_edges_of_the_photo(other_side, offset_px):
    """A wide network edge beside the photo's edge ends on it, be that strong or faint."""
    image = np.zeros((256, 256, 3), np.uint8) + np.array(other_side, np.uint8)
    image[:, :128] = (220, 180, 160)
    # The network's answer is asymmetric: what PERSON_RANGE calls its middle lies on the edge.
    middle = 128 + offset_px + 8 * (0.65 - 0.5)
    column = np.clip((middle + 4 - np.arange(256) - 0.5) / 8.0, 0, 1).astype(np.float32)
    matte = refined_edges(image, column[None].repeat(256, 0))
    assert matte[128, :127].min() > 0.8
    assert matte[128, 129:].max() < 0.2


def test_guided_filter_is_a_mean_on_flat_colour_and_keeps_edges_of_the_guide():
    values = np.random.default_rng(1).random((40, 40)).astype(np.float32)
    flat = guided_filter(np.full((40, 40, 3), 0.5, np.float32), values, 3, 1e-4)
    twice = cv2.blur(cv2.blur(values, (7, 7)), (7, 7))
    np.testing.assert_allclose(flat[8:-8, 8:-8], twice[8:-8, 8:-8], atol=1e-5)
    guide = np.zeros((40, 40, 3), np.float32)
    guide[:, 20:] = (0.1, 0.2, 0.3)
    kept = guided_filter(guide, (guide[..., 0] > 0).astype(np.float32), 3, 1e-6)
    np.testing.assert_allclose(kept, guide[..., 0] > 0, atol=1e-3)


def test_tiles_of_the_guided_filter_join_without_seams(monkeypatch):
    rng = np.random.default_rng(2)
    guide = cv2.GaussianBlur(rng.random((150, 130, 3)).astype(np.float32), (0, 0), 3)
    values = np.zeros((150, 130), np.float32)
    cv2.circle(values, (70, 60), 40, 1.0, -1)
    tiled = guided_filter(guide, values, 3, 1e-4)
    monkeypatch.setattr(matting_module, "TILE_PX", 1000)
    whole = guided_filter(guide, values, 3, 1e-4)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert np.abs(whole - values).max() > 0.1, "otherwise nothing was filtered"


@pytest.mark.parametrize(
    ("image", "box", "said"),
    [
        (np.zeros((64, 64), np.uint8), None, r"got \(64, 64\) uint8"),
        (np.zeros((64, 64, 3), np.float32), None, "got .* float32"),
        (np.zeros((64, 64, 3), np.uint8), (10.0, 10.0, 10.0, 20.0), "expected a face box"),
        (np.zeros((64, 64, 3), np.uint8), (90.0, 10.0, 99.0, 20.0), "outside the 64x64 image"),
    ],
)
def test_bad_input_is_refused(matting, image, box, said):
    with pytest.raises(ValueError, match=said):
        matting.matte(image, box)


def test_closing_twice_is_fine_and_use_afterwards_is_not(matting):
    other = Matting()
    other.close()
    other.close()
    with pytest.raises(RuntimeError, match="closed"):
        other.matte(astronaut())
