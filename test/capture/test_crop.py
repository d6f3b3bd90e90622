"""Crops keep pixels and cameras together, and leave nothing below the neck."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.capture.crop import crop_details, crop_heads
from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head, pixel_centers
from avat3r_ros.rig import HeadTemplate

SIZE = 128


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def make_fit(template, width, height, yaw_deg=10.0, distance_m=0.6, target=None, **scores):
    """A fit of the mean head in one photo."""
    return TemplateFit(
        identity=np.zeros(template.num_identity, np.float32),
        codes=arkit_code(**scores)[None],
        intrinsics=intrinsics_matrix(width * 0.9, width / 2, height / 2)[None],
        camera_from_head=look_at_head(np.radians(yaw_deg), 0.1, distance_m, target)[None],
        residual_px=np.zeros(1),
    )


def pixels_in_crop(crops, points):
    camera = points @ crops.cameras.camera_from_head[0, :3, :3].double().numpy().T
    camera += crops.cameras.camera_from_head[0, :3, 3].double().numpy()
    return (camera / camera[:, 2:] @ crops.cameras.intrinsics[0].double().numpy().T)[:, :2]


@pytest.mark.parametrize("width", [200, 320, 1600])
def test_cameras_of_the_crops_point_where_the_pixels_are(template, width):
    """A spot drawn in the photo at a landmark lies in the crop where the crop's camera puts it.

    Enlarged, about the same size, and shrunk seven times: a slip of half a pixel anywhere shows.
    """
    fit = make_fit(template, width, width)
    points = template.landmarks(template.neutral)[[1, 33, 263]].double().numpy()
    camera = points @ fit.camera_from_head[0, :3, :3].T + fit.camera_from_head[0, :3, 3]
    photo_px = (camera / camera[:, 2:] @ fit.intrinsics[0].T)[:, :2]
    grid = pixel_centers(width, width).double().numpy()
    for point, spot in zip(points, photo_px, strict=True):
        squared = ((grid - spot) ** 2).sum(-1)
        blob = np.exp(-squared / (2 * (width * 0.008) ** 2))
        image = np.repeat((blob * 255).round().astype(np.uint8)[..., None], 3, 2)
        crops = crop_heads([image], [np.ones((width, width), np.float32)], fit, template, SIZE)
        weight = crops.images[0, 0].double().numpy()
        center = pixel_centers(SIZE, SIZE).double().numpy()
        found = (weight[..., None] * center).sum((0, 1)) / weight.sum()
        assert np.abs(found - pixels_in_crop(crops, point[None])[0]).max() < 0.06


def test_crops_and_their_details_are_crops_twice_as_fine(template):
    """A photo that shows more than a crop holds: stripes of four crop pixels' width, and of one."""
    fit = make_fit(template, 1600, 1600)
    x = np.arange(1600)
    stripes = 128 + 60 * np.sin(2 * np.pi * x / 12) + 40 * np.sin(2 * np.pi * x / 80)
    image = np.broadcast_to(stripes[None, :, None], (1600, 1600, 3)).round().astype(np.uint8)
    matte = np.ones((1600, 1600), np.float32)
    details = crop_details([image], fit, SIZE)
    coarse, fine = (crop_heads([image], [matte], fit, template, n * SIZE) for n in (1, 2))
    inside = (fine.masks[0, 0] == 1) & (coarse.masks[0, 0] == 1).repeat_interleave(
        2, 0
    ).repeat_interleave(2, 1)
    twice = coarse.images[0].repeat_interleave(2, 1).repeat_interleave(2, 2) + details[0]
    assert details.shape == (1, 3, 2 * SIZE, 2 * SIZE)
    torch.testing.assert_close(twice[:, inside], fine.images[0][:, inside], atol=1e-5, rtol=0)
    assert details[0][:, inside].std() > 0.02
    plain = crop_details([np.full((1600, 1600, 3), 90, np.uint8)], fit, SIZE)
    assert plain[0][:, inside].abs().max() < 1e-5


def test_the_whole_head_fits(template):
    """From the crown to under the chin, with a margin for hair."""
    crops = crop_heads(
        [np.zeros((480, 640, 3), np.uint8)],
        [np.ones((480, 640), np.float32)],
        make_fit(template, 640, 480, 0),
        template,
        SIZE,
    )
    head = template.neutral[template.neutral[:, 1] > -0.12].double().numpy()
    pixels = pixels_in_crop(crops, head)
    assert pixels[:, 1].min() > 0.08 * SIZE and pixels[:, 1].max() < 0.95 * SIZE
    assert pixels[:, 0].min() > 0.1 * SIZE and pixels[:, 0].max() < 0.9 * SIZE


