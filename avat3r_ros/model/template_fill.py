"""Template Gaussians for what no reference shows: inside the mouth, folded lids, back of the head.

Points are spread over the head template, densely enough in the expression that stretches each
triangle most (a lid in a blink, a cheek with the jaw open), and thinned by four rules:

- *hidden*: what lies inside the head is kept only where some viewer of some expression sees it;
- *seen*: a reference pixel already covers the same surface. Distances are taken in a neutral and in
  an opened face at once, so that a folded lid is not covered by the brow that touches it. There,
  a backing lies under the pixels (backing.py);
- *hull*: a point that falls outside a reference's matte is not part of this head; one that is
  outside by no more than the fit may be off is sunk into it instead, the deeper the farther it is
  outside, so that no gap opens;
- *cut*: nothing below the neckline of the references, or, if asked for, the neck down to its own
  end (neck.py).

Colours: template_colors.py, hair_texture.py, lid_rims.py, teeth.py. teeth_reach.py moves teeth;
visible_triangles.py knows what is *hidden*.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import pixels_under, triangle_normals
from avat3r_ros.mattes import FACE_REGIONS, SEEN_MASK, misses_face
from avat3r_ros.model.backing import backing_places, colors_around, covering_discs
from avat3r_ros.model.hair_texture import textured_hair
from avat3r_ros.model.lid_colors import color_sources
from avat3r_ros.model.lid_rims import with_shown_rims
from avat3r_ros.model.neck import NECK_SIGMA, hair_going_on, height_over_cut, neck_opacity
from avat3r_ros.model.rig_motion import facing_quats_wxyz
from avat3r_ros.model.teeth import paint_teeth, usual_teeth
from avat3r_ros.model.teeth_reach import measure_teeth, shifted_teeth
from avat3r_ros.model.template_colors import (
    EYE,
    LEFT_OUT,
    SKIN,
    TEETH,
    ColorSources,
    fill_colors,
    in_mouth,
    surface_groups,
    surface_points,
)
from avat3r_ros.model.visible_triangles import ever_visible
from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import Gaussians, ReferenceViews

FILL_CODES = (
    {},
    {"eyeBlink": 1.0},
    {"jawOpen": 1.0},
    {"mouthSmile": 1.0},
    {"jawOpen": 1.0, "tongueOut": 1.0},
)
"""Expressions that unfold surfaces; each triangle is filled in the one that stretches it most."""

OPENED_FACE = {"eyeBlink": 1.0, "jawOpen": 1.0}
"""Second expression in which "the same surface" is decided."""

FINE_SPACING, COARSE_SPACING = 1.25, 2.0
"""Spacing of the points in reference-pixel footprints: near eyes and mouth, and elsewhere."""

LID_SPACING = 0.7
"""Spacing on unfolding lids, where no pixel helps and the eye behind must not show."""

FILL_SIGMA, BROAD_SIGMA = 0.62, 0.85
"""Standard deviation of a disc in spacings, on fine surfaces and on broad ones, whose colours are
smooth: the far side of the head must not shine through."""

TEETH_SPACING, FRONT_TEETH_SPACING, FRONT_TEETH_M = 0.9, 0.5, 0.015
"""Spacing on teeth, whose borders are finer than skin, and on those so near to the foremost: what
smiles show, as fine as the photos."""

LID_SIGMA = 1.0
"""The same on unfolding lids: bright eyes shine through the smallest gap."""

INTERIOR_SIGMA = 1.0
"""The same on tongue and cheeks' inside, which fold and stretch far."""

FILL_OPACITY, LEAST_OPACITY = 0.97, 1 / 255
FLATNESS = 0.2
HULL_MARGIN_PX = 1

SINK_MARGIN_M, SINK_M = 0.006, 0.004
"""Points up to this far outside a matte are kept, and the farthest are this deep under the surface.
"""

HAIR_M = 0.002
"""Where hair stands off the skin by more than this, the surface is hair."""

