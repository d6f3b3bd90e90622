"""Back-ends by name, ready to be called: where pixels lie, and what a network makes of them.

A back-end is imported and its weights are read only when it is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from avat3r_ros.model_files import find_model
from avat3r_ros.priors import template
from avat3r_ros.priors.features import FeatureExtractor, load_backbone, load_sapiens
from avat3r_ros.priors.networks import DUST3R, Licence
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import HeadCrops, ReferenceViews


@dataclass(frozen=True)
class PositionPrior:
    """What every position-map back-end is to its caller: crops and head template in, views out.

    Attributes:
        name: Of the back-end and its network; kept in avatars.
        licence: Of weights that do not ship with this package; None if there are none.
        function: What is called.
    """

    name: str
    licence: Licence | None
    function: Callable[[HeadCrops, HeadTemplate], ReferenceViews]

    def __call__(self, crops: HeadCrops, template: HeadTemplate) -> ReferenceViews:
        """Place every pixel of the crops in the head frame."""
        return self.function(crops, template)


TEMPLATE = PositionPrior("template", None, template.position_maps)
"""The default."""

POSITION_PRIORS = ("template", "dust3r", "depth")
FEATURES = ("none", "sapiens", "sapiens2", "dinov2")

Progress = Callable[[float], None]


def position_prior(
    name: str,
    weights: str | Path | None = None,
    *,
    cameras_known: bool = True,
    progress: Progress | None = None,
) -> PositionPrior:
    """Make a position-map back-end ready.

    Args:
        name: One of `POSITION_PRIORS`.
        weights: For "dust3r" a file, searched for if None (model_files.py); for "depth" a folder.
        cameras_known: "dust3r" keeps the template fit's cameras; False lets it find its own.
        progress: Called with the fraction done in [0, 1] by back-ends that take long.

    Raises:
        ValueError: Unknown name, weights for a back-end without any, or unusable weights.
        FileNotFoundError: There are no weights; the message says how to get them.
        RuntimeError: A package the back-end needs is absent.
    """
    if name not in POSITION_PRIORS:
        raise ValueError(f"unknown position maps {name!r}, expected one of {POSITION_PRIORS}")
    if name == "template":
        if weights is not None:
            raise ValueError(f"position maps from the template need no weights, got {weights}")
        return TEMPLATE
    if name == "dust3r":
        from avat3r_ros.priors.dust3r import load_dust3r
        from avat3r_ros.priors.dust3r import position_maps as dust3r

        path = weights if weights is not None else find_model("dust3r")
        network = load_dust3r(path, device=best_device())
        function = partial(
            dust3r.position_maps, network=network, cameras_known=cameras_known, progress=progress
        )
        return PositionPrior("dust3r", DUST3R, function)
    from avat3r_ros.priors import depth
    from avat3r_ros.priors.depth_models import load_depth

    if weights is None:
        raise FileNotFoundError(
            "position maps from depth need the folder of a depth network, such as "
            "Depth-Anything-V2-Small-hf (Apache-2.0); docs/priors.md says how to get one"
        )
    estimator = load_depth(weights, device=best_device())
    function = partial(depth.position_maps, estimator=estimator, progress=progress)
    return PositionPrior(estimator.name, estimator.licence, function)


def feature_extractor(
    name: str, weights: str | Path | None = None, *, input_size: int | None = None
) -> FeatureExtractor | None:
    """Make a feature back-end ready; None for "none".

    Args:
        name: One of `FEATURES`.
        weights: For "sapiens" a TorchScript file, for the others a folder of the model hub.
        input_size: Side of its input in pixels; what it was trained on if None.

    Raises:
        ValueError: Unknown name, weights for "none", or unusable weights.
        FileNotFoundError: There are no weights.
        RuntimeError: A package the back-end needs is absent.
    """
    if name not in FEATURES:
        raise ValueError(f"unknown features {name!r}, expected one of {FEATURES}")
    if name == "none":
        if weights is not None:
            raise ValueError(f"no features were chosen, so weights are not needed, got {weights}")
        return None
    if weights is None:
        raise FileNotFoundError(
            f"features of {name} need their weights; docs/priors.md says how to get them and under "
            "which licence"
        )
    options = {} if input_size is None else {"input_size": input_size}
    if name == "sapiens":
        return load_sapiens(weights, device=best_device(), **options)
    return load_backbone(name, weights, device=best_device(), **options)


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