@pytest.mark.parametrize("scores", [{}, {"jawOpen": 1.0}])
def test_face_stays_whole_and_neck_goes(template, scores):
    fit = make_fit(template, 640, 640, 0, **scores)
    white = np.full((640, 640, 3), 255, np.uint8)
    crops = crop_heads([white], [np.ones((640, 640), np.float32)], fit, template, SIZE)
    vertices = template.vertices(code=crops.codes[0])
    ids = native.rasterize_mesh(
        vertices.numpy(),
        template.triangles.int().numpy(),
        crops.cameras.intrinsics[0].numpy(),
        crops.cameras.camera_from_head[0].numpy(),
        SIZE,
        SIZE,
    ).triangle_ids
    mask = crops.masks[0, 0].numpy()
    face = template.region_mask("skin", "lips", "teeth", "ears", "eye_left").numpy()
    neck = template.region_mask("neck").numpy()
    low = vertices[template.triangles][:, :, 1].amax(1).numpy() < -0.148
    on_face, on_low_neck = (ids >= 0) & face[ids], (ids >= 0) & (neck & low)[ids]
    assert on_face.any() and on_low_neck.any()
    assert (mask[on_face] > 0.999).all()
    assert (mask[on_low_neck] == 0).all()
    assert (mask[-6:] == 0).all(), "nothing at the crop's lower edge"
    assert torch.allclose(crops.images, crops.masks.expand(-1, 3, -1, -1)), "matte multiplied in"


def test_shoulders_go_and_long_hair_stays(template):
    """What hangs together with hair at eye level is hair; what lies on the shoulders is not."""
    fit = make_fit(template, 640, 640, 0)
    image = np.full((640, 640, 3), 255, np.uint8)
    row, column = np.mgrid[:640, :640]
    shoulders = row > 430
    hair = (np.abs(column - 320) > 75) & (np.abs(column - 320) < 150) & (row > 150)
    for matte, stays in ((shoulders, False), (hair, True)):
        crops = crop_heads([image], [matte.astype(np.float32)], fit, template, SIZE)
        # 10 cm to the side of the mouth, above the chin: off the mesh in both.
        x, y = pixels_in_crop(crops, np.array([[0.1, -0.085, -0.08]]))[0]
        assert (crops.masks[0, 0, int(y), int(x)] > 0.5) == stays


def test_thin_hair_beside_the_jaw_stays_by_its_colour(template):
    """It is parted from the hair above by the ears, so only its colour tells it from a collar."""
    fit = make_fit(template, 640, 640, 0)
    spot = np.array([[0.1, -0.085, -0.08]])
    row, column = np.mgrid[:640, :640]
    off_middle = np.abs(column - 320)
    matte = (off_middle < 150) & (row > 330) | (off_middle < 70) & (row > 100)
    for below, stays in (((60, 40, 30), True), ((40, 60, 160), False)):
        image = np.full((640, 640, 3), (200, 150, 120), np.uint8)
        image[(row < 250) | (off_middle > 60)] = (60, 40, 30)
        image[(row > 330) & (off_middle > 60)] = below
        crops = crop_heads([image], [matte.astype(np.float32)], fit, template, SIZE)
        x, y = pixels_in_crop(crops, spot)[0].astype(int)
        assert bool(crops.hair[0, 0, y, x]) == stays
        if stays:
            assert crops.masks[0, 0, y, x] > 0.5


def test_a_strand_beside_the_jaw_hangs_from_hair_before_the_ear(template):
    """Above, hair lies on the head; only its lower end is beside it, and a tip ends thin."""
    fit = make_fit(template, 640, 640, 0)
    row, column = np.mgrid[:640, :640]
    off_middle = np.abs(column - 320)
    on_head = (off_middle > 40) & (off_middle < 54) & (row < 390)
    beside = (off_middle > 45) & (off_middle < 74) & (row > 369) & (row < 394)
    tip = (off_middle > 60) & (off_middle < 64) & (row > 369) & (row < 402)
    matte = ((off_middle < 54) & (row > 220)) | beside | tip
    image = np.full((640, 640, 3), (200, 150, 120), np.uint8)
    image[(row < 250) | on_head | beside | tip] = (60, 40, 30)
    crops = crop_heads([image], [matte.astype(np.float32)], fit, template, SIZE)
    k, k_crop = fit.intrinsics[0], crops.cameras.intrinsics[0].numpy()
    for x, y in ((382, 386), (382, 399)):
        to_crop = k_crop @ np.linalg.inv(k) @ [x + 0.5, y + 0.5, 1]
        assert crops.hair[0, 0, int(to_crop[1]), int(to_crop[0])], (x, y)


