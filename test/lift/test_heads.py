"""One photo lifted by the learned head, against what the drawn person truly looks like."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import (
    camera_direction,
    intrinsics_matrix,
    look_at_head,
    project_points,
    transform_points,
)
from avat3r_ros.lift import heads
from avat3r_ros.lift.hair import _bare_ears, find_hair
from avat3r_ros.lift.photo import PhotoOnHead
from avat3r_ros.priors.template import position_maps
from avat3r_ros.priors.view import ReferenceView
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.looks import HeadLooks, mirrored_vertices
from avat3r_ros.types import Camera, HeadCrops

SIZE = 192
CODE = arkit_code(mouthSmile=0.3)


def camera(yaw_deg):
    k = torch.tensor(intrinsics_matrix(SIZE * 0.8 / 0.32, SIZE / 2, SIZE / 2)).float()
    pose = look_at_head(np.radians(yaw_deg), 0.0, 0.8, np.array([0.0, 0.0, -0.08]))
    return Camera(k, torch.tensor(pose).float(), SIZE, SIZE)


def photo(head, yaw_deg):
    """What a perfect fit would make of a photo."""
    one = camera(yaw_deg)
    view = head.render(one, CODE)
    return HeadCrops(
        images=view.image[None],
        masks=view.mask[None],
        cameras=Camera(one.intrinsics[None], one.camera_from_head[None], SIZE, SIZE),
        codes=torch.from_numpy(CODE)[None],
        identity=torch.from_numpy(head.identity),
    )


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def person(template):
    return SyntheticHead(41, template, style="short")


@pytest.fixture(scope="module")
def turned(person, template):
    """Lifted from a photo that shows the subject's left side."""
    return heads.lift(photo(person, 30), template)


def truth(person, lifted, view):
    cameras = lifted.cameras
    one = Camera(cameras.intrinsics[view], cameras.camera_from_head[view], SIZE, SIZE)
    return person.render(one, CODE)


def error(lifted, true, view, where):
    """Root mean square difference where both show the head."""
    both = (true.mask[0] > 0.9) & (lifted.masks[view, 0] > 0.9) & where
    return float((lifted.images[view] - true.image)[:, both].square().mean().sqrt())


def test_the_photo_comes_first_and_says_who_was_guessed(person, turned):
    given = photo(person, 30)
    assert turned.num_guessed == len(heads.DIRECTIONS_DEG) == len(turned.images) - 1
    kept = turned.masks[0] > 0
    torch.testing.assert_close(turned.images[0], given.images[0] * kept)
    assert (turned.codes == given.codes).all()
    seen = [np.degrees(camera_direction(p.numpy())) for p in turned.cameras.camera_from_head[1:3]]
    # Cameras look at the middle of the head, 8 cm behind the origin of directions.
    np.testing.assert_allclose([yaw for yaw, _ in seen], [-60, 60], atol=2)


def test_every_view_is_a_whole_head_where_the_true_one_is(person, turned):
    for view in range(1, len(turned.images)):
        true = truth(person, turned, view).mask[0] > 0.5
        guessed = turned.masks[view, 0] > 0.5
        overlap = (true & guessed).sum() / (true | guessed).sum()
        assert overlap > 0.9, f"view {view}"


def test_what_the_photo_shows_is_drawn_as_it_is(person, turned):
    true = truth(person, turned, 2)
    face = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    # From 55 degrees to the left, the left half of the face; no hair.
    on = true.binding.triangle_ids >= 0
    face[on] = person.template.region_mask("skin", "lips")[true.binding.triangle_ids[on]]
    assert error(turned, true, 2, face) < 0.05


def test_the_hidden_side_looks_like_the_person_not_like_the_mean(person, turned, template):
    true = truth(person, turned, 1)
    everywhere = torch.ones(SIZE, SIZE, dtype=torch.bool)
    ours = error(turned, true, 1, everywhere)
    stranger = heads.lift(photo(SyntheticHead(46, template, style="short"), 30), template)
    assert ours < 0.13
    assert ours < 0.7 * error(stranger, true, 1, everywhere)


def test_the_position_maps_of_guesses_lie_on_the_shell_they_were_drawn_with(turned, template):
    views = position_maps(turned, template)
    assert views.num_guessed == turned.num_guessed
    used = views.confidence[:, 0] > 0.5
    bound = views.binding.triangle_ids >= 0
    assert (used & bound).sum() > 0.95 * used[1:].sum()
    # The photo speaks for the middle of the face, the guesses for the back of the head.
    z = views.position_maps[:, 2]
    assert (used[0] & (z[0] > -0.03)).sum() > 0.8 * ((z[0] > -0.03) & bound[0]).sum()
    assert used[5].sum() > 0.8 * bound[5].sum()


