"""What every feature back-end is to its caller."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.priors.networks import Licence, Normalisation, resized, run_one_by_one


@dataclass(frozen=True)
class FeatureExtractor:
    """A published image encoder, ready to run.

    Attributes:
        name: Of the network and its size, e.g. "sapiens 1B"; kept in avatars.
        channels: C of its feature maps.
        stride: Pixels of the input per feature, along each side.
        input_size: Side of the square images it is given, pixels; a multiple of `stride`.
        normalisation: Of its input.
        licence: Of its weights.
        network: Normalised images (1, 3, input_size, input_size) to features (1, C, h, w).
        device: Where the network is.
    """

    name: str
    channels: int
    stride: int
    input_size: int
    normalisation: Normalisation
    licence: Licence
    network: Callable[[Tensor], Tensor]
    device: torch.device

    def __post_init__(self) -> None:
        if self.input_size < self.stride or self.input_size % self.stride:
            raise ValueError(
                f"{self.name}: expected an input size that is a multiple of {self.stride}, got "
                f"{self.input_size}"
            )

    def extract(
        self,
        images: Float[Tensor, "v 3 s s"],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Float[Tensor, "v c h w"]:
        """Compute feature maps, one image after the other; bfloat16 on a GPU.

        Args:
            images: RGB in [0, 1], square, any size.
            progress: Called with the fraction done in [0, 1]; it may raise to stop.

        Returns:
            On the CPU, float32; h = w = input_size / stride.

        Raises:
            ValueError: The network's output is not what its description says.
        """
        side = self.input_size // self.stride

        def of_one(image: Tensor) -> Tensor:
            large = resized(image, self.input_size, self.input_size).to(self.device)
            features = self.network(self.normalisation(large))
            if tuple(features.shape) != (1, self.channels, side, side):
                raise ValueError(
                    f"{self.name}: expected features (1, {self.channels}, {side}, {side}), got "
                    f"{tuple(features.shape)}"
                )
            return features

        return run_one_by_one(of_one, images, f"{self.name}: features", self.device, progress)
