"""The animator: one interface for trained and untrained avatars, and codes it refuses."""

import numpy as np
import pytest
import torch

from avat3r_ros.animation import Animator
from avat3r_ros.expression import arkit_code
from avat3r_ros.model import Avat3r, build_avatar, preset
from avat3r_ros.types import Gaussians

FIELDS = tuple(Gaussians.__dataclass_fields__)


@pytest.fixture(scope="module")
def untrained(views, template):
    return build_avatar(views, Avat3r(preset("debug"), template))


@pytest.fixture(scope="module")
def animator(untrained, template):
    return Animator(untrained, template=template)


def test_the_rig_drives_an_untrained_avatar(animator, head):
    rest = animator.animate(np.zeros(52, np.float32))
    opened = animator.animate(arkit_code(jawOpen=1.0))
    assert len(rest) == animator.num_gaussians
    moved = (opened.means - rest.means)[:, 1]
    # Barycentrics are stored in half precision: measured error 6 micrometres of 20 mm.
    assert float(moved.min()) == pytest.approx(-head.JAW_DROP_M, rel=1e-3)
    half = animator.animate(arkit_code(jawOpen=0.5)).means - rest.means
    torch.testing.assert_close(half, 0.5 * (opened.means - rest.means), atol=1e-7, rtol=1e-4)


def test_results_do_not_depend_on_earlier_codes(animator):
    first = animator.animate(arkit_code(jawOpen=0.3))
    kept = {name: getattr(first, name).clone() for name in FIELDS}
    animator.animate(arkit_code(jawOpen=0.9, eyeBlink=1.0))
    again = animator.animate(arkit_code(jawOpen=0.3))
    for name in FIELDS:
        assert torch.equal(getattr(first, name), kept[name])
        assert torch.equal(getattr(again, name), kept[name])


def test_a_trained_avatar_uses_its_network(views, template, untrained):
    torch.manual_seed(0)
    network = Avat3r(preset("debug"), template).eval()
    for layer in network.output_layers():
        torch.nn.init.normal_(layer.weight, std=0.1)
    animator = Animator(build_avatar(views, network), template=template)
    code = arkit_code(jawOpen=0.3)
    base = Animator(untrained, template=template).animate(code)
    gaussians = animator.animate(code)
    assert gaussians.means.shape == base.means.shape
    assert not torch.equal(gaussians.means, base.means)
    assert not gaussians.means.requires_grad
    assert torch.equal(animator.animate(torch.from_numpy(code)).means, gaussians.means)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (np.full(52, np.nan, np.float32), "52 values that are not finite"),
        (np.r_[np.zeros(51), np.inf], "1 values that are not finite"),
        (np.zeros(51), "code of 52 values"),
        (np.zeros((1, 52)), "code of 52 values"),
    ],
)
def test_bad_codes_are_refused_and_the_next_one_works(animator, code, message):
    with pytest.raises(ValueError, match=message):
        animator.animate(code)
    assert torch.isfinite(animator.animate(np.zeros(52)).means).all()


def test_scores_beyond_the_range_are_clipped(animator):
    inside, outside = np.zeros(52), np.zeros(52)
    inside[17], outside[17], outside[3] = 1.0, 7.0, -2.0
    assert torch.equal(animator.animate(inside).means, animator.animate(outside).means)
