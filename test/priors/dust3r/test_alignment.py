"""The alignment finds depths and cameras again that made the pairs, known cameras or not."""

import dataclasses

import numpy as np
import pytest
import torch

from avat3r_ros.geometry import fit_similarity, invert_poses, pixel_centers, transform_points
from avat3r_ros.priors.dust3r.alignment import AlignmentConfig, KnownCameras, Scene, align_pairs
from avat3r_ros.priors.dust3r.alignment_start import MEAN_PAIR_SCALE, weighted_similarity
from avat3r_ros.priors.dust3r.pairs import PairPoints, all_pairs

SIZE, FOCAL = 20, 40.0
PRINCIPAL = torch.tensor([[10.0, 10.0], [11.0, 9.0], [10.0, 10.0]])
QUICK = AlignmentConfig(iterations=80, max_grid=10)


def rotation_y(angle):
    c, s = np.cos(angle), np.sin(angle)
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float32)


@pytest.fixture
def truth():
    """Three cameras on an arc that look at bumpy ground 2 away."""
    pose = torch.eye(4).repeat(3, 1, 1)
    for i, angle in enumerate((-0.3, 0.05, 0.35)):
        pose[i, :3, :3] = rotation_y(-angle)
        pose[i, :3, 3] = torch.tensor([2 * np.sin(angle), 0.1 * i, 2 - 2 * np.cos(angle)])
    x, y = pixel_centers(SIZE, SIZE).unbind(-1)
    depth = torch.stack([2 + 0.3 * torch.sin(0.5 * x + i) * torch.cos(0.4 * y) for i in range(3)])
    return Scene(depth, torch.ones_like(depth), torch.full((3,), FOCAL), PRINCIPAL, pose)


def pairs_of(scene, noise=0.0, seed=0):
    """What a perfect network would say, at a random scale per pair; less sure on the right."""
    generator = torch.Generator().manual_seed(seed)
    points = scene.points()
    camera_from_world = invert_poses(scene.world_from_camera)
    pairs = all_pairs(len(points))
    sides = [[], []]
    for i, j in pairs.tolist():
        scale = float(torch.randn((), generator=generator).mul(0.4).exp())
        for side, k in enumerate((i, j)):
            local = transform_points(camera_from_world[i], points[k].flatten(0, 1))
            local = local + noise * torch.randn(local.shape, generator=generator)
            sides[side].append(scale * local.view(SIZE, SIZE, 3))
    confidence = torch.linspace(6, 2, SIZE).expand(len(pairs), SIZE, SIZE)
    return PairPoints(
        pairs, torch.stack(sides[0]), confidence, torch.stack(sides[1]), 0.8 * confidence
    )


def known(scene):
    return KnownCameras(scene.focal_px, scene.world_from_camera)


def error(scene, truth, aligned=False):
    """Mean distance of points; in the best similarity if the world is arbitrary."""
    ours, points = scene.points().flatten(0, 2), truth.points().flatten(0, 2)
    if aligned:
        scale, rotation, shift = weighted_similarity(points, ours, torch.ones(len(ours)))
        ours = scale * ours @ rotation.T + shift
    return float((ours - points).norm(dim=-1).mean())


def test_known_cameras_give_depths_in_their_units(truth):
    scene = align_pairs(pairs_of(truth), PRINCIPAL, known(truth), config=QUICK)
    assert torch.equal(scene.focal_px, truth.focal_px)
    assert torch.allclose(scene.world_from_camera, truth.world_from_camera, atol=1e-5)
    assert error(scene, truth) < 2e-3  # measured 3e-4 of a distance of 2
    assert torch.allclose(scene.confidence, torch.linspace(6, 2, SIZE).expand(3, SIZE, SIZE))


def test_cameras_are_found_where_they_are_not_known(truth):
    scene = align_pairs(pairs_of(truth), PRINCIPAL, config=QUICK)
    assert error(scene, truth, aligned=True) < 5e-3
    assert torch.allclose(scene.focal_px, truth.focal_px, rtol=0.01)
    turn = scene.world_from_camera[0, :3, :3].T @ scene.world_from_camera[2, :3, :3]
    expected = truth.world_from_camera[0, :3, :3].T @ truth.world_from_camera[2, :3, :3]
    assert torch.allclose(turn, expected, atol=0.01)


def test_a_world_without_cameras_does_not_shrink(truth):
    """Noise makes small worlds cheap; the mean scale of the pairs holds the size."""
    pairs = pairs_of(truth, noise=0.1)
    sizes = [
        float((said[..., 2].median() / truth.depth[i].median()).log())
        for said, i in zip(pairs.points_first, pairs.pairs[:, 0].tolist(), strict=True)
    ]
    expected = MEAN_PAIR_SCALE * np.exp(np.mean(sizes))
    hasty = AlignmentConfig(iterations=80, max_grid=10, learning_rate=0.05)
    scene = align_pairs(pairs, PRINCIPAL, config=hasty)
    assert scene.depth.median() / truth.depth.median() == pytest.approx(expected, rel=0.1)


