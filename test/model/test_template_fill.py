"""Surfaces that no reference shows."""

import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model.template_colors import in_mouth, surface_groups
from avat3r_ros.model.template_fill import FILL_CODES
from avat3r_ros.model.visible_triangles import ever_visible
from avat3r_ros.rig import HeadTemplate


@pytest.mark.parametrize("yaw_deg", [-25, -8, 0, 8, 15, 25])
def test_an_open_mouth_has_no_hole_from_any_side(yaw_deg):
    template = HeadTemplate.load()
    group = surface_groups(template)
    codes = torch.from_numpy(np.stack([arkit_code(**scores) for scores in FILL_CODES]))
    filled = ever_visible(
        template.vertices(torch.zeros(len(codes), template.num_identity), codes), template, group
    )
    opened = template.vertices(code=torch.from_numpy(arkit_code(jawOpen=0.8))).numpy()
    pose = look_at_head(np.radians(yaw_deg), 0, 0.6, np.array([0.0, -0.075, 0.0]))
    shown = native.rasterize_mesh(
        opened, template.triangles.int().numpy(), intrinsics_matrix(2400, 128, 128), pose, 256, 256
    ).triangle_ids
    shown = torch.from_numpy(shown[shown >= 0]).long()
    mouth = shown[in_mouth(group[shown])]
    assert len(mouth) > 2000
    assert int((~filled[mouth]).sum()) < 0.005 * len(mouth)
