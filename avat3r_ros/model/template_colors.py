"""Colours of template Gaussians: what nobody has seen takes after what is next to it.

Skin continues the nearest seen colours over the mesh (a harmonic function, as heat spreads), and
hair those of hair; the hidden parts of an eye continue its seen ones; tongue and throat have
colours of their own, scaled by the photos' brightness. Teeth (teeth.py) and the texture of hair
(hair_texture.py) have files of their own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import ReferenceViews

SKIN, EYE, SOCKET, TEETH, TONGUE, INNER_MOUTH, LEFT_OUT = range(7)

REST_PULL, HAIR_REST_PULL = 1e-4, 0.15
"""Pull of far surfaces towards the usual colour; it also makes the system solvable everywhere. Hair
has it after 3 cm: what a photo shows of its rim, beside ears, is not what the back looks like."""

INTERIOR_COLORS = {
    "tongue": (0.66, 0.37, 0.36),
    "inner_mouth": (0.46, 0.19, 0.18),
    "eye": (0.86, 0.84, 0.82),
    "eye_sockets": (0.36, 0.22, 0.20),
}
"""sRGB under full light (ours, by eye)."""

SKIN_HUE, TINT = (1.30, 0.92, 0.78), ((1.0, 0.8, 0.5), (1.5, 1.1, 1.0))
"""Usual colour of skin relative to its brightness, and limits of what skin says of the light's."""

INTERIOR_LIGHT_DEPTH_M, INTERIOR_HALF_WIDTH_M = 0.025, 0.035
"""Behind the front of the teeth tongue and throat lose light by 1/e over this depth, and half of it
this far from the middle: lips and teeth are in its way."""

DARKEST_INTERIOR = 0.3
"""Light that is left at least: a mouth is dark red inside, and not black."""

WARMING = (1.0, 1.35, 1.4)
"""Powers of the light that is left, by channel: what red walls throw on is red."""

MIN_HAIR_PIXELS, NEAR_SEEN_M, NEAR_HAIR_M = 100, 0.015, 0.004
"""Fewer pixels do not tell what hair looks like where nobody saw it; nearer to anything seen bare
skin and hair go on with its colours, whatever it is."""

EYE_NEIGHBORS, EYE_REACH_M = 5, 0.007
"""Hidden parts of an eye mix the colours of this many seen pixels, out to about this distance;
farther on they are white."""

EYE_SOFTNESS_M = 3e-4
"""Added to the distances by which they are mixed."""


def surface_groups(template: HeadTemplate) -> Int[Tensor, "f"]:
    """Group of every triangle: what can cover what, and where colours come from."""
    of_region = {
        "eye_left": EYE,
        "eye_right": EYE,
        "eye_sockets": SOCKET,
        "teeth": TEETH,
        "tongue": TONGUE,
        "inner_mouth": INNER_MOUTH,
        "eyelashes": LEFT_OUT,
    }
    table = torch.tensor([of_region.get(name, SKIN) for name in REGIONS])
    return table[template.triangle_regions.long()]


def groups_of_pixels(views: ReferenceViews, template: HeadTemplate) -> Int[Tensor, "v h w"]:
    """`surface_groups` of what every reference pixel shows, -1 off the template."""
    triangles = views.binding.triangle_ids.long()
    return torch.where(triangles >= 0, surface_groups(template)[triangles.clamp(min=0)], -1)


def in_mouth(group: Int[Tensor, "*p"]) -> Bool[Tensor, "*p"]:
    """Which surface groups are inside the mouth."""
    return (group == TEETH) | (group == TONGUE) | (group == INNER_MOUTH)


