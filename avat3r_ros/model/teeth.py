"""Teeth as the photos show them: how far they reach, and their picture.

The template's teeth are two plain slabs that meet behind its closed lips. People's upper teeth
reach lower, each person's by another length, and a smile in a photo shows both that and the teeth
themselves:

    bright pixels in opened mouths ─► the run of teeth under the upper lip, over the lower ─► reach
    points on the slabs, moved so far ─► seen in a photo: its colour
                                       ─► beside or above seen ones: theirs
                                       ─► else: painted

Letters: V views, N points, F triangles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import (
    invert_poses,
    pixel_centers,
    pixels_under,
    triangle_normals,
    unproject_pixels,
)
from avat3r_ros.model.template_colors import (
    DARKEST_INTERIOR,
    TEETH,
    brightness,
    groups_of_pixels,
    in_mouth,
    neighbors_colors,
    saturation,
    surface_groups,
    surface_points,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews

BRIGHT, GREY = 0.35, 0.3
"""Pixels in the mouth brighter than the first and less saturated than the second are teeth."""

FULLY_LIT = 0.75
"""Pixels darker than this share of the median tooth are half in shadow, and colour nothing."""

MIN_PIXELS = 16
"""Fewer such pixels in all photos are lips that shine."""

FRONT_M, COLUMN_M = 0.0115, 0.0023
"""Front teeth are this near to the middle; runs are looked for in columns so wide."""

MIN_COLUMNS, MIN_RUN_M, MAX_LIP_M = 4, 0.002, 0.003
"""A row of teeth is seen in so many columns, is so high, and begins so near to its lip."""

USUAL_UPPER_M = -0.0015
"""Where the upper teeth end in people without a smile in their photos, over the template's. Ours:
upper teeth cover the tips of the lower ones."""

UPPER_M, LOWER_M = (-0.006, 0.002), (-0.002, 0.004)
"""Limits of the shifts."""

CROWN_M, GUM_EDGE_M = 0.0105, 0.001
"""Height of a front tooth's crown; gums are beyond, with an edge so soft."""

UPPER_BORDERS_M = np.array([0.0, 0.0085, 0.0147, 0.0208, 0.0245])
LOWER_BORDERS_M = np.array([0.0, 0.0053, 0.0110, 0.0172, 0.0220])
"""Between which teeth change, to either side of the middle, seen from in front: mean crown widths
(Wheeler's Dental Anatomy) around the template's arch."""

BORDER_SIGMA_M, BORDER_SHADE, LOWER_SHADE = 0.0006, 0.18, 0.12
"""How wide and dark the painted borders are, and how much darker lower teeth are."""

NEIGHBORS, SOFTNESS_M, REACH_M, ALONG = 3, 2e-4, 0.004, 0.25
"""How many seen pixels colour the teeth beside them, and how far (`neighbors_colors`); a step along
a tooth counts less than one across."""

LIGHT_DEPTH_M = 0.014
"""Behind the front teeth, light falls by 1/e over this depth."""

IVORY, GUMS = (0.88, 0.84, 0.76), (0.72, 0.45, 0.43)
"""sRGB under full light (ours, by eye)."""


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


def measure_teeth(views: ReferenceViews, template: HeadTemplate) -> TeethReach:
    """Read from the references how far the teeth reach.

    Args:
        views: References, bound to the template.
        template: Their head template.
    """
    shown = _teeth_pixels(views, template)
    colors = views.images.float().permute(0, 2, 3, 1)[shown]
    if len(colors) < MIN_PIXELS:
        return TeethReach(USUAL_UPPER_M, 0.0, None)
    mouth = in_mouth(groups_of_pixels(views, template))
    upper_edge, lower_edge, front = _template_edges(views, template)
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
        upper_m = min([edge - upper_edge for edge in lips] + [USUAL_UPPER_M])
    lower_m = float(np.median(tops)) - lower_edge if tops else 0.0
    return TeethReach(
        float(np.clip(upper_m, *UPPER_M)),
        float(np.clip(lower_m, *LOWER_M)),
        colors.median(0).values,
    )


