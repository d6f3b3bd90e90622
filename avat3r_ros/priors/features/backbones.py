"""Vision transformers of the package `transformers`: DINOv2 and Sapiens2."""

from pathlib import Path

import torch
from torch import Tensor

from avat3r_ros.priors.features.extractor import FeatureExtractor
from avat3r_ros.priors.networks import APACHE, SAPIENS2, load_published

_CLASSES = {"dinov2": "Dinov2Backbone", "sapiens2": "Sapiens2Backbone"}
_LICENCES = {"dinov2": APACHE, "sapiens2": SAPIENS2}


def load_backbone(
    kind: str,
    folder: str | Path,
    *,
    input_size: int | None = None,
    device: torch.device | str = "cpu",
) -> FeatureExtractor:
    """Load DINOv2 or Sapiens2; features are those of the last layer, normalised as published.

    Args:
        kind: "dinov2" or "sapiens2".
        folder: As the model hub lays it out, e.g. `facebook/dinov2-small`.
        input_size: Side of its input; the longer side it was trained on if None. More: finer
            features, at a cost that grows with the fourth power.
        device: Where the network is put.

    Raises:
        ValueError: Unknown kind, another kind of network in the folder, or unusable weights.
        FileNotFoundError: The folder or its files are absent.
        RuntimeError: The package `transformers` is absent.
    """
    if kind not in _CLASSES:
        raise ValueError(f"unknown backbone {kind!r}, expected one of {sorted(_CLASSES)}")
    published = load_published(folder, {kind: _CLASSES[kind]}, device)
    config = published.config
    trained = config.image_size
    size = input_size or (trained if isinstance(trained, int) else max(trained))

    def last_features(images: Tensor) -> Tensor:
        return published.model(images).feature_maps[-1]

    return FeatureExtractor(
        name=f"{kind} {config.num_hidden_layers}x{config.hidden_size}",
        channels=config.hidden_size,
        stride=config.patch_size,
        input_size=size,
        normalisation=published.normalisation,
        licence=_LICENCES[kind],
        network=last_features,
        device=torch.device(device),
    )
