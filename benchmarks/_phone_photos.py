"""Drawn people photographed as with a phone, and the truth behind every pixel of their photos.

Two kinds of people: those of the training data (the head template with a bend that it cannot
follow), and those of another head model, which nothing in the fit knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.ict_heads import FACE, HAIR, NOTHING, REST, IctHead
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.priors.depth import FACE_REGIONS
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera

DIRECTIONS_DEG = ((-25, 0), (0, 0), (25, 5), (5, 18))
EXPRESSIONS = ({}, {"mouthSmile": 0.6}, {"jawOpen": 0.4}, {"browInnerUp": 0.7})
STYLES = ("buzz", "short", "medium", "long")
PARTS = {"face": FACE, "ears, neck, bare scalp": REST, "hair": HAIR}
SIZES = ((600, 800), (640, 640), (800, 600))
FOCALS = (0.75, 1.6)
"""Over the longer side: from a phone's wide lens to its longer one."""
DISTANCES_M = (0.5, 0.7)
MIDDLE = np.array([0.0, -0.01, -0.06])


@dataclass(frozen=True)
class PhonePhotos:
    """V photos of one person from one camera.

    Attributes:
        images: RGB uint8 (H, W, 3) before a grey wall.
        mattes: (H, W) share of each pixel that belongs to the person.
        intrinsics: (3, 3), pixels.
        camera_from_head: (V, 4, 4).
        positions: (V, H, W, 3) true surface points, head frame, metres.
        parts: (V, H, W), what a pixel shows (values of `PARTS`, or NOTHING).
    """

    images: list[np.ndarray]
    mattes: list[np.ndarray]
    intrinsics: np.ndarray
    camera_from_head: np.ndarray
    positions: np.ndarray
    parts: np.ndarray


def phone_photos(
    count: int, template: HeadTemplate, ict_facekit: str | None = None, start: int = 900
) -> Iterator[PhonePhotos]:
    """Photograph people one after the other; every second one turns under lights that stay."""
    for seed in range(start, start + count):
        style = STYLES[seed % len(STYLES)]
        if ict_facekit:
            head = IctHead(ict_facekit, seed, template, style=style)
        else:
            head = SyntheticHead(seed, template, style=style)
        yield photograph(head, np.random.default_rng([seed, 7]), lights_stay=seed // 4 % 2 == 1)


def photograph(
    head: IctHead | SyntheticHead, rng: np.random.Generator, *, lights_stay: bool
) -> PhonePhotos:
    """Four directions and expressions; one lens for all, other distances and tilts."""
    width, height = SIZES[rng.integers(len(SIZES))]
    focal = max(width, height) * np.exp(rng.uniform(*np.log(FOCALS)))
    k = intrinsics_matrix(focal, width / 2, height / 2)
    images, mattes, poses, positions, parts = [], [], [], [], []
    for (yaw, pitch), scores in zip(DIRECTIONS_DEG, EXPRESSIONS, strict=True):
        turn = np.radians([yaw, pitch]) + rng.normal(0, 0.06, 2)
        pose = look_at_head(*turn, rng.uniform(*DISTANCES_M), MIDDLE)
        tilt = np.eye(4)
        tilt[:3, :3] = Rotation.from_rotvec(rng.normal(0, [0.04, 0.04, 0.08])).as_matrix()
        pose = tilt @ pose
        camera = Camera(torch.tensor(k).float(), torch.tensor(pose).float(), width, height)
        code = arkit_code(**scores)
        if isinstance(head, IctHead):
            turned = pose[:3, :3] if lights_stay else None
            view = head.render(camera, code, neck=True, room_from_head=_upright(turned))
            part = view.part.numpy()
        else:
            light = head.light.rotated(_upright(pose[:3, :3]).T) if lights_stay else None
            view = head.render(camera, code, light=light)
            part = _template_parts(view, head.template)
        image = view.image + (1 - view.mask) * 0.45
        images.append((image.movedim(0, -1).clamp(0, 1) * 255).byte().numpy())
        mattes.append(view.mask[0].numpy())
        poses.append(pose)
        positions.append(view.position_map.movedim(0, -1).numpy())
        parts.append(part)
    return PhonePhotos(images, mattes, k, *(np.stack(a) for a in (poses, positions, parts)))


def _upright(camera_from_head: np.ndarray | None) -> np.ndarray | None:
    """Turn of the head in a room with the head's axes: the camera's axes turned half round x."""
    return None if camera_from_head is None else np.diag([1.0, -1.0, -1.0]) @ camera_from_head


def _template_parts(view, template: HeadTemplate) -> np.ndarray:
    triangles = view.binding.triangle_ids.numpy()
    in_face = template.region_mask(*FACE_REGIONS).numpy()
    on_head = np.where(in_face[triangles.clip(0)], FACE, REST)
    hair = np.where(view.surface.triangle_ids.numpy() >= 0, HAIR, NOTHING)
    return np.where(triangles >= 0, on_head, hair)