def test_dark_clothes_below_dark_hair_are_not_hair(template):
    """A shaded jaw leads from one to the other; hair would hang down beside it."""
    fit = make_fit(template, 640, 640, 0)
    spot = np.array([[0.1, -0.115, -0.08]])
    row, column = np.mgrid[:640, :640]
    off_middle = np.abs(column - 320)
    head = (off_middle < np.where(row < 330, 80, 55)) & (row > 100)
    for top, stays in ((400, False), (250, True)):
        beside = (off_middle < 200) & (row > top)
        image = np.full((640, 640, 3), (200, 150, 120), np.uint8)
        image[(row < 250) | (off_middle > 40)] = (60, 40, 30)
        crops = crop_heads([image], [(head | beside).astype(np.float32)], fit, template, SIZE)
        x, y = pixels_in_crop(crops, spot)[0].astype(int)
        assert crops.hair[0, 0, y, x] == stays
        assert (crops.masks[0, 0, y, x] > 0.5) == stays


def test_head_at_the_edge_of_the_photo_is_padded_with_background(template):
    fit = make_fit(template, 640, 480, 0, target=np.array([0.28, 0, 0]))
    image = np.full((480, 640, 3), 255, np.uint8)
    crops = crop_heads([image], [np.ones((480, 640), np.float32)], fit, template, SIZE)
    far = make_fit(template, 640, 480, 0, target=np.array([0.6, 0, 0]))
    empty = crop_heads([image], [np.ones((480, 640), np.float32)], far, template, SIZE)
    whole = crop_heads(
        [image],
        [np.ones((480, 640), np.float32)],
        make_fit(template, 640, 480, 0),
        template,
        SIZE,
    )
    assert 0.2 * whole.masks.mean() < crops.masks.mean() < 0.95 * whole.masks.mean()
    assert empty.masks.sum() == 0


def test_masks_tell_the_head_s_end_inside_the_photo_and_under_brows_of_a_cut_head(template):
    """What is left of a head that goes on beyond the photo, segmenters round off."""
    width = 400
    fit = make_fit(template, width, width, yaw_deg=0.0)
    image, matte = np.full((width, width, 3), 128, np.uint8), np.ones((width, width), np.float32)
    brows = template.neutral[template.region_vertices("brows")].double().numpy()

    def photo_row(points):
        camera = points @ fit.camera_from_head[0, :3, :3].T + fit.camera_from_head[0, :3, 3]
        return (camera / camera[:, 2:] @ fit.intrinsics[0].T)[:, 1].min()

    def told(first_row):
        k = fit.intrinsics.copy()
        k[:, 1, 2] -= first_row
        cut = [part[first_row:] for part in (image, matte)]
        crops = crop_heads(cut[:1], cut[1:], replace(fit, intrinsics=k), template, SIZE)
        rows = crops.told[0, 0].any(1).nonzero()
        return int(rows.min()), int(pixels_in_crop(crops, brows)[:, 1].min())

    crown = template.neutral.double().numpy()
    first, brow = told(max(int(photo_row(crown)) - 10, 0))
    assert first < brow - 20
    first, brow = told(int(photo_row(brows)) - 20)
    # Level with the brows at the depth of the middle of the skull.
    assert abs(first - brow) < 8


def test_disagreeing_inputs_are_named(template):
    fit = make_fit(template, 640, 480)
    image, matte = np.zeros((480, 640, 3), np.uint8), np.zeros((480, 640), np.float32)
    with pytest.raises(ValueError, match="as many images"):
        crop_heads([image, image], [matte, matte], fit, template, SIZE)
    with pytest.raises(ValueError, match="matte"):
        crop_heads([image], [matte[:-1]], fit, template, SIZE)
    with pytest.raises(ValueError, match="positive image size"):
        crop_heads([image], [matte], fit, template, 0)
