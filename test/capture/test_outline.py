"""Outlines of the drawn head are paired with the mattes' edges, and make the fit better."""

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.capture.outline import find_outline
from avat3r_ros.capture.template_fit import FaceObservation, fit_template, refit_pose
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import FaceState

WIDTH, HEIGHT = 640, 480
INTRINSICS = intrinsics_matrix(560.0, WIDTH / 2, HEIGHT / 2)
POSES_DEG = ((-25, 3), (0, 0), (24, -6), (4, 16))


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def pose_of(yaw_deg, pitch_deg):
    middle = np.array([0.02, 0, 0])
    return look_at_head(np.radians(yaw_deg), np.radians(pitch_deg), 0.6, middle)


def matte_of(template, identity, pose):
    vertices = template.vertices(identity, torch.zeros(52)).numpy()
    ids, _, _ = native.rasterize_mesh(
        vertices, template.triangles.int().numpy(), INTRINSICS, pose, WIDTH, HEIGHT
    )
    return (ids >= 0).astype(np.float32)


def pixels_of(template, vertices, outline, pose):
    corners = vertices[template.triangles.numpy()[outline.triangles]]
    points = (outline.barycentrics[..., None] * corners).sum(1) @ pose[:3, :3].T + pose[:3, 3]
    return (points / points[:, 2:] @ INTRINSICS.T)[:, :2]


def chin_of(template, identity):
    return template.landmarks(template.vertices(identity))[152].numpy()


@pytest.fixture(scope="module")
def mean_head(template):
    identity = torch.zeros(template.num_identity)
    pose = pose_of(15, 0)
    vertices = template.vertices(identity, torch.zeros(52)).numpy()
    return vertices, pose, matte_of(template, identity, pose), chin_of(template, identity)


def outline_of(template, mean_head, matte=None):
    vertices, pose, own, chin = mean_head
    matte = own if matte is None else matte
    return find_outline(vertices, INTRINSICS, pose, matte, template, chin)


def test_the_right_head_lies_on_its_own_edge(template, mean_head):
    outline = outline_of(template, mean_head)
    assert len(outline.triangles) > 100
    pixels = pixels_of(template, mean_head[0], outline, mean_head[1])
    error = ((pixels - outline.target_px) * outline.normal).sum(1)
    assert abs(error.mean()) < 0.2
    assert error.std() < 0.6
    np.testing.assert_allclose(np.linalg.norm(outline.normal, axis=1), 1, atol=1e-6)


def test_a_shifted_matte_pulls_by_its_shift(template, mean_head):
    shift = np.array([4.0, -3.0])
    move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
    matte = cv2.warpAffine(mean_head[2], move, (WIDTH, HEIGHT))
    outline = outline_of(template, mean_head, matte)
    error = outline.target_px - pixels_of(template, mean_head[0], outline, mean_head[1])
    pull, *_ = np.linalg.lstsq(outline.normal, (error * outline.normal).sum(1), rcond=None)
    np.testing.assert_allclose(pull, shift, atol=0.7)


def test_normals_point_out_of_the_person_and_hair_is_one_sided(template, mean_head):
    outline = outline_of(template, mean_head)
    inside = (outline.target_px - 3 * outline.normal).astype(int)
    outside = (outline.target_px + 3 * outline.normal).astype(int)
    assert (mean_head[2][inside[:, 1], inside[:, 0]] == 1).mean() > 0.98
    assert (mean_head[2][outside[:, 1], outside[:, 0]] == 0).mean() > 0.98
    on_scalp = template.region_mask("scalp").numpy()[outline.triangles]
    np.testing.assert_array_equal(outline.one_sided, on_scalp)
    assert 10 < on_scalp.sum() < len(on_scalp)


@pytest.mark.parametrize("matte", [np.zeros((HEIGHT, WIDTH)), np.ones((HEIGHT, WIDTH))])
def test_a_matte_without_an_edge_says_nothing(template, mean_head, matte):
    assert len(outline_of(template, mean_head, matte.astype(np.float32)).triangles) == 0


def test_a_far_edge_is_not_the_heads(template, mean_head):
    wide = cv2.dilate(mean_head[2], np.ones((91, 91)))
    assert len(outline_of(template, mean_head, wide).triangles) == 0


