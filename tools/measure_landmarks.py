"""Measure where MediaPipe's 478 landmarks lie on the head template, and write them into its asset.

Random people, poses and expressions of the template are drawn in plain colours and shown to the
FaceLandmarker. For each landmark every surface point near the first guess is then tried: the one
whose projections stay closest to the detections over all pictures is kept. This way the map holds
for closed and open mouths and lids, and absorbs what MediaPipe misjudges on average (its yaw comes
out about 6 % small).

    python tools/measure_landmarks.py avat3r_ros/assets/head_template.safetensors
"""

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.special import expit
from tqdm import tqdm

from avat3r_ros import native
from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import NUM_LANDMARKS, HeadTemplate
from avat3r_ros.tracking.landmarker import Landmarker

LOGGER = logging.getLogger(__name__)

IMAGE_SIZE = 448
SUPERSAMPLING = 2
ROBUST_SCALE_MM = 2.5
"""Distance from which a detection counts less (Geman-McClure); the usual error is 1-2 mm."""

IRIS_LANDMARKS = range(468, NUM_LANDMARKS)
LID_LANDMARKS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
    + (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
)  # fmt: skip
"""Edge of the subject's right and left eye opening in MediaPipe's numbering."""

INNER_LIP_LANDMARKS = (
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308) + (95, 88, 178, 87, 14, 317, 402, 318, 324)
)  # fmt: skip


class Pictures(NamedTuple):
    """What was drawn and detected in n pictures.

    Attributes:
        codes: (n, 52) as drawn.
        vertices: (n, v, 3) of the drawn heads, head frame, metres.
        projections: (n, 3, 4) pixels from head.
        cameras_from_head: (n, 4, 4).
        detected_px: (n, 478, 2).
        scores: (n, 52) of MediaPipe.
        focals_px: (n,).
        face_poses: (n, 4, 4) MediaPipe's face transform, centimetres.
    """

    codes: np.ndarray
    vertices: np.ndarray
    projections: np.ndarray
    cameras_from_head: np.ndarray
    detected_px: np.ndarray
    scores: np.ndarray
    focals_px: np.ndarray
    face_poses: np.ndarray


def random_code(rng: np.random.Generator) -> np.ndarray:
    """A plausible expression: gaze, sometimes a blink, mouth and brow movements."""
    code = np.zeros(len(ARKIT_52), np.float32)

    def set_scores(value: float, *names: str) -> None:
        for name in names:
            code[ARKIT_INDEX[name]] = np.clip(value, 0, 1)

    across, up = rng.normal(0, 0.35, 2)
    pair = (
        ("eyeLookOutLeft", "eyeLookInRight") if across > 0 else ("eyeLookInLeft", "eyeLookOutRight")
    )
    set_scores(abs(across), *pair)
    direction = "Up" if up > 0 else "Down"
    set_scores(abs(up), f"eyeLook{direction}Left", f"eyeLook{direction}Right")
    if rng.random() < 0.2:
        set_scores(rng.random(), "eyeBlinkLeft", "eyeBlinkRight")
    if rng.random() < 0.5:
        set_scores(rng.uniform(0, 0.8), "jawOpen")
    if rng.random() < 0.3:
        set_scores(rng.uniform(0, 0.9), "mouthSmileLeft", "mouthSmileRight")
    for name in ARKIT_52:
        moved_above = name.startswith("eye") or name in ("jawOpen", "mouthClose", "tongueOut")
        if not moved_above and rng.random() < 0.06:
            code[ARKIT_INDEX[name]] = rng.uniform(0, 0.6)
    return code


