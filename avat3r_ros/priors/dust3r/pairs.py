"""What the network says about pairs of images."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PairPoints:
    """Points of E ordered pairs of images, each pair in its own frame and at its own scale.

    Attributes:
        pairs: Indices of the first and the second image.
        points_first: Of the first image's pixels, in the first image's camera (OpenCV axes).
        confidence_first: At least 1; its logarithm is 0 where nothing is known.
        points_second: Of the second image's pixels, also in the first image's camera.
        confidence_second: Of the second image's pixels.
    """

    pairs: Int[Tensor, "e 2"]
    points_first: Float[Tensor, "e h w 3"]
    confidence_first: Float[Tensor, "e h w"]
    points_second: Float[Tensor, "e h w 3"]
    confidence_second: Float[Tensor, "e h w"]

    @staticmethod
    def joined(parts: "list[PairPoints]") -> "PairPoints":
        """Put several sets of pairs of the same images into one."""
        return PairPoints(
            *(torch.cat([getattr(one, f.name) for one in parts]) for f in fields(PairPoints))
        )


def all_pairs(num_images: int) -> Int[Tensor, "e 2"]:
    """Every image with every other one, in both orders: the network is not symmetric."""
    return torch.tensor(
        [(i, j) for i in range(num_images) for j in range(num_images) if i != j], dtype=torch.long
    ).reshape(-1, 2)
