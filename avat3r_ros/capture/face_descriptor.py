"""Who is it? A face as 128 numbers that are near each other for one person, far for two.

    photo, landmarks -> upright chip of the face, 150 x 150 -> residual network -> descriptor

The network is dlib's face recognition model by Davis King (public domain), whose convolutions are
written out here; `tools/convert_face_descriptor.py` made our file from the published one. It was
trained so that two descriptors of one person are nearer than 0.6 and those of two people farther
apart, which by its author fails for 0.6 % of the pairs of Labeled Faces in the Wild. Descriptors
are used and forgotten; nothing stores them.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, UInt8
from safetensors.numpy import load
from torch import Tensor

from avat3r_ros.types import FaceState

DESCRIPTOR_PATH = Path(__file__).parents[1] / "assets" / "face_descriptor.safetensors"

DESCRIPTOR_SHA256 = "6e79ddcb8ce0539b180b92caf26e6905e41b16756127163f1369dbc7e57741b3"

SAME_PERSON = 0.57
"""Distance of two descriptors (`describe_faces`) that tells people apart. The network was trained
for 0.6; means with the mirrored picture are 0.03 nearer to each other."""

CHIP_PX = 150

MEAN_RGB, SPREAD = (122.782, 117.001, 104.298), 256.0
"""What the network takes off each colour, and divides by."""

CHIP_LANDMARKS = (33, 133, 362, 263, 2)
"""MediaPipe's corners of the eyes and base of the nose."""

CHIP_PLACES = np.array([[37.1, 47.9], [59.7, 48.2], [89.2, 48.3], [111.7, 47.7], [74.8, 84.6]])
"""Where they lie in a chip, pixels with centres at +0.5: medians over chips that dlib's own
landmarks had cut from 116 photos. Descriptors of such chips and of ours are 0.08 apart (median of
123 photos; 0.13 in one of ten)."""

BLOCKS = (
    *("32a", "32b", "32c"),
    *("64down", "64a", "64b", "64c"),
    *("128down", "128a", "128b"),
    *("256down", "256a", "256b"),
    "end_down",
)
"""Residual blocks in order, named by their channels; those "down" halve the picture."""


class FaceDescriptor:
    """The network with its weights.

    Args:
        weights: `stem.weight` (32, 3, 7, 7), for each block `NAME.0.weight` and `NAME.1.weight`
            with 3 x 3 filters, a `.bias` beside each, and `out.weight` (128, 256).
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = weights

    @staticmethod
    @lru_cache(maxsize=1)
    def load() -> "FaceDescriptor":
        """Load the shipped weights.

        Raises:
            FileNotFoundError: They are not installed.
            ValueError: The file is not the one that was made for this version.
        """
        if not DESCRIPTOR_PATH.is_file():
            raise FileNotFoundError(f"no face descriptor at {DESCRIPTOR_PATH}")
        data = DESCRIPTOR_PATH.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != DESCRIPTOR_SHA256:
            raise ValueError(
                f"{DESCRIPTOR_PATH}: expected sha256 {DESCRIPTOR_SHA256}, got {digest}"
            )
        return FaceDescriptor(unpacked(load(data)))

    @torch.no_grad()
    def describe(self, chips: UInt8[np.ndarray, "n 150 150 3"]) -> Float[np.ndarray, "n 128"]:
        """Descriptors of RGB chips (`face_chip`)."""
        x = torch.from_numpy(np.ascontiguousarray(chips)).movedim(-1, 1).float()
        x = (x - torch.tensor(MEAN_RGB)[:, None, None]) / SPREAD
        x = F.relu(self._convolved(x, "stem", stride=2))
        x = F.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            x = self._block(x, name)
        return (x.mean((2, 3)) @ self._weights["out.weight"].T).numpy()

    def _block(self, x: Tensor, name: str) -> Tensor:
        """Two convolutions, added to the block's input or to its halved picture."""
        halves = name.endswith("down")
        y = F.relu(self._convolved(x, f"{name}.0", stride=2 if halves else 1, same=not halves))
        y = self._convolved(y, f"{name}.1", same=True)
        beside = F.avg_pool2d(x, 2, 2) if halves else x
        # New channels have nothing beside them, and halving by 2 x 2 may leave one pixel more.
        size = [max(a, b) for a, b in zip(y.shape[1:], beside.shape[1:], strict=True)]
        return F.relu(_padded(y, size) + _padded(beside, size))

    def _convolved(self, x: Tensor, name: str, *, stride: int = 1, same: bool = False) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2 if same else 0)


