"""Sapiens encoders as the authors publish them for inference: TorchScript files.

Facts of the release (Khirodkar et al., "Sapiens: Foundation for Human Vision Models", ECCV 2024):
patches of 16 pixels, 1024 x 1024 input, 64 x 64 features. A TorchScript file is a program: its
author decides what it computes, so use only files from the publisher.
"""

from pathlib import Path

import torch
from torch import Tensor

from avat3r_ros.priors.features.extractor import FeatureExtractor
from avat3r_ros.priors.networks import NON_COMMERCIAL, Normalisation, load_torchscript

SIZES = {1024: "0.3B", 1280: "0.6B", 1536: "1B", 1920: "2B"}
"""Channels of the published encoders. Others load as well, named by their channels."""

INPUT_SIZE = 1024
NORMALISATION = Normalisation(
    (123.5 / 255, 116.5 / 255, 103.5 / 255), (58.5 / 255, 57.0 / 255, 57.5 / 255)
)


def load_sapiens(
    path: str | Path, *, input_size: int = INPUT_SIZE, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Load a Sapiens encoder.

    Channels and stride are those of its first layer, the patch embedding.

    Args:
        path: TorchScript file of a pre-trained encoder (not of a segmenter, pose or depth model).
        input_size: Side of its input; the positions it learned are those of `INPUT_SIZE`.
        device: Where the network is put.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TorchScript file, or has no patch embedding.
    """
    module = load_torchscript(path, "a Sapiens TorchScript file", device)
    embedding = next((p for p in module.parameters() if p.ndim == 4 and p.shape[1] == 3), None)
    if embedding is None or embedding.shape[2] != embedding.shape[3]:
        raise ValueError(f"{path}: no patch embedding found, so not a Sapiens encoder")
    channels, _, stride, _ = embedding.shape

    def features(images: Tensor) -> Tensor:
        out = module(images.to(embedding.dtype))
        # The encoders return one map or a tuple of maps, the last layer last.
        return out[-1] if isinstance(out, tuple | list) else out

    return FeatureExtractor(
        name=f"sapiens {SIZES.get(channels, f'with {channels} channels')}",
        channels=channels,
        stride=stride,
        input_size=input_size,
        normalisation=NORMALISATION,
        licence=NON_COMMERCIAL,
        network=features,
        device=torch.device(device),
    )