FLATTENED = (0.25, 0.5, 0.75, 1.0)
"""Hair outside a matte is tried so much flatter."""

COVER_REACH = 0.4
"""A pixel covers points out to this many spacings and half its own size. At 0.8 gaps stayed between
the pixels of two photos; at 0.1 skin is drawn among the hairs of brows."""

UNFOLDING = 1.7
"""Lid triangles that some expression stretches by more than this (in area) count as unfolding."""

MIN_LID_TRIANGLES = 8
"""Fewer unfolding ones that hang together are no lid."""


@dataclass(frozen=True)
class TemplateGaussians:
    """Gaussians bound to the template, each placed in one of a few expressions.

    Attributes:
        gaussians: In the expression of their row.
        codes: One expression per row.
        code_rows: Row of `codes` each Gaussian was placed in.
        triangle_ids: Triangle of the head template.
        barycentrics: Weights of its corners.
    """

    gaussians: Gaussians
    codes: Float[Tensor, "r e"]
    code_rows: Int[Tensor, "n"]
    triangle_ids: Int[Tensor, "n"]
    barycentrics: Float[Tensor, "n 3"]


def fill_unseen_surfaces(
    views: ReferenceViews,
    template: HeadTemplate,
    seen: Gaussians,
    triangle_ids: Int[Tensor, "p"],
    barycentrics: Float[Tensor, "p 3"],
    inside: Bool[Tensor, "p"],
    kept: Bool[Tensor, "v h w"],
    footprint_m: float,
    hair: Float[Tensor, "nv 3"],
    neck: bool,
) -> TemplateGaussians:
    """Spread Gaussians over what the references do not show.

    Args:
        views: References.
        template: Head template of `triangle_ids`.
        seen: Gaussians of the reference pixels, each in its own reference's expression.
        triangle_ids: Their triangles, -1 off the template.
        barycentrics: Their places on the triangles.
        inside: Pixels on the template whose colour is certainly the head's.
        kept: Pixels that became Gaussians.
        footprint_m: Side of a reference pixel on the head.
        hair: How far hair stands off each vertex, metres.
        neck: Whether the neck goes on below the references' cut.
    """
    codes = torch.from_numpy(np.stack([arkit_code(**scores) for scores in FILL_CODES]))
    opened = torch.from_numpy(arkit_code(**OPENED_FACE))
    identity = views.identity.float()
    at_rest = template.vertices(identity)
    over_cut = height_over_cut(at_rest, template, at_rest)
    if neck:
        hair = hair_going_on(hair, over_cut, template, at_rest)
    placed = hair + template.vertices(identity.expand(len(codes), -1), codes)  # (R, Nv, 3)
    neutral_and_opened = torch.stack([placed[0], hair + template.vertices(identity, opened)])
    group = surface_groups(template)

    folds = unfolding_triangles(template, identity)
    spacing = footprint_m * torch.where(_is_fine(template), FINE_SPACING, COARSE_SPACING)
    spacing[folds] = LID_SPACING * footprint_m
    spacing[group == TEETH] = TEETH_SPACING * footprint_m
    spacing[_front_teeth(placed[0], template, group)] = FRONT_TEETH_SPACING * footprint_m
    faces, weights, rows = _spread(placed, template.triangles.long(), group, spacing)
    # After the points come whole triangles, which back the pixels that cover them.
    whole, middles = backing_places(
        _areas(placed[0], template.triangles),
        ((group == SKIN) | (group == EYE)) & ~template.region_mask("ears"),
    )
    is_backing = torch.cat([torch.zeros_like(faces), torch.ones_like(whole)]).bool()
    weights = torch.cat([weights, middles])
    faces, rows = torch.cat([faces, whole]), torch.cat([rows, torch.zeros_like(whole)])
    covered = _covered(
        neutral_and_opened, template, group, spacing, faces, weights, triangle_ids, barycentrics,
        footprint_m,
    )  # fmt: skip
    covered &= ~folds[faces]
    behind = torch.zeros(len(group), dtype=torch.bool)
    behind[faces[covered]] = True
    covered[is_backing] = behind[whole]
    keep = (covered == is_backing) & ever_visible(placed, template, group)[faces]
    outside_px, flattened = _outside_mattes(views, template, faces, weights, hair, footprint_m)
    if neck:
        over_cut = surface_points(over_cut[:, None], template, faces, weights)[:, 0]
        bare = surface_points(hair, template, faces, weights).norm(dim=-1) <= HAIR_M
        outside_px[(bare & template.region_mask("neck")[faces]) | (over_cut < 0)] = 0.0
    excess_m = (outside_px - HULL_MARGIN_PX).clamp(min=0) * footprint_m
    keep &= excess_m <= SINK_MARGIN_M * (group[faces] == SKIN)
    depth = excess_m * (SINK_M / SINK_MARGIN_M)
    opacities = torch.full((len(faces),), FILL_OPACITY)
    if neck:
        opacities = opacities * neck_opacity(over_cut)
        keep &= opacities > LEAST_OPACITY
    elif bool(inside.any()):
        lent = surface_points(placed[0], template, triangle_ids[inside], barycentrics[inside])
        # quantile() takes 16 million values at most, and a sample is enough.
        lowest = torch.quantile(lent[:: max(1, len(lent) // 100_000), 1], 0.005)
        keep &= surface_points(placed[0], template, faces, weights)[:, 1] > lowest
    faces, weights, rows = faces[keep], weights[keep], rows[keep]
    depth, flattened, opacities = depth[keep], flattened[keep], opacities[keep]
    backing = is_backing[keep].nonzero()[:, 0]

    corners = placed[rows[:, None], template.triangles.long()[faces]]
    normals = torch.nn.functional.normalize(triangle_normals(corners), dim=-1)
    size = torch.where(_is_fine(template), FILL_SIGMA, BROAD_SIGMA)
    size[folds] = LID_SIGMA
    size[in_mouth(group) & (group != TEETH)] = INTERIOR_SIGMA
    sigma = size[faces] * spacing[faces]
    if neck:
        sigma[over_cut[keep] < 0] *= NECK_SIGMA / BROAD_SIGMA
    scales = torch.stack([sigma, sigma, FLATNESS * sigma], -1)
    along = corners[:, 1] - corners[:, 0]
    along[backing], scales[backing, :2], under = covering_discs(corners[backing])
    scales[backing, 2] = FLATNESS * scales[backing, 1]
    depth[backing] += under
    pixels = ColorSources(seen.colors, triangle_ids, barycentrics, inside)
    sources = color_sources(views, template, placed[0], folds, kept, pixels)
    hairy = (hair.norm(dim=-1) > HAIR_M).float()
    on_scalp = hairy.index_fill(0, torch.from_numpy(template.region_vertices("scalp")), 1.0)
    colors = fill_colors(placed[0], template, group, sources, on_scalp, faces, weights)
    on_hair = surface_points(hairy[:, None], template, faces, weights)[:, 0] > 0.5
    seen_hair = surface_points(hairy[:, None], template, triangle_ids, barycentrics)[:, 0] > 0.5
    shown = inside & seen_hair & (barycentrics.sum(-1) > 0.99)
    colors = textured_hair(
        colors,
        surface_points(placed[0], template, faces, weights),
        on_hair & (group[faces] == SKIN),
        seen.colors[shown],
        surface_points(placed[0], template, triangle_ids[shown], barycentrics[shown]),
        footprint_m,
    )
    colors[backing] = colors_around(
        template.triangles.long(), triangle_ids, barycentrics, seen.colors, faces[backing],
        colors[backing],
    )  # fmt: skip
    colors = with_shown_rims(colors, views, template, kept, folds, faces, weights)
    means = (corners * weights[..., None]).sum(1) - depth[:, None] * normals
    means -= flattened[:, None] * surface_points(hair, template, faces, weights)
    teeth = (group[faces] == TEETH).nonzero()[:, 0]
    if len(teeth):
        ivory = usual_teeth(placed[0], template, pixels, hairy)
        reach = measure_teeth(views, template, ivory)
        means[teeth] = shifted_teeth(means[teeth], faces[teeth], template, reach)
        colors[teeth] = paint_teeth(views, template, reach, faces[teeth], weights[teeth], ivory)
    return TemplateGaussians(
        gaussians=Gaussians(
            means=means,
            quats_wxyz=facing_quats_wxyz(normals, along),
            scales=scales,
            opacities=opacities,
            colors=colors,
        ),
        codes=codes,
        code_rows=rows,
        triangle_ids=faces,
        barycentrics=weights,
    )


def _is_fine(template: HeadTemplate) -> Bool[Tensor, "f"]:
    """Regions seen close and in motion."""
    coarse = {"skin", "scalp", "neck", "ears"}
    table = torch.tensor([name not in coarse for name in REGIONS])
    return table[template.triangle_regions.long()]


def _front_teeth(
    neutral: Float[Tensor, "nv 3"], template: HeadTemplate, group: Int[Tensor, "f"]
) -> Bool[Tensor, "f"]:
    depth = neutral[template.triangles.long()].mean(1)[:, 2]
    teeth = group == TEETH
    return teeth & (depth > depth[teeth].max() - FRONT_TEETH_M) if bool(teeth.any()) else teeth


def unfolding_triangles(template: HeadTemplate, identity: Float[Tensor, "k"]) -> Bool[Tensor, "f"]:
    """Lid triangles that are folded in some expressions and wide in others."""
    codes = torch.from_numpy(np.stack([arkit_code(**scores) for scores in FILL_CODES]))
    area = _areas(template.vertices(identity.expand(len(codes), -1), codes), template.triangles)
    folded = area.amax(0) > UNFOLDING * area[0]
    folded &= template.region_mask("lid_left", "lid_right")
    # Single ones are on the lid's edge: filled, they are dots of skin in a half-open eye.
    triangles = template.triangles.long()
    corners = torch.cat([triangles[folded][:, [0, 1]], triangles[folded][:, [1, 2]]]).numpy()
    edges = coo_matrix((np.ones(len(corners)), corners.T), shape=(len(template.neutral),) * 2)
    _, island = connected_components(edges, directed=False)
    of_face = torch.from_numpy(island).long()[triangles[:, 0]]
    size = torch.bincount(of_face[folded], minlength=int(of_face.max()) + 1)
    return folded & (size[of_face] >= MIN_LID_TRIANGLES)


def _areas(vertices: Float[Tensor, "*r v 3"], triangles: Tensor) -> Float[Tensor, "*r f"]:
    return 0.5 * triangle_normals(vertices[..., triangles.long(), :]).norm(dim=-1)


def _spread(
    placed: Tensor, triangles: Tensor, group: Tensor, spacing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Even points on every triangle where it is largest: triangle, barycentrics, code row.

    Places come from the R2 sequence (Roberts, "The unreasonable effectiveness of quasirandom
    sequences", 2018) folded into the triangle: even, and the same on every run.
    """
    area = _areas(placed, triangles)
    # The neutral face is preferred until another expression clearly stretches the triangle.
    area[1:] *= 0.8
    largest, row = area.max(0)
    expected = largest / spacing.square() * (group != LEFT_OUT)
    # Fractions add up along the mesh, so small triangles get a point now and then.
    total = expected.double().cumsum(0)
    count = total.round().long().diff(prepend=torch.zeros(1, dtype=torch.long))
    faces = torch.repeat_interleave(torch.arange(len(triangles)), count)
    k = torch.arange(len(faces), dtype=torch.float64)
    a, b = (0.5 + 0.7548776662466927 * k) % 1, (0.5 + 0.5698402909980532 * k) % 1
    fold = a + b > 1
    a, b = torch.where(fold, 1 - a, a), torch.where(fold, 1 - b, b)
    weights = torch.stack([1 - a - b, a, b], -1).float()
    return faces, weights, row[faces]


def _covered(
    neutral_and_opened: Tensor,
    template: HeadTemplate,
    group: Tensor,
    spacing: Tensor,
    faces: Tensor,
    weights: Tensor,
    pixel_triangles: Tensor,
    pixel_weights: Tensor,
    footprint_m: float,
) -> Bool[Tensor, "n"]:
    """Points whose surface a reference pixel already covers, in both expressions."""

    def in_both(triangles: Tensor, barycentrics: Tensor) -> np.ndarray:
        return torch.cat(
            [surface_points(v, template, triangles, barycentrics) for v in neutral_and_opened], -1
        ).numpy()

    covered = torch.zeros(len(faces), dtype=torch.bool)
    # Hair pixels follow a scalp triangle with faded weights and lie beside the surface, not on it.
    bound = (pixel_triangles >= 0) & (pixel_weights.sum(-1) > 0.99)
    for kind in range(LEFT_OUT):
        mine = (group[faces] == kind).nonzero()[:, 0]
        theirs = (bound & (group[pixel_triangles.clamp(min=0)] == kind)).nonzero()[:, 0]
        if not len(mine) or not len(theirs):
            continue
        points = in_both(pixel_triangles[theirs], pixel_weights[theirs])
        # Sooner made, and asked but once.
        tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
        distance, _ = tree.query(
            in_both(faces[mine], weights[mine]), distance_upper_bound=8 * footprint_m
        )
        # Twice the squared distance of one expression, as two are stacked.
        reach = np.sqrt(2) * (COVER_REACH * spacing[faces[mine]].numpy() + 0.5 * footprint_m)
        covered[mine] = torch.from_numpy(distance < reach)
    return covered


def _outside_mattes(
    views: ReferenceViews,
    template: HeadTemplate,
    faces: Tensor,
    weights: Tensor,
    hair: Tensor,
    footprint_m: float,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """How far each point is outside the matte that denies it most, pixels; and how flattened.

    Hair that a matte denies is tried flatter: the share of its thickness that it must give up.
    A picture says nothing of points beside or behind it, or where its photo ends; a point in no
    picture is infinitely far.
    """
    heads = template.vertices(views.identity.float().expand(len(views.codes), -1), views.codes)
    outside = [
        torch.from_numpy(distance_transform_edt(mask.numpy() <= SEEN_MASK))
        for mask in views.masks[:, 0]
    ]
    for row, vertices in enumerate(heads[:, template.region_vertices(*FACE_REGIONS)]):
        x, y, in_picture = pixels_under(views.cameras[row], vertices)
        if misses_face((outside[row][y, x] * in_picture * footprint_m).numpy()):
            outside[row] = torch.zeros_like(outside[row])
    if views.told is not None:
        outside = [one * told for one, told in zip(outside, views.told[:, 0], strict=True)]

    def distance(flattened: float, faces: Tensor, weights: Tensor) -> Float[Tensor, "n"]:
        farthest = torch.full((len(faces),), -1.0)
        for row, vertices in enumerate(heads + (1 - flattened) * hair):
            points = surface_points(vertices, template, faces, weights)
            x, y, in_picture = pixels_under(views.cameras[row], points)
            at = outside[row][y, x].float()
            farthest = torch.where(in_picture, torch.maximum(farthest, at), farthest)
        return torch.where(farthest < 0, torch.inf, farthest)

    shares, farthest = torch.zeros(len(faces)), distance(0.0, faces, weights)
    hairy = surface_points(hair, template, faces, weights).norm(dim=-1) > 0
    for share in FLATTENED:
        denied = (hairy & (farthest > HULL_MARGIN_PX)).nonzero()[:, 0]
        nearer = distance(share, faces[denied], weights[denied])
        better = nearer < farthest[denied]
        shares[denied[better]] = share
        farthest[denied[better]] = nearer[better]
    return farthest, shares
