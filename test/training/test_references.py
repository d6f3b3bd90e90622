import dataclasses

import numpy as np
import torch

from avat3r_ros.capture.template_fit import FaceObservation
from avat3r_ros.geometry import pixel_centers, project_points, transform_points
from avat3r_ros.training import references
from avat3r_ros.types import FaceState


def with_surface(person):
    known = (person.surfaces.triangle_ids >= 0) & (person.views.masks[:, 0] > 0.5)
    return known.flatten().nonzero()[:, 0]


def test_exact_references_lie_on_the_person(exact):
    pixels = with_surface(exact)
    placed = exact.views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)[pixels]
    assert len(pixels) > 2000
    assert (placed - exact.photographed_positions(pixels)).norm(dim=-1).max() < 1e-6


def test_exact_references_are_seen_where_they_are(exact):
    """The crop's camera, the true surface and the pixel grid agree: no half pixel is lost."""
    for view in range(3):
        known = exact.surfaces.triangle_ids[view] >= 0
        pixels = view * 64 * 64 + known.flatten().nonzero()[:, 0]
        points = exact.photographed_positions(pixels)
        camera = exact.views.cameras[view]
        seen = project_points(camera.intrinsics, transform_points(camera.camera_from_head, points))
        assert (seen - pixel_centers(64, 64)[known]).abs().max() < 2e-3


def test_fitted_references_have_the_errors_of_a_fit(fitted, exact):
    pixels = with_surface(fitted)
    placed = fitted.views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)[pixels]
    error = (placed - fitted.photographed_positions(pixels)).norm(dim=-1) * 1000
    # Millimetres; 3 to 5 for most people. Neither a wrong frame (> 30) nor the truth (0).
    assert 0.5 < error.median() < 10
    assert not torch.equal(fitted.views.codes, exact.views.codes)


def test_targets_follow_into_the_frame_of_the_fit(fitted, sample):
    """Moved points in moved cameras land on the same pixels as before."""
    points = torch.from_numpy(sample.mesh.rest[::50])
    true, moved = sample.targets.cameras[0], fitted.targets.cameras[0]
    before = project_points(true.intrinsics, transform_points(true.camera_from_head, points))
    in_fit = fitted.fit_from_true.points(points)
    after = project_points(moved.intrinsics, transform_points(moved.camera_from_head, in_fit))
    assert (before - after).abs().max() < 1e-2
    rotation = moved.camera_from_head[:3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)


def test_true_positions_move_with_the_expression(exact):
    pixels = with_surface(exact)[::10]
    codes = torch.zeros(2, 52)
    codes[1, 17] = 1.0  # jawOpen
    positions = exact.true_positions(pixels, codes)
    moved = (positions[1] - positions[0]).norm(dim=-1)
    assert moved.max() > 0.02
    assert (moved < 1e-4).float().mean() > 0.2  # forehead, eyes and scalp stay


def test_where_the_matting_sees_nobody_the_true_matte_is_taken(sample, monkeypatch):
    photos, rng = sample.photos[:2], np.random.default_rng(0)
    observations = [
        FaceObservation(
            FaceState(
                stamp_s=0.0,
                detected=True,
                confidence=1.0,
                code=photo.code,
                gaze=np.zeros(2),
                camera_from_head=photo.camera.camera_from_head.double().numpy(),
                landmarks_px=rng.choice(np.argwhere(photo.matte > 0.9)[:, ::-1], 478).astype(float),
            ),
            photo.camera.width,
            photo.camera.height,
        )
        for photo in photos
    ]
    cut = [np.zeros_like(photos[0].matte), np.ones_like(photos[1].matte)]
    monkeypatch.setattr(references, "cut_out_heads", lambda images, faces: list(cut))
    mattes = references._cut_out(dataclasses.replace(sample, photos=photos), observations)
    assert mattes[0] is photos[0].matte
    assert mattes[1] is cut[1]