def test_weighted_similarity_is_that_of_the_core_and_never_mirrors():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9, 3))
    scale, rotation, shift = weighted_similarity(*(torch.from_numpy(x) for x in (a, b)),
                                                 torch.ones(9, dtype=torch.float64))  # fmt: skip
    expected = fit_similarity(a, b)
    assert float(scale) == pytest.approx(expected[0])
    assert np.allclose(rotation, expected[1]) and np.allclose(shift, expected[2])
    mirrored = torch.from_numpy(b * [1, 1, -1])
    _, rotation, _ = weighted_similarity(torch.from_numpy(b), mirrored, torch.ones(9).double())
    assert torch.linalg.det(rotation) == pytest.approx(1)
    some = torch.from_numpy((np.arange(9) < 5).astype(float))
    part = weighted_similarity(torch.from_numpy(a), torch.from_numpy(b), some)
    assert np.allclose(part[1], fit_similarity(a[:5], b[:5])[1])


def test_noise_is_averaged_and_outliers_are_outvoted(truth):
    """A third of the pairs put one corner of an image elsewhere."""
    pairs = pairs_of(truth, noise=0.02)
    pairs.points_first[0, :6, :6] *= 1.5
    scene = align_pairs(pairs, PRINCIPAL, known(truth), config=QUICK)
    assert error(scene, truth) < 0.02
    corner = (scene.depth[0, :6, :6] / truth.depth[0, :6, :6] - 1).abs().median()
    assert corner < 0.02


def test_optimisation_improves_on_its_start(truth):
    """Pairs bent one way and the other, as a network's are, agree better after it."""
    pairs = pairs_of(truth)
    for number in range(len(pairs.pairs)):
        bend = rotation_y(0.06 * (-1) ** number).T
        pairs.points_second[number] = pairs.points_second[number] @ bend
    start = AlignmentConfig(iterations=0, max_grid=10)
    before = error(align_pairs(pairs, PRINCIPAL, config=start), truth, aligned=True)
    after = error(align_pairs(pairs, PRINCIPAL, config=QUICK), truth, aligned=True)
    assert after < 0.8 * before, (before, after)


def test_pixels_outside_the_mask_do_not_count(truth):
    pairs = pairs_of(truth)
    masks = torch.ones(3, SIZE, SIZE)
    masks[:, :, :8] = 0
    pairs.points_first[:, :, :8] = 3.0
    scene = align_pairs(pairs, PRINCIPAL, known(truth), masks=masks, config=QUICK)
    inside = (scene.points() - truth.points()).norm(dim=-1)[:, :, 8:]
    assert inside.mean() < 2e-3


def test_two_equal_cameras_take_their_scale_from_a_third(truth):
    pose = truth.world_from_camera.clone()
    pose[1] = pose[0]
    depth = truth.depth.clone()
    depth[1] = depth[0]
    twins = dataclasses.replace(
        truth, world_from_camera=pose, depth=depth, principal_points=PRINCIPAL[:1].expand(3, 2)
    )
    scene = align_pairs(pairs_of(twins), twins.principal_points, known(twins), config=QUICK)
    assert error(scene, twins) < 2e-3


def test_cameras_that_cannot_tell_the_scale_are_refused(truth):
    same = KnownCameras(truth.focal_px, truth.world_from_camera[:1].expand(3, 4, 4))
    with pytest.raises(ValueError, match="image 1 shows the head from nearly the same direction"):
        align_pairs(pairs_of(truth), PRINCIPAL, same, config=QUICK)


def test_an_image_without_a_pair_is_refused(truth):
    pairs = pairs_of(truth)
    some = PairPoints(*(value[:2] for value in vars(pairs).values()))
    with pytest.raises(ValueError, match="each of 3 images first in some pair"):
        align_pairs(some, PRINCIPAL, known(truth))


def test_same_scene_as_the_published_alignment(reference_folder):
    """Its inputs are rounded to 3 digits: measured median 0.1 % of the scene's size, mean 0.2 %."""
    data = np.load(reference_folder / "ga_known_poses_32.npz")
    first, second = (torch.from_numpy(data[k].astype(np.float32)) for k in ("p1", "p2"))
    ones = torch.ones(first.shape[:3])
    pairs = PairPoints(
        torch.from_numpy(data["edges"]),
        first, ones * float(data["c1"]), second, ones * float(data["c2"]),
    )  # fmt: skip
    cameras = KnownCameras(torch.full((4,), float(data["focal"])), torch.from_numpy(data["poses"]))
    # It counts pixel centres at integers and puts the principal point at half the size.
    scene = align_pairs(pairs, torch.full((4, 2), 16.5), cameras)
    theirs = torch.from_numpy(data["out"])
    distance = (scene.points() - theirs).norm(dim=-1)
    size = (theirs - theirs.mean((1, 2), keepdim=True)).norm(dim=-1).mean()
    assert distance.median() < 0.002 * size and distance.mean() < 0.005 * size
