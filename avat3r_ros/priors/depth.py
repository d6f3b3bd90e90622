"""Position maps from a depth network: the template's face, and the network's hair and outline.

    crop ──depth network──► values ──scale, offset fitted on the face──► depth of each pixel
                                                                             │ where the template
    crop ──template.position_maps──► positions, bindings, claims ◄───────────┘ only guesses

On the face the template is kept: it lies within millimetres of hundreds of landmarks, while the
shape of a depth network is right only up to a bend. Beyond the face (hair, ears, neck, what is off
the mesh) the template guesses, and the network sees.
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter
from torch.nn.functional import interpolate

from avat3r_ros.geometry import invert_poses, pixel_centers, transform_points, unproject_pixels
from avat3r_ros.priors import template as template_prior
from avat3r_ros.priors.depth_models import DepthEstimator
from avat3r_ros.priors.moved import moved_views
from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import HeadCrops, ReferenceViews

logger = logging.getLogger(__name__)

FACE_REGIONS = tuple(r for r in REGIONS if r not in ("scalp", "ears", "neck"))
"""Where the template is kept."""

FIT_REGIONS = ("skin", "brows", "lips")
"""Where the network's scale is found: what hardly depends on gaze, lids and mouth."""

BLEND_M = 0.02
"""Width of the band around the face over which the network takes over from the template."""

MAX_CORRECTION_M = 0.015
"""On the face the network and the template differ by less, or they see different things."""

MAX_MISFIT_M = 0.012
"""A view whose fitted depth misses the template's face by more (median) keeps the template."""

MAX_CHANGE_M = 0.08
"""Where the network contradicts the template's guess by more, it looks at something else."""

EDGE_STEP_M = 0.02
"""Depths that differ by this much between neighbours belong to two surfaces; what lies between
them is not trusted."""

EDGE_CONFIDENCE = 0.2

FIT_ITERATIONS = 20

MIN_PIXELS = 20
"""Fewer pixels of the face cannot tell the network's scale."""


def position_maps(
    crops: HeadCrops,
    template: HeadTemplate,
    estimator: DepthEstimator,
    *,
    progress: Callable[[float], None] | None = None,
) -> ReferenceViews:
    """Place every pixel of the crops, beyond the face by a depth network.

    Args:
        crops: V fitted views.
        template: The head model of the fit.
        estimator: The depth network.
        progress: Called with the fraction done in [0, 1]; it may raise to stop.

    Returns:
        As `template.position_maps`, with the same cameras and, on the face, the same positions.

    Raises:
        ValueError: The network's depth fits the face in none of the views.
    """
    drawn = template_prior.position_maps(crops, template)
    size = crops.cameras.width
    values = interpolate(
        estimator.estimate(crops.images, progress=progress)[:, None], (size, size),
        mode="nearest-exact",
    )[:, 0].double().numpy()  # fmt: skip
    head_depth = _depth(drawn)
    face = _in_regions(drawn, template, FACE_REGIONS)
    fitted = _in_regions(drawn, template, FIT_REGIONS)
    focal = crops.cameras.intrinsics[:, 0, 0].numpy()
    depths, confidence, used = head_depth.copy(), drawn.confidence.clone(), []
    for view in range(len(values)):
        where = fitted[view] & (drawn.masks[view, 0].numpy() > 0.9)
        depth, misfit_m = fit_depth(values[view], head_depth[view], where, estimator.inverse)
        if misfit_m > MAX_MISFIT_M:
            logger.warning(
                "view %d: the depth of %s misses the face by %.0f mm; keeping the template there",
                view + 1, estimator.name, 1000 * misfit_m,
            )  # fmt: skip
            continue
        used.append(view)
        pixel_m = float(np.median(head_depth[view][where]) / focal[view])
        mask = drawn.masks[view, 0].numpy() > 0
        depths[view] = _joined(depth, head_depth[view], face[view], mask, pixel_m)
        edge = _edges(depths[view], mask) & ~face[view]
        confidence[view, 0][torch.from_numpy(edge)] = EDGE_CONFIDENCE
    if not used:
        raise ValueError(
            f"the depth of {estimator.name} fits the face in none of {len(values)} photos; are "
            "these the published weights?"
        )
    confidence = torch.minimum(confidence, drawn.confidence)
    positions = _positions(torch.from_numpy(depths).float(), drawn)
    return moved_views(drawn, drawn.cameras, positions, confidence)


