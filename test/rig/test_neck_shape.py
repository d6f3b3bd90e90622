"""The neck's shape moves the neck alone, and heads without it stay as they are."""

import numpy as np
import pytest
import torch

from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.neck_shape import NECK_SHAPES, UNIT_M


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def with_neck(template, identity=None, **neck):
    """An identity with coefficients of the neck by name."""
    identity = torch.zeros(template.num_identity) if identity is None else identity
    return torch.cat([identity, torch.tensor([neck.get(name, 0.0) for name in NECK_SHAPES])])


@pytest.mark.parametrize("name", NECK_SHAPES)
def test_nothing_but_the_neck_moves(template, name):
    """Jaw, ears and scalp stay where they are, so that no crack opens at the neck's border."""
    moved = template.vertices(with_neck(template, **{name: 1.0})) - template.neutral
    still = template.region_vertices("skin", "scalp", "ears", "lips", "teeth", "eye_left")
    assert not moved[still].any()
    farthest = float(moved.norm(dim=-1).max())
    assert 0.9 * UNIT_M < farthest < 1.5 * UNIT_M


def test_each_shape_does_what_its_name_says(template):
    neck = template.region_vertices("neck")

    def extent(**shape):
        points = template.vertices(with_neck(template, **shape))[neck]
        low = points[points[:, 1] < -0.12]
        return low.amin(0).numpy(), low.amax(0).numpy()

    (x0, _, z0), (x1, _, z1) = extent()
    (a0, _, _), (a1, _, _) = extent(wider=1.0)
    assert a0 < x0 - 0.004 and a1 > x1 + 0.004
    (_, _, a0), (_, _, a1) = extent(thicker=1.0)
    assert a0 < z0 - 0.003 and a1 > z1 + 0.002
    (a0, _, _), (a1, _, _) = extent(**{"to its left": 1.0})
    assert a0 > x0 + 0.004 and a1 > x1 + 0.004
    (_, _, a0), (_, _, a1) = extent(**{"to the front": 1.0})
    assert a0 > z0 + 0.004 and a1 > z1 + 0.004


def test_identities_with_and_without_a_neck(template):
    """Avatars of before have none: zeros and nothing mean the same, in batches, too."""
    rng = np.random.default_rng(0)
    shape = torch.from_numpy(rng.normal(size=(2, template.num_identity)).astype(np.float32))
    longer = torch.stack([with_neck(template, one) for one in shape])
    assert longer.shape[-1] == template.identity_lengths[1]
    torch.testing.assert_close(template.vertices(longer), template.vertices(shape))
