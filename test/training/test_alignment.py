"""True heads are laid over fitted ones where the photos show them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avat3r_ros.geometry import pixel_centers, project_points, transform_points
from avat3r_ros.training.alignment import (
    Similarity,
    align_landmarks,
    align_photographed,
    align_to_photos,
)
from avat3r_ros.types import SurfaceBinding


def pixels_off(person, fit_from_true):
    """RMS distance between where photos show the true head and where the fitted cameras see it."""
    off = []
    for view, code in enumerate(person.photo_codes):
        known = (person.surfaces.triangle_ids[view] >= 0) & (person.views.masks[view, 0] > 0.9)
        surface = SurfaceBinding(
            person.surfaces.triangle_ids[view][known], person.surfaces.barycentrics[view][known]
        )
        placed = fit_from_true.points(person.mesh.points(surface, code.numpy()))
        camera = person.views.cameras[view]
        seen = transform_points(camera.camera_from_head.to(placed), placed)
        off.append(
            project_points(camera.intrinsics.to(seen), seen)
            - pixel_centers(camera.height, camera.width)[known]
        )
    return float(torch.cat(off).square().sum(-1).mean().sqrt())


def by_photos(start, person):
    return align_to_photos(start, person.views, person.surfaces, person.mesh, person.photo_codes)


def test_landmarks_find_a_known_similarity(template):
    angle = 0.2
    rotation = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    known = Similarity(1.07, rotation, np.array([0.01, -0.02, 0.03]))
    rest = template.neutral.numpy()
    moved = known.points(template.neutral).numpy()
    found = align_landmarks(template, rest, moved)
    assert found.scale == pytest.approx(1.07, abs=1e-5)
    assert np.allclose(found.rotation, rotation, atol=1e-5)
    assert np.allclose(found.translation, known.translation, atol=1e-5)


def test_photographed_faces_lie_over_each_other_as_landmarks_do(exact, fitted, template):
    for person, most_mm in ((exact, 1e-3), (fitted, 6.0)):
        found = align_photographed(
            person.views, person.surfaces, person.mesh, person.photo_codes, template
        )
        points = torch.from_numpy(person.mesh.rest[::50])
        apart = (found.points(points) - person.fit_from_true.points(points)).norm(dim=-1) * 1000
        # Both are least squares of a fit that is off by 3 to 5 mm, over other points.
        assert apart.median() < most_mm


def test_photos_take_a_wrong_similarity_back(exact):
    turn = Rotation.from_rotvec([0.02, -0.03, 0.01]).as_matrix()
    wrong = Similarity(1.02, turn, np.array([0.004, -0.003, 0.002]))
    assert pixels_off(exact, wrong) > 1
    found = by_photos(wrong, exact)
    assert pixels_off(exact, found) < 0.1
    assert found.scale == pytest.approx(1.0, abs=5e-3)


def test_fitted_cameras_see_true_heads_nearer_to_the_photos_than_landmarks_lay_them(
    fitted, template
):
    rest = template.vertices(fitted.views.identity).numpy()
    by_landmarks = align_landmarks(template, fitted.mesh.rest, rest)
    assert pixels_off(fitted, fitted.fit_from_true) < 0.8 * pixels_off(fitted, by_landmarks)


def test_photos_that_show_nobody_leave_the_first_guess(fitted):
    start = Similarity(1.1, np.eye(3), np.array([0.01, 0.0, 0.0]))
    blind = replace(fitted.views, masks=torch.zeros_like(fitted.views.masks))
    found = align_to_photos(start, blind, fitted.surfaces, fitted.mesh, fitted.photo_codes)
    assert found.scale == start.scale
    assert np.allclose(found.translation, start.translation)
