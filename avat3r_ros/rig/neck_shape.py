"""Shapes of the neck that identities lack: how wide and how thick it is, and where it stands.

In the template's identities a neck follows from the head above it. Real ones do not, and how a
head is carried moves its neck to the front or to a side. Four more coefficients, after those of the
identity, say so.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

NECK_SHAPES = ("wider", "thicker", "to its left", "to the front")
"""What each coefficient does at 1, by `UNIT_M` where the neck is free."""

UNIT_M = 0.005
HALF_WIDTH_M, HALF_DEPTH_M = 0.055, 0.06
"""Of the mean neck, to both sides of its axis."""

AXIS_Z_M = -0.115
"""The mean neck's axis, head frame."""

FREE_FROM_M = 0.02
"""So far from jaw, ears and scalp the neck moves freely; at them it stays where it is."""


def neck_basis(
    neutral: Float[Tensor, "v 3"], neck: Int[np.ndarray, "n"], others: Int[np.ndarray, "m"]
) -> Float[Tensor, "4 v 3"]:
    """Change of the vertices per unit of each of `NECK_SHAPES`, metres.

    Args:
        neutral: Mean head, head frame, metres.
        neck: Vertices of the neck.
        others: Of what is around it.
    """
    points = neutral.double().numpy()
    distance, _ = cKDTree(points[others]).query(points[neck])
    share = (distance / FREE_FROM_M).clip(0, 1)
    share *= UNIT_M * share * (3 - 2 * share)
    basis = np.zeros((len(NECK_SHAPES), *points.shape))
    basis[0, neck, 0] = share * points[neck, 0] / HALF_WIDTH_M
    basis[1, neck, 2] = share * (points[neck, 2] - AXIS_Z_M) / HALF_DEPTH_M
    basis[2, neck, 0] = share
    basis[3, neck, 2] = share
    return torch.from_numpy(basis).float()
