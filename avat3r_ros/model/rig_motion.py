"""Moving the base guess with the head template's rig: evaluated once per driver frame.

The rig is linear in the code: `vertices(code) = neutral + sum_e code[e] * expression_basis[e]`. A
Gaussian that a reference photo with code `c_v` placed at P on triangle t moves to

    P + displacement(t, code) - displacement(t, c_v)

so references with different expressions agree, and a code equal to the reference's own returns P
itself. Its flat disc follows the triangle: in the triangle's plane a Gaussian is a 2x2 matrix A of
its two half axes, written in the triangle's edges (A = E C, C fixed), and a new pair of edges E'
gives A' = E' C, whose principal axes are found in closed form. Everything per Gaussian is
two-dimensional; rotations in space are made per triangle, of which there are few.

Letters: N Gaussians, M moving, D deforming, F triangles, Nv vertices, R code rows, E code length.
"""

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.geometry import (
    matrices_from_quats_wxyz,
    multiply_quats_wxyz,
    quats_wxyz_from_matrices,
)
from avat3r_ros.model.fill_motion import Lenders, nearest_pixels
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Gaussians

MIN_STRETCH, MAX_STRETCH = 0.3, 4.0
"""Limits of a half axis relative to its longer original: folded skin has no honest stretch."""

FADE_FROM, FADE_TO = 1.3, 3.3
"""On unfolding surfaces a Gaussian is whole while its triangle's area is within the first factor of
what it was, and gone beyond the second."""

MIN_EDGE_M = 1e-5
"""Shorter triangle edges and heights count as this; such a triangle has no direction."""


@dataclass(frozen=True)
class BaseGuess:
    """Gaussians before the network's changes, and how the rig moves them.

    The order is fixed: pixels first (`[0, num_pixels)`, so that per-pixel network output lines up),
    template Gaussians after; the moving ones are one contiguous run `[moving_start, moving_stop)`,
    and within it those that also change shape are `[deforming_start, moving_stop)`.

    Attributes:
        gaussians: Each Gaussian in the expression in which it was placed.
        code_rows: Row of `codes` that holds that expression.
        codes: Reference codes (first V rows), then the codes of the template Gaussians.
        pixel_indices: Pixel of each of the first P Gaussians in the flattened (V, H, W) grid.
        moving_start: First Gaussian the rig moves.
        deforming_start: First Gaussian whose shape follows its triangle.
        moving_stop: One past the last moving Gaussian.
        triangle_ids: Triangle of each moving Gaussian.
        barycentrics: Weights of its corners; they sum to less than 1 where motion fades out with
            the distance from the template.
        fading: Deforming Gaussians on surfaces that unfold (lids), increasing: they fade where
            their triangle is far from the size it was placed at, and leave the place to those that
            were placed there: pixels for the open eye, template Gaussians for the closed one.
        reference_size: H = W of the references.
    """

    gaussians: Gaussians
    code_rows: Int[Tensor, "n"]
    codes: Float[Tensor, "r e"]
    pixel_indices: Int[Tensor, "p"]
    moving_start: int
    deforming_start: int
    moving_stop: int
    triangle_ids: Int[Tensor, "m"]
    barycentrics: Float[Tensor, "m 3"]
    fading: Int[Tensor, "q"]
    reference_size: int

    def __post_init__(self) -> None:
        bounds = (0, self.moving_start, self.deforming_start, self.moving_stop, len(self))
        if list(bounds) != sorted(bounds):
            raise ValueError(f"expected 0 <= moving <= deforming <= stop <= N, got {bounds}")
        if len(self.triangle_ids) != self.num_moving or len(self.barycentrics) != self.num_moving:
            raise ValueError(
                f"expected {self.num_moving} bindings, got {len(self.triangle_ids)} and "
                f"{len(self.barycentrics)}"
            )

    def __len__(self) -> int:
        return len(self.gaussians)

    @property
    def num_pixels(self) -> int:
        """Gaussians that come from reference pixels; the network changes only these."""
        return len(self.pixel_indices)

    @property
    def num_moving(self) -> int:
        """Gaussians the rig moves."""
        return self.moving_stop - self.moving_start

    def to(self, device: torch.device | str) -> "BaseGuess":
        """Return the same base guess on another device."""
        return BaseGuess(
            self.gaussians.to(device),
            self.code_rows.to(device),
            self.codes.to(device),
            self.pixel_indices.to(device),
            self.moving_start,
            self.deforming_start,
            self.moving_stop,
            self.triangle_ids.to(device),
            self.barycentrics.to(device),
            self.fading.to(device),
            self.reference_size,
        )

    def subset(self, indices: Int[Tensor, "k"]) -> "BaseGuess":
        """Keep some Gaussians, in their order: sparse geometry losses need only a sample.

        Args:
            indices: Gaussians to keep, strictly increasing.

        Raises:
            ValueError: The indices are not increasing or out of range.
        """
        if len(indices) and (
            bool((indices.diff() <= 0).any()) or indices[0] < 0 or indices[-1] >= len(self)
        ):
            raise ValueError(f"expected strictly increasing indices in [0, {len(self)})")
        return self.repeated(indices)

    def repeated(self, indices: Int[Tensor, "k"]) -> "BaseGuess":
        """Take Gaussians, in their order, each as often as it is named.

        Args:
            indices: Of Gaussians, not decreasing.
        """
        start, deforming, stop, pixels = (
            int(torch.searchsorted(indices, bound))
            for bound in (self.moving_start, self.deforming_start, self.moving_stop,
                          self.num_pixels)
        )  # fmt: skip
        moving = indices[start:stop] - self.moving_start
        fading = torch.isin(indices, self.fading).nonzero()[:, 0]
        g = self.gaussians
        return BaseGuess(
            Gaussians(
                g.means[indices],
                g.quats_wxyz[indices],
                g.scales[indices],
                g.opacities[indices],
                g.colors[indices],
            ),
            self.code_rows[indices],
            self.codes,
            self.pixel_indices[indices[:pixels]],
            start,
            deforming,
            stop,
            self.triangle_ids[moving],
            self.barycentrics[moving],
            fading,
            self.reference_size,
        )


