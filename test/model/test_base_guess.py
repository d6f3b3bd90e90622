"""The base guess: one Gaussian a pixel, moved by the rig, with unseen surfaces filled in."""

import dataclasses

import pytest
import torch

from avat3r_ros.expression import ARKIT_INDEX, arkit_code
from avat3r_ros.geometry import matrices_from_quats_wxyz
from avat3r_ros.model import preset
from avat3r_ros.model.backing import MAX_DEPTH_M
from avat3r_ros.model.base_guess import FADE_DISTANCE_M, build_base_guess
from avat3r_ros.model.outlines import OFFSETS_M
from avat3r_ros.model.pixel_choice import misread_pixels
from avat3r_ros.model.prefix import make_motion
from avat3r_ros.model.rig_motion import BaseGuess, RigMotion, facing_quats_wxyz
from avat3r_ros.model.template_fill import SINK_M
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import REGIONS
from avat3r_ros.types import Camera, Gaussians, SurfaceBinding

CONFIG = preset("debug")
JAW = torch.from_numpy(arkit_code(jawOpen=1.0))
BLINK = torch.from_numpy(arkit_code(eyeBlinkLeft=1.0))
REST = torch.zeros(52)


@pytest.fixture(scope="module")
def base(template, views):
    return build_base_guess(views, CONFIG, template)


@pytest.fixture(scope="module")
def motion(base, template, views):
    return make_motion(base, views.identity, template, CONFIG)


def regions_of_moving(base, template):
    return template.triangle_regions[base.triangle_ids]


def covariances(gaussians):
    axes = matrices_from_quats_wxyz(gaussians.quats_wxyz) * gaussians.scales[:, None]
    return axes @ axes.transpose(1, 2)


def test_every_confident_pixel_outside_the_mouth_becomes_one_gaussian(views, template, on_rays):
    base = build_base_guess(views, CONFIG, template)
    keep = (views.confidence > 0.5) & (views.masks > 0.5) & ~misread_pixels(views, template)
    keep = keep.flatten().nonzero()[:, 0]
    assert torch.equal(base.pixel_indices.sort().values, keep)
    pixels = slice(0, base.num_pixels)
    flat = views.images.permute(0, 2, 3, 1).reshape(-1, 3)
    # Where photos meet, their colours do: by the little that exact ones differ at a vertex.
    torch.testing.assert_close(
        base.gaussians.colors[pixels], flat[base.pixel_indices], atol=0.05, rtol=0
    )
    flat = views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)
    shift = (base.gaussians.means[pixels] - flat[base.pixel_indices]).norm(dim=-1)
    # A few move to where the other photos' outlines allow them to be.
    assert shift.max() <= max(OFFSETS_M) + 1e-6
    assert (shift == 0).float().mean() > 0.5


def test_pixels_below_the_threshold_are_left_out(views, template):
    doubtful = views.confidence.clone()
    doubtful[:, :, 10:20] = 0.5
    base = build_base_guess(dataclasses.replace(views, confidence=doubtful), CONFIG, template)
    row = base.pixel_indices // 32 % 32
    assert not ((row >= 10) & (row < 20)).any()
    with pytest.raises(ValueError, match="nothing to build from"):
        build_base_guess(
            dataclasses.replace(views, confidence=torch.zeros_like(doubtful)), CONFIG, template
        )


def test_discs_lie_on_the_surface_and_cover_their_pixel(base, views, template):
    """Across the line of sight a disc is one footprint (depth / focal) wide, whatever its tilt."""
    first_view = (base.code_rows == 1).nonzero()[:, 0]  # the frontal camera, 0.8 m away
    on = first_view[(first_view >= base.deforming_start) & (first_view < base.num_pixels)]
    g = base.gaussians
    normals = matrices_from_quats_wxyz(g.quats_wxyz[on])[..., 2]
    corners = template.vertices(views.identity)[
        template.triangles[base.triangle_ids[on - base.moving_start]]
    ]
    expected = torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close((normals * expected).sum(-1), torch.ones(len(on)))
    footprint = (0.8 - g.means[on, 2]) / float(views.cameras.intrinsics[1, 0, 0])
    inner = g.scales[on, 1] / (0.55 * footprint)  # smaller only at silhouettes
    assert ((inner - 1).abs() < 0.02).float().mean() > 0.7
    assert (g.scales[on, 2] < 0.5 * g.scales[on, 1]).all()


