"""What the fit's cost is made of: spreads, unknowns, points on the head, and the robust error."""

from dataclasses import dataclass, field

import numpy as np

ROBUST_SIGMAS = 2.5
"""Error, in sigmas, from which a landmark, outline or match counts less."""

LANDMARK_SIGMA_M = 0.003
"""Spread of the best landmark on the head. Ours: MediaPipe scatters by 1 mm, but neighbouring
landmarks err together, so that 478 of them are worth far fewer independent ones. Surface errors on
drawn heads were flat from 2 to 4.5 mm; half of it already makes up odd identities."""

GAPS = (
    ((160, 159, 158), (144, 145, 153)),
    ((387, 386, 385), (373, 374, 380)),
    ((82, 13, 312), (87, 14, 317)),
)
"""Landmarks above and below what opens: each eye, and the lips."""

OPENING_SIGMA_M, OPENING_SIGMA_PX = 0.0004, 0.3
"""Spread of how far an eye or a mouth is opened. Ours: far tighter than landmarks alone, since eyes
are opened by 8 mm, and a lid that is off by 2 paints the iris on it; lips that are off cover
teeth."""

LANDMARK_SIGMA_PX = 0.5
"""Noise of a landmark in a small face, where pixels are larger than millimetres."""

FOCAL_GUESS = 1.0
"""Focal length of an unknown camera over its longer image side: between webcams (0.7) and portrait
lenses (1.5)."""

NEAREST_M, USUAL_M = 0.4, 0.6
"""A face that would be nearer than the first with the guess was cut out of a larger picture: the
lens was longer for this size, and the face about the second away."""

FOCAL_LOG_SIGMA = 0.03
"""How far (factor e^sigma) an unknown focal length may stray from the guess, or from what
`focal.py` found, while all is fitted together. Ours, far tighter than either is sure: hair that is
taken for the head's outline says something wrong of perspective. With 0.35 the estimate was further
from the truth (23 % median, up to a factor of 2.7) than the guess."""

SIZE_LOG_SIGMA = 0.01
"""How far the size of the face strays from what is known of it, by its irises (`irises.py`) or as
the mean adult's. Ours: adults differ by 5 %, but landmarks do not show it, and landmarks that err
alike would be explained by odd sizes (20 % off, median)."""

CODE_SIGMA = {
    "eyeLook": 0.3,
    "eyeBlink": 0.4,
    "eyeSquint": 0.3,
    "jawOpen": 0.15,
    "cheekPuff": 0.3,
    "noseSneer": 0.25,
    "eyeWide": 0.25,
    "tongueOut": 0.02,
    "": 0.12,
}
"""How far the fit may move a score away from the tracker's, by prefix of its name. MediaPipe is
weak at the looser ones; tongueOut it does not see at all. Squinting eyes it calls half closed: were
their irises taken for lids, they would vanish when the eyes open. The others stay close to the
tracker's, because codes of the references and of the driver must mean the same."""

OUTLINE_SIGMA_M = 0.004
"""Spread of an outline about the matte's edge. Ours: the matte itself is good to a millimetre, but
neighbouring points err together, and hair, beards and clothes lie on the head."""

INSIDE_WEIGHT = 0.1
"""Weight of a mesh that ends inside the matte (hair may cover it) against one that sticks out.
Ours: with 0.3, long hair made wide heads with faces 10 % too small; with 0, heads turned too far
(1.7 degrees instead of 1.4, median)."""

MATCH_SIGMA_M = 0.0008
"""Noise of a match between two photos: about a pixel at the working scale."""

MOVED_SHARE = 0.6
"""Spread of a matched point that an expression moves, as a share of how far: nobody smiles exactly
like the template. Without it raised brows and smiles turned the heads of the other head model (1.43
instead of 1.34 degrees between photos, 90th percentile 2.8 instead of 2.3); our own people, who
move like the template, 1.19 and 1.23."""

SHAPE_SIGMA_M = 0.004
"""How far the surface under a match may lie off the fitted head; what is left of a match then is
mostly that both rays meet. Surfaces 8 mm off gave the same cameras."""

MIN_MATCHES = 8
"""Pairs of photos with fewer are not held together by them."""


@dataclass
class FitState:
    """The unknowns of V photos by G cameras; `solve` makes new ones and never changes one."""

    identity: np.ndarray
    codes: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    log_focals: np.ndarray
    projected: dict = field(init=False, repr=False, default_factory=dict)
    """`Projected` by surface points and photo: cost and derivatives ask for the same."""


@dataclass(eq=False)
class SurfacePoints:
    """Surface points with their linear bases, (n, 3), (K, n, 3), (52, n, 3)."""

    mean: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray

    def __post_init__(self) -> None:
        self._rows = np.concatenate([self.identity_basis, self.expression_basis])
        # Derivatives are single precision: they steer the steps, the cost decides.
        self.slopes = np.ascontiguousarray(self._rows.transpose(1, 2, 0), np.float32)
        """Derivative by identity and code, (n, 3, K + 52)."""
        self._rows = self._rows.reshape(len(self._rows), -1)

    def in_head(self, state: FitState, view: int) -> np.ndarray:
        """Where they are in one photo's expression, head frame, (n, 3)."""
        offsets = np.concatenate([state.identity, state.codes[view]]) @ self._rows
        return self.mean + offsets.reshape(-1, 3)


@dataclass(frozen=True)
class Projected:
    """Surface points as one photo's camera sees them.

    Attributes:
        points: (n, 3) camera frame.
        pixels: (n, 2) relative to the image centre.
        focal: Pixels.
    """

    points: np.ndarray
    pixels: np.ndarray
    focal: float

    def slope(self) -> np.ndarray:
        """Derivative of the pixels by the points, (n, 2, 3)."""
        to_pixel = np.zeros((len(self.points), 2, 3))
        to_pixel[:, 0, 0] = to_pixel[:, 1, 1] = self.focal / self.points[:, 2]
        to_pixel[:, :, 2] = -self.pixels / self.points[:, 2:]
        return to_pixel


def robust_cost(squared: np.ndarray) -> float:
    """Cauchy cost of squared errors in sigmas."""
    return ROBUST_SIGMAS**2 * float(np.log1p(squared / ROBUST_SIGMAS**2).sum())


def robust_weight(squared: np.ndarray) -> np.ndarray:
    """Weight of each error in the Gauss-Newton step of `robust_cost`."""
    return 1 / (1 + squared / ROBUST_SIGMAS**2)
