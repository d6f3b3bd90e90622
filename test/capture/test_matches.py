"""Matches between photos: right where the truth is known, and they mend the cameras of a fit."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avat3r_ros.capture.matches import MatchFinder
from avat3r_ros.capture.template_fit import FaceObservation, fit_template
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, FaceState

SIZE, FOCAL_PX = 400, 640.0
K = intrinsics_matrix(FOCAL_PX, SIZE / 2, SIZE / 2)
POSES = [look_at_head(yaw, pitch, 0.6) for yaw, pitch in ((-0.2, 0.0), (0.2, 0.1))]


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def head(template):
    return SyntheticHead(5, template, style="buzz")


@pytest.fixture(scope="module")
def views(head):
    return [
        head.render(
            Camera(torch.tensor(K).float(), torch.tensor(pose).float(), SIZE, SIZE), arkit_code()
        )
        for pose in POSES
    ]


def photo(view, gain=1.0):
    image = view.image * gain + (1 - view.mask) * 0.45
    return (image.movedim(0, -1).clamp(0, 1) * 255).byte().numpy()


def turned(pose, degrees):
    """The head turned in place, as a fit that is off would have it."""
    error = np.eye(4)
    error[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    return pose @ error


def true_points(view, pixels):
    rows, columns = pixels[:, 1].astype(int), pixels[:, 0].astype(int)
    return view.position_map.numpy()[:, rows, columns].T


def observations_turned(template, head, degrees_of_photos):
    """What a tracker sees that is off by so many degrees of yaw in each photo."""
    landmarks = template.landmarks(torch.from_numpy(head.mesh.template_vertices(arkit_code())))
    seen = []
    for pose, degrees in zip(POSES, degrees_of_photos, strict=True):
        points = landmarks.numpy() @ turned(pose, degrees)[:3, :3].T + pose[:3, 3]
        pixels = (points / points[:, 2:] @ K.T)[:, :2]
        code, gaze = np.zeros(52, np.float32), np.zeros(2, np.float32)
        face = FaceState(0.0, True, 1.0, code, gaze, np.eye(4), pixels.astype(np.float32))
        seen.append(FaceObservation(face, SIZE, SIZE, FOCAL_PX))
    return seen


@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_matches_show_the_same_spot_although_the_fit_is_off(template, head, views, gain):
    finder = MatchFinder([photo(views[0]), photo(views[1], gain)], template)
    vertices = head.mesh.template_vertices(arkit_code())
    poses = [POSES[0], turned(POSES[1], 2.0)]  # 2 degrees are 4 mm at the nose
    (found,) = finder.find([vertices] * 2, [K] * 2, poses)
    assert (found.first, found.second) == (1, 0)
    assert len(found.triangles) > 50
    apart = true_points(views[1], found.first_px) - true_points(views[0], found.second_px)
    # Measured 0.6 mm, most of it the pixel that the truth is read from (0.9 mm wide).
    assert np.median(np.linalg.norm(apart, axis=1)) < 0.0012


def test_pictures_without_texture_give_no_matches(template, head):
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    vertices = head.mesh.template_vertices(arkit_code())
    (found,) = MatchFinder([grey, grey], template).find([vertices] * 2, [K] * 2, POSES)
    assert len(found.triangles) == 0


def test_matches_mend_landmarks_that_underestimate_the_turn(template, head, views):
    """A tracker that sees 15 % too little yaw: the photos themselves know better."""
    observations = observations_turned(template, head, (-1.7, 1.7))

    def error_degrees(fit):
        relative = fit.camera_from_head[0, :3, :3] @ fit.camera_from_head[1, :3, :3].T
        true = POSES[0][:3, :3] @ POSES[1][:3, :3].T
        return np.degrees(Rotation.from_matrix(relative @ true.T).magnitude())

    without = error_degrees(fit_template(observations, template))
    images = [photo(view) for view in views]
    fit = fit_template(observations, template, images=images)
    assert (fit.num_matches > 20).all()
    matched = error_degrees(fit)
    assert without > 2.0
    assert matched < 0.3 * without  # measured 2.2 and 0.1 degrees


def test_photos_without_detail_are_fitted_as_if_they_were_not_matched_and_that_is_told(
    template, head
):
    observations = observations_turned(template, head, (-1.7, 1.7))
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    smooth = fit_template(observations, template, images=[grey, grey])
    assert smooth.num_matches.tolist() == [0, 0]
    plain = fit_template(observations, template)
    assert plain.num_matches is None
    # A further solve from the solution: it may still creep.
    np.testing.assert_allclose(smooth.camera_from_head, plain.camera_from_head, atol=1e-3)


def test_images_of_other_sizes_than_the_photos_are_refused(template):
    face = FaceState(
        0.0, True, 1.0, np.zeros(52, np.float32), np.zeros(2, np.float32), np.eye(4),
        np.random.default_rng(0).uniform(100, 300, (478, 2)).astype(np.float32),
    )  # fmt: skip
    observation = FaceObservation(face, SIZE, SIZE, FOCAL_PX)
    with pytest.raises(ValueError, match="expected images of the photos' sizes"):
        fit_template([observation], template, images=[np.zeros((10, 10, 3), np.uint8)])
