"""Position maps from DUSt3R: the drop-in for `priors/template.py` where true shape matters.

    crops ──predict_pairs──► points of all pairs ──align_pairs──► one scene, arbitrary or fitted
    fitted head's landmarks in the crops ──similarity──► the same scene in the head frame
    fitted head ──template.position_maps──► place of each pixel on the template (for its motion)

What DUSt3R does not know stays the template's: which triangle a pixel moves with, and which view
may speak for a surface that several see.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import interpolate

from avat3r_ros.geometry import fit_similarity, invert_poses
from avat3r_ros.priors import template as template_prior
from avat3r_ros.priors.dust3r.alignment import AlignmentConfig, KnownCameras, Scene, align_pairs
from avat3r_ros.priors.dust3r.inference import predict_pairs
from avat3r_ros.priors.dust3r.network import Dust3r
from avat3r_ros.priors.moved import moved_views
from avat3r_ros.priors.networks import resized
from avat3r_ros.priors.view import ReferenceView
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, HeadCrops, ReferenceViews

logger = logging.getLogger(__name__)

MIN_LOG_CONFIDENCE = 0.5
"""Landmarks count where the network is at least so confident: the paper's threshold of pixels."""

MIN_LANDMARKS = 40
"""Fewer landmarks that the network is confident of cannot place the head."""

MAX_RESIDUAL_M = 0.03
"""Landmarks that miss the head by more (root mean square) show wrong weights or a wrong scene."""

DOUBTFUL_RESIDUAL_M = 0.012

OUTLIER_FACTOR = 3.0
"""Landmarks this many times farther off than half of them do not take part in the alignment."""


