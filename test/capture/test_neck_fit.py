"""A neck becomes as wide as photos show it, whatever is worn around it."""

import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.capture.crop import crop_heads
from avat3r_ros.capture.neck_fit import with_neck
from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.neck_shape import NECK_SHAPES

SIZE = 256
SKIN, CLOTH, WALL = np.float32([(0.75, 0.55, 0.45), (0.15, 0.2, 0.5), (0.3, 0.7, 0.3)])
YAWS = (0.0, -0.45, 0.45)


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def shaped(template, **neck):
    """The mean head's identity with coefficients of the neck by name."""
    values = [neck.get(name.replace(" ", "_"), 0.0) for name in NECK_SHAPES]
    return np.array([0.0] * template.num_identity + values, np.float32)


def cameras():
    intrinsics = intrinsics_matrix(1.8 * SIZE, SIZE / 2, SIZE / 2)
    return [intrinsics] * len(YAWS), np.stack([look_at_head(yaw, 0.05, 0.6) for yaw in YAWS])


def photos(template, identity, collar_m=0.0):
    """Plain pictures and mattes of a head, in a collar that stands off its neck if asked."""
    vertices = template.vertices(torch.from_numpy(identity)).numpy()
    neck = template.region_vertices("neck")
    worn = vertices.copy()
    worn[neck, 0] += np.sign(vertices[neck, 0]) * collar_m
    pictures, masks = [], []
    for intrinsics, pose in zip(*cameras(), strict=True):
        picture = np.tile(WALL, (SIZE, SIZE, 1))
        for points, color in ((worn, CLOTH), (vertices, SKIN)):
            drawn = native.rasterize_mesh(
                points, template.triangles.int().numpy(), intrinsics, pose, SIZE, SIZE
            )
            picture[drawn.triangle_ids >= 0] = color
        pictures.append(picture)
        masks.append((picture != WALL).any(-1).astype(np.float32))
    return pictures, masks


def fitted(template, pictures, masks):
    """Coefficients by name, of crops whose head is fitted and whose neck is not."""
    identity = np.zeros(template.num_identity, np.float32)
    codes = np.zeros((len(pictures), 52), np.float32)
    chin = template.landmarks(template.neutral)[CHIN_LANDMARK].numpy()
    found = with_neck(pictures, masks, *cameras(), identity, codes, chin, template)
    assert len(found) == template.identity_lengths[1] and not found[: len(identity)].any()
    return dict(zip(NECK_SHAPES, found[len(identity) :].tolist(), strict=True))


@pytest.mark.parametrize(
    "true",
    [
        {"wider": 1.2},
        {"to_its_left": 1.0},
        {"wider": 0.8, "to_the_front": 1.0},
    ],
)
def test_the_neck_of_the_photos_is_found(template, true):
    """To a quarter of a unit, which is 1.2 mm, and a third where little shows it."""
    found = fitted(template, *photos(template, shaped(template, **true)))
    for name in ("wider", "to its left"):
        assert found[name] == pytest.approx(true.get(name.replace(" ", "_"), 0.0), abs=0.25)
    assert found["to the front"] == pytest.approx(true.get("to_the_front", 0.0), abs=0.35)


def test_a_narrow_neck_becomes_narrower(template):
    """Jaws hide a part of it, so that some of it is taken for one that stands farther in front."""
    found = fitted(template, *photos(template, shaped(template, wider=-1.0)))
    assert -1.2 < found["wider"] < -0.5


def test_a_collar_is_no_neck(template):
    """Cloth beside the neck inside the matte does not widen it."""
    found = fitted(template, *photos(template, shaped(template), collar_m=0.006))
    assert max(abs(value) for value in found.values()) < 0.15


def test_shoulders_are_no_neck(template):
    """Skin that goes on without an end says nothing."""
    pictures, masks = photos(template, shaped(template))
    for picture, mask in zip(pictures, masks, strict=True):
        rows = mask.any(1).nonzero()[0]
        low = rows[int(0.85 * len(rows))]
        picture[low:], mask[low:] = SKIN, 1.0
    found = fitted(template, pictures, masks)
    assert max(abs(value) for value in found.values()) < 0.15


def test_mattes_without_a_face_tell_nothing(template):
    pictures, masks = photos(template, shaped(template, wider=1.0))
    found = fitted(template, pictures, [np.zeros_like(mask) for mask in masks])
    assert not any(found.values())


def test_crops_keep_all_of_a_wide_neck(template):
    """What the template's neck would have cut off as clothes stays."""
    pictures, masks = photos(template, shaped(template, wider=1.5))
    intrinsics, poses = cameras()

    def cropped(identity):
        fit = TemplateFit(
            identity=identity,
            codes=np.zeros((len(pictures), 52), np.float32),
            intrinsics=np.stack(intrinsics),
            camera_from_head=poses,
            residual_px=np.zeros(len(pictures)),
        )
        images = [(picture * 255).astype(np.uint8) for picture in pictures]
        return crop_heads(images, masks, fit, template, SIZE)

    given = shaped(template)  # a neck that is known stays as it is
    narrow, wide = cropped(given), cropped(given[: template.num_identity])
    assert torch.equal(narrow.identity, torch.from_numpy(given))
    assert wide.identity[-len(NECK_SHAPES)] == pytest.approx(1.5, abs=0.3)
    more = (wide.masks > 0.5).sum((1, 2, 3)) - (narrow.masks > 0.5).sum((1, 2, 3))
    assert bool((more > 100).all())
