"""Learn what heads look like all round, and write it beside the template as an asset.

Synthetic people are drawn from all sides in several lights. For every vertex of the template each
gives the colour of the skin there and, where hair stands over it, its thickness and its colour.
People, and their mirror images, are summed up by principal components: the prior from which
`avat3r_ros/lift` completes what a single photo does not show.

    python tools/learn_head_looks.py -o avat3r_ros/assets/head_looks.safetensors   # 10 minutes
"""

import argparse

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import save_file
from scipy.spatial import cKDTree
from tqdm import tqdm

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.sampling import TRAINING_SEEDS
from avat3r_ros.data.shading import random_light
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.priors.hair import MAX_THICKNESS_M
from avat3r_ros.rig import HeadTemplate, graph_laplacian
from avat3r_ros.rig.fields import follow
from avat3r_ros.rig.looks import (
    DARKEST,
    FORMAT,
    HAIR_CHANNELS,
    OUTER_REGIONS,
    THICKNESS_UNIT_M,
    mirrored_vertices,
)
from avat3r_ros.types import Camera

FIRST_SEED = TRAINING_SEEDS.start + 500_000
LIGHTS = 2
YAWS_DEG, PITCHES_DEG = range(-180, 180, 45), (-25, 5, 45)
IMAGE_SIZE, FOCAL, DISTANCE_M = 224, 2.0, 0.75
MIDDLE = np.array([0.0, 0.0, -0.07])
RAY_STEP_M, RAY_REACH_M = 0.002, 0.004
"""Rays look for hair at this spacing, and find points of it within this distance."""


def cameras() -> list[Camera]:
    """All round the head."""
    k = torch.tensor(intrinsics_matrix(FOCAL * IMAGE_SIZE, IMAGE_SIZE / 2, IMAGE_SIZE / 2)).float()
    return [
        Camera(
            k,
            torch.tensor(look_at_head(*np.radians([yaw, pitch]), DISTANCE_M, MIDDLE)).float(),
            *(IMAGE_SIZE, IMAGE_SIZE),
        )
        for yaw in YAWS_DEG
        for pitch in PITCHES_DEG
    ]


def person(
    seed: int, template: HeadTemplate, around: list[Camera], laplacian: object
) -> tuple[Float[np.ndarray, "l v 3"], Float[np.ndarray, "l v 5"]]:
    """Skin colours, and hair (`HAIR_CHANNELS`), of one person in each light."""
    head = SyntheticHead(seed, template)
    rest_code = np.zeros(52, np.float32)
    vertices = head.mesh.vertices(rest_code)
    num_template = len(template.neutral)
    normals = template.coarse_normals(torch.from_numpy(head.identity)).numpy()
    hair_triangles = head.mesh.triangles[
        head.mesh.num_template_triangles : head.mesh.clothes_triangle
    ]
    thickness, hair_corners, hair_weights = hair_along(
        vertices, hair_triangles, normals, template.region_vertices(*OUTER_REGIONS)
    )
    present = thickness > 0
    rng = np.random.default_rng([seed, 0x100C5])
    lights = [head.light] + [random_light(rng) for _ in range(LIGHTS - 1)]
    skins, hairs = [], []
    for light in lights:
        colors, weights = gather_colors(head, around, light, len(vertices))
        log_colors = np.log(colors.clip(DARKEST, 1))
        skin_seen = np.minimum(weights[:num_template], 1) * ~present
        mean = np.average(log_colors[:num_template], axis=0, weights=skin_seen)
        skin = follow(
            np.broadcast_to(mean, (num_template, 3)), log_colors[:num_template], skin_seen,
            laplacian, 0.02,
        )  # fmt: skip
        hair = np.zeros((num_template, HAIR_CHANNELS))
        hair[:, 0], hair[:, 1] = present, thickness / THICKNESS_UNIT_M
        scalp = template.region_vertices("scalp")
        # A bald head's hair has the colour of its scalp: then it does not matter where it ends.
        mean = skin[scalp].mean(0)
        seen = np.zeros(num_template)
        values = np.zeros((num_template, 3))
        if present.any():
            corners = hair_corners[present]
            shown = np.minimum(weights[corners].min(1), 1)
            values[present] = np.einsum("nkc,nk->nc", log_colors[corners], hair_weights[present])
            seen[present] = shown
            if shown.any():
                mean = np.average(values[present], axis=0, weights=shown)
        hair[:, 2:] = follow(
            np.broadcast_to(mean, (num_template, 3)), values, seen, laplacian, 0.02
        )
        skins.append(skin)
        hairs.append(hair)
    return np.stack(skins), np.stack(hairs)


