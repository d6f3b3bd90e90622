"""Hair beside the head is put where the other photos allow it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros.priors.free_hair import MATTE_TOLERANCE_M, place_free_hair
from avat3r_ros.priors.template import position_maps
from avat3r_ros.priors.view import ReferenceView

YAWS, SIZE = (-25, 0, 25), 128
DEPTH_M = -0.06


def curtain(x=0.12, top=0.0):
    """A sheet of hair facing forward beside the left cheek, as points 1 mm apart."""
    across, down = np.meshgrid(np.arange(x, x + 0.03, 0.001), np.arange(top - 0.09, top, 0.001))
    return np.stack([across, down, np.full_like(across, DEPTH_M)], -1).reshape(-1, 3)


def hang(crops, points, views):
    """Show the points as hair in some of the crops; pixels of the head in front hide them."""
    crops = replace(crops, hair=torch.zeros_like(crops.masks, dtype=torch.bool))
    for index in views:
        pose = crops.cameras.camera_from_head[index].double().numpy()
        camera = points @ pose[:3, :3].T + pose[:3, 3]
        pixels = camera / camera[:, 2:] @ crops.cameras.intrinsics[index].double().numpy().T
        column, row = pixels[:, :2].astype(int).T
        free = crops.masks[index, 0, row, column] == 0
        crops.hair[index, 0, row[free], column[free]] = True
    crops.masks[crops.hair] = 1.0
    return crops


@pytest.fixture
def crops(make_exact_crops):
    return make_exact_crops(YAWS, size=SIZE)


def test_a_strand_is_put_where_all_photos_see_it(crops, template):
    crops = hang(crops, curtain(), range(3))
    views = [ReferenceView(crops, template, index) for index in range(3)]
    place_free_hair(views)
    for view in views:
        assert view.free_hair.sum() > 0.9 * view.hair.sum() > 100
        for other in views:
            row, column, inside, _ = other.pixels_of(view.points[view.free_hair])
            tolerance = round(MATTE_TOLERANCE_M / other.pixel_size_m()) + 1
            wide = cv2.dilate(other.mask, np.ones((2 * tolerance + 1, 2 * tolerance + 1)))
            assert inside.all() and (wide[row, column] > 0).mean() > 0.95
    frontal = views[1].points[views[1].free_hair]
    assert abs(np.median(frontal[:, 2]) - DEPTH_M) < 0.03
    kept = position_maps(crops, template).confidence[:, 0] > 0.5
    assert kept[crops.hair[:, 0]].float().mean() > 0.8


def test_what_other_photos_show_as_background_finds_no_place(crops, template):
    crops = hang(crops, curtain(), [1])
    views = [ReferenceView(crops, template, index) for index in range(3)]
    place_free_hair(views)
    # What stays is within the tolerance of the other mattes.
    assert views[1].hair.sum() > 400 and views[1].free_hair.sum() < 0.25 * views[1].hair.sum()


@pytest.mark.parametrize(("top", "stays"), [(0.0, True), (0.125, False)])
def test_two_photos_outvote_a_tilted_one_where_hair_hangs(crops, template, top, stays):
    """Beside the cheek hair moves against the head; beside the skull, one denial is enough."""
    crops = hang(crops, curtain(top=top), [0, 1])
    views = [ReferenceView(crops, template, index) for index in range(3)]
    place_free_hair(views)
    for view in views[:2]:
        assert view.hair.sum() > 300
        found = view.free_hair.sum() / view.hair.sum()
        assert found > 0.9 if stays else found < 0.6


def test_a_lock_is_a_sheet(crops, template):
    """Beside each other, its pixels lie at much the same depth, whatever each one found."""
    crops = hang(crops, curtain(), range(3))
    views = [ReferenceView(crops, template, index) for index in range(3)]
    place_free_hair(views)
    for view in views:
        depth = np.where(view.free_hair, np.linalg.norm(view.points - view.center, axis=-1), np.nan)
        step = np.abs(np.diff(depth, axis=1))
        assert (step[np.isfinite(step)] > 0.004).mean() < 0.06


def test_hair_behind_the_cheek_does_not_come_before_it(crops, template):
    """The view from the other side sees a strand just past the cheek's outline."""
    crops = hang(crops, curtain(0.075), range(3))
    views = [ReferenceView(crops, template, index) for index in range(3)]
    place_free_hair(views)
    placed = np.concatenate([view.points[view.free_hair] for view in views])
    assert len(placed) > 100
    for view in views:
        row, column, inside, depth = view.pixels_of(placed)
        skin = (view.on_mesh & ~view.hair).astype(np.uint8)
        well_inside = cv2.erode(skin, np.ones((7, 7)))[row, column] > 0
        before = inside & well_inside & (depth < view.depth[row, column])
        assert before.mean() < 0.01


def test_slivers_along_the_outline_are_not_hair(crops, template):
    crops = replace(crops, hair=torch.zeros_like(crops.masks, dtype=torch.bool))
    head = crops.masks[1, 0] > 0
    crops.hair[1, 0, :, 1:] = head[:, :-1] & ~head[:, 1:]
    crops.masks[crops.hair] = 1.0
    views = [ReferenceView(crops, template, index) for index in range(3)]
    place_free_hair(views)
    assert views[1].hair.sum() > 20 and not views[1].free_hair.any()