def test_what_the_prior_does_not_know_of_one_cheek_is_on_the_other_too(person, template):
    given = photo(person, 30)
    vertices = template.vertices(given.identity, given.codes[0])
    seen_cheek = int((vertices - torch.tensor([0.045, -0.055, -0.025])).norm(dim=-1).argmin())
    hidden_cheek = int(mirrored_vertices(template)[seen_cheek])
    bound = template.bound_points(vertices, person.render(camera(30), CODE).binding)
    patch = (bound - vertices[seen_cheek]).norm(dim=-1) < 0.012
    assert patch.sum() > 80
    given.images[0][:, patch] = torch.tensor([0.2, 0.3, 0.8])[:, None]
    lifted = heads.lift(given, template)
    one = lifted.cameras[1]
    point = transform_points(one.camera_from_head, vertices[hidden_cheek][None])
    x, y = project_points(one.intrinsics, point)[0].long()
    red, _, blue = lifted.images[1, :, y, x]
    assert blue > red


@pytest.mark.parametrize("yaw_deg", [0, 30])
def test_short_hair_fills_the_photos_matte_and_keeps_its_pixels(person, template, yaw_deg):
    given = photo(person, yaw_deg)
    lifted = heads.lift(given, template)
    view = ReferenceView(given, template, 0)
    view.draw(
        lifted.hair_thickness_m[:, None].numpy() * template.coarse_normals(given.identity).numpy()
    )
    head = given.masks[0, 0].numpy() > 0.5
    assert (head & ~view.on_mesh).sum() < 0.025 * head.sum()
    assert (head & (lifted.masks[0, 0].numpy() > 0.5)).sum() > 0.9 * head.sum()