def gather_colors(
    head: SyntheticHead, around: list[Camera], light: object, num_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean sRGB colour of each vertex in pictures from all round, and how much it was seen."""
    total, weight = np.zeros((num_vertices, 3)), np.zeros(num_vertices)
    for camera in around:
        view = head.render(camera, np.zeros(52, np.float32), supersample=1, light=light)
        ids = view.surface.triangle_ids.numpy()
        shown = (ids >= 0) & (view.mask[0].numpy() > 0.99)
        corners = head.mesh.triangles[ids[shown]]
        shares = view.surface.barycentrics.numpy()[shown]
        colors = view.image.movedim(0, -1).numpy()[shown]
        np.add.at(weight, corners, shares)
        for channel in range(3):
            np.add.at(total[:, channel], corners, shares * colors[:, channel, None])
    return total / np.maximum(weight, 1e-9)[:, None], weight


def hair_along(
    vertices: np.ndarray, triangles: np.ndarray, normals: np.ndarray, outer: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outermost hair on each template vertex's normal: its distance (0: none) and its place."""
    count = len(normals)
    thickness = np.zeros(count)
    corners, weights = np.zeros((count, 3), int), np.zeros((count, 3))
    if not len(triangles):
        return thickness, corners, weights
    steps = [(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]
    shares = np.array(steps) / 4
    points = np.einsum("sk,fkc->fsc", shares, vertices[triangles]).reshape(-1, 3)
    heights = np.arange(RAY_STEP_M, MAX_THICKNESS_M, RAY_STEP_M)
    along = vertices[outer][:, None] + heights[:, None] * normals[outer][:, None]
    distance, nearest = cKDTree(points).query(along, distance_upper_bound=RAY_REACH_M)
    hit = np.isfinite(distance)
    found = np.flatnonzero(hit.any(1))
    last = len(heights) - 1 - hit[found, ::-1].argmax(1)
    row = nearest[found, last]
    ids = outer[found]
    up = ((points[row] - vertices[ids]) * normals[ids]).sum(1)
    thickness[ids] = up.clip(RAY_STEP_M / 4, MAX_THICKNESS_M)
    corners[ids], weights[ids] = triangles[row // len(shares)], shares[row % len(shares)]
    return thickness, corners, weights


def components(samples: Float[np.ndarray, "n d"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and components scaled to unit spread."""
    mean = samples.mean(0)
    # Far fewer people than values: their products with one another tell the same.
    squared, weights = np.linalg.eigh((samples - mean) @ (samples - mean).T)
    strongest = np.argsort(squared)[::-1][:count]
    axes = weights[:, strongest].T @ (samples - mean)
    return mean, axes / np.sqrt(len(samples) - 1)


def main() -> None:
    """Draw, sum up, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--people", type=int, default=160)
    parser.add_argument("--components", type=int, default=48)
    args = parser.parse_args()
    torch.set_num_threads(1)
    template = HeadTemplate.load()
    laplacian = graph_laplacian(len(template.neutral), template.triangles.numpy())
    mirror = mirrored_vertices(template)
    around = cameras()
    skins, hairs = [], []
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + args.people)):
        skin, hair = person(seed, template, around, laplacian)
        skins += [skin, skin[:, mirror]]
        hairs += [hair, hair[:, mirror]]
    arrays, facts = {}, {"format": FORMAT, "people": str(args.people), "licence": "Apache-2.0"}
    for name, samples in (("skin", skins), ("hair", hairs)):
        shape = samples[0].shape[1:]
        flat = np.concatenate(samples).reshape(-1, int(np.prod(shape)))
        mean, basis = components(flat, args.components)
        arrays[f"{name}_mean"] = mean.reshape(shape).astype(np.float16)
        arrays[f"{name}_basis"] = basis.reshape(-1, *shape).astype(np.float16)
    save_file(arrays, args.output, facts)


if __name__ == "__main__":
    main()
