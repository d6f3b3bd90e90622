"""HeadLooks: how heads look all round, learned from synthetic people, one value per vertex.

The surface of a head is the template's; hair is a shell over it, some distance along the coarse
normals. Skin and hair each are a mean and principal components with coefficients of unit spread,
so that what photos show of them says what the rest most likely is.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import safe_open
from scipy.spatial import cKDTree

from avat3r_ros.rig.template import HeadTemplate

DEFAULT_PATH = Path(__file__).parents[1] / "assets" / "head_looks.safetensors"
FORMAT = "avat3r-head-looks"

DARKEST = 0.02
"""Colours below this are lifted before taking logarithms."""

THICKNESS_UNIT_M = 0.02
"""Thickness of hair is stored in this unit, in which it spreads about as much as the rest."""

HAIR_CHANNELS = 5
"""Presence of hair (0 or 1), thickness, log sRGB."""

SKIN_NOISE, HAIR_NOISE = 0.12, 0.3
"""Spread of what one observation says around the truth. The components leave 0.07 and 0.06 of drawn
people that they do not know; the fit of the head and the light of the photo err more."""

OUTER_REGIONS = ("skin", "scalp", "neck", "ears", "brows")
"""Regions over which hair may lie."""


@dataclass(frozen=True)
class Components:
    """A mean and its most common changes.

    Attributes:
        mean: Values at the template's vertices.
        basis: Change per standard deviation of each coefficient.
    """

    mean: Float[np.ndarray, "v c"]
    basis: Float[np.ndarray, "k v c"]

    def complete(
        self, observed: Float[np.ndarray, "v c"], precision: Float[np.ndarray, "v c"]
    ) -> Float[np.ndarray, "v c"]:
        """Most likely field, given some of its values.

        Args:
            observed: Values; read where their precision is above 0.
            precision: 1 / variance of each value, 0 where there is none.

        Source: the mean of a Gaussian conditioned on noisy observations; Blanz and Vetter,
        "Reconstructing the complete 3D shape of faces from partial information", 2002.
        """
        coefficients = _coefficients(self.mean, self.basis, observed, precision)
        return self.mean + np.tensordot(coefficients, self.basis, 1)

    def complete_channel(
        self, channel: int, observed: Float[np.ndarray, "v"], precision: Float[np.ndarray, "v"]
    ) -> Float[np.ndarray, "v"]:
        """`complete` of one channel, of which alone something was observed."""
        mean, basis = self.mean[:, channel], self.basis[..., channel]
        return mean + _coefficients(mean, basis, observed, precision) @ basis


def _coefficients(
    mean: np.ndarray, basis: np.ndarray, observed: np.ndarray, precision: np.ndarray
) -> np.ndarray:
    """The most likely ones, given observations of some of the values."""
    seen = precision > 0
    matrix = basis[:, seen]
    scaled = matrix * precision[seen]
    gap = observed[seen] - mean[seen]
    return np.linalg.solve(scaled @ matrix.T + np.eye(len(matrix)), scaled @ gap)


@dataclass(frozen=True)
class HeadLooks:
    """The prior.

    Attributes:
        skin: Log sRGB of the skin, also beneath hair.
        hair: `HAIR_CHANNELS`; thickness in `THICKNESS_UNIT_M`.
    """

    skin: Components
    hair: Components

    @staticmethod
    def load(path: str | Path | None = None) -> "HeadLooks":
        """Load a file of `tools/learn_head_looks.py`; the shipped one (cached) by default.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is something else.
        """
        return _load(Path(path) if path is not None else DEFAULT_PATH)


@lru_cache(maxsize=2)
def _load(path: Path) -> HeadLooks:
    if not path.is_file():
        raise FileNotFoundError(f"no head looks at {path}")
    with safe_open(str(path), "np") as file:
        kind = (file.metadata() or {}).get("format")
        if kind != FORMAT:
            raise ValueError(f"expected {FORMAT} in {path}, got format {kind!r}")
        parts = [
            Components(
                mean=file.get_tensor(f"{name}_mean").astype(np.float64),
                basis=file.get_tensor(f"{name}_basis").astype(np.float64),
            )
            for name in ("skin", "hair")
        ]
    return HeadLooks(*parts)


@lru_cache(maxsize=2)
def mirrored_vertices(template: HeadTemplate) -> Int[np.ndarray, "v"]:
    """Vertex on the other side of the head for each vertex; the template is symmetric."""
    points = template.neutral.numpy()
    return cKDTree(points).query(points * [-1, 1, 1])[1]