def test_what_stands_off_the_ears_is_not_hair(person, template):
    """Ears stick out of the fitted head, and their hollows are as dark as hair."""
    given = photo(person, 0)
    view = ReferenceView(given, template, 0)
    beside = cv2.distanceTransform((~view.on_mesh).astype(np.uint8), cv2.DIST_L2, 5)
    at_ears = np.abs(view.points[..., 1] + 0.02) < 0.025
    ears = ~view.on_mesh & at_ears & (beside * view.pixel_size_m() < 0.016)
    above = given.masks[0, 0] > 0.9
    above[SIZE // 4 :] = False
    given.images[0][:, ears] = given.images[0][:, above].mean(1)[:, None]
    given.masks[0, 0][ears] = 1.0
    lifted = heads.lift(given, template)
    assert (lifted.hair_thickness_m[template.region_vertices("ears")] > 0).float().mean() < 0.1


def test_bald_heads_stay_bald(template):
    bald = SyntheticHead(43, template, style="bald")
    lifted = heads.lift(photo(bald, 0), template)
    assert lifted.hair_thickness_m.max() < 0.01


def test_a_collar_is_not_painted_on_the_neck(person, template):
    given = photo(person, 0)
    view = person.render(camera(0), CODE)
    neck = template.region_mask("neck")[view.binding.triangle_ids.clamp(min=0)]
    collar = neck & (view.binding.triangle_ids >= 0)
    assert collar.sum() > 300
    given.images[0][:, collar] = torch.tensor([0.2, 0.3, 0.9])[:, None] * given.masks[0][:, collar]
    lifted = heads.lift(given, template)
    assert (lifted.masks[0, 0][collar] == 0).float().mean() > 0.9
    blue = lifted.images[1:, 2] > lifted.images[1:, 0] + 0.2
    assert blue.float().mean() < 0.003


def test_two_photos_are_not_lifted(person, template):
    one = photo(person, 0)
    two = HeadCrops(
        images=one.images.repeat(2, 1, 1, 1),
        masks=one.masks.repeat(2, 1, 1, 1),
        cameras=Camera(
            one.cameras.intrinsics.repeat(2, 1, 1),
            one.cameras.camera_from_head.repeat(2, 1, 1),
            *(SIZE, SIZE),
        ),
        codes=one.codes.repeat(2, 1),
        identity=one.identity,
    )
    with pytest.raises(ValueError, match="expected one photo to lift, got 2"):
        heads.lift(two, template)


def test_a_photo_without_a_face_is_refused(person, template):
    given = photo(person, 0)
    given.masks.zero_()
    with pytest.raises(ValueError, match="nothing of the face"):
        heads.lift(given, template)


def with_curtain(crops, template, width_m, color):
    """The photo with hair beside both cheeks, from eye level down."""
    view = ReferenceView(crops, template, 0)
    beside = cv2.distanceTransform((~view.on_mesh).astype(np.uint8), cv2.DIST_L2, 5)
    y = view.points[..., 1]
    near = ~view.on_mesh & (beside * view.pixel_size_m() < width_m)
    curtain = torch.from_numpy(near & (y < 0.01) & (y > -0.12))
    images = torch.where(curtain, torch.tensor(color)[:, None, None], crops.images[0])[None]
    masks = torch.where(curtain, torch.tensor(1.0), crops.masks[0])[None]
    return dataclasses.replace(crops, images=images, masks=masks, hair=curtain[None, None])


@pytest.mark.parametrize(
    ("width_m", "like_hair", "hangs"),
    [(0.03, True, True), (0.01, True, False), (0.03, False, False)],
)
def test_long_hair_hangs_around_the_neck(person, template, width_m, like_hair, hangs):
    """Else it is cut off at the ears. What is narrow or looks like skin is an ear."""
    crops = photo(person, 0)
    above = crops.masks[0, 0] > 0.9
    above[SIZE // 4 :] = False
    color = crops.images[0][:, above].mean(1) if like_hair else crops.images[0][:, 100, 96]
    lifted = heads.lift(with_curtain(crops, template, width_m, color.tolist()), template)
    neck = template.region_vertices("neck")
    rest = template.neutral[neck]
    nape = neck[((rest[:, 2] < -0.11) & (rest[:, 1] > -0.1)).numpy()]
    assert (lifted.hair_thickness_m[nape].median() > 0.02) == hangs
    behind = heads.DIRECTIONS_DEG.index((180, 0)) + 1
    row = SIZE // 2 + round(0.08 / 0.32 * SIZE)  # 8 cm below the eyes
    width = float(lifted.masks[behind, 0, row].sum()) * 0.32 / SIZE
    assert (width > 0.18) == hangs


def test_light_on_the_far_cheek_does_not_grow_over_the_hidden_side(person, template):
    given = photo(person, 30)
    vertices = template.vertices(given.identity, given.codes[0])
    across = template.bound_points(vertices, person.render(camera(30), CODE).binding)[..., 0]
    # A face in the shade, more and more lit towards the side that the photo does not show.
    lit = dataclasses.replace(given, images=given.images * (0.4 - 12 * across).clamp(0.4, 1))
    lightest = lit.images[0].mean(0)[lit.masks[0, 0] > 0.9].quantile(0.95)
    lifted = heads.lift(lit, template)
    hidden = truth(person, lifted, 1)
    skin = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    on = hidden.binding.triangle_ids >= 0
    skin[on] = template.region_mask("skin", "ears", "neck")[hidden.binding.triangle_ids[on]]
    skin &= lifted.masks[1, 0] > 0.9
    # Measured 0.78, and 0.97 without a limit.
    assert lifted.images[1].mean(0)[skin].quantile(0.9) < 0.88 * lightest


def cut_above(crops, row):
    """The same, as a photo that ends above a row."""
    shown = (torch.arange(SIZE) >= row)[None, None, :, None].expand_as(crops.masks)
    return dataclasses.replace(
        crops, images=crops.images * shown, masks=crops.masks * shown, shown=shown, told=shown
    )


def test_hair_that_the_photo_cuts_off_has_the_color_of_its_rim(template):
    """A bare forehead that ends with the photo says nothing of the hair above it."""
    person = SyntheticHead(46, template, style="medium")
    whole = photo(person, 0)
    vertices = template.vertices(whole.identity, whole.codes[0])
    brows = vertices[template.region_vertices("brows")]
    top = transform_points(whole.cameras.camera_from_head[0], brows[brows[:, 1].argmax()][None])
    brow_row = int(project_points(whole.cameras.intrinsics[0], top)[0, 1])
    lifted = heads.lift(cut_above(whole, brow_row - 6), template)
    assert lifted.shown[1:].all()
    assert not lifted.shown[0, 0, : brow_row - 7].any()
    back = len(heads.DIRECTIONS_DEG)
    true = truth(person, lifted, back)
    both = (lifted.masks[back, 0] > 0.9) & (true.mask[0] > 0.9)
    guess, hair = (image[:, both].mean(1) for image in (lifted.images[back], true.image))
    middle = slice(SIZE // 2 - 16, SIZE // 2 + 16)
    skin = whole.images[0][:, brow_row - 4 : brow_row - 1, middle].mean((1, 2))
    # Measured 0.10, and 0.22 where the forehead was asked.
    assert (guess - hair).norm() < 0.15 * (skin - hair).norm()


def test_bare_ears_are_seen(template):
    """Of a head cut at the forehead nothing of the hair is known, and many have theirs covered."""
    whole = photo(SyntheticHead(46, template, style="short"), 0)
    assert not ear_is_hair(cut_above(whole, int(SIZE * 0.4)), template, 1)
    bare = _bare_ears(PhotoOnHead(whole, template))
    assert set(np.flatnonzero(bare)) == set(template.region_vertices("ears"))
    dark = whole.images.clone()
    dark[..., : SIZE // 3] *= 0.2
    dark[..., -SIZE // 3 :] *= 0.2
    covered = PhotoOnHead(dataclasses.replace(whole, images=dark), template)
    assert not _bare_ears(covered).any()


def test_hair_of_the_hidden_side_hangs_as_on_the_other(template):
    """Long hair that covers the ear that a turned photo shows covers the other one, too."""
    person = SyntheticHead(713, template, style="long")
    given = photo(person, 30)
    covered = dataclasses.replace(given, hair=given.masks > 2)
    assert not ear_is_hair(covered, template, -1)
    in_hair = (given.images[0].mean(0) < 0.25) & (given.masks[0, 0] > 0.5)
    assert ear_is_hair(dataclasses.replace(given, hair=in_hair[None, None]), template, -1)


def ear_is_hair(crops, template, side):
    shell = find_hair(PhotoOnHead(crops, template), HeadLooks.load().hair)
    ears = template.region_vertices("ears")
    ear = ears[template.neutral[ears, 0].numpy() * side > 0]
    return shell.present[ear].mean() > 0.9
