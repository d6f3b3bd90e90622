"""Smoothness of fields over a mesh."""

import numpy as np
from jaxtyping import Int
from scipy import sparse


def graph_laplacian(num_vertices: int, triangles: Int[np.ndarray, "f 3"]) -> sparse.csr_matrix:
    """Sum over a vertex's neighbours of its difference to them."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ones = np.ones(len(edges))
    adjacency = sparse.coo_matrix(
        (ones, (edges[:, 0], edges[:, 1])), shape=(num_vertices, num_vertices)
    )
    adjacency = ((adjacency + adjacency.T) > 0).astype(float)
    return (sparse.diags(np.asarray(adjacency.sum(1))[:, 0]) - adjacency).tocsr()
