"""The mesh rasterizer against ray casting by hand, and at the edges of its domain."""

import inspect

import numpy as np
import pytest

from avat3r_ros import geometry, native

INTRINSICS = np.array([[80.0, 0, 31.2], [0, 85.0, 23.7], [0, 0, 1]])
WIDTH, HEIGHT = 64, 48


def sphere(n=24, radius=0.1):
    """Vertices and outward triangles of a UV sphere."""
    polar, azimuth = np.meshgrid(
        np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, n), indexing="ij"
    )
    vertices = radius * np.stack(
        [np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1
    )
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1], i[1:, :-1], i[:-1, 1:], i[1:, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return vertices.reshape(-1, 3).astype(np.float32), triangles.astype(np.int32)


def cast_rays(vertices, triangles, pose):
    """Nearest hit of every pixel by solving origin + t ray = point of triangle, float64."""
    corners = (vertices.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3])[triangles]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(INTRINSICS).T
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], -1)
    ids = np.full((HEIGHT, WIDTH), -1)
    depth = np.full((HEIGHT, WIDTH), np.inf)
    for row, column in np.ndindex(HEIGHT, WIDTH):
        ray = np.broadcast_to(-rays[row, column][:, None], (len(edges), 3, 1))
        matrix = np.concatenate([edges, ray], -1)
        good = np.abs(np.linalg.det(matrix)) > 1e-14
        b, c, t = np.linalg.solve(matrix[good], -corners[good, 0][..., None])[..., 0].T
        hit = (b >= 0) & (c >= 0) & (b + c <= 1) & (t > 1e-3)
        if hit.any():
            best = np.argmin(np.where(hit, t, np.inf))
            ids[row, column], depth[row, column] = np.nonzero(good)[0][best], t[best]
    return ids, depth


@pytest.mark.parametrize("distance", [0.25, 0.101])
def test_equals_ray_casting(distance):
    # At 0.101 m the camera almost touches the sphere: triangles reach behind it.
    vertices, triangles = sphere(10)
    pose = geometry.look_at_head(0.3, 0.2, distance)
    fragments = native.rasterize_mesh(vertices, triangles, INTRINSICS, pose, WIDTH, HEIGHT)
    ids, depth = cast_rays(vertices, triangles, pose)
    assert (ids >= 0).mean() > 0.2
    same = fragments.triangle_ids == ids
    assert same.mean() > 0.998  # the rest lies on an edge, where either triangle is right
    np.testing.assert_allclose(fragments.depth_m[same], depth[same], rtol=1e-5)


def test_barycentrics_give_the_surface_point_back():
    vertices, triangles = sphere()
    pose = geometry.look_at_head(-0.4, 0.1, 0.3)
    fragments = native.rasterize_mesh(vertices, triangles, INTRINSICS, pose, WIDTH, HEIGHT)
    seen = fragments.triangle_ids >= 0
    weights = fragments.barycentrics[seen]
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    points = (vertices[triangles[fragments.triangle_ids[seen]]] * weights[..., None]).sum(1)
    camera = points @ pose[:3, :3].T + pose[:3, 3]
    pixels = camera @ INTRINSICS.T
    rows, columns = np.nonzero(seen)
    np.testing.assert_allclose(pixels[:, 0] / pixels[:, 2], columns + 0.5, atol=2e-4)
    np.testing.assert_allclose(pixels[:, 1] / pixels[:, 2], rows + 0.5, atol=2e-4)
    np.testing.assert_allclose(camera[:, 2], fragments.depth_m[seen], rtol=1e-5)