def brightness(colors: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p"]:
    """Mean of the channels."""
    return colors.mean(-1)


def saturation(colors: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p"]:
    """As in HSV."""
    return 1 - colors.amin(-1) / colors.amax(-1).clamp(min=1e-3)


def surface_points(
    vertices: Float[Tensor, "nv c"],
    template: HeadTemplate,
    faces: Int[Tensor, "n"],
    weights: Float[Tensor, "n 3"],
) -> Float[Tensor, "n c"]:
    """Points, or other values of vertices, at barycentric places of the template's triangles."""
    corners = template.triangles[faces].long()
    return torch.nn.functional.embedding_bag(
        corners, vertices, mode="sum", per_sample_weights=weights
    )


def summed_at_vertices(
    count: int,
    corners: Int[Tensor, "p 3"],
    weights: Float[Tensor, "p 3"],
    values: Float[Tensor, "p c"],
) -> Float[Tensor, "nv c"]:
    """Sums over the pixels around each of `count` vertices, by barycentrics."""
    shares = weights[..., None] * values[:, None]
    total = torch.zeros(count, values.shape[1])
    return total.index_add_(0, corners.flatten(), shares.flatten(0, 1))


def vertex_adjacency(count: int, triangles: Int[Tensor, "f 3"]) -> csr_matrix:
    """How many triangles each two of `count` vertices share."""
    edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).numpy()
    edges = np.concatenate([edges, edges[:, ::-1]])
    return coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()


def light_left(behind_m: Float[Tensor, "n"], depth_m: float) -> Float[Tensor, "n 3"]:
    """Share of the light, by channel, that is left so far behind the front of the mouth.

    Args:
        behind_m: Distances, at least 0.
        depth_m: Over which light falls by 1/e.
    """
    left = torch.exp(-behind_m / depth_m).clamp(min=DARKEST_INTERIOR)
    return left[:, None] ** torch.tensor(WARMING)


@dataclass(frozen=True)
class ColorSources:
    """Pixels, and which of them tell what surfaces next to them look like.

    Attributes:
        colors: Of the pixels.
        triangle_ids: Their triangles of the template, -1 off it.
        barycentrics: Their places on the triangles.
        lend: Whether they lend their colour.
    """

    colors: Float[Tensor, "p 3"]
    triangle_ids: Int[Tensor, "p"]
    barycentrics: Float[Tensor, "p 3"]
    lend: Bool[Tensor, "p"]

    def of_light(self) -> Float[Tensor, "q 3"]:
        """Colours that tell how bright the photos are: those that are lent, if there are any."""
        return self.colors[self.lend] if bool(self.lend.any()) else self.colors


def fill_colors(
    neutral: Tensor,
    template: HeadTemplate,
    group: Tensor,
    sources: ColorSources,
    hairy: Float[Tensor, "nv"],
    faces: Tensor,
    weights: Tensor,
) -> Float[Tensor, "n 3"]:
    """Colour template Gaussians other than teeth.

    Args:
        neutral: Vertices of the person at rest.
        template: Head template.
        group: `surface_groups` of it.
        sources: Pixels that lend their colours.
        hairy: Which vertices are under hair, in [0, 1].
        faces: Triangles of the points to colour.
        weights: Their barycentrics.
    """
    pixel_triangles, pixel_weights = sources.triangle_ids, sources.barycentrics
    inside = sources.lend
    on_skin = inside & (group[pixel_triangles.clamp(min=0)] == SKIN)
    if not bool(on_skin.any()):
        on_skin = torch.ones_like(inside)
    skin = sources.colors[on_skin]
    light = photo_light(skin)

    colors = torch.zeros(len(faces), 3)
    for kind, name in (
        (TONGUE, "tongue"),
        (INNER_MOUTH, "inner_mouth"),
        (EYE, "eye"),
        (SOCKET, "eye_sockets"),
    ):
        colors[group[faces] == kind] = light * torch.tensor(INTERIOR_COLORS[name])
    inner = (group[faces] == TONGUE) | (group[faces] == INNER_MOUTH)
    if bool(inner.any()):
        points = surface_points(neutral, template, faces[inner], weights[inner])
        teeth = template.triangles[group == TEETH].long()
        front = neutral[teeth if len(teeth) else template.triangles[faces[inner]].long()]
        behind = (front[..., 2].max() - points[:, 2]).clamp(min=0)
        aside = 1 / (1 + (points[:, :1] / INTERIOR_HALF_WIDTH_M).square())
        colors[inner] *= light_left(behind, INTERIOR_LIGHT_DEPTH_M) * aside
    on_eye = inside & (group[pixel_triangles.clamp(min=0)] == EYE)
    hidden = group[faces] == EYE
    if int(on_eye.sum()) >= EYE_NEIGHBORS and bool(hidden.any()):
        colors[hidden] = _continued_eye(
            surface_points(neutral, template, pixel_triangles[on_eye], pixel_weights[on_eye]),
            sources.colors[on_eye],
            surface_points(neutral, template, faces[hidden], weights[hidden]),
        )
    on = group[faces] == SKIN
    if bool(on.any()):
        use = on_skin & (pixel_triangles >= 0)
        per_vertex = _skin_colors(
            neutral, template, group == SKIN, hairy, pixel_triangles[use], pixel_weights[use],
            sources.colors[use], skin.mean(0),
        )  # fmt: skip
        colors[on] = surface_points(per_vertex, template, faces[on], weights[on])
    return colors


def photo_light(skin: Float[Tensor, "p 3"]) -> Float[Tensor, "3"]:
    """How white looks in photos that show the skin like this: the brightest skin is near it.

    Skin of a warmer hue than most tells half of the light's colour; of a cooler one, nothing: there
    are shadows and pale people.
    """
    white = float(np.clip(np.quantile(skin.amax(-1).numpy(), 0.97) / 0.9, 0.35, 1.0))
    hue = skin.median(0).values / brightness(skin.median(0).values).clamp(min=1e-3)
    least, most = torch.tensor(TINT)
    tint = torch.maximum(torch.minimum(hue / torch.tensor(SKIN_HUE), most), least) ** 0.5
    return white * tint / brightness(tint)


def _continued_eye(
    seen_points: Float[Tensor, "p 3"],
    seen_colors: Float[Tensor, "p 3"],
    hidden: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    """Colours of hidden parts of the eyes: the nearest seen ones, then the white of the eye."""
    light = seen_colors.sum(-1)
    white = seen_colors[light >= torch.quantile(light, 0.8)].mean(0)
    return neighbors_colors(
        seen_points,
        seen_colors,
        hidden,
        white,
        count=EYE_NEIGHBORS,
        softness_m=EYE_SOFTNESS_M,
        reach_m=EYE_REACH_M,
    )


def neighbors_colors(
    seen_points: Float[Tensor, "p 3"],
    seen_colors: Float[Tensor, "p 3"],
    points: Float[Tensor, "n 3"],
    others: Float[Tensor, "*each 3"],
    *,
    count: int,
    softness_m: float,
    reach_m: float,
) -> Float[Tensor, "n 3"]:
    """Colours of points: those of their nearest seen ones, and others where these are far.

    Args:
        seen_points: At least one.
        seen_colors: Their colours.
        points: To be coloured.
        others: Colours far from all seen points; one, or one for each point.
        count: Seen points that are mixed, by the inverse of their distances.
        softness_m: Added to these distances.
        reach_m: Mean distance at which the share of the seen ones has fallen to 1/e.
    """
    count = min(count, len(seen_points))
    distance, nearest = cKDTree(seen_points.numpy()).query(points.numpy(), k=count)
    distance = torch.from_numpy(distance).float().view(len(points), count)
    nearest = torch.from_numpy(nearest).view(len(points), count)
    weight = 1 / (distance + softness_m)
    near = (seen_colors[nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
    share = torch.exp(-((distance.mean(1, keepdim=True) / reach_m) ** 2))
    return share * near + (1 - share) * others


def _skin_colors(
    neutral: Float[Tensor, "nv 3"],
    template: HeadTemplate,
    skin: Bool[Tensor, "f"],
    hairy: Float[Tensor, "nv"],
    faces: Int[Tensor, "p"],
    weights: Float[Tensor, "p 3"],
    colors: Float[Tensor, "p 3"],
    rest: Float[Tensor, "3"],
) -> Float[Tensor, "nv 3"]:
    """Colours of the outer skin's vertices: hair is like seen hair, and skin like seen skin.

    Hair ends at a line, and does not fade into the neck over the whole back of the head. Near seen
    surfaces both take after these. Farther off, pixels under hair that look more like skin do not
    speak for it: foreheads and ears, where the fit is a little wrong, would dye the back.
    """
    triangles = template.triangles.long()

    def spread(use: Bool[Tensor, "p"], rest: Float[Tensor, "3"], pull: float) -> Tensor:
        return _spread_colors(
            len(neutral), triangles[skin], triangles[faces[use]], weights[use], colors[use], rest,
            pull,
        )  # fmt: skip

    joint = spread(torch.ones_like(faces, dtype=torch.bool), rest, REST_PULL)
    on_hair = surface_points(hairy[:, None], template, faces, weights)[:, 0] > 0.5
    if min(int(on_hair.sum()), int((~on_hair).sum())) < MIN_HAIR_PIXELS:
        return joint
    bare = spread(~on_hair, colors[~on_hair].mean(0), REST_PULL)
    to_hair, to_skin = (
        (colors - colors[some].median(0).values).norm(dim=-1) for some in (on_hair, ~on_hair)
    )
    like_hair = on_hair & (to_hair <= to_skin)
    if int(like_hair.sum()) < MIN_HAIR_PIXELS:
        like_hair = on_hair
    hair = spread(like_hair, colors[like_hair].median(0).values, HAIR_REST_PULL)
    points = surface_points(neutral, template, faces, weights).numpy()
    # Sooner made, and asked but once.
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(neutral.numpy())
    hair, bare = (
        other.lerp(joint, torch.from_numpy(np.exp(-((distance / reach) ** 2))).float()[:, None])
        for other, reach in ((hair, NEAR_HAIR_M), (bare, NEAR_SEEN_M))
    )
    return hairy[:, None] * hair + (1 - hairy[:, None]) * bare


def _spread_colors(
    num_vertices: int,
    triangles: Int[Tensor, "f 3"],
    corners: Int[Tensor, "p 3"],
    corner_weights: Float[Tensor, "p 3"],
    colors: Float[Tensor, "p 3"],
    rest: Float[Tensor, "3"],
    pull: float,
) -> Float[Tensor, "nv 3"]:
    """Colours of all vertices: seen ones average their pixels, the others their neighbours.

    Args:
        num_vertices: Of the template.
        triangles: The surface colours spread over.
        corners: Vertices of the triangle each pixel lies on.
        corner_weights: Barycentrics of the pixels.
        colors: Colours of the pixels.
        rest: Colour of parts that no seen colour reaches.
        pull: Towards it, next to 1 for each neighbour.
    """
    counted = torch.nn.functional.pad(colors, (0, 1), value=1.0)
    total = summed_at_vertices(num_vertices, corners, corner_weights, counted)
    total, weight = total[:, :3], total[:, 3]
    known = (weight > 0.5).numpy()
    values = np.broadcast_to(rest.double().numpy(), (num_vertices, 3)).copy()
    values[known] = (total[known] / weight[known, None]).numpy()
    adjacency = vertex_adjacency(num_vertices, triangles)
    free = (~known).nonzero()[0]
    if not len(free):
        return torch.from_numpy(values).float()
    degree = np.asarray(adjacency.sum(1))[:, 0]
    rows = adjacency[free]
    system = diags(degree[free] + pull) - rows[:, free]
    pull = rows[:, known.nonzero()[0]] @ values[known] + pull * rest.double().numpy()
    values[free] = spsolve(system.tocsc(), pull).reshape(len(free), 3)
    return torch.from_numpy(values).float().clamp(0, 1)
