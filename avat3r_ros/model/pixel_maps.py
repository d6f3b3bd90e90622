"""Values of a base guess's pixels as pictures of its references."""

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.model.rig_motion import BaseGuess


def smoothed(
    values: Float[Tensor, "p c"], base: BaseGuess, num_views: int, share: float
) -> Float[Tensor, "p c"]:
    """Mean over the kept pixels around each pixel, weighted by a Gaussian.

    Args:
        values: One row for each kept pixel, C of at most 3 numbers; on the CPU.
        base: Says where the pixels are.
        num_views: Of the references.
        share: Standard deviation as a share of the picture's side.
    """
    size, count = base.reference_size, values.shape[1]
    images = np.zeros((num_views * size * size, count + 1), np.float32)
    images[base.pixel_indices] = np.pad(values.numpy(), ((0, 0), (0, 1)), constant_values=1)
    blurred = [
        cv2.GaussianBlur(image, (0, 0), share * size)
        for image in images.reshape(num_views, size, size, count + 1)
    ]
    found = np.stack(blurred).reshape(-1, count + 1)[base.pixel_indices]
    return torch.from_numpy(found[:, :count] / found[:, count:])
