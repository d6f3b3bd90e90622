"""What the tracker is known to misjudge is taken off its landmarks before the fit."""

import numpy as np
import pytest
import torch

from avat3r_ros.capture.template_fit import FaceObservation, fit_template
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate, LandmarkBias
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import Camera, FaceState

SIZE, FOCAL_PX, DISTANCE_M = 480, 800.0, 0.6
K = intrinsics_matrix(FOCAL_PX, SIZE / 2, SIZE / 2)
POSES = [look_at_head(yaw, pitch, DISTANCE_M) for yaw, pitch in ((-0.5, 0), (0, 0.2), (0.5, 0))]


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="module")
def bias():
    return LandmarkBias.load()


def projected(points_head, pose):
    points = points_head @ pose[:3, :3].T + pose[:3, 3]
    return (points / points[:, 2:] @ K.T)[:, :2]


def observation(pixels):
    face = FaceState(
        0.0, True, 1.0, np.zeros(52, np.float32), np.zeros(2, np.float32), np.eye(4),
        pixels.astype(np.float32),
    )  # fmt: skip
    return FaceObservation(face, SIZE, SIZE, FOCAL_PX)


def test_a_fit_that_knows_the_bias_finds_the_cameras_as_if_there_were_none(template, bias):
    identity = np.random.default_rng(3).normal(0, 0.7, template.num_identity).astype(np.float32)
    true = template.landmarks(template.vertices(torch.from_numpy(identity))).double().numpy()
    seen = [observation(projected(true + bias.shifts(p[:3, :3], p[:3, 3]), p)) for p in POSES]

    def error_m(fit):
        """Median distance of the landmarks from their places in the first camera."""
        points = template.landmarks(template.vertices(torch.from_numpy(fit.identity))).numpy()
        pose = fit.camera_from_head[0]
        points = points @ pose[:3, :3].T + pose[:3, 3]
        points *= DISTANCE_M / pose[2, 3]  # photos hardly tell the size
        return np.median(np.linalg.norm((points - true @ POSES[0][:3, :3].T)[:, :2], axis=1))

    unaware = error_m(fit_template(seen, template))
    aware = error_m(fit_template(seen, template, landmark_bias=bias))
    assert aware < 0.6 * unaware  # measured 0.84 and 0.34 mm


def test_the_shipped_bias_holds_for_people_it_was_not_measured_on(template, bias):
    """Over several people: what one person's landmarks are off differs as much as the bias."""
    rest, errors = np.zeros(52, np.float32), []
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        for seed in (1, 2, 3, 4):
            head = SyntheticHead(seed, template)
            true = template.landmarks(torch.from_numpy(head.mesh.template_vertices(rest))).numpy()
            for pose in (POSES[0], POSES[2]):
                camera = Camera(torch.tensor(K).float(), torch.tensor(pose).float(), SIZE, SIZE)
                view = head.render(camera, rest)
                image = (view.image + (1 - view.mask) * 0.45).movedim(0, -1).clamp(0, 1) * 255
                found = tracker.track(image.byte().contiguous().numpy(), 0.0).landmarks_px
                shifts = bias.shifts(pose[:3, :3], pose[:3, 3])
                plain, corrected = (
                    np.linalg.norm(found - projected(points, pose), axis=1)
                    for points in (true, true + shifts)
                )
                errors.append((np.median(plain), np.median(corrected)))
    plain, corrected = np.mean(errors, axis=0)
    assert corrected < 0.96 * plain  # measured 2.28 and 2.11 px


def test_far_sides_get_the_shift_of_the_measured_edge(bias):
    edge, beyond = (look_at_head(np.radians(yaw), 0.0, 0.6) for yaw in (45, 80))
    at_edge = bias.shifts(edge[:3, :3], edge[:3, 3])
    np.testing.assert_allclose(bias.shifts(beyond[:3, :3], beyond[:3, 3]), at_edge, atol=1e-6)
    front = look_at_head(0.0, 0.0, 0.6)
    assert not np.allclose(bias.shifts(front[:3, :3], front[:3, 3]), at_edge, atol=1e-4)


def test_the_shipped_offsets_do_not_move_the_face_as_a_whole():
    constant = LandmarkBias.load().offsets[:, 0]
    assert np.abs(constant.mean(0)).max() < 1e-6
    assert np.linalg.norm(constant, axis=1).mean() > 5e-4, "but landmarks lie beside their places"
