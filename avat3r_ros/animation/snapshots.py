"""What the full path says at a code, in numbers that are as linear in the code as possible.

A disc on a triangle has two half axes p and q, and the rig moves them linearly: they are the
triangle's edges times fixed coefficients. Its orientation and scales are their principal axes,
within limits, and jump wherever the disc is round; its opacity on an unfolding lid is a function of
their area. So the half axes are kept instead, and the network's change of orientation and scale is
applied to them. The native library turns them back (native/src/basis_kernels.h).

Columns: position 3 (mm), half axes p and q 6 (mm), thickness 1 (mm), colour 3, opacity before
fading 1; the groups of `native.basis.GROUP_WIDTHS`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.geometry import matrices_from_quats_wxyz
from avat3r_ros.model import Avat3r, Prefix
from avat3r_ros.native.basis import GROUP_WIDTHS, HALF_AXES, POSITION
from avat3r_ros.types import Gaussians

MILLIMETRES = 1000.0
HALF_MAX = 60000.0
"""Limits are stored as half floats; this many millimetres limit nothing."""

MIN_SHARE = 0.05
"""A Gaussian that has faded to less says nothing about its opacity before fading."""


@dataclass(frozen=True)
class Shapes:
    """What turns columns back into Gaussians, and does not depend on the code.

    Attributes:
        limits_mm: Least and greatest scale along the half axes.
        fading: Gaussians whose opacity follows the area of their half axes.
        placed_area_mm2: Area of each fading one at which it is whole.
    """

    limits_mm: Float[Tensor, "n 2"]
    fading: Int[Tensor, "f"]
    placed_area_mm2: Float[Tensor, "f"]


class FullPath:
    """The full path of one avatar, as columns.

    Args:
        prefix: From `model.restore_avatar`.
        network: From there too; None for the base guess alone.
    """

    def __init__(self, prefix: Prefix, network: Avat3r | None) -> None:
        self.prefix, self.network = prefix, network
        still = prefix.base.gaussians
        axes = matrices_from_quats_wxyz(still.quats_wxyz)[..., :2] * still.scales[:, None, :2]
        self._still_axes = axes.transpose(1, 2).flatten(1)

    def __len__(self) -> int:
        return len(self.prefix.base)

    @torch.no_grad()
    def gaussians(self, code: Float[Tensor, "e"]) -> Gaussians:
        """Return what the animator's full path returns."""
        if self.network is None:
            return self.prefix.base_gaussians(code)
        return self.network.decode(self.prefix, code)

    @property
    def groups(self) -> tuple[int, ...]:
        """Groups that can move: the rig changes no thickness, colour or opacity before fading."""
        return (POSITION, HALF_AXES) if self.network is None else tuple(range(len(GROUP_WIDTHS)))

    @torch.no_grad()
    def columns(self, code: Float[Tensor, "e"]) -> Float[Tensor, "n c"]:
        """Evaluate the full path at a code: the columns of `groups`, see the module."""
        base, motion = self.prefix.base, self.prefix.motion
        axes = self._still_axes
        if motion is not None and base.num_moving:
            axes = axes.clone()
            axes[base.deforming_start : base.moving_stop] = motion.half_axes(code)
        if self.network is None:
            return MILLIMETRES * torch.cat([self.prefix.base_means(code), axes], -1)
        before = self.prefix.base_gaussians(code)
        after = self.network.decode_moved(self.prefix, code, before)
        pixels = slice(0, base.num_pixels)  # the network turns and scales no others
        axes = torch.cat([_changed(axes[pixels], before, after), axes[base.num_pixels :]])
        still = base.gaussians.opacities
        share = torch.where(still > 0, before.opacities / still.clamp(min=1e-6), 1.0)
        return torch.cat(
            [
                MILLIMETRES * after.means,
                MILLIMETRES * axes,
                MILLIMETRES * after.scales[:, 2:],
                after.colors,
                (after.opacities / share.clamp(min=MIN_SHARE)).clamp(max=1)[:, None],
            ],
            -1,
        )

    @torch.no_grad()
    def resting(self, neutral: Float[Tensor, "e"]) -> Float[Tensor, "n 14"]:
        """All columns at the neutral code."""
        columns = self.columns(neutral)
        if self.network is not None:
            return columns
        still = self.prefix.base.gaussians
        parts = [MILLIMETRES * still.scales[:, 2:], still.colors, still.opacities[:, None]]
        return torch.cat([columns, *parts], -1)

    @torch.no_grad()
    def shapes(self, neutral: Float[Tensor, "e"]) -> Shapes:
        """Return limits and fading; the network's growth at the neutral code is part of them."""
        base, motion = self.prefix.base, self.prefix.motion
        scales = base.gaussians.scales[:, :2]
        limits = torch.stack([0 * scales[:, 0], torch.full_like(scales[:, 0], torch.inf)], -1)
        growth = torch.ones_like(scales[:, 0])
        if self.network is not None:
            before = self.prefix.base_gaussians(neutral)
            after = self.gaussians(neutral)
            growth = (after.scales[:, :2] / before.scales[:, :2]).prod(-1).sqrt()
        fading = base.fading
        if motion is not None and base.deforming_start < base.moving_stop:
            limits[base.deforming_start : base.moving_stop] = motion.axis_limits
        limits = (MILLIMETRES * growth[:, None] * limits).clamp(max=HALF_MAX)
        placed = scales[fading].prod(-1) * growth[fading].square()
        return Shapes(limits, fading, MILLIMETRES**2 * placed)


def _changed(axes: Float[Tensor, "n 6"], base: Gaussians, full: Gaussians) -> Float[Tensor, "n 6"]:
    """Half axes of the first Gaussians after their turn and growth from `base` to `full`."""
    count = len(axes)
    before, after = (g.quats_wxyz[:count].T.contiguous() for g in (base, full))
    growth = (full.scales[:count] / base.scales[:count]).T
    back = before * before.new_tensor([[1.0], [-1.0], [-1.0], [-1.0]])
    p, q = (_turned(after, growth * _turned(back, v)) for v in (axes[:, :3].T, axes[:, 3:].T))
    return torch.cat([p, q]).T


def _turned(
    quats_wxyz: Float[Tensor, "4 n"], vectors: Float[Tensor, "3 n"]
) -> Float[Tensor, "3 n"]:
    """Vectors after a turn by unit quaternions; a third of the time of matrices."""
    w, x, y, z = quats_wxyz
    a, b, c = vectors
    d, e, f = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
    return torch.stack(
        [a + w * d + y * f - z * e, b + w * e + z * d - x * f, c + w * f + x * e - y * d]
    )
