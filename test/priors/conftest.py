"""Exact crops of the mean head from cameras around it, for the back-ends of the priors."""

import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, HeadCrops

FOCAL_PER_PIXEL = 1.9
HEAD_MIDDLE = np.array([0.0, 0.0, -0.07])


def exact_crops(template, yaws_deg, codes=None, size=96):
    """Crops whose mattes are the mesh's outline; grey, a little lighter to the head's left."""
    codes = [arkit_code(**scores) for scores in codes or [{}] * len(yaws_deg)]
    poses = [look_at_head(np.radians(yaw), 0.0, 0.6, HEAD_MIDDLE) for yaw in yaws_deg]
    k = intrinsics_matrix(FOCAL_PER_PIXEL * size, size / 2, size / 2)
    lashes = template.region_mask("eyelashes").numpy()
    triangles = np.where(lashes[:, None], 0, template.triangles.numpy())
    masks = []
    for pose, code in zip(poses, codes, strict=True):
        vertices = template.vertices(code=torch.from_numpy(code)).numpy()
        seen = native.rasterize_mesh(vertices, triangles, k, pose, size, size)
        masks.append(seen.triangle_ids >= 0)
    masks = torch.from_numpy(np.stack(masks).astype(np.float32))[:, None]
    shade = torch.linspace(0.4, 0.6, size).expand(len(poses), 3, size, size)
    return HeadCrops(
        images=masks * shade,
        masks=masks,
        cameras=Camera(
            torch.from_numpy(k).float().expand(len(poses), 3, 3),
            torch.from_numpy(np.stack(poses)).float(),
            size,
            size,
        ),
        codes=torch.from_numpy(np.stack(codes)),
        identity=torch.zeros(template.num_identity),
    )


@pytest.fixture(scope="session")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="session")
def make_exact_crops(template):
    """Call with yaws in degrees, and codes and a size if need be."""
    return lambda *args, **kwargs: exact_crops(template, *args, **kwargs)
