import numpy as np
import pytest
import torch

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import (
    intrinsics_matrix,
    look_at_head,
    pixel_centers,
    project_points,
    transform_points,
)
from avat3r_ros.types import Camera

SIZE = 96
NEUTRAL = np.zeros(52, np.float32)
OPEN = arkit_code(jawOpen=0.7, eyeBlink=0.5, mouthSmile=0.3)


def camera(yaw=0.3, pitch=0.1, size=SIZE):
    return Camera(
        torch.tensor(intrinsics_matrix(1.6 * size, size / 2, size / 2), dtype=torch.float32),
        torch.tensor(look_at_head(yaw, pitch, 0.6, np.array([0, -0.02, -0.05]))).float(),
        size,
        size,
    )


@pytest.fixture(scope="module")
def view(long_haired):
    return long_haired.render(camera(), OPEN)


def test_every_surface_point_projects_to_its_own_pixel_centre(view):
    seen = view.surface.triangle_ids >= 0
    points = transform_points(camera().camera_from_head, view.position_map.permute(1, 2, 0)[seen])
    pixels = project_points(camera().intrinsics, points)
    # Worst seen: 2e-5 px; half a pixel of error would be 0.5.
    assert (pixels - pixel_centers(SIZE, SIZE)[seen]).abs().max() < 1e-3
    assert (points[:, 2] - view.depth_m[seen]).abs().max() < 1e-5


def test_hair_is_off_the_template_and_skin_is_on_it(view, long_haired):
    hair = (view.surface.triangle_ids >= 0) & (view.binding.triangle_ids < 0)
    skin = view.binding.triangle_ids >= 0
    assert hair.sum() > 300
    assert skin.sum() > 800
    on_person = torch.from_numpy(long_haired.mesh.template_vertices(OPEN))
    bound = long_haired.template.bound_points(on_person, view.binding)
    assert (bound - view.position_map.permute(1, 2, 0))[skin].abs().max() < 1e-6


def test_a_binding_is_the_same_surface_point_in_another_expression(view, long_haired):
    closed = long_haired.mesh.points(view.surface, NEUTRAL)
    moved = (closed - view.position_map.permute(1, 2, 0)).norm(dim=-1)
    # The rig is linear: the displacement of a template point is that of the template.
    template = long_haired.template
    difference = template.vertices(code=torch.from_numpy(OPEN)) - template.neutral
    expected = template.bound_points(difference, view.binding).norm(dim=-1)
    skin = view.binding.triangle_ids >= 0
    assert (moved - expected)[skin].abs().max() < 1e-5
    assert moved.max() > 0.01


def test_the_picture_is_black_outside_the_mask_and_lit_inside(view):
    assert view.image[:, view.mask[0] == 0].abs().max() == 0
    inside = view.mask[0] == 1
    assert 0.1 < view.image[:, inside].mean() < 0.9
    # The soft mask and the exact surface agree up to edges of a pixel.
    disagree = (view.mask[0] > 0.5) != (view.surface.triangle_ids >= 0)
    assert disagree.float().mean() < 0.02


def test_expressions_change_the_mouth_and_leave_the_hair(long_haired):
    one, other = (long_haired.render(camera(0, 0), code).image for code in (NEUTRAL, OPEN))
    changed = (one - other).abs().mean(0)
    assert changed[SIZE // 2 :].max() > 0.2
    assert changed[: SIZE // 5].max() < 0.02


def test_a_seed_is_a_person(long_haired, template):
    again = SyntheticHead(3, template, style="long")
    assert np.array_equal(again.mesh.vertices(OPEN), long_haired.mesh.vertices(OPEN))
    assert torch.equal(again.render(camera(), OPEN).image, long_haired.render(camera(), OPEN).image)
    other = SyntheticHead(4, template)
    assert np.abs(other.mesh.rest - again.mesh.rest).max() > 0.002


def test_the_template_does_not_fit_anyone_exactly(long_haired, template):
    fitted = template.vertices(torch.from_numpy(long_haired.identity)).numpy()
    face = np.unique(template.triangles[template.region_mask("skin")].numpy())
    off = np.linalg.norm(long_haired.mesh.rest - fitted, axis=1)[face]
    assert 0.001 < off.mean() < 0.004


def test_clothes_are_in_portraits_only(long_haired, view):
    portrait = long_haired.paint_portrait(camera(), OPEN)
    assert portrait.window[0].stop == SIZE
    assert portrait.rgba[-1, :, 3].max() == 1
    parts = [long_haired.paint_portrait(camera(), OPEN, part=p) for p in ("head", "clothes")]
    assert max(part.rgba[..., 3].sum() for part in parts) < portrait.rgba[..., 3].sum()
    assert view.mask[0, -1].max() == 0


def test_a_camera_that_looks_away_sees_nothing(long_haired):
    away = camera(yaw=0.0)
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])) @ away.camera_from_head
    nothing = long_haired.render(Camera(away.intrinsics, turned, SIZE, SIZE), NEUTRAL)
    assert nothing.mask.max() == 0
    assert nothing.surface.triangle_ids.max() == -1


def test_wrong_calls_are_refused(long_haired):
    batch = Camera(camera().intrinsics[None], camera().camera_from_head[None], SIZE, SIZE)
    with pytest.raises(ValueError, match="one camera"):
        long_haired.render(batch, NEUTRAL)
    with pytest.raises(ValueError, match="not finite"):
        long_haired.mesh.vertices(np.full(52, np.nan, np.float32))
    with pytest.raises(ValueError, match="supersample"):
        long_haired.render(camera(), NEUTRAL, supersample=0)
    with pytest.raises(ValueError, match="hair style"):
        SyntheticHead(0, long_haired.template, style="mohawk")
