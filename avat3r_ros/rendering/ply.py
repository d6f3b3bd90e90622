"""Gaussians as PLY files in the layout that 3D Gaussian splat viewers read.

One `vertex` element, little-endian float32, with the fields of the original 3DGS code (Kerbl et
al., "3D Gaussian splatting for real-time radiance field rendering", 2023):

    x y z  nx ny nz  f_dc_0..2  opacity  scale_0..2  rot_0..3

holding position in metres, unused normals, colour = 0.5 + SH_C0 f_dc, the logit of the opacity,
the natural logarithm of the scales, and the wxyz quaternion. The frame is ours (y up, z out of the
face).
"""

import logging
import os
from typing import BinaryIO

import numpy as np
import torch

from avat3r_ros.files import write_bytes
from avat3r_ros.types import Gaussians

SH_C0 = 0.28209479177387814
"""Value of the spherical harmonic of degree 0, 1 / (2 sqrt(pi))."""

FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)

_OPACITY_EPS = 1e-6  # keeps the logits of 0 and 1 finite
_MAX_HEADER_BYTES = 64 * 1024
_PLY_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2"},
    **{"ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}

_logger = logging.getLogger(__name__)


def write_ply(gaussians: Gaussians, path: str | os.PathLike) -> None:
    """Write Gaussians to `path`; a file of that name is replaced only by a complete one.

    Opacities are limited to [1e-6, 1 - 1e-6] and quaternions normalised; colours may leave [0, 1].

    Raises:
        ValueError: A value is not finite or a scale is not positive.
        OSError: The file cannot be written.
    """
    columns = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        (gaussians.colors - 0.5) / SH_C0,
        torch.logit(gaussians.opacities, eps=_OPACITY_EPS)[:, None],
        gaussians.scales.log(),
        torch.nn.functional.normalize(gaussians.quats_wxyz, dim=-1),
    ]
    rows = torch.cat([column.detach().float().cpu() for column in columns], 1).numpy()
    if bad := int((~np.isfinite(rows)).any(1).sum()):
        raise ValueError(
            f"expected finite Gaussians with positive scales, got {bad} of {len(rows)} others"
        )
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"element vertex {len(rows)}",
            *(f"property float {name}" for name in FIELDS),
            "end_header\n",
        ]
    )
    write_bytes(path, header.encode("ascii") + rows.astype("<f4").tobytes())


def read_ply(path: str | os.PathLike) -> Gaussians:
    """Read Gaussians from a file in this layout; further fields are skipped.

    Higher spherical harmonics (`f_rest_*`) are skipped with a warning: our colours do not depend on
    the direction.

    Raises:
        ValueError: The file is no binary little-endian PLY, is truncated, lacks a field, or holds
            values that are not finite.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        count, dtype = _read_header(file, path)
        data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise ValueError(
            f"expected {count} vertices of {dtype.itemsize} bytes in {path}, got {len(data)} bytes"
        )
    vertices = np.frombuffer(data, dtype)
    if any(name.startswith("f_rest_") for name in dtype.names):
        _logger.warning("%s: direction-dependent colour (f_rest_*) is left out", path)

    def columns(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([vertices[n].astype(np.float32) for n in names], -1))

    gaussians = Gaussians(
        means=columns("x", "y", "z"),
        quats_wxyz=torch.nn.functional.normalize(
            columns("rot_0", "rot_1", "rot_2", "rot_3"), dim=-1
        ),
        scales=columns("scale_0", "scale_1", "scale_2").exp(),
        opacities=torch.sigmoid(columns("opacity")[:, 0]),
        colors=0.5 + SH_C0 * columns("f_dc_0", "f_dc_1", "f_dc_2"),
    )
    for name in Gaussians.__dataclass_fields__:
        if not torch.isfinite(getattr(gaussians, name)).all():
            raise ValueError(f"expected finite {name} in {path}, got a NaN or an infinity")
    return gaussians


def _read_header(file: BinaryIO, path: str | os.PathLike) -> tuple[int, np.dtype]:
    """Number of vertices and their layout; leaves the file at the first vertex."""
    start = file.read(_MAX_HEADER_BYTES)
    end = start.find(b"end_header")
    if not start.startswith(b"ply") or end < 0 or (newline := start.find(b"\n", end)) < 0:
        raise ValueError(f"expected a PLY file, got {path} without a PLY header")
    lines = start[:end].decode("ascii", errors="replace").split("\n")
    words = [line.split() for line in lines if line.strip()]
    formats = [w[1] for w in words if w[0] == "format" and len(w) > 1]
    if formats != ["binary_little_endian"]:
        raise ValueError(f"expected format binary_little_endian in {path}, got {formats}")
    elements = [i for i, w in enumerate(words) if w[0] == "element"]
    if not elements or len(words[elements[0]]) != 3 or words[elements[0]][1] != "vertex":
        raise ValueError(f"expected {path} to begin with the element vertex")
    count_word = words[elements[0]][2]
    if not count_word.isdigit():
        raise ValueError(f"expected a number of vertices in {path}, got {count_word!r}")
    stop = elements[1] if len(elements) > 1 else len(words)
    layout = []
    for word in words[elements[0] + 1 : stop]:
        if word[0] != "property":
            continue
        if len(word) != 3 or word[1] not in _PLY_TYPES:
            raise ValueError(f"expected scalar vertex properties in {path}, got {' '.join(word)!r}")
        layout.append((word[2], "<" + _PLY_TYPES[word[1]]))
    needed = set(FIELDS) - {"nx", "ny", "nz"}
    if missing := sorted(needed - {name for name, _ in layout}):
        raise ValueError(
            f"expected the fields of a Gaussian splat in {path}, got none of {missing}"
        )
    file.seek(newline + 1)
    return int(count_word), np.dtype(layout)
