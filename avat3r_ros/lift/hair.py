"""Hair over the head: a shell whose thickness and extent one photo shows here and there.

The outline of the matte tells its thickness, colour tells where it ends over the brows; the learned
looks of heads tell the rest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from avat3r_ros.lift.long_hair import hanging_hair
from avat3r_ros.lift.photo import NO_FACING_HAIR, PhotoOnHead
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.priors.hair import covered_vertices, hair_thickness, observe_hair
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.fields import follow
from avat3r_ros.rig.looks import (
    HAIR_CHANNELS,
    HAIR_NOISE,
    OUTER_REGIONS,
    THICKNESS_UNIT_M,
    Components,
    mirrored_vertices,
)

CHEEKS_END_Z_M = -0.085
"""Depth on the mean head at which the cheeks end, before the ears."""

STRAND_M = 0.008
"""Hair over skin and neck is thicker than this; less beyond their outline is the fit's error."""

ABOVE_BROWS_M, TYPICAL_APART, COLOR_SPREAD = 0.008, 0.6, 0.3
"""From this height over the brows log colours tell hair from skin by what they are nearer to; where
no hair stands off the head, the usual distance of the two decides. The last is the spread of
either."""

OVER_BROWS_M, MIN_HAIR_PIXELS, LIKE_HAIR = 0.03, 50, 0.6
"""What hangs beside the face is hair if its log colour is this near to that of at least so many
pixels beyond the outline of the skull; collars and shoulders are not."""

UNLIKE_SKIN, MIN_UNLIKE = 0.6, 0.2
"""Log colours beside a forehead that are this far from the face's are hair, and no skin; where
fewer are, they are its shaded rim."""

SURELY = 0.5
"""How sure colour must be that a forehead is bare where nothing above it shows."""

OUTLINE_WEIGHT, COLOR_WEIGHT = 0.3, 0.1
"""Independent observations that a vertex counts as: neighbours tell the same."""

SMOOTHNESS, EVENNESS = 0.1, 2.0
"""Of the field that follows the photo, and of the border of hair."""

BARE_EARS = 0.5
"""Ears are bare if so much of what shows of them looks like skin."""

COVERED_EAR, HIDDEN_EAR = 0.6, 0.5
"""An ear of whose visible part more is behind hair is covered; one of which more looks away is
hidden."""


@dataclass(frozen=True)
class Shell:
    """Hair over one head.

    Attributes:
        present: Whether hair lies over each vertex.
        thickness_m: How far it reaches along the coarse normals; over bare skin, what the fitted
            skull lacks.
        color: Median log colour of hair beside a face whose crown the photo cuts off, if any shows.
    """

    present: Bool[np.ndarray, "v"]
    thickness_m: Float[np.ndarray, "v"]
    color: Float[np.ndarray, "3"] | None = None


def find_hair(photo: PhotoOnHead, looks: Components) -> Shell:
    """Find the hair of a head, drawn bald in its photo.

    Args:
        photo: The photo on its head.
        looks: `HeadLooks.hair`.
    """
    template, view = photo.template, photo.view
    count = len(template.neutral)
    outer, hairy = template.region_vertices(*OUTER_REGIONS), _hairy(template)
    colored, by_color = _by_color(photo)
    whole = view.mask
    view.mask = np.where(_not_hair(photo), 0.0, whole)
    thickness, valid = observe_hair(view, photo.normals, outer, hairy)
    beside_scalp = np.ones(count, bool)
    beside_scalp[template.region_vertices("scalp")] = False
    thickness[beside_scalp & (thickness < STRAND_M)] = 0
    # Ears stand off as the fit does not know, collars off the neck; `hanging_hair` looks there.
    valid[template.region_vertices("ears", "neck")] = False
    thick = valid & (thickness > 0)

    observed, weights = np.zeros((count, HAIR_CHANNELS)), np.zeros((count, HAIR_CHANNELS))
    # Cropped hair has no thickness that an outline shows, so only its colour denies it.
    observed[:, 0] = np.where(thick, 1.0, colored)
    weights[:, 0] = OUTLINE_WEIGHT * thick + COLOR_WEIGHT * by_color
    observed[:, 1] = thickness / THICKNESS_UNIT_M
    weights[:, 1] = OUTLINE_WEIGHT * valid
    guess = looks.complete(observed, weights / HAIR_NOISE**2)

    # Where the photo shows hair there is some, and its surroundings follow.
    first = slice(0, 1)
    presence = follow(
        guess[:, first], observed[:, first], weights[:, 0], photo.laplacian, SMOOTHNESS
    )
    even = follow(np.zeros((count, 1)), presence, np.ones(count), photo.laplacian, EVENNESS)
    present = hairy & (even[:, 0] > 0.5)
    if photo.cuts_crown:
        # Else a bare forehead that ends with the photo would say how the hair looks.
        present &= ~((by_color > SURELY) & (colored == 0))
    # Over bald skin the shell is what the fitted skull lacks.
    covered = covered_vertices([view], template, photo.normals, photo.laplacian)
    covered[template.region_vertices("ears", "neck")] = False
    metres = hair_thickness([view], template, photo.normals, looks, present | covered)
    view.mask = whole
    hanging = hanging_hair(photo)
    if photo.cuts_crown and (bare := _bare_ears(photo)).any():
        present[bare] = False
        metres[bare] = hanging[:] = 0
    present |= hanging > 0
    present |= _like_the_other_side(photo, present)
    color = _hair_color(photo) if photo.cuts_crown else None
    return Shell(present, np.maximum(metres, hanging), color)


