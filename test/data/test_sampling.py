import numpy as np
import pytest
import torch

from avat3r_ros.data.expressions import random_code, random_photo_code
from avat3r_ros.data.sampling import (
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    _random_capture,
    training_sample,
)
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import invert_poses

ARGUMENTS = {"image_size": 32, "num_photos": 3, "num_codes": 2, "cameras_per_code": 2}


@pytest.fixture(scope="module")
def sample(template):
    return training_sample(11, template, **ARGUMENTS)


def test_nobody_held_out_is_trained_on():
    assert not any(seed in TRAINING_SEEDS for seed in HELD_OUT_SEEDS)
    assert len(HELD_OUT_SEEDS) > 1000
    assert len(TRAINING_SEEDS) > 1_000_000


def test_a_seed_is_a_sample(sample, template):
    again = training_sample(11, template, **ARGUMENTS)
    assert torch.equal(again.targets.images, sample.targets.images)
    assert np.array_equal(again.photos[1].image, sample.photos[1].image)
    assert torch.equal(again.targets.codes, sample.targets.codes)


def test_shapes_and_pairs_of_targets(sample):
    assert sample.targets.images.shape == (4, 3, 32, 32)
    assert sample.targets.masks.shape == (4, 1, 32, 32)
    assert torch.equal(sample.targets.codes[0], sample.targets.codes[1])
    assert not torch.equal(sample.targets.codes[1], sample.targets.codes[2])
    assert [photo.image.shape for photo in sample.photos] == [(64, 64, 3)] * 3
    assert all(0.1 < photo.matte.mean() < 0.9 for photo in sample.photos)


def test_necks_are_what_lies_below_the_cut(sample, template):
    """They touch the heads from below and hide nothing of them; the sample is the same."""
    assert sample.targets.necks is None
    targets = training_sample(11, template, necks=True, **ARGUMENTS).targets
    assert torch.equal(targets.images, sample.targets.images)
    assert targets.necks.shape == targets.masks.shape
    rows = torch.arange(32.0)[:, None]
    for neck, mask in zip(targets.necks, targets.masks, strict=True):
        assert (neck + mask).max() < 1.01
        assert neck.sum() > 10
        assert (neck * rows).sum() / neck.sum() > (mask * rows).sum() / mask.sum() + 5


def test_photos_are_taken_from_far_apart(sample):
    centers = [invert_poses(p.camera.camera_from_head[None])[0, :3, 3] for p in sample.photos]
    directions = torch.stack([c / c.norm() for c in centers])
    angles = torch.rad2deg(torch.acos((directions @ directions.T).clamp(-1, 1)))
    assert angles[~torch.eye(3, dtype=torch.bool)].min() > 15


def test_random_codes_are_codes_of_faces():
    rng = np.random.default_rng(0)
    codes = np.stack([random_code(rng) for _ in range(600)])
    assert codes.dtype == np.float32
    assert codes.min() >= 0
    assert codes.max() <= 1
    # Lips are never more closed than the jaw is open: together they are a closed mouth.
    assert (codes[:, ARKIT_INDEX["mouthClose"]] <= codes[:, ARKIT_INDEX["jawOpen"]]).all()
    moved = (codes > 0.3).mean(0)
    for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight", "browInnerUp", "eyeLookUpLeft"):
        assert moved[ARKIT_INDEX[name]] > 0.02, name
    blinks = codes[:, [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]]
    assert np.corrcoef(blinks.T)[0, 1] > 0.8  # faces are mostly symmetric
    photos = np.stack([random_photo_code(rng) for _ in range(200)])
    assert photos[:, ARKIT_INDEX["eyeBlinkLeft"]].max() < 0.2
    assert photos.mean() < codes.mean()


def test_photos_may_share_an_expression_and_nothing_else_changes(sample, template):
    same = training_sample(11, template, **ARGUMENTS, one_expression=True)
    for photo, own in zip(same.photos, sample.photos, strict=True):
        assert np.array_equal(photo.code, sample.photos[0].code)
        assert torch.equal(photo.camera.camera_from_head, own.camera.camera_from_head)
    assert not np.array_equal(sample.photos[1].code, sample.photos[0].code)
    assert torch.equal(same.targets.codes, sample.targets.codes)
    assert torch.equal(same.targets.images, sample.targets.images)


def test_casual_photos_are_often_from_in_front_and_of_people_who_turn_in_a_room(template):
    """As seeds are people, how each of these takes photos is known."""
    few = ARGUMENTS | {"num_codes": 1, "cameras_per_code": 1}

    def yaws(sample):
        poses = torch.stack([photo.camera.camera_from_head for photo in sample.photos])
        centers = invert_poses(poses)[:, :3, 3]
        return torch.rad2deg(torch.atan2(centers[:, 0], centers[:, 2])).numpy()

    captures = [_random_capture(seed) for seed in range(200)]
    narrow = np.array([capture.spread < 1 for capture in captures])
    turning = np.array([capture.turning for capture in captures])
    assert 0.4 < narrow.mean() < 0.6 and 0.4 < turning.mean() < 0.6
    assert {(bool(n), bool(t)) for n, t in zip(narrow, turning, strict=True)} == {
        (False, False), (False, True), (True, False), (True, True),
    }  # fmt: skip
    seed = int(np.argmin([capture.spread for capture in captures]))
    around, casual = (training_sample(seed, template, casual=c, **few) for c in (False, True))
    assert np.ptp(yaws(casual)) < 0.35 * np.ptp(yaws(around))
    assert torch.equal(around.targets.images, casual.targets.images)

    seed = int(np.argmax(~narrow & turning))
    around, casual = (training_sample(seed, template, casual=c, **few) for c in (False, True))
    np.testing.assert_allclose(yaws(casual), yaws(around), atol=1e-3)
    moved = [np.abs(a.image.astype(int) - b.image).mean() for a, b in zip(
        around.photos, casual.photos, strict=True)]  # fmt: skip
    assert max(moved) > 1, "light that stays with the room falls on another side of the head"


def test_people_of_the_other_head_model_have_no_casual_photos(template):
    with pytest.raises(ValueError, match="casual=False"):
        training_sample(50_000, template, casual=True, ict_facekit="there.npz", **ARGUMENTS)


def test_close_ups_are_windows_of_the_same_pictures(sample, template):
    close = training_sample(11, template, close_ups=True, **ARGUMENTS)
    whole, near = sample.targets.cameras, close.targets.cameras
    zoom = near.intrinsics[:, 0, 0] / whole.intrinsics[:, 0, 0]
    assert float(zoom[0]) == 1, "a driver is seen whole"
    assert 2 <= float(zoom[1]) <= 3
    assert torch.equal(close.targets.images[0], sample.targets.images[0])
    # The middle of the window, found in the whole picture, has the same colour.
    assert torch.equal(near.camera_from_head[1], whole.camera_from_head[1])
    middle = (near.width / 2 - near.intrinsics[1, :2, 2]) / zoom[1] + whole.intrinsics[1, :2, 2]
    x, y = middle.long().tolist()
    window = close.targets.images[1][:, 14:18, 14:18].mean((1, 2))
    picture = sample.targets.images[1][:, y - 1 : y + 1, x - 1 : x + 1].mean((1, 2))
    torch.testing.assert_close(window, picture, atol=0.15, rtol=0)
    assert close.targets.masks[1].mean() > sample.targets.masks[1].mean()
