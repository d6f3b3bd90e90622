"""How far a person's teeth reach, as smiles in photos show it.

The template's teeth are two plain slabs that reach as far as people's do in the mean. Each person's
reach is another:

    bright pixels in opened mouths ─► the run of teeth under the upper lip, over the lower ─► reach

Their picture is found in teeth.py. Letters: V views, N points, F triangles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import invert_poses, pixel_centers, unproject_pixels
from avat3r_ros.model.template_colors import (
    TEETH,
    brightness,
    groups_of_pixels,
    in_mouth,
    saturation,
    surface_groups,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

BRIGHT, GREY = 0.35, 0.3
"""Pixels in the mouth brighter than the first and less saturated than the second are teeth."""

WARM_BRIGHT, WARM_HUE = 0.7, 0.87
"""So are, in warm light, those whose brightness, and whose green over red, is at least these shares
of what teeth there should have: lips, gums and tongues are redder. In light of skin's hue alone
yellow teeth are as saturated as lips."""

MIN_PIXELS = 16
"""Fewer such pixels in all photos are lips that shine."""

FRONT_M, COLUMN_M = 0.0115, 0.0023
"""Front teeth are this near to the middle; runs are looked for in columns so wide."""

MIN_COLUMNS, MIN_RUN_M, MAX_LIP_M = 4, 0.002, 0.003
"""A row of teeth is seen in so many columns, is so high, and begins so near to its lip."""

UPPER_M, LOWER_M = (-0.0035, 0.002), (-0.002, 0.0015)
"""Limits of the shifts."""

OVERBITE_M = 0.003
"""Lower front teeth reach at most this far above the ends of the upper ones."""


@dataclass(frozen=True)
class TeethReach:
    """How much higher than the template's a person's teeth are, metres.

    Attributes:
        upper_m: Of the upper row; below 0 it reaches lower.
        lower_m: Of the lower row.
        color: Of lit teeth, if some are seen.
    """

    upper_m: float
    lower_m: float
    color: Float[Tensor, "3"] | None


def measure_teeth(
    views: ReferenceViews, template: HeadTemplate, ivory: Float[Tensor, "3"]
) -> TeethReach:
    """Read from the references how far the teeth reach.

    Args:
        views: References, bound to the template.
        template: Their head template.
        ivory: Colour that lit teeth should have in them (`usual_teeth`).
    """
    shown = teeth_pixels(views, template, ivory)
    colors = views.images.float().permute(0, 2, 3, 1)[shown]
    if len(colors) < MIN_PIXELS:
        return TeethReach(0.0, 0.0, None)
    mouth = in_mouth(groups_of_pixels(views, template))
    upper_edge, lower_edge, front = template_edges(views, template)
    ends: list[float] = []
    lips: list[float] = []
    tops: list[float] = []
    for v, code in enumerate(views.codes.float()):
        height = _heights(views, v, mouth[v], shown[v], front)
        runs = [_runs(*column) for column in height]
        upper = [run[0] for run in runs if run[0] is not None]
        if len(upper) >= MIN_COLUMNS:
            # Where teeth fill the opened mouth, they may reach farther than it shows.
            free = sum(ends_freely for _, ends_freely in upper) * 2 >= len(upper)
            (ends if free else lips).append(float(np.median([end for end, _ in upper])))
        lower = [run[1] for run in runs if run[1] is not None]
        if len(lower) >= MIN_COLUMNS:
            tops.append(float(np.median(lower)) - _jaw_shift(views, template, code))
    if ends:
        upper_m = float(np.median(ends)) - upper_edge
    else:
        upper_m = min([edge - upper_edge for edge in lips] + [0.0])
    upper_m = float(np.clip(upper_m, *UPPER_M))
    lower_m = float(np.clip(np.median(tops) - lower_edge if tops else 0.0, *LOWER_M))
    lower_m = min(lower_m, upper_edge + upper_m + OVERBITE_M - lower_edge)
    return TeethReach(upper_m, lower_m, colors.median(0).values)


def shifted_teeth(
    points: Float[Tensor, "n 3"],
    faces: Int[Tensor, "n"],
    template: HeadTemplate,
    reach: TeethReach,
) -> Float[Tensor, "n 3"]:
    """Move points on the template's teeth, in any expression, to where the person's are."""
    lower = is_lower(template)[faces]
    shift = torch.where(lower, reach.lower_m, reach.upper_m)
    return points + shift[:, None] * torch.tensor([0.0, 1.0, 0.0])


def teeth_pixels(
    views: ReferenceViews, template: HeadTemplate, ivory: Float[Tensor, "3"]
) -> Bool[Tensor, "v h w"]:
    """Pixels of the references that show teeth, which should look like `ivory` when lit."""
    colors = views.images.float().permute(0, 2, 3, 1)
    light, (red, green) = brightness(colors), colors[..., :2].unbind(-1)
    warm = light > WARM_BRIGHT * brightness(ivory)
    warm &= green > WARM_HUE * ivory[1] / ivory[0] * red
    teeth = (light > BRIGHT) & ((saturation(colors) < GREY) | warm)
    return teeth & in_mouth(groups_of_pixels(views, template))


def template_edges(views: ReferenceViews, template: HeadTemplate) -> tuple[float, float, float]:
    """Where the person's template ends its upper and its lower front teeth, and their front (z)."""
    neutral = template.vertices(views.identity.float())
    lower = is_lower(template)
    teeth = surface_groups(template) == TEETH
    upper, low = (
        neutral[template.triangles[teeth & (lower == row)].unique().long()] for row in (False, True)
    )
    upper, low = (row[row[:, 0].abs() < 0.5 * FRONT_M] for row in (upper, low))
    return float(upper[:, 1].min()), float(low[:, 1].max()), float(upper[:, 2].max())


