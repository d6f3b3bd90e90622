"""The shape of one synthetic person in any expression: template, hair and clothes as one mesh."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from avat3r_ros.data.head_surface import HeadSurface
from avat3r_ros.data.patches import GridPatch
from avat3r_ros.expression import validate_code
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate


@dataclass(frozen=True)
class PersonMesh(HeadSurface):
    """A person's surface; the first triangles are the template's, the last the clothes'.

    Attributes:
        template: Gives topology and expressions.
        identity: Template coefficients; the shape also has a part that they do not express.
        rest: Template vertices of the resting person, metres.
        patches: Hair, where there is any, then clothes.
        shown: Triangles that are drawn at all.
    """

    template: HeadTemplate
    identity: Float[np.ndarray, "k"]
    rest: Float[np.ndarray, "v 3"]
    patches: tuple[GridPatch, ...]
    shown: Bool[np.ndarray, "f"]
    triangles: Integer[np.ndarray, "f 3"]
    chin: Float[np.ndarray, "3"]

    @staticmethod
    def build(
        template: HeadTemplate,
        identity: Float[np.ndarray, "k"],
        rest: Float[np.ndarray, "v 3"],
        patches: tuple[GridPatch, ...],
    ) -> "PersonMesh":
        """Join the parts; the template's lashes, solid bars, are not shown."""
        triangles = [template.triangles.numpy()]
        start = len(rest)
        for patch in patches:
            triangles.append(patch.triangles + start)
            start += len(patch.offsets)
        joined = np.concatenate(triangles).astype(np.int32)
        shown = np.ones(len(joined), bool)
        shown[: len(template.triangles)] = ~template.region_mask("eyelashes").numpy()
        chin = template.landmarks(torch.from_numpy(rest))[CHIN_LANDMARK].numpy()
        return PersonMesh(template, identity, rest, patches, shown, joined, chin)

    @property
    def num_template_triangles(self) -> int:
        """Triangles below this number are the template's."""
        return len(self.template.triangles)

    @property
    def clothes_vertex(self) -> int:
        """First vertex of the clothes."""
        return len(self.rest) + sum(len(patch.offsets) for patch in self.patches[:-1])

    @property
    def clothes_triangle(self) -> int:
        """First triangle of the clothes."""
        return len(self.triangles) - len(self.patches[-1].triangles)

    @property
    def head_triangles(self) -> Integer[np.ndarray, "n"]:
        """All that are drawn, without the clothes'."""
        return np.flatnonzero(self.shown[: self.clothes_triangle])

    def template_vertices(self, code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "v 3"]:
        """Vertices of the template's part in an expression, metres."""
        code = validate_code("arkit_52", code)
        used = np.flatnonzero(code)
        basis = self.template.expression_basis.numpy().reshape(len(code), -1)
        return self.rest + (code[used] @ basis[used]).reshape(-1, 3)

    def vertices(self, code: Float[np.ndarray, "52"]) -> Float[np.ndarray, "n 3"]:
        """Vertices of the whole mesh in an expression, metres."""
        moved = self.template_vertices(code)
        return np.concatenate([moved, *(patch.vertices(moved) for patch in self.patches)])