def position_maps(
    crops: HeadCrops,
    template: HeadTemplate,
    network: Dust3r,
    *,
    cameras_known: bool = True,
    all_confident: bool = False,
    alignment: AlignmentConfig | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReferenceViews:
    """Place every pixel of the crops where DUSt3R sees it, in the head frame.

    Args:
        crops: V fitted views.
        template: The head model of the fit.
        network: With loaded weights; its device does the work.
        cameras_known: Keep the cameras of the template fit, relative to one another; False
            estimates poses and focal lengths anew from the pairs.
        all_confident: Keep every confident pixel of every view, as the paper does; False keeps a
            surface that several views see in the best of them only, as the template prior does.
        alignment: The global alignment's settings.
        progress: Called with the fraction done in [0, 1]; it may raise to stop.

    Returns:
        The crops with position maps, and the cameras that see them. Confidence is DUSt3R's
        logarithmic confidence cut to [0, 1], so that the paper's threshold 0.5 means a raw
        confidence of 1.65; 0 outside the matte.

    Raises:
        ValueError: The cameras cannot tell the scale, or the scene does not fit the head.
    """
    drawn = template_prior.position_maps(crops, template)
    size = network.config.image_size
    factor = size / crops.cameras.width
    pairs = predict_pairs(network, resized(crops.images, size, size), progress=progress)
    intrinsics = crops.cameras.intrinsics.to(network.device)
    scene = align_pairs(
        pairs,
        intrinsics[:, :2, 2] * factor,
        _known_cameras(crops.cameras, factor).to(network.device) if cameras_known else None,
        masks=resized(crops.masks, size, size)[:, 0].to(network.device),
        config=alignment,
    ).to("cpu")
    scene = in_head_frame(scene, crops, template)
    return _reference_views(scene, crops, drawn, all_confident)


def _known_cameras(cameras: Camera, factor: float) -> KnownCameras:
    focal = cameras.intrinsics[:, [0, 1], [0, 1]]
    if not torch.allclose(focal[:, 0], focal[:, 1], rtol=1e-3):
        raise ValueError(f"expected square pixels, got focal lengths {focal.tolist()}")
    return KnownCameras(focal.mean(1) * factor, invert_poses(cameras.camera_from_head.float()))


def in_head_frame(scene: Scene, crops: HeadCrops, template: HeadTemplate) -> Scene:
    """Move a scene so that the landmarks it shows lie on those of the fitted head.

    Args:
        scene: Of the crops, at any resolution, in any world.
        crops: With fitted cameras and codes.
        template: The head model of the fit.

    Raises:
        ValueError: Too few landmarks are seen with confidence, or they do not fit.
    """
    head_points, scene_points = _landmark_pairs(scene, crops, template)
    if len(head_points) < MIN_LANDMARKS:
        raise ValueError(
            f"DUSt3R is confident of only {len(head_points)} landmarks of the face, expected at "
            f"least {MIN_LANDMARKS}; are these the published weights, and the photos sharp?"
        )
    used = np.ones(len(head_points), bool)
    for _ in range(3):
        scale, rotation, translation = fit_similarity(head_points[used], scene_points[used])
        moved = scale * scene_points @ rotation.T + translation
        distance = np.linalg.norm(moved - head_points, axis=1)
        used = distance <= OUTLIER_FACTOR * np.median(distance)
    residual_m = float(np.sqrt((distance[used] ** 2).mean()))
    if residual_m > MAX_RESIDUAL_M:
        raise ValueError(
            f"DUSt3R's points miss the landmarks of the head by {1000 * residual_m:.0f} mm (at "
            f"most {1000 * MAX_RESIDUAL_M:.0f} are accepted); are these the published weights, and "
            "all photos of one person?"
        )
    if residual_m > DOUBTFUL_RESIDUAL_M:
        logger.warning(
            "DUSt3R's points miss the landmarks of the head by %.0f mm", 1000 * residual_m
        )
    turn = torch.from_numpy(rotation).float()
    pose = scene.world_from_camera.clone()
    pose[:, :3, :3] = turn @ pose[:, :3, :3]
    pose[:, :3, 3] = scale * pose[:, :3, 3] @ turn.T + torch.from_numpy(translation).float()
    return replace(scene, depth=scene.depth * scale, world_from_camera=pose)


def _landmark_pairs(
    scene: Scene, crops: HeadCrops, template: HeadTemplate
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Landmarks of the fitted head, and where the scene has the pixels that show them."""
    points, confidence = scene.points().double().numpy(), scene.confidence.log().numpy()
    factor = points.shape[1] / crops.cameras.height
    in_head, in_scene = [], []
    for index in range(len(points)):
        view = ReferenceView(crops, template, index)
        landmarks = template.landmarks(torch.from_numpy(view.vertices)).double().numpy()
        seen = view.sees(landmarks)
        camera = landmarks @ view.camera_from_head[:3, :3].T + view.camera_from_head[:3, 3]
        pixels = factor * ((camera / camera[:, 2:]) @ view.intrinsics.T)[:, :2]
        column, row = np.floor(pixels).clip(0, np.array(points.shape[2:0:-1]) - 1).astype(int).T
        seen &= confidence[index, row, column] > MIN_LOG_CONFIDENCE
        in_head.append(landmarks[seen])
        in_scene.append(points[index, row[seen], column[seen]])
    return np.concatenate(in_head), np.concatenate(in_scene)


def _reference_views(
    scene: Scene, crops: HeadCrops, drawn: ReferenceViews, all_confident: bool
) -> ReferenceViews:
    """Sample a head-frame scene on the crops' pixels."""
    size = crops.cameras.width
    factor = size / scene.depth.shape[-1]
    # Depth is not interpolated, which would lay a skin between nose and cheek; the point then lies
    # on the ray of its own pixel.
    sampled = replace(
        scene,
        depth=interpolate(scene.depth[:, None], (size, size), mode="nearest-exact")[:, 0],
        focal_px=scene.focal_px * factor,
        principal_points=scene.principal_points * factor,
    )
    positions = sampled.points().movedim(-1, 1)
    trust = interpolate(
        scene.confidence.log()[:, None].clamp(0, 1), (size, size), mode="bilinear", antialias=True
    )
    confidence = trust if all_confident else torch.minimum(trust, drawn.confidence)
    intrinsics = torch.eye(3).repeat(len(positions), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = sampled.focal_px
    intrinsics[:, :2, 2] = sampled.principal_points
    cameras = Camera(intrinsics, invert_poses(scene.world_from_camera), size, size)
    return moved_views(drawn, cameras, positions, confidence)
