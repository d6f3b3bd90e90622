"""Where a head alone ends: a plane through the neck, the same in photos, drawings and guesses."""

import numpy as np
from jaxtyping import Float

NECK_BELOW_CHIN_M = 0.03
"""How far under the chin of the resting face the neck is cut, in front."""

NECK_SLOPE = 0.25
"""The cut rises by this much per metre towards the nape."""


def height_over_chin_plane(
    points: Float[np.ndarray, "*n 3"], chin: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*n"]:
    """Signed height over the cutting plane lifted to the chin, head frame, metres."""
    return points[..., 1] - chin[1] - NECK_SLOPE * (chin[2] - points[..., 2])
