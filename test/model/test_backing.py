"""The layer under the pixels."""

import dataclasses

import pytest
import torch

from avat3r_ros.geometry import intrinsics_matrix, look_at_head, triangle_normals
from avat3r_ros.model import preset
from avat3r_ros.model.backing import (
    MAX_AREA_M2,
    backing_places,
    colors_around,
    covering_discs,
)
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.rig_motion import facing_quats_wxyz
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.types import Camera, Gaussians


def camera_before(size=128, side_m=0.2):
    pose = torch.from_numpy(look_at_head(0.0, 0.0, 0.8)).float()
    k = torch.from_numpy(intrinsics_matrix(size * 0.8 / side_m, size / 2, size / 2)).float()
    return Camera(k[None], pose[None], size, size)


@pytest.mark.parametrize("side_m", [0.004, 0.014])
def test_discs_leave_no_holes_between_triangles(side_m):
    """Whole triangles and quarters of large ones alike."""
    i = torch.arange(-12, 13).float()
    y, x = (v.flatten() for v in torch.meshgrid(i, i, indexing="ij"))
    vertices = side_m * torch.stack([x + 0.5 * y, 0.87 * y, torch.zeros_like(x)], -1)
    a = (torch.arange(24)[:, None] * 25 + torch.arange(24)).flatten()
    up, down = torch.stack([a, a + 1, a + 25], -1), torch.stack([a + 1, a + 26, a + 25], -1)
    corners = vertices[torch.cat([up, down])]
    areas = 0.5 * triangle_normals(corners).norm(dim=-1)
    assert bool((areas > MAX_AREA_M2).any()) == (side_m == 0.014)
    faces, weights = backing_places(areas, torch.ones_like(areas, dtype=torch.bool))
    corners = corners[faces]
    normals = torch.nn.functional.normalize(triangle_normals(corners), dim=-1)
    along, half_axes, depth = covering_discs(corners)
    assert (depth > 0).all()
    discs = Gaussians(
        means=(corners * weights[..., None]).sum(1),
        quats_wxyz=facing_quats_wxyz(normals, along),
        scales=torch.cat([half_axes, 0.2 * half_axes[:, :1]], -1),
        opacities=torch.full((len(faces),), 0.97),
        colors=torch.ones(len(faces), 3),
    )
    alpha = render_gaussians(discs, camera_before(side_m=8 * side_m)).alpha[0, 0]
    assert alpha.min() > 0.9


def test_gaps_between_pixels_show_the_colour_of_the_pixels(head, template):
    views = head.fake_views(template, size=64)
    base = build_base_guess(views, preset("debug"), template)
    still = base.gaussians
    fill = Gaussians(**{
        one.name: getattr(still, one.name)[base.num_pixels :]
        for one in dataclasses.fields(Gaussians)
    })  # fmt: skip
    seen = render_gaussians(fill, camera_before())
    lips = (slice(84, 100), slice(50, 78))
    assert seen.alpha[0, 0][lips].min() > 0.9
    of_lips = torch.tensor(head.COLORS["lips"])
    assert (seen.rgb[0][:, lips[0], lips[1]].mean((1, 2)) - of_lips).abs().max() < 0.05


def test_few_pixels_leave_a_triangle_to_the_fill():
    triangles = torch.tensor([[0, 1, 2], [3, 4, 5]])
    pixels = torch.zeros(50, dtype=torch.long)
    red, grey = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.5])
    found = colors_around(
        triangles,
        pixels,
        torch.full((50, 3), 1 / 3),
        red.expand(50, 3),
        torch.tensor([0, 1]),
        grey.expand(2, 3),
    )
    torch.testing.assert_close(found, torch.stack([red, grey]), atol=0.02, rtol=0)


def test_pixels_that_another_matte_denies_by_a_little_are_backed(head, template):
    """Along the jaw, mattes and fit differ by millimetres, and holes would be dark specks."""
    views = head.fake_views(template, size=128, num_views=2)
    x, y = views.position_maps[1, :2]
    corner = (views.binding.triangle_ids[1] >= 0) & (x < -0.045) & (y > 0.05)
    views.masks[1, 0][corner] = 0.0
    views.confidence[1, 0][corner] = 0.0
    base = build_base_guess(views, preset("debug"), template)
    fill = base.gaussians.means[base.num_pixels :]
    denied = (fill[:, 0] < -0.047) & (fill[:, 0] > -0.051) & (fill[:, 1] > 0.052)
    assert (denied & (fill[:, 2] > 0)).sum() > 4