def test_without_a_prior_it_is_the_coloured_cloud(views):
    config = dataclasses.replace(CONFIG, motion_prior="none")
    base = build_base_guess(views, config, None)
    assert len(base) == base.num_pixels and base.num_moving == 0
    assert (base.gaussians.scales == base.gaussians.scales[:, :1]).all()
    assert make_motion(base, views.identity, None, config) is None


def test_a_template_prior_needs_the_template(views):
    with pytest.raises(ValueError, match="needs the head template"):
        build_base_guess(views, CONFIG, None)


def test_at_a_references_own_code_nothing_moves(template, head):
    code = arkit_code(jawOpen=0.6, eyeBlinkLeft=0.2)
    views = head.fake_views(template, [code] * 3)
    base = build_base_guess(views, CONFIG, template)
    moved = make_motion(base, views.identity, template, CONFIG).gaussians(torch.from_numpy(code))
    pixels = slice(0, base.num_pixels)
    assert torch.equal(moved.means[pixels], base.gaussians.means[pixels])
    still = dataclasses.replace(moved, means=base.gaussians.means)
    torch.testing.assert_close(
        covariances(still)[pixels], covariances(base.gaussians)[pixels], atol=1e-9, rtol=1e-3
    )


def test_the_jaw_drops_by_the_rigs_amount_and_the_rest_stays(base, motion, template, head):
    change = motion.gaussians(JAW).means - motion.gaussians(REST).means
    moving = slice(base.moving_start, base.moving_stop)
    lips = torch.zeros(len(base), dtype=torch.bool)
    lips[moving] = regions_of_moving(base, template) == REGIONS.index("lips")
    assert lips.sum() > 100
    expected = torch.tensor([0.0, -head.JAW_DROP_M, 0.0]).expand(int(lips.sum()), 3)
    torch.testing.assert_close(change[lips], expected, atol=1e-7, rtol=1e-5)
    assert (change[~lips] == 0).all()
    static = torch.ones(len(base), dtype=torch.bool)
    static[moving] = False
    assert static.sum() > 100
    assert torch.equal(motion.gaussians(JAW).means[static], base.gaussians.means[static])


def test_references_with_different_expressions_agree(template, head, on_rays):
    """Whatever the expression a reference shows, its pixels land on the rig's surface."""
    codes = [arkit_code(), arkit_code(jawOpen=0.9), arkit_code(jawOpen=0.3)]
    views = head.fake_views(template, codes)
    base = build_base_guess(views, CONFIG, template)
    target = arkit_code(jawOpen=0.5)
    moved = make_motion(base, views.identity, template, CONFIG).gaussians(torch.from_numpy(target))
    on = slice(base.deforming_start, base.num_pixels)
    bound = slice(base.deforming_start - base.moving_start, base.num_pixels - base.moving_start)
    vertices = template.vertices(views.identity, torch.from_numpy(target))
    binding = SurfaceBinding(base.triangle_ids[bound], base.barycentrics[bound])
    expected = template.bound_points(vertices, binding)
    torch.testing.assert_close(moved.means[on], expected, atol=2e-6, rtol=0)


def test_points_off_the_template_follow_it_less_with_distance(template, head):
    views = head.fake_views(template, num_views=3)
    ids = views.binding.triangle_ids.clone()
    ids[1, -6:] = -1  # the lower edge of the jaw in the second view has lost its binding
    shifted = views.position_maps.clone()
    shifted[1, 2, -6:] += 0.25 * FADE_DISTANCE_M
    views = dataclasses.replace(
        views,
        position_maps=shifted,
        binding=dataclasses.replace(views.binding, triangle_ids=ids),
    )
    base = build_base_guess(views, CONFIG, template)
    motion = make_motion(base, views.identity, template, CONFIG)
    change = (motion.gaussians(JAW).means - motion.gaussians(REST).means)[:, 1]
    carried = slice(base.moving_start, base.deforming_start)
    assert base.deforming_start > base.moving_start
    share = change[carried] / -head.JAW_DROP_M
    assert ((share > 0.4) & (share < 0.8)).all()
    # The pixel that floats 4 cm beside the head is bound to nothing.
    floating = (base.pixel_indices == 0).nonzero()[0, 0]
    assert floating < base.moving_start


