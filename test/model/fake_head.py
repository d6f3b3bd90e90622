"""A head of 200 triangles with everything that matters: a jaw, a lid, an eye, a mouth, a back.

skin above the lips: a curved sheet that never moves     lid: folded to a strip, opens in a blink
skin below the lips: moves down 20 mm with jawOpen       eye, mouth: patches behind the skin
scalp: a sheet at the back that no camera sees
"""

import numpy as np
import torch

from avat3r_ros import native
from avat3r_ros.expression import ARKIT_INDEX, arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import REGIONS, HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews, SurfaceBinding

JAW_DROP_M = 0.02
COLORS = {
    "skin": (0.8, 0.6, 0.5),
    "scalp": (0.2, 0.1, 0.1),
    "lips": (0.7, 0.3, 0.3),
    "lid_left": (0.6, 0.5, 0.4),
    "eye_left": (0.9, 0.9, 1.0),
    "inner_mouth": (0.1, 0.0, 0.0),
}


def sheet(x, y, z, cells, backwards=False):
    """Vertices and triangles of a rectangle; z is a number or a function of x."""
    nx, ny = cells
    gx, gy = np.meshgrid(np.linspace(*x, nx + 1), np.linspace(*y, ny + 1))
    gz = z(gx) if callable(z) else np.full_like(gx, z)
    vertices = np.stack([gx, gy, gz], -1).reshape(-1, 3)
    i = (np.arange(ny)[:, None] * (nx + 1) + np.arange(nx)).reshape(-1)
    a, b, c, d = i, i + 1, i + nx + 2, i + nx + 1
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return vertices, triangles[:, ::-1] if backwards else triangles


def fake_template() -> HeadTemplate:
    def curved(x):
        return 0.02 - 4 * x**2

    parts = [
        ("skin", sheet((-0.06, 0.06), (-0.03, 0.08), curved, (8, 6))),
        ("lips", sheet((-0.06, 0.06), (-0.07, -0.03), curved, (8, 3))),
        ("inner_mouth", sheet((-0.03, 0.03), (-0.08, -0.01), -0.01, (4, 4))),
        ("lid_left", sheet((0.01, 0.03), (0.0395, 0.04), 0.025, (4, 2))),
        ("eye_left", sheet((0.01, 0.03), (0.02, 0.04), 0.023, (4, 4))),
        ("scalp", sheet((-0.06, 0.06), (-0.07, 0.08), -0.08, (6, 6), backwards=True)),
    ]
    vertices, triangles, regions, start = [], [], [], {}
    for name, (v, t) in parts:
        start[name] = sum(map(len, vertices))
        triangles.append(t + start[name])
        vertices.append(v)
        regions += [REGIONS.index(name)] * len(t)
    neutral = torch.from_numpy(np.concatenate(vertices)).float()
    faces = torch.from_numpy(np.concatenate(triangles)).long()
    basis = torch.zeros(52, len(neutral), 3)
    lips = slice(start["lips"], start["inner_mouth"])
    basis[ARKIT_INDEX["jawOpen"], lips, 1] = -JAW_DROP_M
    lid = slice(start["lid_left"], start["eye_left"])
    # The lower edge of the lid travels 15 mm down: the strip is stretched thirty times.
    basis[ARKIT_INDEX["eyeBlinkLeft"], lid, 1] = -0.015 * (0.04 - neutral[lid, 1]) / 0.0005
    identity = torch.zeros(2, len(neutral), 3)
    identity[0, :, 0] = 0.05 * neutral[:, 0]
    identity[1, :, 1] = 0.05 * neutral[:, 1]
    return HeadTemplate(
        neutral=neutral,
        triangles=faces,
        identity_basis=identity,
        expression_basis=basis,
        triangle_regions=torch.tensor(regions),
        uv=torch.zeros(len(faces), 3, 2),
        landmark_triangles=torch.zeros(478, dtype=torch.long),
        landmark_barycentrics=torch.zeros(478, 3),
        landmark_weights=torch.zeros(478),
    )


def fake_views(
    template: HeadTemplate,
    codes: list[np.ndarray] | None = None,
    *,
    size: int = 32,
    num_views: int = 3,
    seed: int = 0,
) -> ReferenceViews:
    """Exact references of the fake head; pixel (0, 0) of the first view floats beside the head."""
    codes = codes if codes is not None else [arkit_code()] * num_views
    identity = torch.tensor([0.5, -0.3]) + 0.1 * seed
    palette = torch.tensor([COLORS.get(name, (0.0, 0.0, 0.0)) for name in REGIONS])
    maps = {k: [] for k in ("images", "masks", "positions", "ids", "weights", "poses")}
    k = intrinsics_matrix(size * 0.8 / 0.2, size / 2, size / 2)
    for i, code in enumerate(codes):
        pose = look_at_head(0.35 * (i - (len(codes) - 1) / 2), 0.0, 0.8)
        vertices = template.vertices(identity, torch.from_numpy(code))
        seen = native.rasterize_mesh(
            vertices.numpy(), template.triangles.numpy(), k, pose, size, size
        )
        ids = torch.from_numpy(seen.triangle_ids).long()
        weights = torch.from_numpy(seen.barycentrics).float()
        positions = template.bound_points(vertices, SurfaceBinding(ids, weights))
        inside = (ids >= 0).float()
        if i == 0:
            inside[0, 0], positions[0, 0] = 1.0, torch.tensor([-0.1, 0.1, 0.0])
        colors = palette[template.triangle_regions[ids.clamp(min=0)]] * inside[..., None]
        maps["images"].append(colors.movedim(-1, 0))
        maps["masks"].append(inside[None])
        maps["positions"].append((positions * inside[..., None]).movedim(-1, 0))
        maps["ids"].append(ids)
        maps["weights"].append(weights)
        maps["poses"].append(torch.from_numpy(pose).float())
    stacked = {name: torch.stack(values) for name, values in maps.items()}
    return ReferenceViews(
        images=stacked["images"],
        masks=stacked["masks"],
        cameras=Camera(
            torch.from_numpy(k).float().expand(len(codes), 3, 3), stacked["poses"], size, size
        ),
        codes=torch.from_numpy(np.stack(codes)),
        position_maps=stacked["positions"],
        confidence=0.9 * stacked["masks"],
        binding=SurfaceBinding(stacked["ids"], stacked["weights"]),
        identity=identity,
    )
