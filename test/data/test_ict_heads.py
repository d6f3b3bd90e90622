"""People of the second head model: truth and picture agree. Needs the user's own model file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from avat3r_ros.data.ict_heads import FACE, HAIR, NOTHING, IctHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head, project_points, transform_points
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

MODEL = Path(os.environ.get("AVAT3R_SHARED", "/nonexistent")) / "data" / "ict_facekit.npz"
needs_model = pytest.mark.skipif(
    not MODEL.is_file(), reason="set AVAT3R_SHARED to a folder with data/ict_facekit.npz"
)


@pytest.fixture(scope="module")
def person():
    return IctHead(MODEL, 1, HeadTemplate.load(), style="short")


def camera(size=160):
    pose = look_at_head(0.3, 0.1, 0.6, np.array([0.0, -0.02, -0.06]))
    return Camera(
        torch.tensor(intrinsics_matrix(1.7 * size, size / 2, size / 2)).float(),
        torch.tensor(pose).float(),
        size,
        size,
    )


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", neutral=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="expected ICT-FaceKit"):
        IctHead(tmp_path / "other.npz", 0, HeadTemplate.load())


@needs_model
def test_position_maps_project_onto_their_own_pixels(person):
    view = person.render(camera(), arkit_code(jawOpen=0.5))
    where = view.part != NOTHING
    points = view.position_map.movedim(0, -1)[where]
    pixels = project_points(
        camera().intrinsics, transform_points(camera().camera_from_head, points)
    )
    row, column = torch.nonzero(where, as_tuple=True)
    expected = torch.stack([column, row], -1) + 0.5
    # Worst measured 0.02 px: the rasterizer works in float32.
    assert (pixels - expected).abs().max() < 0.1
    assert (view.mask[0][where] > 0).all()


@needs_model
def test_face_and_hair_are_where_they_belong(person):
    view = person.render(camera(), arkit_code())
    height = view.position_map[1]
    assert height[view.part == HAIR].min() > height[view.part == FACE].min() + 0.05
    assert 0.1 < (view.part == FACE).float().mean() / (view.part != NOTHING).float().mean() < 0.6
    hair = view.image[:, view.part == HAIR].mean()
    assert hair < view.image[:, view.part == FACE].mean(), "short hair of this person is dark"


@needs_model
@pytest.mark.parametrize(
    ("name", "low", "high"), [("jawOpen", -0.13, -0.05), ("browInnerUp", 0.0, 0.07)]
)
def test_expressions_move_their_part_of_the_face(person, name, low, high):
    moved = person.vertices(arkit_code(**{name: 1.0})) - person.vertices(arkit_code())
    far = np.linalg.norm(moved, axis=1) > 0.004
    heights = person.vertices(arkit_code())[far, 1]
    assert far.any()
    assert low < np.median(heights) < high


@needs_model
def test_lights_that_stay_light_a_turned_head_differently(person):
    turned = np.diag([-1.0, 1.0, -1.0])  # half round: what was lit lies in the shade
    along = person.render(camera(), arkit_code())
    stays = person.render(camera(), arkit_code(), room_from_head=turned)
    same = person.render(camera(), arkit_code(), room_from_head=np.eye(3))
    face = along.part == FACE
    assert torch.equal(same.image, along.image)
    assert (stays.image - along.image)[:, face].abs().mean() > 0.03
