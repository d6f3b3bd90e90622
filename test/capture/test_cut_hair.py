"""Hair comes back where other photos or its other side show it and the wall is of other colours."""

import cv2
import numpy as np
import pytest

from avat3r_ros.capture.cut_hair import with_cut_hair
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig.framing import BOX_CENTER_HEAD_M, SKULL_CENTER_HEAD_M, SKULL_RADII_M

SIZE, CUT_ROW = 128, 70
CHIN = np.array([0.0, -0.11, -0.02])
K = intrinsics_matrix(SIZE * 0.6 / 0.32, SIZE / 2, SIZE / 2)
HAIR, WALL = np.array([0.75, 0.6, 0.35]), np.array([0.3, 0.4, 0.6])


@pytest.fixture(scope="module")
def poses():
    return np.stack([look_at_head(yaw, 0.1, 0.6, BOX_CENTER_HEAD_M) for yaw in (-0.5, 0.0, 0.5)])


@pytest.fixture(scope="module")
def heads(poses):
    """Silhouettes of a skull with hair hanging at both sides."""
    rng = np.random.default_rng(0)
    skull = rng.normal(size=(60000, 3))
    skull *= (rng.random((60000, 1)) ** (1 / 3)) / np.linalg.norm(skull, axis=1, keepdims=True)
    skull = SKULL_CENTER_HEAD_M + 1.05 * SKULL_RADII_M * skull
    side = rng.uniform([0.075, -0.1, -0.12], [0.1, 0.05, -0.05], (30000, 3))
    points = np.concatenate([skull, side, side * [-1, 1, 1]])
    masks = []
    for pose in poses:
        rays = (points @ pose[:3, :3].T + pose[:3, 3]) @ K.T
        column, row = np.floor(rays[:, :2] / rays[:, 2:]).astype(int).T
        mask = np.zeros((SIZE, SIZE), np.float32)
        mask[row, column] = 1
        masks.append(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3))))
    return masks


def photos(heads, wall=WALL):
    rng = np.random.default_rng(1)
    return [
        np.clip(
            np.where(head[..., None] > 0, HAIR, wall) + rng.normal(0, 0.01, (*head.shape, 3)), 0, 1
        )
        for head in heads
    ]


def cut(head):
    """A matte that ends above the strands' ends."""
    rows = np.arange(SIZE)[:, None]
    columns = np.flatnonzero(head.any(0))
    middle = np.abs(np.arange(SIZE) - columns.mean()) < 0.25 * len(columns)
    return head * ((rows < CUT_ROW) | middle)


def completed(pictures, masks, poses):
    shown = [np.ones((SIZE, SIZE), bool)] * len(masks)
    return with_cut_hair(pictures, masks, shown, [K] * len(masks), poses, CHIN)


def test_cut_strands_come_back(heads, poses):
    masks = [heads[0], cut(heads[1]), heads[2]]
    lost = (heads[1] > 0) & (masks[1] == 0)
    assert lost.sum() > 200
    found = completed(photos(heads), masks, poses)
    # Measured 0.99 and 0.003.
    assert (found[1][lost] > 0.5).mean() > 0.9
    assert (found[1][heads[1] == 0] > 0.5).mean() < 0.01
    for view in (0, 2):
        np.testing.assert_array_equal(found[view], masks[view])


def test_wall_of_the_hair_s_color_tells_nothing(heads, poses):
    masks = [heads[0], cut(heads[1]), heads[2]]
    found = completed(photos(heads, wall=HAIR + 0.01), masks, poses)
    np.testing.assert_array_equal(found[1], masks[1])


def test_what_the_others_do_not_show_stays_out(heads, poses):
    """As a neighbour's hair, or a curtain."""
    masks = [cut(head) for head in heads]
    for mask, found in zip(masks, completed(photos(heads), masks, poses), strict=True):
        np.testing.assert_array_equal(found, mask)


def cut_on_one_side(head):
    """A matte that ends above the strands' ends on the left of the picture."""
    return np.where(np.arange(SIZE) < SIZE / 2, cut(head), head)


@pytest.mark.parametrize("views", [[1], [1, 2]])
def test_one_side_of_hair_comes_back_from_the_other(heads, poses, views):
    masks = [heads[view] for view in views]
    masks[0] = cut_on_one_side(heads[1])
    lost = (heads[1] > 0) & (masks[0] == 0)
    assert lost.sum() > 100
    pictures = [photos(heads)[view] for view in views]
    found = completed(pictures, masks, poses[views])[0]
    assert (found[lost] > 0.5).mean() > 0.9
    assert (found[heads[1] == 0] > 0.5).mean() < 0.01


def test_one_side_stays_cut_before_a_wall_of_the_hair_s_color(heads, poses):
    mask = cut_on_one_side(heads[1])
    found = completed(photos(heads, wall=HAIR + 0.01)[1:2], [mask], poses[1:2])
    np.testing.assert_array_equal(found[0], mask)


def test_both_sides_cut_in_one_photo_stay_cut(heads, poses):
    mask = cut(heads[1])
    found = completed(photos(heads)[1:2], [mask], poses[1:2])
    np.testing.assert_array_equal(found[0], mask)


@pytest.mark.parametrize("view", [0, 2])
def test_a_turned_photo_is_not_mirrored(heads, poses, view):
    mask = cut_on_one_side(heads[view])
    found = completed(photos(heads)[view : view + 1], [mask], poses[view : view + 1])
    np.testing.assert_array_equal(found[0], mask)
