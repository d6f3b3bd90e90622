"""From one picture to an avatar, with the tracker and the fit."""

import numpy as np
import pytest
import torch

from avat3r_ros.animation import Animator
from avat3r_ros.capture.crop import crop_heads
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.lift.choice import LIFTS, single_image_lift
from avat3r_ros.pipeline import BuildError, build_avatar_from_images
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

pytest.importorskip("mediapipe", reason="needs mediapipe: make env")

SIZE = 480

FRAYED_ROWS = 4
"""The cut of the neck fades, higher in its middle than at its ends."""


def camera(yaw_deg, size, distance_m=0.75):
    k = torch.tensor(intrinsics_matrix(1.4 * size, size / 2, size / 2)).float()
    pose = look_at_head(np.radians(yaw_deg), 0.05, distance_m, np.array([0.0, 0.0, -0.07]))
    return Camera(k, torch.tensor(pose).float(), size, size)


@pytest.fixture(scope="module")
def picture():
    head = SyntheticHead(45, HeadTemplate.load(), style="short")
    painted = head.paint_portrait(camera(0, SIZE), arkit_code())
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    image[painted.window] *= 1 - painted.rgba[..., 3:]
    image[painted.window] += painted.rgba[..., :3]
    return (image.clip(0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def result(picture):
    return build_avatar_from_images([picture], names=["me.jpg"])


def test_the_avatar_says_that_it_was_lifted(result):
    assert result.avatar.metadata["lifted_by"] == "heads"
    assert any("single photo" in warning and "guessed" in warning for warning in result.warnings)
    assert result.kept == [0]
    assert not any("shares no detail" in warning for warning in result.warnings)
    assert result.avatar.weights_sha256 == "", "weights that were trained with photos stay out"


@pytest.mark.parametrize("yaw_deg", [-45, 0, 45, 90, 180])
def test_the_head_has_no_holes(result, yaw_deg):
    gaussians = Animator(result.avatar).animate(arkit_code())
    alpha = render_gaussians(gaussians, camera(yaw_deg, 160)).alpha[0, 0]
    rows = [row.nonzero()[:, 0] for row in alpha > 0.5]
    inside = [alpha[i, r.min() + 2 : r.max() - 1] for i, r in enumerate(rows) if len(r) > 8]
    inside = inside[:-FRAYED_ROWS]
    assert len(inside) > 55
    assert (torch.cat(inside) < 0.7).float().mean() < 0.01


def test_the_photo_keeps_its_colours(result, picture):
    whole = [np.ones(picture.shape[:2], np.float32)]
    size = result.views.images.shape[-1]
    crop = crop_heads([picture], whole, result.fit, HeadTemplate.load(), size).images[0]
    own = (result.views.confidence[0, 0] > 0.5) & (result.views.masks[0, 0] > 0.999)
    assert own.float().mean() > 0.1
    change = (result.views.images[0] - crop).abs().amax(0)[own]
    assert change.quantile(0.99) < 0.01, "brought to the guessed views: 0.2"


def test_jaw_and_lids_move(result):
    animator = Animator(result.avatar)
    rest = animator.animate(arkit_code()).means
    for scores, least_mm in (({"jawOpen": 1.0}, 8), ({"eyeBlink": 1.0}, 4)):
        moved = (animator.animate(arkit_code(**scores)).means - rest).norm(dim=-1)
        assert moved.max() * 1000 > least_mm


def test_unusable_pictures_are_refused_by_name(picture):
    with pytest.raises(BuildError, match=r"wall.jpg: no face found"):
        build_avatar_from_images([np.full_like(picture, 128)], names=["wall.jpg"])
    small = picture[::6, ::6]
    canvas = np.full((300, 300, 3), 128, np.uint8)
    canvas[100 : 100 + len(small), 100 : 100 + len(small)] = small
    with pytest.raises(
        BuildError, match=r"small.jpg: .*(only \d+ px high, expected at least 40|no face)"
    ):
        build_avatar_from_images([canvas], names=["small.jpg"])
    both = np.concatenate([picture, picture], 1)
    with pytest.raises(BuildError, match=r"pair.jpg: 2 faces found"):
        build_avatar_from_images([both], names=["pair.jpg"])


def test_the_lift_can_be_switched_off(picture):
    with pytest.raises(BuildError, match="expected 2 to 6 photos.*got 1"):
        build_avatar_from_images([picture], lift=single_image_lift("off"))


def test_unknown_lifts_are_refused():
    with pytest.raises(ValueError, match="unknown lift 'gan', expected one of"):
        single_image_lift("gan")
    with pytest.raises(ValueError, match="needs no weights"):
        single_image_lift("heads", "file.pt")
    assert set(LIFTS) >= {"heads", "off"}
