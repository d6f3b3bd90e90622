"""Teeth: how far they reach and what they look like, read from drawn smiles of the shipped head."""

import dataclasses

import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model.teeth import (
    GUMS_OF_TOOTH,
    TOOTH_OF_EYE,
    TOOTH_OF_SKIN,
    paint_teeth,
    usual_teeth,
)
from avat3r_ros.model.teeth_reach import TeethReach, is_lower, measure_teeth, shifted_teeth
from avat3r_ros.model.template_colors import (
    TEETH,
    ColorSources,
    groups_of_pixels,
    in_mouth,
    surface_groups,
    surface_points,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews, SurfaceBinding

SIZE, DISTANCE_M = 256, 0.6
SKIN, DARK = (0.7, 0.45, 0.35), (0.12, 0.04, 0.04)
LEFT, RIGHT = (0.9, 0.88, 0.8), (0.6, 0.58, 0.55)
"""Teeth of the subject's left and right side."""

IVORY = torch.ones(3)

SMILE = dict(mouthSmile=0.9, mouthUpperUp=0.8, mouthLowerDown=0.4, jawOpen=0.45)


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def photos(template, codes, upper_m=0.0, lower_m=0.0, teeth=True):
    """The mean head with its teeth moved, seen from in front, bound to the template as it is."""
    rows = template.triangles[template.region_mask("teeth")].unique().long()
    down = template.expression_basis[:, rows, 1][arkit_code(jawOpen=1.0).argmax()] < -1e-3
    triangles = template.triangles.int().numpy()
    k = intrinsics_matrix(SIZE * DISTANCE_M / 0.26, SIZE / 2, SIZE / 2)
    pose = look_at_head(0, 0, DISTANCE_M, np.array([0.0, -0.05, 0.0]))
    inner = template.region_mask("teeth", "tongue", "inner_mouth")
    images, ids, weights = [], [], []
    for code in codes:
        vertices = template.vertices(code=torch.from_numpy(code))
        moved = vertices.clone()
        moved[rows, 1] += torch.where(down, lower_m, upper_m)
        bound = native.rasterize_mesh(vertices.numpy(), triangles, k, pose, SIZE, SIZE)
        drawn = native.rasterize_mesh(moved.numpy(), triangles, k, pose, SIZE, SIZE)
        shown = torch.from_numpy(drawn.triangle_ids).long()
        x = moved[template.triangles.long()[shown.clamp(min=0)], 0].mean(-1)
        ivory = torch.where((x > 0)[..., None], torch.tensor(LEFT), torch.tensor(RIGHT))
        image = torch.where(
            inner[shown.clamp(min=0)][..., None], torch.tensor(DARK), torch.tensor(SKIN)
        )
        is_teeth = template.region_mask("teeth")[shown.clamp(min=0)] & (shown >= 0)
        image = torch.where((is_teeth & teeth)[..., None], ivory, image)
        images.append((image * (shown >= 0)[..., None]).permute(2, 0, 1))
        ids.append(torch.from_numpy(bound.triangle_ids).long())
        weights.append(torch.from_numpy(bound.barycentrics))
    count = len(codes)
    mask = (torch.stack(ids) >= 0).float()[:, None]
    return ReferenceViews(
        images=torch.stack(images),
        masks=mask,
        cameras=Camera(
            torch.from_numpy(k).float().expand(count, 3, 3),
            torch.from_numpy(pose).float().expand(count, 4, 4),
            SIZE,
            SIZE,
        ),
        codes=torch.from_numpy(np.stack(codes)),
        position_maps=torch.zeros(count, 3, SIZE, SIZE),
        confidence=mask,
        binding=SurfaceBinding(torch.stack(ids), torch.stack(weights)),
        identity=torch.zeros(template.num_identity),
    )


def middles(template):
    """The middle of every triangle of the teeth: triangles, barycentrics."""
    faces = (surface_groups(template) == TEETH).nonzero()[:, 0]
    return faces, torch.full((len(faces), 3), 1 / 3)


@pytest.mark.parametrize("upper_m, lower_m", [(0.0, 0.0), (-0.003, 0.0), (0.001, 0.001)])
def test_a_smile_tells_how_far_both_rows_reach(template, upper_m, lower_m):
    reach = measure_teeth(
        photos(template, [arkit_code(**SMILE)], upper_m, lower_m), template, IVORY
    )
    assert reach.upper_m == pytest.approx(upper_m, abs=1e-3)
    assert reach.lower_m == pytest.approx(lower_m, abs=1.2e-3)
    assert float(reach.color.min()) > 0.5


def test_nothing_is_read_from_a_shut_mouth_or_a_dark_one(template):
    for views in (
        photos(template, [arkit_code()]),
        photos(template, [arkit_code(**SMILE)], teeth=False),
    ):
        reach = measure_teeth(views, template, IVORY)
        assert (reach.upper_m, reach.lower_m) == (0.0, 0.0) and reach.color is None


@pytest.mark.parametrize("shown, seen", [((0.80, 0.55, 0.46), True), ((0.80, 0.45, 0.42), False)])
def test_in_warm_light_teeth_are_yellow_and_gums_redder(template, shown, seen):
    """Both are more saturated than grey; the skin says what hue teeth have there."""
    views = photos(template, [arkit_code(**SMILE)])
    teeth = views.images.amin(1) > 0.5
    views.images.permute(0, 2, 3, 1)[teeth] = torch.tensor(shown)
    ivory = torch.tensor((0.85, 0.58, 0.52)) * torch.tensor(TOOTH_OF_SKIN)
    color = measure_teeth(views, template, ivory).color
    assert (color is not None) == seen
    assert not seen or torch.allclose(color, torch.tensor(shown))


def test_teeth_that_fill_the_opening_reach_at_least_so_far(template):
    """The mouth is only opened by 6 mm: what the lip hides may be longer."""
    half_open = arkit_code(mouthUpperUp=0.5, mouthLowerDown=0.2, jawOpen=0.2)
    longer = measure_teeth(photos(template, [half_open], upper_m=-0.004), template, IVORY)
    assert -0.004 <= longer.upper_m < -5e-4


def test_upper_teeth_that_begin_in_shadow_and_touch_the_lower_lip_are_not_the_lower_row(template):
    views = photos(template, [arkit_code(mouthUpperUp=1.0, jawOpen=0.2)], upper_m=-0.0035)
    rows = in_mouth(groups_of_pixels(views, template))[0].any(1).nonzero()[:, 0]
    shadow = torch.zeros(SIZE, dtype=torch.bool)
    shadow[rows[: len(rows) // 2]] = True
    shadow = shadow[:, None] & in_mouth(groups_of_pixels(views, template))[0]
    views.images[0][:, shadow] = torch.tensor(DARK)[:, None]
    assert measure_teeth(views, template, IVORY).lower_m == 0


def test_parted_lips_show_upper_teeth_and_a_wide_open_mouth_its_throat(template):
    def shown(jaw):
        views = photos(template, [arkit_code(jawOpen=jaw)])
        ids = views.binding.triangle_ids
        return ids[ids >= 0]

    teeth, lower = template.region_mask("teeth"), is_lower(template)
    parted, wide = shown(0.2), shown(1.0)
    upper_pixels = int((teeth & ~lower)[parted].sum())
    assert upper_pixels > 3 * int((teeth & lower)[parted].sum()) and upper_pixels > 20
    assert int(template.region_mask("inner_mouth")[wide].sum()) > 20


def test_the_jaw_takes_the_lower_row_only(template):
    faces, weights = middles(template)
    points = surface_points(template.neutral, template, faces, weights)
    reach = measure_teeth(photos(template, [arkit_code(**SMILE)], -0.003, 0.001), template, IVORY)
    moved = shifted_teeth(points, faces, template, reach) - points
    front = points[:, 2] > -0.02
    points, moved = points[front], moved[front]
    upper = points[:, 1] > -0.0719
    torch.testing.assert_close(moved[upper, 1], torch.full((int(upper.sum()),), reach.upper_m))
    torch.testing.assert_close(moved[~upper, 1], torch.full((int((~upper).sum()),), reach.lower_m))
    assert not moved[:, [0, 2]].any()


def test_seen_teeth_have_the_colours_of_the_photo_and_pass_them_on(template):
    views = photos(template, [arkit_code(), arkit_code(**SMILE)], -0.003)
    faces, weights = middles(template)
    colors = paint_teeth(
        views, template, measure_teeth(views, template, IVORY), faces, weights, IVORY
    )
    points = surface_points(template.neutral, template, faces, weights)
    front = (points[:, 2] > -0.02) & (points[:, 0].abs() > 0.004) & (points[:, 1] > -0.0716)
    front &= points[:, 1] < -0.062
    left = front & (points[:, 0] > 0)
    right = front & (points[:, 0] < 0)
    assert left.sum() > 3 and right.sum() > 3
    torch.testing.assert_close(colors[left].median(0).values, torch.tensor(LEFT), atol=0.05, rtol=0)
    torch.testing.assert_close(
        colors[right].median(0).values, torch.tensor(RIGHT), atol=0.05, rtol=0
    )


def test_teeth_that_nobody_saw_are_painted_with_gums_and_a_dark_back(template):
    views = photos(template, [arkit_code()])
    faces, weights = middles(template)
    reach = measure_teeth(views, template, IVORY)
    colors = paint_teeth(views, template, reach, faces, weights, IVORY)
    points = surface_points(template.neutral, template, faces, weights)
    tips = (points[:, 1].sub(-0.0743).abs() < 0.006) & (points[:, 2] > -0.012)
    top = (points[:, 1] > -0.0587) & (points[:, 2] > -0.015)
    back = points[:, 2] < -0.04
    assert tips.any() and top.any() and back.any()
    assert float(colors[tips].mean()) > 0.6
    assert float((colors[top] - torch.tensor(GUMS_OF_TOOTH)).abs().max()) < 0.25
    assert float(colors[back].mean()) < 0.3
    half = paint_teeth(views, template, reach, faces, weights, torch.full((3,), 0.5))
    torch.testing.assert_close(half, 0.5 * colors)


@pytest.mark.parametrize(
    "skin, white, expected",
    [
        ((0.60, 0.36, 0.22), (0.4, 0.3, 0.2), np.multiply((0.60, 0.36, 0.22), TOOTH_OF_SKIN)),
        ((0.30, 0.20, 0.15), (0.7, 0.65, 0.6), np.multiply((0.7, 0.65, 0.6), TOOTH_OF_EYE)),
    ],
    ids=["dim red light", "dark skin"],
)
def test_teeth_that_nobody_saw_are_as_bright_as_skin_and_eyes_tell(template, skin, white, expected):
    faces = (template.region_mask("skin", "eye_left", "scalp")).nonzero()[:, 0]
    colors = torch.tensor(skin).repeat(len(faces), 1)
    colors[template.region_mask("eye_left")[faces]] = torch.tensor(white)
    # Neither the back of the head nor hair says anything of the light on the face.
    behind = template.neutral[template.triangles.long()].mean(1)[faces, 2] < -0.05
    hairy = (template.neutral[:, 1] > 0.02).float()
    colors[behind] = colors[hairy[template.triangles.long()].mean(1)[faces] > 0.9] = 0.95
    pixels = ColorSources(
        colors, faces, torch.full((len(faces), 3), 1 / 3), torch.ones(len(faces), dtype=torch.bool)
    )
    found = usual_teeth(template.neutral, template, pixels, hairy)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=0.02, rtol=0)


def test_back_teeth_are_dark_and_warm_whatever_a_photo_shows_in_front_of_them(template):
    # The fit has the lower front teeth too low, and the photo's are where it has molars.
    views = photos(template, [arkit_code(jawOpen=0.5, mouthSmile=0.5)], 0.0, 0.006)
    faces = middles(template)[0].repeat(20)
    weights = torch.rand(len(faces), 3, generator=torch.manual_seed(0))
    weights /= weights.sum(-1, keepdim=True)
    reach = TeethReach(0.0, -0.002, torch.tensor(LEFT))
    colors = paint_teeth(views, template, reach, faces, weights, IVORY)
    points = surface_points(template.neutral, template, faces, weights)
    back = colors[points[:, 2] < -0.045]
    assert float(back.max()) < 0.45
    assert float((back[:, 0] - back[:, 2]).min()) > 0.03


def test_a_photo_from_aside_says_nothing_of_the_front(template):
    views = photos(template, [arkit_code(**SMILE)], -0.004)
    aside = look_at_head(np.radians(60), 0, DISTANCE_M, np.array([0.0, -0.05, 0.0]))
    views = dataclasses.replace(
        views,
        cameras=dataclasses.replace(
            views.cameras, camera_from_head=torch.from_numpy(aside).float()[None]
        ),
    )
    assert measure_teeth(views, template, IVORY).upper_m == 0
