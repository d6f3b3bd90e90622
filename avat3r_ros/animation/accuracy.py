"""How far the compiled path is from the full one, at codes that were not compiled."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avat3r_ros.animation.codes import ARKIT_SPACE, driven_codes, frequent_pairs
from avat3r_ros.animation.compiled import CompiledAnimation, CompiledParts
from avat3r_ros.animation.contributions import orbit_camera
from avat3r_ros.animation.snapshots import MILLIMETRES, FullPath
from avat3r_ros.rendering import FrameRenderer

PICTURE_PX = 256
YAWS_PITCHES_RAD = ((0.0, 0.0), (0.6, 0.1), (-0.6, -0.15))
MOVING_MM = 1.0
"""Points that the full path moves farther than this from neutral count as moving."""

NUM_WORST = 5


@dataclass(frozen=True)
class Accuracy:
    """What was measured; see the module. Pictures are 8-bit on black, from a few directions.

    Attributes:
        mean_psnr_db: Over the driven codes' pictures; the full path is the reference.
        min_psnr_db: The worst picture.
        mean_moving_error_mm: Of the points that move, over driven codes and pairs.
        max_moving_error_mm: The 99.9th percentile of the code where it is worst.
        worst_pairs: Names and errors (mm, as before) of the frequent pairs that fare worst.
    """

    mean_psnr_db: float
    min_psnr_db: float
    mean_moving_error_mm: float
    max_moving_error_mm: float
    worst_pairs: list[tuple[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def psnr_db(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR of uint8 pictures; 99 where they are equal."""
    error = np.square(image.astype(np.float32) - reference.astype(np.float32)).mean()
    return float(min(99.0, 10 * np.log10(255.0**2 / max(float(error), 1e-9))))


def measure_accuracy(
    path: FullPath,
    parts: CompiledParts,
    code_space: str,
    *,
    num_codes: int,
    num_pairs: int,
    progress: Callable[[float], None],
) -> Accuracy:
    """Compare both paths.

    Args:
        path: The full path.
        parts: The compiled one.
        code_space: Of both.
        num_codes: Driven codes that are rendered.
        num_pairs: Frequent pairs at which points are compared; only in `arkit_52`.
        progress: Called with the fraction done.
    """
    animation, order = CompiledAnimation(parts), parts.order
    codes = driven_codes(code_space, num_codes)
    pairs = list(frequent_pairs().items()) if code_space == ARKIT_SPACE and num_pairs else []
    pairs = pairs[:: max(1, len(pairs) // max(1, num_pairs))]
    neutral = path.gaussians(torch.zeros(codes.shape[1])).means[order]
    renderer = FrameRenderer("cpu")
    pictures: list[float] = []
    errors: list[tuple[float, float]] = []
    total = len(codes) + len(pairs)
    for i, code in enumerate([*codes, *(code for _, code in pairs)]):
        progress(i / total)
        full, fast = path.gaussians(torch.from_numpy(code)), animation.animate(code)
        error = MILLIMETRES * (full.means[order] - fast.means).norm(dim=-1)
        moving = MILLIMETRES * (full.means[order] - neutral).norm(dim=-1) > MOVING_MM
        errors.append(_mean_and_high(error[moving]))
        if i < len(codes):
            camera = orbit_camera(*YAWS_PITCHES_RAD[i % len(YAWS_PITCHES_RAD)], PICTURE_PX)
            reference = renderer.render_u8(full, camera).copy()
            pictures.append(psnr_db(renderer.render_u8(fast, camera), reference))
    of_pairs = sorted(
        ((name, high) for (name, _), (_, high) in zip(pairs, errors[len(codes) :], strict=True)),
        key=lambda item: -item[1],
    )
    means = [mean for mean, _ in errors if mean > 0]
    return Accuracy(
        mean_psnr_db=round(float(np.mean(pictures)), 2),
        min_psnr_db=round(float(np.min(pictures)), 2),
        mean_moving_error_mm=round(float(np.mean(means)) if means else 0.0, 4),
        max_moving_error_mm=round(max(high for _, high in errors), 4),
        worst_pairs=[(name, round(high, 4)) for name, high in of_pairs[:NUM_WORST]],
    )


def _mean_and_high(error_mm: Tensor) -> tuple[float, float]:
    if not len(error_mm):
        return 0.0, 0.0
    rank = max(1, int(0.999 * len(error_mm)))
    return float(error_mm.mean()), float(error_mm.kthvalue(rank).values)
