"""The lift by a 3D GAN of the user's, with a tiny generator that knows two faces."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import camera_direction, intrinsics_matrix, look_at_head
from avat3r_ros.lift import gan
from avat3r_ros.lift.choice import single_image_lift
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SIZE = 256
KNOWN = ((0.0, 0.0), *gan.DIRECTIONS_RAD)


class TwoFaces(torch.nn.Module):
    """w mixes two people, each drawn beforehand from a few cameras; the nearest is shown."""

    def __init__(self, pictures: torch.Tensor, centers: torch.Tensor):
        super().__init__()
        self.register_buffer("pictures", pictures)  # (2, cameras, 3, s, s)
        self.register_buffer("centers", centers)
        self.register_buffer("w_mean", torch.zeros(2))

    def forward(self, w: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        center = camera[0, :16].reshape(4, 4)[:3, 3]
        nearest = torch.argmin(torch.sum((self.centers - center) ** 2, 1), 0, keepdim=True)
        share = torch.softmax(3 * w[0], 0).reshape(2, 1, 1, 1)
        return (share * self.pictures.index_select(1, nearest)[:, 0]).sum(0, keepdim=True)


class Known(NamedTuple):
    path: object
    people: torch.Tensor
    photo: np.ndarray


def drawn(head, yaw, pitch):
    """A picture in the generator's framing: its unit of length is 0.4 m."""
    k = intrinsics_matrix(gan.FOCAL * SIZE, SIZE / 2, SIZE / 2)
    pose = look_at_head(yaw, pitch, gan.RADIUS * 0.4, np.array([0.0, -0.01, -0.05]))
    camera = Camera(torch.tensor(k).float(), torch.tensor(pose).float(), SIZE, SIZE)
    picture = head.paint_portrait(camera, arkit_code())
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    image[picture.window] *= 1 - picture.rgba[..., 3:]
    image[picture.window] += picture.rgba[..., :3]
    return image.clip(0, 1)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    template = HeadTemplate.load()
    people = [SyntheticHead(45, template, style="short"), SyntheticHead(52, template, style="buzz")]
    pictures = np.stack([[drawn(head, *angles) for angles in KNOWN] for head in people])
    pictures = torch.from_numpy(pictures).float().movedim(-1, 2) * 2 - 1
    numbers = torch.cat([gan.camera_numbers(*angles) for angles in KNOWN])
    centers = numbers[:, :16].reshape(-1, 4, 4)[:, :3, 3]
    path = tmp_path_factory.mktemp("gan") / "two_faces.pt"
    torch.jit.script(TwoFaces(pictures, centers)).save(path)
    photo = (drawn(people[1], 0.0, 0.0) * 255).astype(np.uint8)
    return Known(path, pictures, photo)


def test_cameras_look_at_the_pivot_from_the_orbit():
    numbers = gan.camera_numbers(0.3, 0.1)[0].double().numpy()
    world_from_camera, k = numbers[:16].reshape(4, 4), numbers[16:].reshape(3, 3)
    np.testing.assert_allclose(k, [[gan.FOCAL, 0, 0.5], [0, gan.FOCAL, 0.5], [0, 0, 1]], atol=1e-6)
    center, forward = world_from_camera[:3, 3], world_from_camera[:3, 2]
    np.testing.assert_allclose(center + gan.RADIUS * forward, gan.PIVOT, atol=1e-5)
    # In front of the face stands the camera at +z, the subject's left to its right.
    np.testing.assert_allclose(
        gan.camera_numbers(0, 0)[0, :16].reshape(4, 4)[:3, :3], np.diag([1, -1, -1]), atol=1e-6
    )


def test_the_person_of_the_photo_is_found(known):
    generator = gan.load_generator(known.path)
    weight = np.ones((SIZE, SIZE), np.float32)
    w = gan.invert(generator, known.photo, weight, (0.0, 0.0), steps=25)
    views = generator.pictures(w, gan.DIRECTIONS_RAD)
    truth = (known.people[1, 1:].movedim(1, -1).numpy() + 1) * 127.5
    assert np.abs(np.stack(views) - truth).mean() < 2.0
    mean = generator.pictures(generator.w_mean, gan.DIRECTIONS_RAD)
    assert np.abs(np.stack(mean) - truth).mean() > 6.0


