"""Back-ends of the position maps by name, ready to be called on crops.

A back-end is imported and its weights are read only when it is chosen.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from avat3r_ros.model_files import find_model
from avat3r_ros.priors import template
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import HeadCrops, ReferenceViews

PositionPrior = Callable[[HeadCrops, HeadTemplate], ReferenceViews]
"""What every back-end is to its caller."""

POSITION_PRIORS = ("template", "dust3r")


def position_prior(
    name: str,
    weights: str | Path | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> PositionPrior:
    """Make a position-map back-end ready.

    Args:
        name: One of `POSITION_PRIORS`.
        weights: The back-end's weights; where `model_files` keeps them if None. The template
            needs none.
        progress: Called with the fraction done in [0, 1] by back-ends that take long.

    Raises:
        ValueError: Unknown name, weights for a back-end without any, or unusable weights.
        FileNotFoundError: There are no weights; the message says how to get them.
    """
    if name == "template":
        if weights is not None:
            raise ValueError(f"position maps from the template need no weights, got {weights}")
        return template.position_maps
    if name == "dust3r":
        from avat3r_ros.priors.dust3r import load_dust3r
        from avat3r_ros.priors.dust3r.position_maps import position_maps

        path = weights if weights is not None else find_model("dust3r")
        network = load_dust3r(path, device=best_device())
        return partial(position_maps, network=network, progress=progress)
    raise ValueError(f"unknown position maps {name!r}, expected one of {POSITION_PRIORS}")


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