def test_covariance_follows_the_triangle():
    """Against F C F^T, with F the linear map of the triangle's plane, for random deformations."""
    torch.manual_seed(0)
    count = 50
    triangles = torch.arange(3 * count).view(count, 3)
    neutral = 0.01 * torch.randn(3 * count, 3)
    basis = 0.003 * torch.randn(1, 3 * count, 3)
    corners = neutral[triangles]
    normals = torch.nn.functional.normalize(
        torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1), dim=-1
    )
    gaussians = Gaussians(
        corners.mean(1),
        facing_quats_wxyz(normals, torch.randn(count, 3)),
        torch.rand(count, 3) * torch.tensor([1e-3, 1e-3, 1e-4]) + 1e-4,
        torch.ones(count),
        torch.ones(count, 3),
    )
    base = BaseGuess(
        gaussians, torch.zeros(count, dtype=torch.long), torch.zeros(1, 1),
        torch.zeros(0, dtype=torch.long), 0, 0, count, torch.arange(count),
        torch.full((count, 3), 1 / 3), torch.zeros(0, dtype=torch.long), 32,
    )  # fmt: skip
    moved = RigMotion(base, neutral, triangles, basis).gaussians(torch.ones(1))
    after = (neutral + basis[0])[triangles]

    def frame(c):
        first, second = c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]
        normal = torch.nn.functional.normalize(torch.cross(first, second, dim=-1), dim=-1)
        return torch.stack([first, second, normal], -1).double()

    deformation = frame(after) @ torch.linalg.inv(frame(corners))
    expected = deformation @ covariances(gaussians).double() @ deformation.transpose(1, 2)
    # Triangles that stretch beyond the limits are clamped by design.
    stretch = (moved.scales[:, :2] / gaussians.scales[:, :2].amax(-1, keepdim=True)).amax(-1)
    usual = (stretch < 3.9) & (moved.scales[:, :2].amin(-1) > 0.31 * gaussians.scales.amin(-1))
    usual &= stretch > 0.31
    squeezed = moved.scales[:, 1] <= 0.3001 * gaussians.scales[:, :2].amin(-1)
    usual &= ~squeezed
    assert usual.sum() > 30
    torch.testing.assert_close(
        covariances(moved)[usual].double(), expected[usual], atol=1e-10, rtol=2e-3
    )
    torch.testing.assert_close(moved.means, after.mean(1), atol=1e-7, rtol=0)
    assert (moved.scales[:, :2] <= 4.001 * gaussians.scales[:, :2].amax(-1, keepdim=True)).all()


def test_surface_just_outside_a_matte_is_filled_under_itself(head, template):
    """Mattes and fit differ by millimetres; without this the dark inside shows along the jaw."""
    views = head.fake_views(template, size=128, num_views=1)
    sheet = (views.binding.triangle_ids >= 0) & (views.position_maps[:, 1] > 0.0)
    past_left = views.position_maps[:, 0] < -0.04  # of the sheet, which begins at -0.06
    views.masks[:, 0][sheet & past_left] = 0.0
    views.confidence[:, 0][sheet & past_left] = 0.0
    base = build_base_guess(views, CONFIG, template)
    fill = base.gaussians.means[base.num_pixels :]
    fill = fill[(fill[:, 2] > -0.02) & (fill[:, 1] > 0.01) & (fill[:, 1] < 0.07)]
    beyond = fill[fill[:, 0] < -0.043]
    assert len(beyond) > 10, "within the fit's error"
    assert beyond[:, 0].min() > -0.052, "farther out there is no head"
    depth = (0.02 - 4 * beyond[:, 0] ** 2) - beyond[:, 2]
    assert (depth > 0.4 * SINK_M).all()
    assert depth.max() > depth.min() + 0.0005, "a step would be a gap"


def test_unseen_surfaces_are_filled_and_seen_ones_are_not(base, template, views):
    fill = base.code_rows >= len(views.codes)
    assert torch.equal(fill, torch.arange(len(base)) >= base.num_pixels)
    means = base.gaussians.means[fill]
    assert (means[:, 2] < -0.07).sum() > 50, "the back of the head is empty"
    # Camera-facing skin away from its rim is covered by pixels: nothing on top, a backing under it.
    on_skin = (means[:, 2] > 0.0) & (means[:, 0].abs() < 0.045) & (means[:, 1] > 0.05)
    depth = (0.02 - 4 * means[on_skin, 0] ** 2) - means[on_skin, 2]
    assert len(depth) > 5, "gaps would show the inside of the head"
    assert (depth > 0.5 * MAX_DEPTH_M).all()


def test_hair_goes_on_where_no_reference_shows_it(head, template):
    """Else the back of the head is bald, a hand's breadth under the hair of its sides."""
    views = head.fake_views(template)
    thickness = torch.zeros(len(template.neutral))
    thickness[template.region_vertices("scalp")] = 0.02
    haired = build_base_guess(
        dataclasses.replace(views, hair_thickness_m=thickness), CONFIG, template
    )
    behind = haired.gaussians.means[haired.num_pixels :, 2].min()
    assert behind == pytest.approx(-0.08 - 0.02, abs=1e-3)


