"""Strands for guessed hair: a pattern combed from the crown down, the same on every head.

What no photo shows of hair has a colour but no texture; a smooth cap looks like a helmet.
"""

import numpy as np
from jaxtyping import Float

CENTER = np.array([0.0, 0.012, -0.095])
"""Middle of the skull on the mean head: strands run down from the crown as seen from here."""

STRANDS_AROUND = (61, 173, 419)
"""Strands once around the head, from locks to fine ones; odd, so that none repeat each other."""

WAVES_RAD = 0.35
"""Polar angle over which a strand's brightness changes along it."""


def strands(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """Brightness of strands at points of the mean head; mean 0, unit spread."""
    direction = points - CENTER
    polar = np.arctan2(np.linalg.norm(direction[:, ::2], axis=1), direction[:, 1])
    turn = np.arctan2(direction[:, 0], direction[:, 2]) / (2 * np.pi) % 1.0
    rng = np.random.default_rng(7)
    total = np.zeros(len(points))
    for count in STRANDS_AROUND:
        rows = int(np.ceil(np.pi / WAVES_RAD)) + 2
        table = rng.normal(size=(rows, count))
        total += _looked_up(table, polar / WAVES_RAD, turn * count)
    # A bilinear mix of independent values has 4/9 of their variance.
    return total / np.sqrt(len(STRANDS_AROUND) * 4 / 9)


def _looked_up(table: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear values of a table that closes around its columns."""
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, across = row - top, column - left
    left, right = left % table.shape[1], (left + 1) % table.shape[1]
    upper = (1 - across) * table[top, left] + across * table[top, right]
    lower = (1 - across) * table[top + 1, left] + across * table[top + 1, right]
    return (1 - down) * upper + down * lower