def test_faces_are_laid_on_one_another():
    from avat3r_ros.types import FaceState

    def face(points):
        return FaceState(0.0, True, 1.0, np.zeros(52), np.zeros(2), np.eye(4), points)

    points = np.random.default_rng(0).uniform(0, 100, (478, 2))
    turn = 2 * np.array([[0.8, -0.6], [0.6, 0.8]])
    moved = points @ turn.T + [5, -7]
    affine = gan.align(face(points), face(moved))
    at_integers = points - 0.5
    np.testing.assert_allclose(at_integers @ affine[:, :2].T + affine[:, 2], moved - 0.5, atol=1e-9)


def test_an_avatar_is_built_through_the_generator(known):
    pytest.importorskip("mediapipe", reason="needs mediapipe: make env")
    from avat3r_ros.pipeline import build_avatar_from_images

    lift = single_image_lift("eg3d", known.path)
    assert "non-commercial" in lift.licence.terms
    quick = partial(gan.lift, generator=gan.load_generator(known.path), steps=25)
    lift = replace(lift, function=quick)
    result = build_avatar_from_images([known.photo], lift=lift)
    assert result.avatar.metadata["lifted_by"] == "eg3d"
    assert [one["name"] for one in result.avatar.metadata["weights_of_others"]] == ["eg3d"]
    assert result.views.num_guessed == 4
    assert result.kept == [0]
    assert len(result.faces) == 1
    yaws = [camera_direction(pose)[0] for pose in result.fit.camera_from_head]
    np.testing.assert_allclose(np.diff(np.degrees(yaws[1:3])), 45, atol=8)


def test_pictures_without_a_face_are_refused(known):
    from avat3r_ros.types import FaceState

    blank = FaceState(
        0.0, False, 0.0, np.zeros(52), np.zeros(2), np.eye(4), np.zeros((0, 2)), num_faces=0
    )
    pose = look_at_head(0.0, 0.0, 0.6)
    seen = FaceState(0.0, True, 1.0, np.zeros(52), np.zeros(2), pose, np.ones((478, 2)))
    args = (known.photo, np.ones((SIZE, SIZE), np.float32))
    generator = gan.load_generator(known.path)
    with pytest.raises(ValueError, match="no face is seen in the generator's mean picture"):
        gan.lift(*args, seen, lambda images: [blank], generator)
    turned = FaceState(
        0.0, True, 1.0, np.zeros(52), np.zeros(2), look_at_head(0.9, 0.0, 0.6), np.ones((478, 2))
    )
    with pytest.raises(ValueError, match="turned by at most 40 degrees.*got 5"):
        gan.lift(*args, turned, lambda images: [seen], generator)


class NoMean(torch.nn.Module):
    def forward(self, w: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        return w


class Grey(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w_mean", torch.zeros(4))

    def forward(self, w: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        return w.reshape(1, 1, 2, 2)


def test_other_files_are_refused_with_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="TorchScript generator"):
        gan.load_generator(tmp_path / "none.pt")
    torch.save({"w_mean": torch.zeros(4)}, tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match="not a TorchScript file.*pickled checkpoints are not"):
        gan.load_generator(tmp_path / "pickle.pt")
    torch.jit.script(NoMean()).save(tmp_path / "no_mean.pt")
    with pytest.raises(ValueError, match="expected a tensor `w_mean`"):
        gan.load_generator(tmp_path / "no_mean.pt")
    torch.jit.script(Grey()).save(tmp_path / "grey.pt")
    with pytest.raises(ValueError, match=r"expected pictures \(1, 3, s, s\), got \(1, 1, 2, 2\)"):
        gan.load_generator(tmp_path / "grey.pt")
    with pytest.raises(FileNotFoundError, match="needs a 3D GAN"):
        single_image_lift("eg3d")
