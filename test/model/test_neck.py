"""The neck below the references' cut."""

import dataclasses

import numpy as np
import pytest
import torch

from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.neck import END_BELOW_CHIN_M, hair_going_on, height_over_cut
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.framing import NECK_BELOW_CHIN_M
from avat3r_ros.types import Camera

SIZE, SIDE_M = 128, 0.16


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def base(drawn_person, template):
    return build_base_guess(drawn_person, preset("debug"), template, neck=True)


def neck_alpha(base, views, template, yaw_deg):
    """Opacity from one side; in the middle of the picture is what is 1 cm under the chin."""
    rest = template.vertices(views.identity.float())
    chin = template.landmarks(rest)[CHIN_LANDMARK].numpy()
    middle = np.array([0.0, chin[1] - 0.01, -0.1])
    pose = torch.from_numpy(look_at_head(np.radians(yaw_deg), 0.0, 0.8, middle)).float()
    k = torch.from_numpy(intrinsics_matrix(SIZE * 0.8 / SIDE_M, SIZE / 2, SIZE / 2)).float()
    return render_gaussians(base.gaussians, Camera(k[None], pose[None], SIZE, SIZE)).alpha[0, 0]


@pytest.mark.parametrize("yaw_deg", [0, 60, 130, 180, -90])
def test_the_neck_fades_and_does_not_break_off(base, drawn_person, template, yaw_deg):
    alpha = neck_alpha(base, drawn_person, template, yaw_deg)
    middle = alpha[:, SIZE // 2 - 15 : SIZE // 2 + 15]
    assert middle[: SIZE // 2].min() > 0.9, "1 cm under the chin it is whole"
    millimetre = SIZE / SIDE_M / 1000
    softness = ((middle > 0.1) & (middle < 0.9)).float().sum(0) / millimetre
    assert softness.min() > 5
    ends = (middle > 0.3).sum(0).float()
    assert ends.diff().abs().max() < 3 * millimetre, "no fringe"


def test_training_ends_at_the_cut_and_avatars_below(base, drawn_person, template):
    def lowest(base):
        rest = template.vertices(drawn_person.identity.float())
        fill = base.gaussians.means[base.num_pixels :]
        return float(height_over_cut(fill, template, rest).min())

    end = NECK_BELOW_CHIN_M - END_BELOW_CHIN_M
    assert end - 0.002 < lowest(base) < end + 0.005
    assert lowest(build_base_guess(drawn_person, preset("debug"), template)) > -0.02


def test_a_neck_that_mattes_miss_is_there(drawn_person, template):
    rest = template.vertices(drawn_person.identity.float())
    points = drawn_person.position_maps.movedim(1, -1)
    hidden = (height_over_cut(points, template, rest) < 0.02)[:, None] & (drawn_person.masks > 0)
    views = dataclasses.replace(
        drawn_person,
        masks=drawn_person.masks * ~hidden,
        confidence=drawn_person.confidence * ~hidden,
    )
    base = build_base_guess(views, preset("debug"), template, neck=True)
    alpha = neck_alpha(base, views, template, 0)
    assert alpha[: SIZE // 2, SIZE // 2 - 15 : SIZE // 2 + 15].min() > 0.9


def test_hair_goes_on_and_single_strands_do_not(template):
    rest = template.neutral
    over_cut = height_over_cut(rest, template, rest)
    below = over_cut < -0.01
    everywhere = torch.full_like(rest, 0.01)
    assert torch.equal(hair_going_on(everywhere, over_cut, template, rest), everywhere)
    strand = torch.zeros_like(rest)
    neck = torch.from_numpy(template.region_vertices("neck"))
    lowest_shown = neck[over_cut[neck] > 0.004][over_cut[neck][over_cut[neck] > 0.004].argmin()]
    strand[lowest_shown] = strand[below] = 0.01
    found = hair_going_on(strand, over_cut, template, rest)
    assert found[below].abs().max() == 0
    assert found[lowest_shown, 0] == strand[lowest_shown, 0] > 0