def shifted_teeth(
    points: Float[Tensor, "n 3"],
    faces: Int[Tensor, "n"],
    template: HeadTemplate,
    reach: TeethReach,
) -> Float[Tensor, "n 3"]:
    """Move points on the template's teeth, in any expression, to where the person's are."""
    lower = _is_lower(template)[faces]
    shift = torch.where(lower, reach.lower_m, reach.upper_m)
    return points + shift[:, None] * torch.tensor([0.0, 1.0, 0.0])


def paint_teeth(
    views: ReferenceViews,
    template: HeadTemplate,
    reach: TeethReach,
    faces: Int[Tensor, "n"],
    weights: Float[Tensor, "n 3"],
    light: float,
) -> Float[Tensor, "n 3"]:
    """Colour points on the teeth.

    Args:
        views: References.
        template: Their head template.
        reach: How far the person's teeth are off the template's.
        faces: Triangles of the points, all on teeth.
        weights: Their barycentrics.
        light: Of the photos, [0, 1]; scales what is painted.
    """
    neutral = template.vertices(views.identity.float())
    rest = shifted_teeth(surface_points(neutral, template, faces, weights), faces, template, reach)
    lower = _is_lower(template)[faces]
    colors = _painted(rest, lower, template, views, reach, light)
    shown = _teeth_pixels(views, template)
    if int(shown.sum()) < MIN_PIXELS:
        return colors
    light_of_teeth = brightness(views.images.float().permute(0, 2, 3, 1))
    shown &= light_of_teeth > FULLY_LIT * light_of_teeth[shown].median()
    upper_edge = _template_edges(views, template)[0] + reach.upper_m
    for row in (False, True):
        mine = (lower == row).nonzero()[:, 0]
        if not len(mine):
            continue
        seen, known = _seen_colors(
            views, template, shown, reach, faces[mine], weights[mine], upper_edge if row else None
        )
        if bool(known.any()):
            colors[mine] = _continued(rest[mine], seen, known, colors[mine])
    return colors


def _seen_colors(
    views: ReferenceViews,
    template: HeadTemplate,
    shown: Bool[Tensor, "v h w"],
    reach: TeethReach,
    faces: Tensor,
    weights: Tensor,
    below: float | None,
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, "n"]]:
    """Colours of the points that a photo shows, from the photo that shows most of them.

    Args:
        views: References.
        template: Their head template.
        shown: Pixels that show teeth.
        reach: Shifts of the teeth.
        faces: Triangles of the points.
        weights: Their barycentrics.
        below: Only points lower than this are seen: the upper teeth hide what is behind them.
    """
    seen = []
    for v, code in enumerate(views.codes.float()):
        vertices = template.vertices(views.identity.float(), code)
        points = surface_points(vertices, template, faces, weights)
        points = shifted_teeth(points, faces, template, reach)
        camera = views.cameras[v]
        x, y, inside = pixels_under(camera, points)
        known = inside & shown[v, y, x] & _faces_camera(vertices, template, camera, faces)
        if below is not None:
            known &= points[:, 1] < below
        seen.append((int(known.sum()), known, views.images[v].float()[:, y, x].T))
    colors, found = torch.zeros(len(faces), 3), torch.zeros(len(faces), dtype=torch.bool)
    for _, known, picture in sorted(seen, key=lambda one: -one[0]):
        take = known & ~found
        colors[take] = picture[take]
        found |= take
    return colors, found


def _faces_camera(
    vertices: Tensor, template: HeadTemplate, camera: Camera, faces: Tensor
) -> Tensor:
    """Which triangles turn their front to a camera, (n,)."""
    corners = vertices[template.triangles.long()[faces]]
    center = invert_poses(camera.camera_from_head.float()[None])[0, :3, 3]
    return ((center - corners[:, 0]) * triangle_normals(corners)).sum(-1) > 0