class RigMotion:
    """The rig of one person, cut down to the triangles a base guess uses.

    Args:
        base: What to move.
        neutral: The person's vertices with a zero code, head frame, metres.
        triangles: Rows of `neutral`.
        expression_basis: Vertex displacement per unit of each code entry, metres.
    """

    def __init__(
        self,
        base: BaseGuess,
        neutral: Float[Tensor, "nv 3"],
        triangles: Int[Tensor, "f 3"],
        expression_basis: Float[Tensor, "e nv 3"],
    ) -> None:
        self.base = base
        self._rig = (neutral, triangles, expression_basis)
        used, self._triangle_rows = torch.unique(base.triangle_ids.long(), return_inverse=True)
        corners = triangles[used].long()
        used_vertices, corners = torch.unique(corners, return_inverse=True)
        self._corners = corners.flatten()  # (F' * 3,)
        self._neutral_corners = neutral[used_vertices][corners]  # (F', 3, 3)
        self._basis = expression_basis[:, used_vertices].flatten(1).contiguous()  # (E, Nv'*3)
        self._rows = base.code_rows[base.moving_start : base.moving_stop].long()
        first = base.deforming_start - base.moving_start
        self._deforming_triangles = self._triangle_rows[first:]
        with torch.no_grad():
            by_row = torch.stack([self._displacement(code) for code in base.codes])  # (R, F', 9)
            self._reference_displacement = self._interpolate(
                by_row[self._rows, self._triangle_rows]
            )
            frames, edges = self._edge_frames(by_row)
            self._shape_coefficients = self._fit_shapes(frames, edges, self._rows[first:])
            fading = base.fading - base.moving_start
            self._fading_triangles = self._triangle_rows[fading]
            placed = _double_areas(edges)[self._rows[fading], self._fading_triangles]
            self._placed_areas = placed
        scales = base.gaussians.scales[base.deforming_start : base.moving_stop, :2]
        self._min_axis = MIN_STRETCH * scales.amin(-1)
        self._max_axis = MAX_STRETCH * scales.amax(-1)

    @classmethod
    def of_person(
        cls, base: BaseGuess, identity: Float[Tensor, "k"], template: HeadTemplate
    ) -> "RigMotion":
        """Return the rig of a person of the head template; on the base guess's device."""
        device = base.gaussians.means.device
        return cls(
            base,
            template.vertices(identity.float().to(template.neutral.device)).to(device),
            template.triangles.to(device),
            template.expression_basis.to(device),
        )

    def for_base(self, base: BaseGuess) -> "RigMotion":
        """Return the same person's rig for another base guess."""
        return RigMotion(base, *self._rig)

    def with_places(self, base: BaseGuess) -> "RigMotion":
        """Return the same rig for its base guess with other centres, opacities or colours."""
        moved = copy.copy(self)
        moved.base = base
        moved.__dict__.pop("lenders", None)  # they are told by the centres
        return moved

    @cached_property
    def lenders(self) -> Lenders | None:
        """Pixels that the template Gaussians follow when the network moves them."""
        resting = self.gaussians(torch.zeros_like(self.base.codes[0]))
        pixels = self.base.gaussians.scales[: self.base.num_pixels]
        # Pixels laid on the template are flat. The others show hair and outlines, and go elsewhere.
        return nearest_pixels(resting.means, pixels[:, 2] < pixels[:, 0])

    @torch.no_grad()
    def means(self, code: Float[Tensor, "e"]) -> Float[Tensor, "n 3"]:
        """Return the centres alone: `gaussians(code).means` at a third of its cost."""
        return self._means(self._displacement(code))

    @torch.no_grad()
    def gaussians(self, code: Float[Tensor, "e"]) -> Gaussians:
        """Return the base guess in an expression. A few milliseconds on one core."""
        base, still = self.base, self.base.gaussians
        if not base.num_moving:
            return still
        displacement = self._displacement(code)
        means = self._means(displacement)
        quats, scales = still.quats_wxyz, still.scales
        opacities = still.opacities
        if base.deforming_start < base.moving_stop:
            deforming = slice(base.deforming_start, base.moving_stop)
            quats, scales = quats.clone(), scales.clone()
            frames, edges = self._edge_frames(displacement)
            quats[deforming], scales[deforming, :2] = self._shapes(frames, edges)
            if len(base.fading):
                area = _double_areas(edges)[self._fading_triangles]
                change = torch.maximum(area / self._placed_areas, self._placed_areas / area)
                share = ((FADE_TO - change) / (FADE_TO - FADE_FROM)).clamp(0, 1)
                opacities = opacities.index_copy(0, base.fading, opacities[base.fading] * share)
        return Gaussians(means, quats, scales, opacities, still.colors)

    @torch.no_grad()
    def half_axes(self, code: Float[Tensor, "e"]) -> Float[Tensor, "d 6"]:
        """Return two half axes of each deforming Gaussian in its triangle's plane, end to end.

        They are linear in the code, as the means are; `gaussians` returns their principal axes,
        within `axis_limits`.
        """
        corners = self._neutral_corners + self._displacement(code).unflatten(-1, (3, 3))
        edges = (corners[:, 1:] - corners[:, :1]).flatten(1)  # (F', 6)
        edges = edges.index_select(0, self._deforming_triangles)
        c = self._shape_coefficients
        axes = [edges[:, :3] * c[:, k : k + 1] + edges[:, 3:] * c[:, k + 2 : k + 3] for k in (0, 1)]
        return torch.cat(axes, -1)

    @property
    def axis_limits(self) -> Float[Tensor, "d 2"]:
        """Least and greatest scale of each deforming Gaussian in its triangle's plane, metres."""
        return torch.stack([self._min_axis, self._max_axis], -1)

    def _means(self, displacement: Tensor) -> Tensor:
        base = self.base
        moved = self._interpolate(displacement.index_select(0, self._triangle_rows))
        means = base.gaussians.means.clone()
        means[base.moving_start : base.moving_stop] += moved - self._reference_displacement
        return means

    def _displacement(self, code: Tensor) -> Tensor:
        """Displacement of the three corners of every used triangle, (F', 9)."""
        vertices = torch.mv(self._basis.T, code).view(-1, 3)
        return vertices.index_select(0, self._corners).view(-1, 9)

    def _interpolate(self, corner_displacement: Tensor) -> Tensor:
        """Barycentric mean of corner displacements (M, 9) -> (M, 3)."""
        weights = self.base.barycentrics
        return (
            corner_displacement[:, 0:3] * weights[:, 0:1]
            + corner_displacement[:, 3:6] * weights[:, 1:2]
            + corner_displacement[:, 6:9] * weights[:, 2:3]
        )

    def _edge_frames(self, displacement: Tensor) -> tuple[Tensor, Tensor]:
        """Frame and edges of triangles displaced by (..., F', 9).

        Returns:
            Rotation head_from_triangle (..., F', 3, 3), x along the first edge and z the normal;
            and (..., F', 3): first edge's length, second edge's x and y in that frame.
        """
        corners = self._neutral_corners + displacement.unflatten(-1, (3, 3))
        first = corners[..., 1, :] - corners[..., 0, :]
        second = corners[..., 2, :] - corners[..., 0, :]
        length = first.norm(dim=-1, keepdim=True).clamp(min=MIN_EDGE_M)
        x = first / length
        normal = torch.cross(x, second, dim=-1)
        height = normal.norm(dim=-1, keepdim=True).clamp(min=MIN_EDGE_M)
        z = normal / height
        y = torch.cross(z, x, dim=-1)
        edges = torch.cat([length, (second * x).sum(-1, keepdim=True), height], -1)
        return torch.stack([x, y, z], -1), edges

    def _fit_shapes(self, frames: Tensor, edges: Tensor, rows: Tensor) -> Tensor:
        """Half axes of the deforming Gaussians in their triangle's edges, (D, 4) row-major 2x2."""
        base, triangles = self.base, self._deforming_triangles
        deforming = slice(base.deforming_start, base.moving_stop)
        frames, edges = frames[rows, triangles], edges[rows, triangles]
        axes = matrices_from_quats_wxyz(base.gaussians.quats_wxyz[deforming])[..., :2]
        axes = axes * base.gaussians.scales[deforming, None, :2]
        flat = frames[..., :2].transpose(-1, -2) @ axes  # (D, 2, 2) in the triangle's plane
        second = flat[:, 1] / edges[:, 2:3]
        first = (flat[:, 0] - edges[:, 1:2] * second) / edges[:, 0:1]
        return torch.cat([first, second], -1)

    def _shapes(self, frames: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Orientation (D, 4) and the two in-plane half axes (D, 2) of the deforming Gaussians."""
        # A thin triangle that turns inside out has no frame to speak of; quaternions stay unit.
        quats = quats_wxyz_from_matrices(frames)
        per_triangle = torch.cat([edges, quats], -1)
        length, shear, height, w, x, y, z = per_triangle.index_select(
            0, self._deforming_triangles
        ).unbind(-1)
        c = self._shape_coefficients
        a = length * c[:, 0] + shear * c[:, 2]
        b = length * c[:, 1] + shear * c[:, 3]
        d = height * c[:, 2]
        e = height * c[:, 3]
        xx, yy, xy = a * a + b * b, d * d + e * e, a * d + b * e
        half_angle = 0.25 * torch.atan2(2 * xy, xx - yy)
        mean, difference = 0.5 * (xx + yy), 0.5 * torch.hypot(xx - yy, 2 * xy)
        longer = (mean + difference).sqrt()
        shorter = (mean - difference).clamp_(min=0).sqrt()
        scales = torch.stack(
            [longer.clamp_(self._min_axis, self._max_axis),
             shorter.clamp_(self._min_axis, self._max_axis)], -1
        )  # fmt: skip
        # q_triangle * (cos, 0, 0, sin): a turn within the triangle's plane.
        cos, sin = half_angle.cos(), half_angle.sin()
        turned = torch.stack(
            [w * cos - z * sin, x * cos + y * sin, y * cos - x * sin, z * cos + w * sin], -1
        )
        return turned, scales


def _double_areas(edges: Tensor) -> Tensor:
    """Twice the area of triangles from their edges (..., 3)."""
    return edges[..., 0] * edges[..., 2]


def facing_quats_wxyz(
    normals: Float[Tensor, "n 3"], tangents: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 4"]:
    """Orientation whose z axis is `normals` and whose x axis is the part of `tangents` across it.

    Args:
        normals: Unit vectors.
        tangents: Any vectors; where one is parallel to its normal, any direction across is taken.
    """
    across = tangents - normals * (tangents * normals).sum(-1, keepdim=True)
    # The coordinate axis least aligned with the normal is always well across it.
    spare = torch.zeros_like(normals).scatter_(-1, normals.abs().argmin(-1, keepdim=True), 1.0)
    spare = spare - normals * (spare * normals).sum(-1, keepdim=True)
    across = torch.where(across.norm(dim=-1, keepdim=True) > 1e-4, across, spare)
    x = torch.nn.functional.normalize(across, dim=-1)
    y = torch.cross(normals, x, dim=-1)
    return quats_wxyz_from_matrices(torch.stack([x, y, normals], -1))


def compose_quats_wxyz(
    base: Float[Tensor, "n 4"], change: Float[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """Turn `base` by the unit quaternion along `change + (1, 0, 0, 0)`; a zero change is exact."""
    turn = change + torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=change.dtype, device=change.device)
    turn = turn / turn.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    return multiply_quats_wxyz(base, turn)
