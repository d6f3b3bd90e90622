"""The neck below the photos' cut: it goes on as far as the template does, and ends softly.

References are cut 3 cm under the chin. What is drawn of them ends there, too, in a fringe of discs,
and a head without a neck floats. Below, nothing is known: colours and hair go on as they are above,
and no matte is asked.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.framing import NECK_BELOW_CHIN_M, height_over_chin_plane

END_BELOW_CHIN_M, FADE_M = 0.058, 0.025
"""The neck is gone so far under the chin, measured as its cut is, and fades over this height. Its
mesh ends at 63 mm."""

NECK_SIGMA = 1.3
"""Standard deviation of a disc below the cut in spacings: wide, or the soft end is a fringe."""

LAYERS = 2 * np.pi * NECK_SIGMA**2
"""Discs that lie over each place there."""

SHOWN_M, NEIGHBORS = (0.004, 0.02), 8
"""Hair below the cut is as thick as the median of so many vertices near to it between these heights
over the cut: a dark shadow on one of them would become a strand."""


def height_over_cut(
    points: Float[Tensor, "*n 3"], template: HeadTemplate, neutral: Float[Tensor, "nv 3"]
) -> Float[Tensor, "*n"]:
    """Signed height over the plane where references are cut, metres.

    Args:
        points: Of the resting head, head frame.
        template: Head template.
        neutral: Its vertices, shaped as the person at rest.
    """
    chin = template.landmarks(neutral)[CHIN_LANDMARK].numpy()
    height = height_over_chin_plane(points.numpy(), chin) + NECK_BELOW_CHIN_M
    return torch.from_numpy(height).float()


def neck_opacity(over_cut: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Opacity of discs by their height over the cut, such that all together fade evenly."""
    share = (over_cut - NECK_BELOW_CHIN_M + END_BELOW_CHIN_M) / FADE_M
    share = share.clamp(0, 1)
    return 1 - (1 - share * share * (3 - 2 * share)) ** (1 / LAYERS)


def hair_going_on(
    hair: Float[Tensor, "nv 3"],
    over_cut: Float[Tensor, "nv"],
    template: HeadTemplate,
    neutral: Float[Tensor, "nv 3"],
) -> Float[Tensor, "nv 3"]:
    """Make hair below the cut like that on the neck above it.

    Args:
        hair: How far it stands off each vertex, metres.
        over_cut: `height_over_cut` of the vertices.
        template: Head template.
        neutral: Its vertices, shaped as the person at rest.
    """
    low, high = SHOWN_M
    below = (over_cut < low).nonzero()[:, 0]
    shown = ((over_cut >= low) & (over_cut < high)).nonzero()[:, 0]
    shown = shown[torch.isin(shown, torch.from_numpy(template.region_vertices("neck")))]
    if not len(below) or len(shown) < NEIGHBORS:
        return hair
    _, nearest = cKDTree(neutral[shown]).query(neutral[below], k=NEIGHBORS)
    hair = hair.clone()
    hair[below] = hair[shown[torch.from_numpy(nearest)]].median(1).values
    return hair
