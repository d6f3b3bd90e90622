"""Scenes of random Gaussians in front of a tilted camera."""

import platform
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avat3r_ros import geometry, native

WIDTH, HEIGHT = 52, 43  # no multiples of a tile


_X86 = platform.machine().lower() in ("x86_64", "amd64")


@pytest.fixture(params=["avx512", "avx2", "sse2"] if _X86 else ["neon"])
def instruction_set(request):
    if request.param not in native.instruction_sets():
        pytest.skip(f"this processor runs {native.instruction_sets()}, not {request.param}")
    return request.param


@pytest.fixture
def make_scene():
    def make(seed: int, num: int = 300, num_cameras: int = 1, num_colors: int = 3, far=0.6):
        rng = np.random.default_rng(seed)
        fields = {
            "means": rng.normal(size=(num, 3)) * 0.05,
            "quats_wxyz": rng.normal(size=(num, 4)),
            "scales": np.exp(rng.normal(size=(num, 3)) * 0.6 - 4.9),
            "opacities": rng.uniform(0.02, 1.05, num).clip(max=1),
            "colors": rng.uniform(0, 1, (num, num_colors)),
        }
        # Some large and opaque, so that alpha meets its clamp in many pixels.
        fields["scales"][:4] *= 4
        fields["opacities"][:4] = 1
        poses, intrinsics = [], []
        for camera in range(num_cameras):
            poses.append(geometry.look_at_head(0.3 - 0.5 * camera, 0.2, far))
            focal = 3.1 * WIDTH * far
            intrinsics.append([[focal, 0, 24.3], [0, 1.1 * focal, 22.9], [0, 0, 1]])
        fields["viewmats"] = np.stack(poses)
        fields["Ks"] = np.array(intrinsics)
        return SimpleNamespace(
            **{name: torch.tensor(value, dtype=torch.float32) for name, value in fields.items()}
        )

    return make