class Painter:
    """Draws the template in plain colours: skin, lips, brows, hair, white eyes with an iris."""

    def __init__(self, template: HeadTemplate) -> None:
        lashes = template.region_mask("eyelashes").numpy()
        self.triangles = np.where(lashes[:, None], 0, template.triangles.numpy()).astype(np.int32)
        self.neutral = template.neutral.numpy()
        self.regions = {
            name: template.region_mask(*names).numpy()
            for name, names in (
                ("lips", ("lips",)),
                ("scalp", ("scalp",)),
                ("mouth", ("inner_mouth",)),
                ("tongue", ("tongue",)),
                ("teeth", ("teeth",)),
                ("eyes", ("eye_left", "eye_right")),
                ("sockets", ("eye_sockets",)),
                ("brow_zone", ("skin", "brows")),
            )
        }
        self.normals_of = template.vertex_normals
        eyes = [
            np.unique(template.triangles[template.region_mask(f"eye_{s}")])
            for s in ("left", "right")
        ]
        self.eye_centers = np.stack([self.neutral[e].mean(0) for e in eyes])
        # Share of each vertex's triangles that belong to a region: soft edges from coarse labels.
        self.soft = {name: self._vertex_share(self.regions[name]) for name in ("lips", "scalp")}

    def _vertex_share(self, mask: np.ndarray) -> np.ndarray:
        count = np.bincount(self.triangles.ravel(), minlength=len(self.neutral))
        inside = np.bincount(self.triangles[mask].ravel(), minlength=len(self.neutral))
        return inside / np.maximum(count, 1)

    def draw(
        self,
        vertices: np.ndarray,
        intrinsics: np.ndarray,
        camera_from_head: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """One picture, (IMAGE_SIZE, IMAGE_SIZE, 3) uint8 RGB, with random colours and light."""
        size = IMAGE_SIZE * SUPERSAMPLING
        fine = intrinsics * np.array([[SUPERSAMPLING], [SUPERSAMPLING], [1.0]])
        ids, weights, _ = native.rasterize_mesh(
            vertices, self.triangles, fine, camera_from_head, size, size
        )
        hit = ids >= 0
        ids, weights = ids[hit], weights[hit]
        corners = self.triangles[ids]

        def interpolate(values: np.ndarray) -> np.ndarray:
            return np.einsum("pk,pk...->p...", weights, values[corners])

        skin = np.array([0.95, 0.72, 0.6]) * rng.uniform(0.35, 1.0) * rng.uniform(0.92, 1.08, 3)
        color = np.tile(skin, (len(ids), 1))

        def blend(amount: np.ndarray, target: np.ndarray) -> None:
            color[:] += amount[:, None] * (np.asarray(target) - color)

        blend(interpolate(self.soft["lips"]).clip(0, 1), skin * [0.85, 0.5, 0.5])
        hair = np.array([0.2, 0.14, 0.1]) * rng.uniform(0.3, 2)
        blend(interpolate(self.soft["scalp"]).clip(0, 1), hair)
        place = interpolate(self.neutral)
        x, y = np.abs(place[:, 0]), place[:, 1]
        arch = 0.0165 - 9.0 * (x - 0.034) ** 2
        brow = np.exp(-(((y - arch) / 0.0035) ** 4) - ((x - 0.033) / 0.02) ** 8)
        blend(0.85 * brow * self.regions["brow_zone"][ids], hair)
        for name, target in (
            ("mouth", skin * [0.45, 0.2, 0.2]),
            ("tongue", [0.75, 0.4, 0.4]),
            ("teeth", [0.92, 0.9, 0.85]),
            ("sockets", skin * [0.9, 0.6, 0.55]),
            ("eyes", [0.93, 0.92, 0.92]),
        ):
            blend(self.regions[name][ids].astype(float), target)
        iris_color = np.array([0.35, 0.25, 0.15]) * rng.uniform(0.4, 1.6)
        from_axis = np.min(
            [np.linalg.norm((place - c)[:, :2], axis=1) for c in self.eye_centers], axis=0
        )
        eyes = self.regions["eyes"][ids] * (place[:, 2] > self.eye_centers[0, 2])
        blend(eyes * expit((0.0060 - from_axis) / 0.0003), iris_color)
        blend(eyes * expit((0.0024 - from_axis) / 0.0002), [0.02, 0.02, 0.02])

        normals = interpolate(self.normals_of(torch.from_numpy(vertices)).numpy())
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        light = np.array([rng.normal(0, 0.5), rng.normal(0.5, 0.4), 1.0])
        shade = 0.45 + 0.6 * (normals @ (light / np.linalg.norm(light))).clip(0, 1)
        shade = np.where(self.regions["eyes"][ids], 0.4 + 0.6 * shade, shade)
        image = np.tile(rng.uniform(0.1, 0.8, 3), (size, size, 1))
        image[hit] = color * shade[:, None]
        image = cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
        noisy = image * 255 + rng.normal(0, 2, image.shape)
        return np.ascontiguousarray(noisy.clip(0, 255).astype(np.uint8))


def take_pictures(template: HeadTemplate, count: int, rng: np.random.Generator) -> Pictures:
    """Draw random heads and keep those in which MediaPipe finds a face."""
    painter = Painter(template)
    rows = []
    with Landmarker(video=False, max_faces=1) as landmarker:
        for _ in tqdm(range(count), desc="pictures"):
            identity = rng.normal(size=template.num_identity).clip(-2.5, 2.5).astype(np.float32)
            code = random_code(rng)
            vertices = template.vertices(torch.from_numpy(identity), torch.from_numpy(code)).numpy()
            distance = rng.uniform(0.4, 1.0)
            focal = IMAGE_SIZE * distance / rng.uniform(0.26, 0.40)
            pose = look_at_head(
                np.radians(rng.uniform(-38, 38)),
                np.radians(rng.uniform(-22, 22)),
                distance,
                np.array([0, -0.03, -0.03]) + rng.normal(0, 0.01, 3),
            )
            roll = np.radians(rng.normal(0, 6))
            turn = np.eye(4)
            turn[:2, :2] = [[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]
            pose = turn @ pose
            intrinsics = intrinsics_matrix(focal, IMAGE_SIZE / 2, IMAGE_SIZE / 2)
            image = painter.draw(vertices, intrinsics, pose, rng)
            faces = landmarker.detect(image)
            if faces:
                rows.append(
                    (
                        code,
                        vertices,
                        intrinsics @ pose[:3],
                        pose,
                        faces[0].landmarks_px,
                        faces[0].scores,
                        focal,
                        faces[0].metric_from_face_cm,
                    )
                )
    LOGGER.info("MediaPipe found a face in %d of %d pictures", len(rows), count)
    return Pictures(*(np.stack(column) for column in zip(*rows, strict=True)))


def distances_mm(
    pictures: Pictures, landmark: int, corners: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Distance of a landmark's detections from projected candidates, (n, m), in mm at the head.

    Args:
        pictures: What was drawn and detected.
        landmark: Index of the landmark.
        corners: (m, 3) vertices of each candidate's triangle.
        weights: (m, 3) barycentrics.
    """
    points = np.einsum("mk,nmkc->nmc", weights, pictures.vertices[:, corners])
    projected = np.einsum("nij,nmj->nmi", pictures.projections[:, :, :3], points)
    projected += pictures.projections[:, None, :, 3]
    offset = projected[..., :2] / projected[..., 2:] - pictures.detected_px[:, landmark, None]
    return 1000 * np.linalg.norm(offset, axis=-1) * projected[..., 2] / pictures.focals_px[:, None]


def allowed_triangles(template: HeadTemplate, landmark: int) -> np.ndarray:
    """Triangles a landmark may lie on: the outer skin, or an eyeball for the irises."""
    if landmark in IRIS_LANDMARKS:
        # MediaPipe counts the irises from the image's left: first the subject's right eye.
        side = "right" if landmark < 473 else "left"
        return template.region_mask(f"eye_{side}").numpy()
    inner = ("inner_mouth",) if landmark in INNER_LIP_LANDMARKS else ()
    outer = ("skin", "scalp", "neck", "brows", "lips", "lid_left", "lid_right", "ears")
    return template.region_mask(*outer, *inner).numpy()


def locate(
    template: HeadTemplate, pictures: Pictures, landmark: int
) -> tuple[int, np.ndarray, float]:
    """Surface point that stays closest to a landmark's detections.

    Returns:
        Triangle, barycentrics (3,), median distance in mm.
    """
    triangles = template.triangles.numpy()
    candidates = np.nonzero(allowed_triangles(template, landmark))[0]

    def cost(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
        squared = (distances_mm(pictures, landmark, triangles[ids], weights) / ROBUST_SCALE_MM) ** 2
        return (squared / (1 + squared)).mean(0)

    centers = np.full((len(candidates), 3), 1 / 3)
    # All centres on a tenth of the pictures, then ever finer points on the best triangles.
    few = Pictures(*(column[::10] for column in pictures))
    squared = (distances_mm(few, landmark, triangles[candidates], centers) / 8.0) ** 2
    ids = candidates[(squared / (1 + squared)).mean(0).argsort()[:60]]
    for steps, keep in ((3, 12), (6, 3), (16, 1)):
        grid = np.array(
            [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
        )
        grid = grid / steps
        repeated = np.repeat(ids, len(grid))
        weights = np.tile(grid, (len(ids), 1))
        value = cost(repeated, weights)
        ids = ids[value.reshape(len(ids), -1).min(1).argsort()[:keep]]
        best = value.argmin()
    error = distances_mm(
        pictures, landmark, triangles[repeated[best : best + 1]], weights[best : best + 1]
    )
    return int(repeated[best]), weights[best], float(np.median(error))


def main() -> None:
    """Measure the landmark map and write it into the template asset."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("asset", type=Path)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    template = HeadTemplate.load(arguments.asset)
    pictures = take_pictures(template, arguments.pictures, np.random.default_rng(arguments.seed))
    found = [locate(template, pictures, i) for i in tqdm(range(NUM_LANDMARKS), desc="landmarks")]
    spread = np.array([error for _, _, error in found])
    LOGGER.info(
        "median distance of the detections: %.2f mm over all landmarks, worst %.2f mm",
        np.median(spread),
        spread.max(),
    )
    with safe_open(str(arguments.asset), "np") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    arrays["landmark_triangles"] = np.array([triangle for triangle, _, _ in found], np.int16)
    arrays["landmark_barycentrics"] = np.array([weights for _, weights, _ in found], np.float32)
    arrays["landmark_weights"] = ((spread.min() / spread) ** 2).astype(np.float32)
    save_file(arrays, str(arguments.asset), metadata)


if __name__ == "__main__":
    main()
