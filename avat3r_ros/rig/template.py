"""HeadTemplate: the shipped linear head model and what can be asked of it."""

import json
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from scipy import sparse
from torch import Tensor

from avat3r_ros.expression import ARKIT_52
from avat3r_ros.geometry import triangle_normals
from avat3r_ros.rig.neck_shape import neck_basis
from avat3r_ros.types import SurfaceBinding

DEFAULT_PATH = Path(__file__).parents[1] / "assets" / "head_template.safetensors"

NUM_LANDMARKS = 478
"""MediaPipe's landmarks: 468 of the face, 5 of one iris and 5 of the other."""

REGIONS = (
    "skin",
    "scalp",
    "neck",
    "ears",
    "brows",
    "lips",
    "lid_left",
    "lid_right",
    "eye_left",
    "eye_right",
    "eye_sockets",
    "eyelashes",
    "inner_mouth",
    "teeth",
    "tongue",
)
"""Names of the values of `HeadTemplate.triangle_regions`; left and right are the subject's."""

CHIN_LANDMARK = 152
"""MediaPipe's landmark at the tip of the chin."""

NORMAL_SMOOTHING_STEPS = 25
"""Rounds of averaging that leave the coarse shape of the head, without nose, ears and lips."""


@dataclass(frozen=True)
class HeadTemplate:
    """A linear head: head and neck with eyes, teeth, tongue, inner mouth and lashes, in metres.

    Attributes:
        neutral: Mean adult at rest, head frame, metres; the sellion is the origin.
        triangles: Vertex indices, counter-clockwise seen from outside.
        identity_basis: Change of the vertices per standard deviation of each identity coefficient.
        expression_basis: Change of the vertices at score 1 of each `ARKIT_52` shape, in that order.
        triangle_regions: Index into `REGIONS` for each triangle.
        uv: Texture coordinates of each triangle's corners, MakeHuman's layout, v up, [0, 1].
        landmark_triangles: Triangle of each MediaPipe landmark.
        landmark_barycentrics: Place on that triangle.
        landmark_weights: In [0, 1]; how well MediaPipe finds this point of the template again.
    """

    neutral: Float[Tensor, "v 3"]
    triangles: Int[Tensor, "f 3"]
    identity_basis: Float[Tensor, "k v 3"]
    expression_basis: Float[Tensor, "52 v 3"]
    triangle_regions: Int[Tensor, "f"]
    uv: Float[Tensor, "f 3 2"]
    landmark_triangles: Int[Tensor, "478"]
    landmark_barycentrics: Float[Tensor, "478 3"]
    landmark_weights: Float[Tensor, "478"]

    @staticmethod
    def load(path: str | Path | None = None) -> "HeadTemplate":
        """Load a template file; the shipped one (cached, so do not write into it) by default.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a head template of this package's regions and expressions.
        """
        return _load(Path(path) if path is not None else DEFAULT_PATH)

    @property
    def num_identity(self) -> int:
        """K, the number of identity coefficients without those of `neck_basis`."""
        return self.identity_basis.shape[0]

    @property
    def identity_lengths(self) -> tuple[int, int]:
        """Lengths of identities: without and with coefficients of the neck."""
        return self.num_identity, self.num_identity + len(self.neck_basis)

    @cached_property
    def neck_basis(self) -> Float[Tensor, "4 v 3"]:
        """Change of the vertices per coefficient of `rig.neck_shape.NECK_SHAPES`, metres."""
        around = self.region_vertices("skin", "scalp", "ears")
        basis = neck_basis(self.neutral.cpu(), self.region_vertices("neck"), around)
        return basis.to(self.neutral)

    def to(self, device: torch.device | str) -> "HeadTemplate":
        """Return the template on another device."""
        return HeadTemplate(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def vertices(
        self,
        identity: Float[Tensor, "*#b k"] | None = None,
        code: Float[Tensor, "*#b 52"] | None = None,
    ) -> Float[Tensor, "... v 3"]:
        """Shape the head; differentiable, None means zeros (mean adult, at rest).

        Args:
            identity: Standard deviations, and after them the coefficients of `neck_basis` or
                nothing; leading dimensions broadcast with those of `code`.
            code: `arkit_52` scores. Values outside [0, 1] extrapolate.

        Returns:
            Vertices in the head frame, metres.
        """
        vertices = self.neutral
        if identity is not None:
            shape, neck = identity[..., : self.num_identity], identity[..., self.num_identity :]
            vertices = vertices + torch.tensordot(shape, self.identity_basis, 1)
            if neck.shape[-1]:
                vertices = vertices + torch.tensordot(neck, self.neck_basis, 1)
        if code is not None:
            vertices = vertices + torch.tensordot(code, self.expression_basis, 1)
        return vertices

    def landmarks(self, vertices: Float[Tensor, "*b v 3"]) -> Float[Tensor, "*b 478 3"]:
        """Where MediaPipe's landmarks are on given vertices, in the vertices' frame."""
        corners = vertices[..., self.triangles[self.landmark_triangles], :]
        return (corners * self.landmark_barycentrics[..., None]).sum(-2)

    def bound_points(
        self, vertices: Float[Tensor, "v 3"], binding: SurfaceBinding
    ) -> Float[Tensor, "*p 3"]:
        """Surface points of a binding on given vertices; 0 where it is off the template."""
        corners = vertices[self.triangles[binding.triangle_ids.clamp(min=0)]]
        points = (corners * binding.barycentrics[..., None]).sum(-2)
        return points * (binding.triangle_ids >= 0)[..., None]

    def vertex_normals(self, vertices: Float[Tensor, "*b v 3"]) -> Float[Tensor, "*b v 3"]:
        """Outward unit normals: area-weighted mean of the normals of each vertex's triangles."""
        face_normals = triangle_normals(vertices[..., self.triangles, :])
        normals = torch.zeros_like(vertices)
        for k in range(3):
            normals = normals.index_add(-2, self.triangles[:, k], face_normals)
        return torch.nn.functional.normalize(normals, dim=-1, eps=1e-20)

    def coarse_normals(
        self, identity: Float[Tensor, "k"], offset: Float[Tensor, "v 3"] | None = None
    ) -> Float[Tensor, "v 3"]:
        """Outward unit normals of the resting head, averaged over their surroundings, float64.

        Hair stands along these, and views claim surfaces by them: with the fine normals of ears and
        lips either would fall into patches.

        Args:
            identity: Of the head.
            offset: Moves its vertices, as to the surface of its hair; metres.
        """
        vertices = self.vertices(identity)
        normals = self.vertex_normals(vertices if offset is None else vertices + offset)
        normals = normals.double().numpy()
        triangles = self.triangles.numpy()
        rows = np.repeat(np.arange(len(triangles)), 3)
        corners = sparse.csr_matrix(
            (np.ones(triangles.size), (rows, triangles.ravel())), (len(triangles), len(normals))
        )
        around = (corners.T @ corners).tocsr()  # lengths do not matter
        for _ in range(NORMAL_SMOOTHING_STEPS):
            normals = around @ normals
            lengths = np.sqrt(np.einsum("vc,vc->v", normals, normals))
            normals /= np.maximum(lengths, 1e-12)[:, None]
        return torch.from_numpy(normals)

    def region_mask(self, *names: str) -> Tensor:
        """Which triangles belong to one of the named regions, (F,) bool.

        Raises:
            ValueError: A name is not in `REGIONS`.
        """
        unknown = set(names) - set(REGIONS)
        if unknown:
            raise ValueError(f"unknown regions {sorted(unknown)}, expected some of {REGIONS}")
        wanted = torch.tensor([REGIONS.index(name) for name in names])
        return torch.isin(self.triangle_regions, wanted.to(self.triangle_regions.device))

    def region_vertices(self, *names: str) -> Int[np.ndarray, "n"]:
        """Vertices of the triangles of the named regions, ascending; errors as `region_mask`."""
        return np.unique(self.triangles[self.region_mask(*names)].cpu().numpy())

    def triangles_without_lashes(self) -> Int[Tensor, "f 3"]:
        """Triangles with the lashes collapsed: thinner than pixels, they hide nothing in photos."""
        return self.triangles.masked_fill(self.region_mask("eyelashes")[:, None], 0)


@lru_cache(maxsize=4)
def _load(path: Path) -> HeadTemplate:
    """Read and check a template file."""
    if not path.is_file():
        raise FileNotFoundError(f"no head template at {path}")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != "avat3r-head-template":
            raise ValueError(
                f"expected a head template in {path}, got format {metadata.get('format')!r}"
            )
        for key, expected in (("regions", REGIONS), ("expressions", ARKIT_52)):
            actual = tuple(json.loads(metadata.get(key, "[]")))
            if actual != expected:
                raise ValueError(f"expected {key} {expected} in {path}, got {actual}")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return HeadTemplate(
        **{
            name: value.long() if not value.is_floating_point() else value.float()
            for name, value in arrays.items()
        }
    )