def test_hair_that_a_reference_denies_lies_flatter(head, template):
    """The sheet at the back, lifted to its left, would stand beside the head in every picture."""
    views = head.fake_views(template)
    thickness = torch.zeros(len(template.neutral))
    thickness[template.region_vertices("skin")] = 0.03
    haired = build_base_guess(
        dataclasses.replace(views, hair_thickness_m=thickness), CONFIG, template
    )
    fill = haired.gaussians.means[haired.num_pixels :]
    stands_out = fill[:, 0].abs() > 0.063 + 0.006
    assert len(fill) > 100 and not stands_out.any()


def test_a_matte_that_misses_half_the_face_denies_nothing(head, template):
    """A half in the dark is no background: the back of the head would be open there."""
    views = head.fake_views(template)
    views.masks[0, :, :, :16] = 0.0
    views.confidence[0, :, :, :16] = 0.0
    base = build_base_guess(views, CONFIG, template)
    fill = base.gaussians.means[base.num_pixels :]
    back = fill[fill[:, 2] < -0.07]
    assert (back[:, 0] < -0.02).sum() > 20


def test_unseen_colours_continue_seen_ones(base, views, head):
    fill = base.code_rows >= len(views.codes)
    back = fill & (base.gaussians.means[:, 2] < -0.07)
    colors = base.gaussians.colors[back]
    # Its rim is seen past the face, in the scalp's colour; the unseen rest continues it.
    expected = torch.tensor(head.COLORS["scalp"]).expand_as(colors)
    torch.testing.assert_close(colors, expected, atol=0.05, rtol=0)


def test_a_surface_no_reference_shows_takes_the_mean_colour(template, views):
    doubtful = views.confidence.clone()
    scalp = template.triangle_regions[views.binding.triangle_ids.clamp(min=0)]
    doubtful[(scalp == REGIONS.index("scalp"))[:, None]] = 0.0
    views = dataclasses.replace(views, confidence=doubtful)
    base = build_base_guess(views, CONFIG, template)
    back = base.gaussians.colors[base.gaussians.means[:, 2] < -0.07]
    assert (back.std(0) < 0.01).all()
    assert (back[:, 0] > 0.65).all(), "skin, as nothing else is known"


def picture(gaussians, yaw=0.0):
    from avat3r_ros.geometry import intrinsics_matrix, look_at_head

    camera = Camera(
        torch.from_numpy(intrinsics_matrix(96 * 0.8 / 0.2, 48, 48)).float()[None],
        torch.from_numpy(look_at_head(yaw, 0.0, 0.8)).float()[None],
        96,
        96,
    )
    return render_gaussians(gaussians, camera, backend="cpu")


def patch(image, x, y):
    """Mean over 5x5 pixels around a head-frame point on the plane z = 0."""
    column, row = int(48 + x * 480), int(48 - y * 480)
    return image[0, :, row - 2 : row + 3, column - 2 : column + 3].mean((1, 2))


def test_the_mouth_hides_its_inside_until_it_opens(motion):
    closed, opened = (picture(motion.gaussians(code)) for code in (REST, JAW))
    lips = patch(closed.rgb, 0.0, -0.04)
    torch.testing.assert_close(lips, torch.tensor([0.7, 0.3, 0.3]), atol=0.06, rtol=0)
    inside = patch(opened.rgb, 0.0, -0.04)
    assert inside[0] < 0.5 and inside[1] < 0.22, "the mouth's inside must be dark"
    assert patch(opened.alpha, 0.0, -0.04) > 0.95, "the opened mouth is a hole"


def test_a_blink_hides_the_eye_without_holes(motion):
    open_eye, closed_eye = (picture(motion.gaussians(code)) for code in (REST, BLINK))
    eye = patch(open_eye.rgb, 0.0205, 0.032)
    assert eye[2] > 0.75
    lid = patch(closed_eye.rgb, 0.0205, 0.032)
    assert lid[2] < 0.65, "the eye shows through the lid"


def test_static_gaussians_are_those_of_unmoved_triangles(base, template):
    movement = template.expression_basis.norm(dim=-1).amax(0)[template.triangles].amax(-1)
    assert (movement[base.triangle_ids] > 5e-5).all()
    assert ARKIT_INDEX["jawOpen"] == 17