def is_lower(template: HeadTemplate) -> Bool[Tensor, "f"]:
    """Triangles that go with the jaw."""
    down = template.expression_basis[ARKIT_INDEX["jawOpen"], :, 1]
    return down[template.triangles.long()].mean(-1) < -1e-3


def _jaw_shift(views: ReferenceViews, template: HeadTemplate, code: Tensor) -> float:
    """How far an expression lifts the lower front teeth."""
    triangles = template.triangles[(surface_groups(template) == TEETH) & is_lower(template)]
    rows = triangles.unique().long()
    rows = rows[template.neutral[rows, 0].abs() < 0.5 * FRONT_M]
    moved = torch.tensordot(code, template.expression_basis[:, rows, 1], 1)
    return float(moved.mean())


def _heights(
    views: ReferenceViews,
    v: int,
    mouth: Bool[Tensor, "h w"],
    shown: Bool[Tensor, "h w"],
    front: float,
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Pixels of the opened mouth on the plane of the front teeth, by column: arguments of `_runs`.

    A photo from so far aside that the plane is seen at less than 45 degrees has none.
    """
    camera = views.cameras[v]
    _, _, height, width = views.images.shape
    pose = invert_poses(camera.camera_from_head.float()[None])[0]
    at = pixel_centers(width, height).reshape(height, width, 2)[mouth]
    ahead = unproject_pixels(camera.intrinsics.float()[None], at[None], torch.ones(1, len(at)))[0]
    rays = ahead @ pose[:3, :3].T
    if not len(at) or float(-pose[2, 2]) < 0.7:
        return []
    points = pose[:3, 3] + rays * ((front - pose[2, 3]) / rays[:, 2])[:, None]
    layer_m = float((pose[2, 3] - front) / camera.intrinsics[1, 1])
    teeth = shown[mouth].numpy()
    x, y = points[:, 0].numpy(), points[:, 1].numpy()
    column = np.floor((x + FRONT_M) / COLUMN_M).astype(int)
    count = round(2 * FRONT_M / COLUMN_M)
    return [(y[column == c], teeth[column == c], layer_m) for c in range(count)]


def _runs(
    heights: Float[np.ndarray, "p"], teeth: Bool[np.ndarray, "p"], layer_m: float
) -> tuple[tuple[float, bool] | None, float | None]:
    """Rows of teeth in one column of an opened mouth.

    Args:
        heights: Of the mouth's pixels.
        teeth: Which of them show teeth.
        layer_m: Height of a pixel.

    Returns:
        Where the upper row ends, and whether something else of the mouth shows below it; where the
        lower row ends, if there is something between the rows.
    """
    if len(heights) == 0:
        return None, None
    layer = ((heights.max() - heights) / layer_m).round().astype(int)
    is_teeth = np.bincount(layer, teeth) > 0.5 * np.bincount(layer)
    top, bottom = heights.max() + 0.5 * layer_m, heights.min() - 0.5 * layer_m
    upper = _run(is_teeth, layer_m)
    lower = _run(is_teeth[::-1], layer_m)
    end = None
    if upper is not None:
        stop = top - upper * layer_m
        end = (float(stop), bool(stop - bottom > 1.5 * layer_m))
    # Teeth that fill the opening are the upper ones.
    apart = upper is not None and lower is not None and upper + lower < len(is_teeth)
    return end, float(bottom + lower * layer_m) if apart else None


def _run(is_teeth: Bool[np.ndarray, "l"], layer_m: float) -> int | None:
    """Layers up to the end of a row of teeth that begins at the first ones, or None."""
    first = int(np.argmax(is_teeth))
    if not is_teeth[first] or first * layer_m > MAX_LIP_M:
        return None
    others = np.flatnonzero(~is_teeth[first:])
    stop = first + int(others[0]) if len(others) else len(is_teeth)
    return stop if (stop - first) * layer_m >= MIN_RUN_M else None
