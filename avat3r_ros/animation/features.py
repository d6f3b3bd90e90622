"""From an expression code to the few inputs of an avatar's basis: linear, with blend corrections.

    features(code) = code | products of two scores | nearness to chosen codes
    inputs         = weights @ features

All features are 0 at a code of zeros, so a neutral face is exact. Which corrections are used, and
how strongly the fit is damped, is decided by the error at codes that were left out of it: the rig
is linear in the code and gets none; a trained network usually gets some.

Letters: S codes, E code length, F features, G inputs, P products, C centres.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

DAMPING = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Ridge penalties tried, relative to the mean sum of squares of a feature over the codes."""

ALL = 1 << 20
CORRECTIONS = ((0, 0), (48, 0), (0, 96), (0, ALL))
"""(products, centres) tried, simplest first. On networks with random output layers nearness to all
codes brought the held-out error of a linear map down by a third, products by a tenth at most."""

WORTH = 0.95
"""More corrections must bring the held-out error below this share of the simpler map's."""

HELD_OUT = 0.25


@dataclass(frozen=True)
class FeatureMap:
    """Maps a code to inputs; see the module.

    Attributes:
        pairs: The two scores of each product.
        centers: Codes whose nearness is a feature.
        width: Distance at which nearness falls to 0.6.
        weights: Inputs from features.
    """

    pairs: Int[np.ndarray, "p 2"]
    centers: Float[np.ndarray, "c e"]
    width: float
    weights: Float[np.ndarray, "g f"]

    def __post_init__(self) -> None:
        length = self.centers.shape[1]
        expected = length + len(self.pairs) + len(self.centers)
        if self.weights.shape[1] != expected:
            raise ValueError(f"expected weights of {expected} features, got {self.weights.shape}")
        if len(self.pairs) and not 0 <= self.pairs.min() <= self.pairs.max() < length:
            raise ValueError(f"expected products of scores 0..{length - 1}")
        if not self.width > 0:
            raise ValueError(f"expected a positive width, got {self.width}")

    @property
    def code_length(self) -> int:
        """E."""
        return self.centers.shape[1]

    def __call__(self, code: Float[np.ndarray, "e"]) -> Float[np.ndarray, "g"]:
        """Return the inputs of one code."""
        return self.weights @ features(code[None], self.pairs, self.centers, self.width)[0]


def features(
    codes: Float[np.ndarray, "s e"],
    pairs: Int[np.ndarray, "p 2"],
    centers: Float[np.ndarray, "c e"],
    width: float,
) -> Float[np.ndarray, "s f"]:
    """Compute the features of codes; see the module."""
    parts = [codes]
    if len(pairs):
        parts.append(codes[:, pairs[:, 0]] * codes[:, pairs[:, 1]])
    if len(centers):
        scale = -0.5 / width**2
        squares = scale * np.square(centers).sum(-1)
        distances = squares + scale * (np.square(codes).sum(-1)[:, None] - 2 * codes @ centers.T)
        parts.append(np.exp(distances) - np.exp(squares))
    return np.concatenate(parts, -1).astype(np.float32)


def fit_features(
    codes: Float[np.ndarray, "s e"], inputs: Float[np.ndarray, "s g"], num_units: int, seed: int = 0
) -> tuple[FeatureMap, float]:
    """Fit the map, choosing corrections and damping by the error at codes left out.

    Args:
        codes: Evaluated codes.
        inputs: Inputs that reproduce them; errors of all inputs count alike, so scale them by what
            they matter.
        num_units: The first so many codes are always part of the fit: nothing else may show what a
            unit does.
        seed: Chooses what is left out.

    Returns:
        The map, fitted to all codes, and the root mean square error of the inputs at codes left out
        of the fit that chose it, relative to their root mean square.
    """
    if not num_units < len(codes):
        raise ValueError(f"expected more than {num_units} codes, got {len(codes)}")
    order = num_units + np.random.default_rng([seed, 5]).permutation(len(codes) - num_units)
    num_left = max(1, int(HELD_OUT * len(order)))
    left, kept = order[:num_left], np.r_[:num_units, np.sort(order[num_left:])]
    size = max(float(np.sqrt(np.square(inputs[left]).mean())), 1e-12)
    width = _typical_distance(codes)
    best: tuple[float, FeatureMap | None] = (np.inf, None)
    for num_pairs, num_centers in CORRECTIONS:
        pairs = _best_pairs(codes[kept], inputs[kept], num_pairs)
        centers = _spread_centers(codes[kept], num_centers)
        table = features(codes, pairs, centers, width)
        tried = []
        for damping in DAMPING:
            weights = _ridge(table[kept], inputs[kept], damping)
            error = float(np.sqrt(np.square(table[left] @ weights.T - inputs[left]).mean())) / size
            tried.append((error, damping))
        error, damping = min(tried)
        if best[1] is None or error < WORTH * best[0]:
            centers = _spread_centers(codes, num_centers)
            weights = _ridge(features(codes, pairs, centers, width), inputs, damping)
            best = (error, FeatureMap(pairs, centers, width, weights.astype(np.float32)))
    assert best[1] is not None
    return best[1], best[0]


def _ridge(
    table: Float[np.ndarray, "s f"], inputs: Float[np.ndarray, "s g"], damping: float
) -> Float[np.ndarray, "g f"]:
    table, inputs = table.astype(np.float64), inputs.astype(np.float64)
    gram = table.T @ table
    penalty = damping * max(np.trace(gram) / len(gram), 1e-12)
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), table.T @ inputs).T


def _best_pairs(codes: np.ndarray, inputs: np.ndarray, count: int) -> Int[np.ndarray, "p 2"]:
    """Products that explain most of what a linear map leaves over; squares are among them."""
    if not count:
        return np.zeros((0, 2), np.int64)
    rest = inputs - codes @ _ridge(codes, inputs, 1e-3).T
    pairs = np.array(list(itertools.combinations_with_replacement(range(codes.shape[1]), 2)))
    products = codes[:, pairs[:, 0]] * codes[:, pairs[:, 1]]
    energy = np.square(products).sum(0)
    # A pair that hardly occurs would be fitted to one code.
    explained = np.square(products.T @ rest).sum(-1) / (energy + 1e-2 * energy.mean() + 1e-12)
    return pairs[np.sort(np.argsort(-explained, kind="stable")[:count])]


def _spread_centers(codes: np.ndarray, count: int) -> Float[np.ndarray, "c e"]:
    """Codes far from one another and from neutral (farthest-point sampling)."""
    chosen: list[int] = []
    distance = np.square(codes).sum(-1)
    for _ in range(min(count, len(codes))):
        if not distance.max() > 0:
            break
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(codes - codes[chosen[-1]]).sum(-1))
    return codes[chosen].astype(np.float32)


def _typical_distance(codes: np.ndarray) -> float:
    squares = np.square(codes).sum(-1)
    between = squares[:, None] + squares - 2 * codes @ codes.T
    return max(float(np.sqrt(np.median(np.maximum(between, 0)))), 1e-3)