def _like_the_other_side(
    photo: PhotoOnHead, present: Bool[np.ndarray, "v"]
) -> Bool[np.ndarray, "v"]:
    """Vertices that a turned photo hides, and over whose mirror images it shows hair."""
    template, view = photo.template, photo.view
    facing = view.facing(view.vertices, photo.normals)
    shown = facing > NO_FACING_HAIR
    alike = (facing < 0) & (shown & present)[mirrored_vertices(template)]
    # Of ears hair shows in front of them, as a shell does not cover them.
    row, column, _, _ = view.pixels_of(view.vertices.astype(np.float64))
    in_hair = shown & view.hair[row, column]
    ears = template.region_vertices("ears")
    left = view.vertices[ears, 0] > 0
    for ear, other in ((ears[left], ears[~left]), (ears[~left], ears[left])):
        covered = in_hair[ear].sum() > COVERED_EAR * shown[ear].sum()
        if covered and (facing[other] < 0).mean() > HIDDEN_EAR:
            alike[other] = True
    return alike


def _bare_ears(photo: PhotoOnHead) -> Bool[np.ndarray, "v"]:
    """Vertices of both ears, if those that the photo shows look like skin; else none."""
    view = photo.view
    ears = photo.template.region_vertices("ears")
    facing = view.facing(view.vertices[ears], photo.normals[ears])
    row, column, inside, _ = view.pixels_of(view.vertices[ears].astype(np.float64))
    shown = inside & photo.solid[row, column] & (facing > NO_FACING_HAIR)
    from_skin = np.linalg.norm(photo.log_photo[row, column] - photo.skin_color(), axis=1)
    bare = np.zeros(len(view.vertices), bool)
    bare[ears] = (shown & (from_skin < UNLIKE_SKIN)).sum() > BARE_EARS * max(shown.sum(), 1)
    return bare


def _hairy(template: HeadTemplate) -> Bool[np.ndarray, "v"]:
    """Vertices that may carry hair: beside the cheeks only the fit's errors stand off."""
    hairy = np.zeros(len(template.neutral), bool)
    hairy[template.region_vertices(*OUTER_REGIONS)] = True
    rest = template.neutral.double().numpy()
    cheeks = template.region_vertices("skin", "brows")
    brows = rest[template.region_vertices("brows"), 1].max()
    hairy[cheeks[(rest[cheeks, 1] < brows) & (rest[cheeks, 2] > CHEEKS_END_Z_M)]] = False
    return hairy


def _top_of_brows(photo: PhotoOnHead) -> float:
    return float(photo.view.vertices[photo.template.region_vertices("brows"), 1].max())


def _not_hair(photo: PhotoOnHead) -> Bool[np.ndarray, "h w"]:
    """Pixels beside the head, below the brows, that look unlike what stands over its top."""
    view = photo.view
    below = ~view.on_mesh & (view.mask > SEEN_MASK)
    below &= view.points[..., 1] < _top_of_brows(photo) + ABOVE_BROWS_M
    hair = _hair_color(photo)
    if hair is None:
        return below
    to_hair, to_skin = (
        np.linalg.norm(photo.log_photo - color, axis=-1) for color in (hair, photo.skin_color())
    )
    return below & (to_hair > np.minimum(to_skin, LIKE_HAIR))


def _hair_color(photo: PhotoOnHead) -> Float[np.ndarray, "3"] | None:
    """Median log colour of what stands over the top of the bald head, if enough does.

    Where the photo ends before the top, of what is unlike skin beside the forehead.
    """
    view = photo.view
    over = ~view.on_mesh & photo.solid
    if photo.cuts_crown:
        over &= view.points[..., 1] > _top_of_brows(photo)
        unlike = np.linalg.norm(photo.log_photo - photo.skin_color(), axis=-1) > UNLIKE_SKIN
        if (over & unlike).sum() < MIN_UNLIKE * over.sum():
            return None
        over &= unlike
    else:
        over &= view.points[..., 1] > _top_of_brows(photo) + OVER_BROWS_M
    return np.median(photo.log_photo[over], axis=0) if over.sum() >= MIN_HAIR_PIXELS else None


def _by_color(photo: PhotoOnHead) -> tuple[Float[np.ndarray, "v"], Float[np.ndarray, "v"]]:
    """Whether a vertex over the brows looks like hair, and how surely, [0, 1] each."""
    _, colors = photo.look()
    upper = np.zeros(len(colors), bool)
    upper[photo.template.region_vertices("scalp", "skin")] = True
    upper &= photo.view.vertices[:, 1] > _top_of_brows(photo) + ABOVE_BROWS_M
    from_skin = np.linalg.norm(colors - photo.skin_color(), axis=1)
    hair = _hair_color(photo)
    from_hair = (
        2 * TYPICAL_APART - from_skin if hair is None else np.linalg.norm(colors - hair, axis=1)
    )
    share = 1 / (1 + np.exp((from_hair**2 - from_skin**2) / (2 * COLOR_SPREAD**2)))
    return (share > 0.5).astype(float), photo.hair_trust() * upper * np.abs(2 * share - 1)