def _continued(
    rest: Float[Tensor, "n 3"],
    seen: Float[Tensor, "n 3"],
    known: Bool[Tensor, "n"],
    painted: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    """Seen colours; then those of seen neighbours on this side, on the other one, and paint."""
    colors = painted.clone()
    scale = torch.tensor([1.0, ALONG, 1.0])
    for side in (torch.tensor([-1.0, 1.0, 1.0]), torch.ones(3)):
        colors = neighbors_colors(
            rest[known] * side * scale,
            seen[known],
            rest * scale,
            colors,
            count=NEIGHBORS,
            softness_m=SOFTNESS_M,
            reach_m=REACH_M,
        )
    colors[known] = seen[known]
    return colors


def _painted(
    rest: Float[Tensor, "n 3"],
    lower: Bool[Tensor, "n"],
    template: HeadTemplate,
    views: ReferenceViews,
    reach: TeethReach,
    light: float,
) -> Float[Tensor, "n 3"]:
    """Usual teeth with borders and gums, darker towards the back of the mouth."""
    upper_edge, lower_edge, front = _template_edges(views, template)
    ivory = light * torch.tensor(IVORY) if reach.color is None else reach.color
    across = rest[:, 0].abs().numpy()
    borders = np.where(
        lower.numpy()[:, None], across[:, None] - LOWER_BORDERS_M, across[:, None] - UPPER_BORDERS_M
    )
    border = np.exp(-((borders / BORDER_SIGMA_M) ** 2)).max(1)
    shade = (1 - BORDER_SHADE * border) * (1 - LOWER_SHADE * lower.numpy())
    colors = ivory * torch.from_numpy(shade).float()[:, None]
    above_edge = torch.where(
        lower, lower_edge + reach.lower_m - rest[:, 1], rest[:, 1] - upper_edge - reach.upper_m
    )
    gums = torch.sigmoid((above_edge - CROWN_M) / GUM_EDGE_M * 2)[:, None]
    colors = (1 - gums) * colors + gums * light * torch.tensor(GUMS)
    depth = (front - rest[:, 2]).clamp(min=0)
    return colors * torch.exp(-depth / LIGHT_DEPTH_M).clamp(min=DARKEST_INTERIOR)[:, None]


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
    through = upper is not None and lower is not None and upper + lower > len(is_teeth)
    return end, None if lower is None or through else float(bottom + lower * layer_m)


def _run(is_teeth: Bool[np.ndarray, "l"], layer_m: float) -> int | None:
    """Layers up to the end of a row of teeth that begins at the first ones, or None."""
    first = int(np.argmax(is_teeth))
    if not is_teeth[first] or first * layer_m > MAX_LIP_M:
        return None
    others = np.flatnonzero(~is_teeth[first:])
    stop = first + int(others[0]) if len(others) else len(is_teeth)
    return stop if (stop - first) * layer_m >= MIN_RUN_M else None


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


def _teeth_pixels(views: ReferenceViews, template: HeadTemplate) -> Bool[Tensor, "v h w"]:
    colors = views.images.float().permute(0, 2, 3, 1)
    teeth = (brightness(colors) > BRIGHT) & (saturation(colors) < GREY)
    return teeth & in_mouth(groups_of_pixels(views, template))


def _template_edges(views: ReferenceViews, template: HeadTemplate) -> tuple[float, float, float]:
    """Where the person's template ends its upper and its lower front teeth, and their front (z)."""
    neutral = template.vertices(views.identity.float())
    lower = _is_lower(template)
    teeth = surface_groups(template) == TEETH
    upper, low = (
        neutral[template.triangles[teeth & (lower == row)].unique().long()] for row in (False, True)
    )
    upper, low = (row[row[:, 0].abs() < 0.5 * FRONT_M] for row in (upper, low))
    return float(upper[:, 1].min()), float(low[:, 1].max()), float(upper[:, 2].max())


def _jaw_shift(views: ReferenceViews, template: HeadTemplate, code: Tensor) -> float:
    """How far an expression lifts the lower front teeth."""
    triangles = template.triangles[(surface_groups(template) == TEETH) & _is_lower(template)]
    rows = triangles.unique().long()
    rows = rows[template.neutral[rows, 0].abs() < 0.5 * FRONT_M]
    moved = torch.tensordot(code, template.expression_basis[:, rows, 1], 1)
    return float(moved.mean())


def _is_lower(template: HeadTemplate) -> Bool[Tensor, "f"]:
    """Triangles that go with the jaw."""
    down = template.expression_basis[ARKIT_INDEX["jawOpen"], :, 1]
    return down[template.triangles.long()].mean(-1) < -1e-3
