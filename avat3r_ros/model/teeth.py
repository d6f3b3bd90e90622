"""Colours of teeth, as far as the photos show them.

    points on the template's teeth, moved to the person's (teeth_reach.py)
        ─► seen in a photo: its colour
        ─► beside or above seen ones: theirs
        ─► else: painted, as bright as skin and eyes tell

Letters: V views, N points.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros import native
from avat3r_ros.geometry import pixels_under
from avat3r_ros.model.fine_views import finer_camera, finer_pictures
from avat3r_ros.model.lid_colors import usual_color
from avat3r_ros.model.teeth_reach import (
    MIN_PIXELS,
    TeethReach,
    is_lower,
    shifted_teeth,
    teeth_pixels,
    template_edges,
)
from avat3r_ros.model.template_colors import (
    EYE,
    TEETH,
    ColorSources,
    brightness,
    light_left,
    neighbors_colors,
    surface_groups,
    surface_points,
)
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import ReferenceViews

FULLY_LIT = 0.75
"""Pixels darker than this share of the median tooth are half in shadow, and colour nothing."""

CROWN_M, MOLAR_M, CROWN_LOSS, GUM_EDGE_M = 0.0105, 0.007, 0.1, 0.001
"""Height of a front tooth's crown and of a molar's, and how much of it each step backwards takes;
gums are beyond, with an edge so soft."""

OCCLUSAL_RISE = 0.12
"""How much higher than the front teeth's the edges of those behind are, by the step backwards."""

UPPER_BORDERS_M = np.array([0.0, 0.0085, 0.0147, 0.0208, 0.0245])
LOWER_BORDERS_M = np.array([0.0, 0.0053, 0.0110, 0.0172, 0.0220])
"""Between which teeth change, to either side of the middle, seen from in front: mean crown widths
(Wheeler's Dental Anatomy) around the template's arch."""

BORDER_SIGMA_M, BORDER_SHADE, LOWER_SHADE = 0.0006, 0.18, 0.12
"""How wide and dark the painted borders are, and how much darker lower teeth are."""

NEIGHBORS, SOFTNESS_M, REACH_M, ALONG = 3, 2e-4, 0.004, 0.25
"""How many seen pixels colour the teeth beside them, and how far (`neighbors_colors`); a step along
a tooth counts less than one across."""

LIGHT_DEPTH_M = 0.02
"""Behind the front teeth, light falls by 1/e over this depth."""

SEEN_DEPTH_M = 0.028
"""Teeth so far behind the front ones are in the dark: bright ones in a photo there are others."""

TOOTH_OF_SKIN, TOOTH_OF_EYE = (0.93, 1.07, 1.09), 1.1
"""sRGB of a lit front tooth relative to lit skin of the same face, and at least to the white of its
eyes (measured, docs/experiments.md)."""

GUMS_OF_TOOTH = (0.82, 0.54, 0.57)
"""sRGB of gums relative to a lit tooth (ours, by eye)."""

FACE_DEPTH_M = 0.045
"""Skin so far behind the sellion at most is the front of the face, lit as teeth are."""

MIN_EYE_PIXELS, WHITE_QUANTILE = 5, 0.8
"""The brightest fifth of an eye's pixels, if there are so many, is its white."""


def paint_teeth(
    views: ReferenceViews,
    template: HeadTemplate,
    reach: TeethReach,
    faces: Int[Tensor, "n"],
    weights: Float[Tensor, "n 3"],
    ivory: Float[Tensor, "3"],
) -> Float[Tensor, "n 3"]:
    """Colour points on the teeth.

    Args:
        views: References.
        template: Their head template.
        reach: How far the person's teeth are off the template's.
        faces: Triangles of the points, all on teeth.
        weights: Their barycentrics.
        ivory: Colour that lit teeth should have (`usual_teeth`): of those that are not seen.
    """
    neutral = template.vertices(views.identity.float())
    rest = shifted_teeth(surface_points(neutral, template, faces, weights), faces, template, reach)
    lower = is_lower(template)[faces]
    upper_edge, lower_edge, front = template_edges(views, template)
    behind_m = (front - rest[:, 2]).clamp(min=0)
    lit = light_left(behind_m, LIGHT_DEPTH_M)
    edges = upper_edge + reach.upper_m, lower_edge + reach.lower_m
    front_color = ivory if reach.color is None else reach.color
    colors = _painted(rest, behind_m, lower, edges, front_color) * lit
    shown = teeth_pixels(views, template, ivory)
    if int(shown.sum()) < MIN_PIXELS:
        return colors
    light_of_teeth = brightness(views.images.float().permute(0, 2, 3, 1))
    shown &= light_of_teeth > FULLY_LIT * light_of_teeth[shown].median()
    pictures, visible = _seen_in_photos(views, template, shown, reach, faces, weights)
    for row in (False, True):
        mine = (lower == row).nonzero()[:, 0]
        seen, known = _of_photos_that_show_most(pictures[:, mine], visible[:, mine])
        known &= behind_m[mine] < SEEN_DEPTH_M
        if int(known.sum()) >= MIN_PIXELS:
            colors[mine] = lit[mine] * _continued(
                rest[mine], seen / lit[mine], known, colors[mine] / lit[mine]
            )
    return colors


