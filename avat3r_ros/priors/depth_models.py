"""Networks that guess the depth of one photo, of the package `transformers`.

None of them knows the scale: a depth is good up to a factor, an inverse depth up to a factor and an
offset. `priors/depth.py` finds those on the fitted head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from avat3r_ros.priors.networks import (
    APACHE,
    NON_COMMERCIAL,
    SAPIENS2,
    Licence,
    Normalisation,
    load_published,
    resized,
    run_one_by_one,
)

_CLASSES = {
    "depth_anything": "DepthAnythingForDepthEstimation",
    "sapiens2": "Sapiens2ForPointmapEstimation",
}

DEPTH_ANYTHING_SMALL_WIDTH = 384
"""Encoder width of Depth Anything V2 Small, the one size under Apache-2.0."""

DEPTH_ANYTHING_SIDE = 518
"""Shorter side of the images Depth Anything was trained on, pixels."""


@dataclass(frozen=True)
class DepthEstimator:
    """A published depth network, ready to run.

    Attributes:
        name: Of the network.
        inverse: It tells inverse depth; else depth.
        input_height: Of the images it is given, pixels.
        input_width: Likewise; square crops are put in the middle of wider or higher images.
        normalisation: Of its input.
        licence: Of its weights.
        network: Normalised images (1, 3, input_height, input_width) to values (1, h, w).
        device: Where the network is.
    """

    name: str
    inverse: bool
    input_height: int
    input_width: int
    normalisation: Normalisation
    licence: Licence
    network: Callable[[Tensor], Tensor]
    device: torch.device

    def estimate(
        self,
        images: Float[Tensor, "v 3 s s"],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Float[Tensor, "v h w"]:
        """Tell depth or inverse depth, one image after the other; bfloat16 on a GPU.

        Args:
            images: RGB in [0, 1], square, any size.
            progress: Called with the fraction done in [0, 1]; it may raise to stop.

        Returns:
            On the CPU, float32, square, of the network's own resolution.

        Raises:
            ValueError: The network's output is not finite.
        """
        side = min(self.input_height, self.input_width)
        top, left = (self.input_height - side) // 2, (self.input_width - side) // 2
        right, bottom = self.input_width - side - left, self.input_height - side - top
        full = (self.input_height, self.input_width)

        def of_one(image: Tensor) -> Tensor:
            square = resized(image, side, side).to(self.device)
            values = self.network(self.normalisation(pad(square, (left, right, top, bottom))))
            values = interpolate(values.float()[:, None], full, mode="bilinear")[:, 0]
            return values[:, top : top + side, left : left + side]

        return run_one_by_one(of_one, images, f"{self.name}: depths", self.device, progress)


def load_depth(folder: str | Path, *, device: torch.device | str = "cpu") -> DepthEstimator:
    """Load Depth Anything (V1, V2, relative or metric) or Sapiens2's point maps.

    Args:
        folder: As the model hub lays it out, e.g. `depth-anything/Depth-Anything-V2-Small-hf`.
        device: Where the network is put.

    Raises:
        ValueError: Another kind of network in the folder, or unusable weights.
        FileNotFoundError: The folder or its files are absent.
        RuntimeError: The package `transformers` is absent.
    """
    published = load_published(folder, _CLASSES, device)
    config, model = published.config, published.model
    if config.model_type == "sapiens2":
        if config.num_labels != 3:
            raise ValueError(f"{folder}: expected point maps of 3 values, got {config.num_labels}")
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        name, inverse, licence = "sapiens2 point maps", False, SAPIENS2

        def run(images: Tensor) -> Tensor:
            return model(images).pointmaps[:, 2]

    else:
        encoder = config.backbone_config
        # The nearest number of whole patches.
        height = width = max(round(DEPTH_ANYTHING_SIDE / config.patch_size), 1) * config.patch_size
        inverse = config.depth_estimation_type == "relative"
        small = encoder.hidden_size <= DEPTH_ANYTHING_SMALL_WIDTH
        licence = APACHE if small else NON_COMMERCIAL
        name = f"depth anything {encoder.num_hidden_layers}x{encoder.hidden_size}"

        def run(images: Tensor) -> Tensor:
            return model(images).predicted_depth

    return DepthEstimator(
        name, inverse, height, width, published.normalisation, licence, run, torch.device(device)
    )
