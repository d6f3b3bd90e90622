"""Measure how MediaPipe's landmarks err on the head template, and write that beside its asset.

Synthetic people are photographed from many sides and shown to the FaceLandmarker. What remains
between a detection and the landmark's true place is averaged over people for every landmark, as a
shift in the head frame that depends on where the camera stands:

    shift = offsets · (1, yaw, pitch)

Its constant part is a landmark that lies elsewhere than the template says (beside the surface,
too); its slopes are mostly MediaPipe's turns, which come out too small.

    python tools/measure_landmark_bias.py -o avat3r_ros/assets/landmark_bias.safetensors
"""

import argparse
import logging
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from avat3r_ros.data.expressions import random_photo_code
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.geometry import camera_direction, intrinsics_matrix, look_at_head
from avat3r_ros.rig import NUM_LANDMARKS, HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import Camera

LOGGER = logging.getLogger(__name__)

FIRST_SEED = 50_000
"""Far from the seeds of people in training, tests and benchmarks."""

IMAGE_SIZE = 512
FACE_PX_PER_M = (1100, 1900)
"""Range of image scales: a face (0.2 m) fills about half of the picture."""
DISTANCES_M = (0.4, 0.9)
YAW_DEG, PITCH_DEG = 42, 24
MIDDLE = np.array([0.0, -0.01, -0.06])

ROBUST_SCALE_M = 0.003
"""Error from which a detection counts less (Cauchy)."""

PRIOR_WEIGHT = (2.0, 0.1, 0.1)
"""Pictures' worth of evidence that there is no shift, by factor: along the line of sight the
constant part is hardly seen."""


class Detections(NamedTuple):
    """Errors of n pictures.

    Attributes:
        person: (n,) seed.
        errors: (n, 478, 2) detection minus truth across the line of sight, camera axes, metres.
        shifts: (n, 2, 9) what the flattened offsets (3 factors, 3 axes) of a landmark add to them.
        weights: (n, 478) less for landmarks that are turned away.
    """

    person: np.ndarray
    errors: np.ndarray
    shifts: np.ndarray
    weights: np.ndarray


def random_camera(rng: np.random.Generator) -> Camera:
    """Somewhere in front of the face, tilted, not looking quite at its middle."""
    yaw, pitch = np.radians(rng.uniform((-YAW_DEG, -PITCH_DEG), (YAW_DEG, PITCH_DEG)))
    distance = rng.uniform(*DISTANCES_M)
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_rotvec(rng.normal(0, [0.06, 0.06, 0.12])).as_matrix()
    pose = tilt @ look_at_head(yaw, pitch, distance, MIDDLE)
    focal = distance * rng.uniform(*FACE_PX_PER_M)
    k = intrinsics_matrix(focal, IMAGE_SIZE / 2, IMAGE_SIZE / 2)
    return Camera(torch.tensor(k).float(), torch.tensor(pose).float(), IMAGE_SIZE, IMAGE_SIZE)


def detect(template: HeadTemplate, people: int, pictures: int) -> Detections:
    """Draw people and compare what MediaPipe finds with the truth."""
    corners = template.triangles[template.landmark_triangles]
    normals = template.vertex_normals(template.neutral)[corners].mean(1).numpy()
    rows, missed = [], 0
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        for seed in tqdm(range(FIRST_SEED, FIRST_SEED + people), desc="people"):
            head, rng = SyntheticHead(seed, template), np.random.default_rng([seed, 11])
            for picture in range(pictures):
                camera = random_camera(rng)
                code = random_photo_code(rng) if picture % 2 else np.zeros(52, np.float32)
                view = head.render(camera, code)
                image = view.image + (1 - view.mask) * 0.45
                image = (image.movedim(0, -1).clamp(0, 1) * 255).byte().contiguous().numpy()
                face = tracker.track(image, 0.0)
                if not face.detected:
                    missed += 1
                    continue
                true = template.landmarks(torch.from_numpy(head.mesh.template_vertices(code)))
                rows.append((seed, *_errors(face.landmarks_px, true.numpy(), camera, normals)))
    LOGGER.info("no face found in %d of %d pictures", missed, people * pictures)
    return Detections(*(np.stack(column) for column in zip(*rows, strict=True)))


def _errors(
    detected_px: np.ndarray, true: np.ndarray, camera: Camera, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, shifts and weights of one picture."""
    pose, k = camera.camera_from_head.double().numpy(), camera.intrinsics.double().numpy()
    points = true @ pose[:3, :3].T + pose[:3, 3]
    pixels = points[:, :2] / points[:, 2:] * k[0, 0] + k[:2, 2]
    facing = -((normals @ pose[:3, :3].T) * points).sum(1) / np.linalg.norm(points, axis=1)
    return (
        (detected_px - pixels) * points[:, 2:] / k[0, 0],
        np.kron([1.0, *camera_direction(pose)], pose[:2, :3]),
        np.clip(2 * facing + 0.15, 0.15, 1),
    )


def calibrate(found: Detections) -> np.ndarray:
    """Offsets (478, 3 factors, 3 axes), metres: reweighted least squares for each landmark.

    A shift that all landmarks share is left out: it says where the whole face lies on the head,
    which differs between people by more (0.4 mm) than it does on average.
    """
    offsets = np.zeros((NUM_LANDMARKS, 9))
    prior = np.diag(np.repeat(PRIOR_WEIGHT, 3))
    for _ in range(8):
        left = found.errors - np.einsum("nij,lj->nli", found.shifts, offsets)
        weights = found.weights / (1 + (left**2).sum(-1) / ROBUST_SCALE_M**2)
        matrix = np.einsum("nl,nij,nik->ljk", weights, found.shifts, found.shifts) + prior
        right = np.einsum("nl,nij,nli->lj", weights, found.shifts, found.errors)
        offsets = np.linalg.solve(matrix, right[..., None])[..., 0]
    offsets = offsets.reshape(NUM_LANDMARKS, 3, 3)
    offsets[:, 0] -= offsets[:, 0].mean(0)
    return offsets


def spread_mm(found: Detections, offsets: np.ndarray) -> float:
    """Median distance of the landmarks that face the camera, whole shifts removed."""
    flat = offsets.reshape(NUM_LANDMARKS, 9)
    left = found.errors - np.einsum("nij,lj->nli", found.shifts, flat)
    left -= left.mean(1, keepdims=True)
    return 1000 * float(np.median(np.linalg.norm(left, axis=-1)[found.weights > 0.5]))


def main() -> None:
    """Measure, check on people kept out, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=80)
    parser.add_argument("--pictures", type=int, default=10, help="of each")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    found = detect(HeadTemplate.load(), args.people, args.pictures)
    kept_out = found.person % 4 == 0
    tried = calibrate(Detections(*(part[~kept_out] for part in found)))
    others = Detections(*(part[kept_out] for part in found))
    LOGGER.info(
        "people kept out: landmarks %.2f mm from the truth, %.2f corrected",
        spread_mm(others, np.zeros_like(tried)),
        spread_mm(others, tried),
    )
    save_file(
        {"offsets": calibrate(found).astype(np.float32)},
        args.output,
        {
            "format": "avat3r-landmark-bias",
            "source": f"tools/measure_landmark_bias.py --people {args.people} "
            f"--pictures {args.pictures}",
            "licence": "Apache-2.0",
        },
    )


if __name__ == "__main__":
    main()