def fit_depth(
    values: Float[np.ndarray, "h w"],
    depth: Float[np.ndarray, "h w"],
    where: Bool[np.ndarray, "h w"],
    inverse: bool,
) -> tuple[Float[np.ndarray, "h w"], float]:
    """Find scale and offset of a network's values, by least absolute deviations.

    Args:
        values: Of the network; depth or inverse depth.
        depth: Known camera-frame z, metres.
        where: Pixels whose depth is known.
        inverse: The values are inverse depths.

    Returns:
        Depth of every pixel, metres, and the median distance from the known depth; infinite where
        the values do not grow with what they should tell, or nothing is known.
    """
    nothing = np.full_like(depth, np.inf), np.inf
    if where.sum() < MIN_PIXELS:
        return nothing
    said, known = values[where], depth[where]
    known = 1 / known if inverse else known
    best = nothing
    # Errors are on both sides: the network's shape is bent, and hair hides the template's face.
    # Each line is robust against one of them; the one that explains more pixels is taken.
    for line in (_line(said, known), _inverted(_line(known, said))):
        if line is None or line[0] <= 0:
            continue
        fitted = line[0] * values + line[1]
        if inverse:
            # Behind everything: inverse depths below this are farther than 10 m.
            fitted = 1 / np.maximum(fitted, 0.1)
        misfit = float(np.median(np.abs(fitted - depth)[where]))
        if misfit < best[1]:
            best = fitted, misfit
    return best


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """Slope and offset of least absolute deviations of y; None if x is constant."""
    weights = np.ones_like(x)
    for _ in range(FIT_ITERATIONS):
        mean_x, mean_y = (np.average(values, weights=weights) for values in (x, y))
        spread = np.average((x - mean_x) ** 2, weights=weights)
        if spread <= 1e-12 * max(mean_x**2, 1e-12):
            return None
        slope = np.average((x - mean_x) * (y - mean_y), weights=weights) / spread
        offset = mean_y - slope * mean_x
        weights = 1 / np.maximum(np.abs(slope * x + offset - y), 1e-4 * np.ptp(y) + 1e-12)
    return slope, offset


def _inverted(line: tuple[float, float] | None) -> tuple[float, float] | None:
    """The line that gives x for y."""
    return None if line is None or line[0] == 0 else (1 / line[0], -line[1] / line[0])


def _joined(
    depth: np.ndarray, head_depth: np.ndarray, face: np.ndarray, mask: np.ndarray, pixel_m: float
) -> np.ndarray:
    """The template's depth on the face, the network's beyond it, without a step between them.

    The correction that lays the network on the face fades out beyond it over `BLEND_M`. Pixels of
    the face's outline on which the two are far apart show the neck to one of them and the jaw to
    the other; they keep the template and correct nothing.
    """
    agree = face & (np.abs(head_depth - depth) < MAX_CORRECTION_M)
    if not agree.any():
        return head_depth
    distance, nearest = distance_transform_edt(~agree, return_indices=True)
    fade = np.exp(-((distance * pixel_m / BLEND_M) ** 2))
    joined = depth + fade * (head_depth - depth)[tuple(nearest)]
    wrong = np.abs(joined - head_depth) > MAX_CHANGE_M
    return np.where(face | wrong | ~mask, head_depth, joined)


def _edges(depth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixels beside a step in depth."""
    near = minimum_filter(np.where(mask, depth, np.inf), 3)
    far = maximum_filter(np.where(mask, depth, -np.inf), 3)
    return mask & (far - near > EDGE_STEP_M)


def _in_regions(
    drawn: ReferenceViews, template: HeadTemplate, regions: tuple[str, ...]
) -> Bool[np.ndarray, "v h w"]:
    triangles = drawn.binding.triangle_ids
    inside = template.region_mask(*regions)[triangles.clamp(min=0)] & (triangles >= 0)
    return inside.numpy()


def _depth(drawn: ReferenceViews) -> Float[np.ndarray, "v h w"]:
    """Camera-frame z of the template's positions."""
    points = drawn.position_maps.flatten(2).transpose(1, 2)
    z = transform_points(drawn.cameras.camera_from_head.float(), points)[..., 2]
    return z.view(drawn.masks[:, 0].shape).double().numpy()


def _positions(
    depth: Float[torch.Tensor, "v h w"], drawn: ReferenceViews
) -> Float[torch.Tensor, "v 3 h w"]:
    """Head-frame point of each pixel's ray at a depth."""
    v, height, width = depth.shape
    pixels = pixel_centers(width, height).reshape(1, -1, 2).expand(v, -1, -1)
    cameras = drawn.cameras
    points = unproject_pixels(cameras.intrinsics.float(), pixels, depth.flatten(1))
    points = transform_points(invert_poses(cameras.camera_from_head.float()), points)
    return points.transpose(1, 2).reshape(v, 3, height, width)
