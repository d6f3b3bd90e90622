"""Smooth random fields over 3D points, the raw material of skin, hair and backgrounds."""

import numpy as np
from jaxtyping import Float

_LATTICE = 32
"""The lattice repeats after this many wavelengths; longer than any head at wavelengths in use."""


def value_noise(
    points: Float[np.ndarray, "m d"], wavelength: float, rng: np.random.Generator
) -> Float[np.ndarray, "m"]:
    """Value noise of about zero mean and unit spread.

    Args:
        points: 2D or 3D positions.
        wavelength: Lattice spacing in the unit of `points`; features are about twice as long.
        rng: Source of the lattice values and of its shift.
    """
    dimensions = points.shape[1]
    lattice = rng.normal(size=(_LATTICE,) * dimensions).astype(np.float32).ravel()
    scaled = points.astype(np.float32) / np.float32(wavelength) + rng.uniform(
        0, _LATTICE, dimensions
    ).astype(np.float32)
    base = np.floor(scaled)
    blend = scaled - base
    blend *= blend * (3 - 2 * blend)  # smoothstep: no creases at lattice planes
    base = base.astype(np.int32)
    strides = [_LATTICE ** (dimensions - 1 - axis) for axis in range(dimensions)]
    low = [(base[:, a] % _LATTICE) * strides[a] for a in range(dimensions)]
    high = [((base[:, a] + 1) % _LATTICE) * strides[a] for a in range(dimensions)]

    def corner(axis: int, index: np.ndarray | int) -> np.ndarray:
        if axis == dimensions:
            return lattice[index]
        first = corner(axis + 1, index + low[axis])
        return first + (corner(axis + 1, index + high[axis]) - first) * blend[:, axis]

    # Blending lowers the variance: its mean over the cell is 0.743 per dimension.
    return corner(0, 0) / np.float32(0.743 ** (dimensions / 2))


class NoiseBank:
    """Noise fields evaluated once at fixed points, of which every person gets their own mixture.

    A random unit mixture of independent fields is as good as a fresh field, and much cheaper.
    """

    def __init__(
        self,
        points: Float[np.ndarray, "m 3"],
        wavelengths: tuple[float, ...],
        fields: int = 4,
        seed: int = 0,
    ) -> None:
        """Evaluate `fields` fields per wavelength at the points."""
        rng = np.random.default_rng(seed)
        self.wavelengths = wavelengths
        self._fields = {
            w: np.stack([value_noise(points, w, rng) for _ in range(fields)]).astype(np.float16)
            for w in wavelengths
        }

    def mixture(self, wavelength: float, rng: np.random.Generator) -> Float[np.ndarray, "m"]:
        """A field of the given wavelength, zero mean and unit spread.

        Raises:
            ValueError: The bank holds no such wavelength.
        """
        if wavelength not in self._fields:
            raise ValueError(f"expected a wavelength of {self.wavelengths}, got {wavelength}")
        fields = self._fields[wavelength]
        weights = rng.normal(size=len(fields)).astype(np.float32)
        weights /= np.linalg.norm(weights)
        mixed = np.zeros(fields.shape[1], np.float32)
        for weight, field in zip(weights, fields, strict=True):
            mixed += weight * field
        return mixed
