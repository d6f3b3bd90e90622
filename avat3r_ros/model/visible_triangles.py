"""Which inner surfaces of a head a viewer ever sees, such as the cheeks inside an open mouth."""

import itertools

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros import native
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.model.template_colors import LEFT_OUT, SKIN
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig import HeadTemplate

VIEWER_YAWS_RAD = (-0.8, -0.4, -0.15, 0.0, 0.15, 0.4, 0.8)
VIEWER_PITCHES_RAD, VIEWER_PX = (-0.35, 0.0, 0.3), 160
"""Where viewers of the mouth and the eyes are tried, and the size of what they see."""


def ever_visible(
    placed: Float[Tensor, "r v 3"], template: HeadTemplate, group: Int[Tensor, "f"]
) -> Bool[Tensor, "f"]:
    """Find the triangles of the outer skin, and inner ones that a viewer sees in some expression.

    Args:
        placed: The template's vertices in the expressions, metres, head frame.
        template: Its triangles.
        group: Kind of surface of each triangle (`template_colors.surface_groups`).
    """
    triangles = template.triangles.int().numpy()
    solid = triangles[(group != LEFT_OUT).numpy()]
    rows = (group != LEFT_OUT).nonzero()[:, 0]
    seen = torch.zeros(len(group), dtype=torch.bool)
    intrinsics = intrinsics_matrix(VIEWER_PX * 0.7 / 0.16, VIEWER_PX / 2, VIEWER_PX / 2)

    def shown(vertices: Tensor) -> np.ndarray:
        """Which of the solid triangles one of the viewers sees."""
        shown = np.zeros(len(solid) + 1, bool)
        middle = vertices.mean(0).double().numpy() * np.array([0.0, 1.0, 0.0])
        for yaw, pitch in itertools.product(VIEWER_YAWS_RAD, VIEWER_PITCHES_RAD):
            pose = look_at_head(yaw, pitch, 0.7, middle)
            shown[native.rasterize_mesh(
                vertices.numpy(), solid, intrinsics, pose, VIEWER_PX, VIEWER_PX
            ).triangle_ids] = True  # fmt: skip
        return shown[:-1]  # the last stands for no triangle, -1

    seen[rows[torch.from_numpy(np.any(in_threads(shown, list(placed)), 0))]] = True
    # A viewer between the tried ones sees a little more: take the neighbours in.
    near = torch.zeros(placed.shape[1], dtype=torch.bool)
    near[template.triangles[seen].flatten().long()] = True
    seen |= near[template.triangles.long()].any(-1)
    return seen | (group == SKIN)