def describe_faces(
    images: Sequence[np.ndarray], faces: Sequence[FaceState]
) -> Float[np.ndarray, "n 128"]:
    """One descriptor a photo: the mean of its face's and of its mirrored face's.

    Args:
        images: RGB uint8 (H, W, 3).
        faces: The face in each; detected.
    """
    chips = np.stack(
        [face_chip(image, face.landmarks_px) for image, face in zip(images, faces, strict=True)]
    )
    network = FaceDescriptor.load()
    return (network.describe(chips) + network.describe(chips[:, :, ::-1])) / 2


def descriptor_distances(
    descriptors: Float[np.ndarray, "n 128"],
) -> Float[np.ndarray, "n n"]:
    """Euclidean distance of each two descriptors, about 0 to 1.2."""
    return np.linalg.norm(descriptors[:, None] - descriptors[None], axis=-1)


def face_chip(
    image: UInt8[np.ndarray, "h w 3"], landmarks_px: Float[np.ndarray, "478 2"]
) -> UInt8[np.ndarray, "150 150 3"]:
    """Cut a face out upright, as the network was trained: eyes level and in fixed places.

    Args:
        image: RGB.
        landmarks_px: MediaPipe's, pixels with centres at +0.5.
    """
    found = landmarks_px[list(CHIP_LANDMARKS)].astype(np.float64)
    # The best similarity is linear in complex numbers: place = factor * found + shift.
    a, b = ((points - points.mean(0)) @ [1, 1j] for points in (found, CHIP_PLACES))
    factor = (a.conj() @ b) / max((a.conj() @ a).real, 1e-9)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    shift = CHIP_PLACES.mean(0) - turn @ found.mean(0)
    shift += turn @ [0.5, 0.5] - 0.5  # OpenCV puts centres at whole numbers
    shrinks = 1 / max(abs(factor), 1e-9)
    image = np.ascontiguousarray(image)
    if shrinks > 1.2:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * shrinks)
    return cv2.warpAffine(
        image, np.c_[turn, shift], (CHIP_PX, CHIP_PX), borderMode=cv2.BORDER_CONSTANT
    )


def _padded(x: Tensor, size: Sequence[int]) -> Tensor:
    """Zeros after the last channel, row and column, up to (channels, height, width)."""
    missing = [wanted - present for wanted, present in zip(size, x.shape[1:], strict=True)]
    return F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))


def packed(weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Weights with 8 bits per filter value, for the file: a quarter of their size."""
    stored = {}
    for name, weight in weights.items():
        if name.endswith(".bias"):
            stored[name] = weight.numpy()
            continue
        scale = weight.flatten(1).abs().amax(1) / 127
        shape = (-1,) + (1,) * (weight.ndim - 1)
        stored[name] = (weight / scale.view(shape)).round().to(torch.int8).numpy()
        stored[f"{name}.scale"] = scale.numpy()
    return stored


def unpacked(stored: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The inverse of `packed`, but for rounding: float32 weights."""
    tensors = {name: torch.from_numpy(values) for name, values in stored.items()}
    weights = {}
    for name, values in tensors.items():
        if name.endswith(".weight"):
            scale = tensors[f"{name}.scale"]
            weights[name] = values.float() * scale.view(-1, *[1] * (values.ndim - 1))
        elif name.endswith(".bias"):
            weights[name] = values
    return weights