def test_barycentrics_are_perspective_correct():
    # A floor from z = 1 to z = 3 seen from above: the middle of the span in the picture is not the
    # middle of the floor.
    floor = np.array([[-9, 1, 1], [9, 1, 1], [9, 1, 3], [-9, 1, 3]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    camera = np.array([[50.0, 0, 25], [0, 50.0, 0], [0, 0, 1]])
    fragments = native.rasterize_mesh(floor, triangles, camera, np.eye(4), 50, 60)
    for row in range(17, 49):
        assert fragments.depth_m[row, 25] == pytest.approx(50 / (row + 0.5), rel=1e-5)


def test_no_gap_between_triangles():
    # A fan with vertices at odd places: every pixel of the square belongs to exactly one triangle.
    rng = np.random.default_rng(0)
    border = np.array(
        [[x, y] for x, y in [(-2, -2), (0.3, -2), (2, -2), (2, 0.1), (2, 2), (-2, 2)]]
    )
    centre = rng.uniform(-0.1, 0.1, 2)
    vertices = np.concatenate([np.vstack([border, centre]), np.ones((7, 1))], 1).astype(np.float32)
    triangles = np.array([[i, (i + 1) % 6, 6] for i in range(6)], np.int32)
    fragments = native.rasterize_mesh(vertices, triangles, INTRINSICS, np.eye(4), WIDTH, HEIGHT)
    assert (fragments.triangle_ids >= 0).all()


def test_culling_shows_the_inside_only_without_it():
    vertices, triangles = sphere()
    pose = geometry.look_at_head(0, 0, 0.3)
    arguments = (INTRINSICS, pose, WIDTH, HEIGHT)
    outside = native.rasterize_mesh(vertices, triangles, *arguments, cull_backfaces=True)
    assert outside.depth_m.min() == pytest.approx(0.2, abs=1e-3)
    inverted = native.rasterize_mesh(
        vertices, triangles[:, ::-1].copy(), *arguments, cull_backfaces=True
    )
    assert inverted.depth_m[23, 31] == pytest.approx(0.4, abs=2e-3)  # the far wall
    both = native.rasterize_mesh(vertices, triangles[:, ::-1].copy(), *arguments)
    np.testing.assert_allclose(both.depth_m, outside.depth_m)


def test_nothing_seen():
    vertices, triangles = sphere()
    behind = geometry.look_at_head(0, 0, 0.3)
    behind[2, 3] = -0.3
    for mesh, pose in (
        ((vertices, triangles), behind),
        ((vertices, triangles[:0]), geometry.look_at_head(0, 0, 0.3)),
        ((vertices * np.nan, triangles), geometry.look_at_head(0, 0, 0.3)),
        ((vertices * 0, triangles), geometry.look_at_head(0, 0, 0.3)),
    ):
        fragments = native.rasterize_mesh(*mesh, INTRINSICS, pose, WIDTH, HEIGHT)
        assert (fragments.triangle_ids == -1).all()
        assert np.isinf(fragments.depth_m).all()
        assert not fragments.barycentrics.any()


def test_one_bad_vertex_costs_only_its_triangles():
    vertices, triangles = sphere()
    pose = geometry.look_at_head(0, 0, 0.3)
    whole = native.rasterize_mesh(vertices, triangles, INTRINSICS, pose, WIDTH, HEIGHT)
    bad = triangles[whole.triangle_ids[20, 30]][0]
    vertices[bad] = [np.nan, 0, np.inf]
    holed = native.rasterize_mesh(
        vertices, triangles, INTRINSICS, pose, WIDTH, HEIGHT, cull_backfaces=True
    )
    touched = (triangles == bad).any(1)
    untouched = (whole.triangle_ids >= 0) & ~touched[whole.triangle_ids]
    assert (holed.triangle_ids[untouched] == whole.triangle_ids[untouched]).all()
    assert holed.triangle_ids[20, 30] == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices_head": np.zeros((4, 2), np.float32)}, r"expected vertices_head \(n, 3\)"),
        ({"triangles": np.array([[0, 1, 4]], np.int32)}, "expected triangles of vertices 0..3"),
        ({"triangles": np.array([[0, -1, 2]], np.int32)}, "expected triangles of vertices 0..3"),
        ({"intrinsics": np.eye(4)}, r"expected intrinsics \(3, 3\), got \(4, 4\)"),
        ({"camera_from_head": np.full((4, 4), np.nan)}, "expected finite"),
        ({"width": 0}, "expected a positive image size, got 0x5"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {
        "vertices_head": np.zeros((4, 3), np.float32),
        "triangles": np.array([[0, 1, 2]], np.int32),
        "intrinsics": np.eye(3),
        "camera_from_head": np.eye(4),
        "width": 5,
        "height": 5,
    }
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(native.rasterize_mesh)(**{**arguments, **change})