def usual_teeth(
    neutral: Float[Tensor, "nv 3"],
    template: HeadTemplate,
    pixels: ColorSources,
    hairy: Float[Tensor, "nv"],
) -> Float[Tensor, "3"]:
    """Colour that lit teeth should have in the photos.

    The skin of the face tells the light. Of dark skin that would be too little: teeth are brighter
    than the white of the eyes, which lies in the shade.

    Args:
        neutral: Vertices of the person at rest, metres, head frame.
        template: Head template.
        pixels: Those that lend their colours are certainly the head's, and on the template.
        hairy: Which vertices are under hair, in [0, 1].
    """
    faces, weights, colors = (
        values[pixels.lend] for values in (pixels.triangle_ids, pixels.barycentrics, pixels.colors)
    )
    depth, hair = surface_points(
        torch.stack([neutral[:, 2], hairy], -1), template, faces, weights
    ).unbind(-1)
    skin = template.region_mask("skin")[faces] & (depth > -FACE_DEPTH_M) & (hair < 0.5)
    lit_skin = usual_color(colors[skin] if bool(skin.any()) else pixels.of_light())
    ivory = lit_skin * torch.tensor(TOOTH_OF_SKIN)
    eyes = colors[surface_groups(template)[faces] == EYE]
    if len(eyes) >= MIN_EYE_PIXELS:
        light = brightness(eyes)
        white = eyes[light >= torch.quantile(light, WHITE_QUANTILE)].mean(0)
        ivory = torch.maximum(ivory, TOOTH_OF_EYE * white)
    return ivory.clamp(max=1)


def _seen_in_photos(
    views: ReferenceViews,
    template: HeadTemplate,
    shown: Bool[Tensor, "v h w"],
    reach: TeethReach,
    faces: Tensor,
    weights: Tensor,
) -> tuple[Float[Tensor, "v n 3"], Bool[Tensor, "v n"]]:
    """Colours of points in every photo, and where it shows them.

    Args:
        views: References.
        template: Their head template.
        shown: Pixels that show teeth.
        reach: Shifts of the teeth.
        faces: Triangles of the points.
        weights: Their barycentrics.
    """
    teeth = (surface_groups(template) == TEETH).nonzero()[:, 0]
    fine = finer_pictures(views)
    shown = shown.repeat_interleave(2, 1).repeat_interleave(2, 2)
    pictures, visible = [], []
    for v, code in enumerate(views.codes.float()):
        vertices = template.vertices(views.identity.float(), code)
        points = surface_points(vertices, template, faces, weights)
        points = shifted_teeth(points, faces, template, reach)
        corners = vertices[template.triangles.long()[teeth]].flatten(0, 1)
        corners = shifted_teeth(corners, teeth.repeat_interleave(3), template, reach)
        camera = finer_camera(views.cameras[v])
        x, y, inside = pixels_under(camera, points)
        # Teeth hide what is behind them: far molars have no colours of canines.
        nearest = native.rasterize_mesh(
            corners.numpy(), np.arange(len(corners)).reshape(-1, 3), camera.intrinsics.numpy(),
            camera.camera_from_head.numpy(), camera.width, camera.height,
        ).triangle_ids  # fmt: skip
        on_top = teeth[torch.from_numpy(nearest).long()[y, x]] == faces
        visible.append(inside & shown[v, y, x] & on_top)
        pictures.append(fine[v][:, y, x].T)
    return torch.stack(pictures), torch.stack(visible)


def _of_photos_that_show_most(
    pictures: Float[Tensor, "v n 3"], visible: Bool[Tensor, "v n"]
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, "n"]]:
    """Each point's colour in that photo, of those that show it, which shows most of the points."""
    colors, found = torch.zeros(pictures.shape[1:]), torch.zeros(visible.shape[1], dtype=torch.bool)
    for v in visible.sum(1).argsort(descending=True, stable=True):
        take = visible[v] & ~found
        colors[take] = pictures[v][take]
        found |= take
    return colors, found


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
    behind_m: Float[Tensor, "n"],
    lower: Bool[Tensor, "n"],
    edges: tuple[float, float],
    ivory: Float[Tensor, "3"],
) -> Float[Tensor, "n 3"]:
    """Usual teeth with borders and gums, all in the light of the front ones."""
    across = rest[:, 0].abs().numpy()
    borders = np.where(
        lower.numpy()[:, None], across[:, None] - LOWER_BORDERS_M, across[:, None] - UPPER_BORDERS_M
    )
    border = np.exp(-((borders / BORDER_SIGMA_M) ** 2)).max(1)
    shade = (1 - BORDER_SHADE * border) * (1 - LOWER_SHADE * lower.numpy())
    colors = ivory * torch.from_numpy(shade).float()[:, None]
    upper_edge, lower_edge = (edge + OCCLUSAL_RISE * behind_m for edge in edges)
    from_edge = torch.where(lower, lower_edge - rest[:, 1], rest[:, 1] - upper_edge)
    crown = (CROWN_M - CROWN_LOSS * behind_m).clamp(min=MOLAR_M)
    gums = torch.sigmoid((from_edge - crown) / GUM_EDGE_M * 2)[:, None]
    return (1 - gums) * colors + gums * ivory * torch.tensor(GUMS_OF_TOOTH)