def observations_of(template, identity, noise_px=1.5):
    rng = np.random.default_rng(3)
    found = []
    for pose in (pose_of(*angles) for angles in POSES_DEG):
        points = template.landmarks(template.vertices(identity)).numpy()
        points = points @ pose[:3, :3].T + pose[:3, 3]
        pixels = (points / points[:, 2:] @ INTRINSICS.T)[:, :2]
        pixels = (pixels + rng.normal(0, noise_px, pixels.shape)).astype(np.float32)
        face = FaceState(0.0, True, 1.0, arkit_code(), np.zeros(2, np.float32), np.eye(4), pixels)
        found.append(FaceObservation(face, WIDTH, HEIGHT, 560.0))
    return found


def overlap_error(template, fit, mattes):
    """Share of the head's pixels that the fit leaves out or adds."""
    wrong = 0.0
    identity = torch.from_numpy(fit.identity)
    for pose, matte in zip(fit.camera_from_head, mattes, strict=True):
        wrong += np.abs(matte_of(template, identity, pose) - matte).sum() / matte.sum()
    return wrong / len(mattes)


def test_mattes_bring_the_outline_to_the_edge(template):
    rng = np.random.default_rng(0)
    identity = torch.from_numpy(rng.normal(0, 1, template.num_identity).clip(-2, 2)).float()
    mattes = [matte_of(template, identity, pose_of(*angles)) for angles in POSES_DEG]
    observations = observations_of(template, identity)
    alone = overlap_error(template, fit_template(observations, template), mattes)
    together = overlap_error(template, fit_template(observations, template, mattes=mattes), mattes)
    assert together < 0.85 * alone, (together, alone)  # measured: 0.036, 0.046


def test_the_matte_finds_the_camera_of_one_more_photo(template):
    rng = np.random.default_rng(1)
    identity = torch.from_numpy(rng.normal(0, 1, template.num_identity).clip(-2, 2)).float()
    errors_deg = {"alone": [], "with matte": []}
    for angles, observation in zip(
        POSES_DEG, observations_of(template, identity, 4.0), strict=True
    ):
        true = pose_of(*angles)
        matte = matte_of(template, identity, true)
        for name, given in (("alone", None), ("with matte", matte)):
            fit = refit_pose(observation, identity.numpy(), template, matte=given)
            cosine = (np.trace(fit.camera_from_head[0, :3, :3] @ true[:3, :3].T) - 1) / 2
            errors_deg[name].append(np.degrees(np.arccos(min(cosine, 1.0))))
    alone, together = (np.mean(errors) for errors in errors_deg.values())
    assert together < 0.8 * alone, (together, alone)
    with pytest.raises(ValueError, match=r"mattes of the photos' sizes \[\(480, 640\)\], got"):
        refit_pose(observation, identity.numpy(), template, matte=np.ones((4, 4)))


def test_hair_does_not_blow_up_the_skull(template):
    identity = torch.zeros(template.num_identity)
    mattes = []
    for angles in POSES_DEG:
        matte = matte_of(template, identity, pose_of(*angles))
        hair = cv2.dilate(matte, np.ones((25, 25)))
        hair[HEIGHT // 2 - 20 :] = 0
        mattes.append(np.maximum(matte, hair))
    fit = fit_template(observations_of(template, identity, 0.0), template, mattes=mattes)
    scalp = np.unique(template.triangles[template.region_mask("scalp")].numpy())
    grown = template.vertices(torch.from_numpy(fit.identity)) - template.neutral
    assert np.linalg.norm(grown.numpy()[scalp], axis=1).mean() < 0.004


def test_mattes_must_fit_the_photos(template):
    observations = observations_of(template, torch.zeros(template.num_identity))
    with pytest.raises(ValueError, match=r"mattes of the photos' sizes \[\(480, 640\)"):
        fit_template(observations, template, mattes=[np.ones((480, 640))] * 3)


def test_a_matte_that_rounds_off_a_cut_head_says_nothing_over_the_brows(template, mean_head):
    """As segmenters do where the crown is beyond the photo; skulls became flat."""
    vertices, pose, matte, chin = mean_head
    brows = vertices[template.region_vertices("brows"), 1].max()
    triangles = template.triangles.numpy()

    def heights(first_row):
        k = intrinsics_matrix(560.0, WIDTH / 2, HEIGHT / 2 - first_row)
        found = find_outline(vertices, k, pose, matte[first_row:], template, chin)
        corners = vertices[triangles[found.triangles]]
        return (found.barycentrics[..., None] * corners).sum(1)[:, 1]

    forehead = pose[:3, :3] @ [0, brows + 0.03, 0] + pose[:3, 3]
    row = int((INTRINSICS @ forehead)[1] / forehead[2])
    assert (heights(0) > brows + 0.04).sum() > 20
    cut = heights(row)
    assert cut.max() < brows + 0.001
    assert len(cut) > 50
