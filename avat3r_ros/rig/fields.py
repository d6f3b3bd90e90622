"""Smooth fields over the template's vertices: what is known somewhere, continued everywhere else.

One linear system serves thickness of hair and colours alike: a field follows its observations as
far as they are trusted, and elsewhere changes as little as possible from a guide.
"""

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import splu

REST_WEIGHT = 1e-4
"""Least pull towards the guide; it makes the system solvable where nothing was observed."""


def follow(
    guide: Float[np.ndarray, "v c"],
    observed: Float[np.ndarray, "v c"],
    weights: Float[np.ndarray, "v"],
    laplacian: sparse.csr_matrix,
    smoothness: float,
    rest_weight: float = REST_WEIGHT,
) -> Float[np.ndarray, "v c"]:
    """Bring a guide to observations; the difference between the two spreads smoothly.

    Args:
        guide: Field whose changes from vertex to vertex are kept where nothing was observed.
        observed: Values; read where their weight is above 0.
        weights: Trust in each observation, >= 0.
        laplacian: `rig.graph_laplacian` of the mesh.
        smoothness: Weight of neighbours' agreement against an observation of weight 1.
        rest_weight: Pull towards the guide: a difference fades over about the square root of
            `smoothness / rest_weight` vertices.

    Source: a membrane, as in Perez, Gangnet, Blake, "Poisson image editing", SIGGRAPH 2003, on a
    mesh and with soft constraints.
    """
    system = smoothness * laplacian + sparse.diags(weights + rest_weight)
    gap = np.where(weights[:, None] > 0, observed - guide, 0.0)
    # The system is symmetric, which its elimination is faster for.
    solver = splu(
        system.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return guide + solver.solve(weights[:, None] * gap)
