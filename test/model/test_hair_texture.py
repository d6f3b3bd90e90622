"""Hair that nobody photographed looks like the hair that shows, and hangs down."""

import numpy as np
import pytest
import torch

from avat3r_ros.model.hair_texture import textured_hair

HAIR = torch.tensor([0.3, 0.2, 0.1])
PITCH_M, RADIUS_M = 0.001, 0.085
STEPS = 41, 400


def band(lowest_m, highest_m, turns, shape):
    """Points on the cylinder of the hair, and their height and arc length."""
    height, around = torch.meshgrid(
        torch.linspace(lowest_m, highest_m, shape[0]),
        torch.linspace(-np.pi * turns, np.pi * turns, shape[1]),
        indexing="ij",
    )
    points = torch.stack([RADIUS_M * around.sin(), height, RADIUS_M * around.cos() - 0.09], -1)
    return points.reshape(-1, 3), height.flatten(), RADIUS_M * around.flatten()


def photographed(across_m, contrast=0.2):
    """Hair with strands 4 mm wide that run across the given length."""
    return HAIR * (1 + contrast * torch.sin(2 * np.pi * across_m / 0.004))[:, None]


@pytest.mark.parametrize("runs", ["down", "to the side", "aslant"])
def test_hair_goes_on_with_its_contrast_and_hangs_down(runs):
    seen, height, arc = band(0.0, 0.08, 0.3, (160, 320))
    across = {"down": arc, "to the side": height, "aslant": (arc + height) / np.sqrt(2)}[runs]
    points, *_ = band(-0.05, 0.05, 1.0, STEPS)
    colors = HAIR.expand(len(points), 3)
    hairy = torch.ones(len(points), dtype=torch.bool)
    hairy[-STEPS[1] :] = False
    found = textured_hair(colors, points, hairy, photographed(across), seen, PITCH_M)
    assert torch.equal(found[~hairy], colors[~hairy])
    light = (found / HAIR).mean(-1).reshape(STEPS)[:-1]
    assert abs(float(light.mean()) - 1) < 0.02
    assert 0.5 < float(light.std()) / (0.2 / np.sqrt(2)) < 1.1
    step_m = (0.1 / (STEPS[0] - 1), 2 * np.pi * RADIUS_M / STEPS[1])
    down, sideways = (float(light.diff(dim=d).abs().mean()) / step_m[d] for d in (0, 1))
    assert sideways > 2 * down


def test_the_crown_has_the_same_contrast_without_a_pole():
    seen, _, arc = band(0.0, 0.08, 0.3, (160, 320))
    x, z = torch.meshgrid(
        torch.linspace(-0.07, 0.07, 80), torch.linspace(-0.16, -0.02, 80), indexing="ij"
    )
    points = torch.stack([x, torch.full_like(x, 0.12), z], -1).reshape(-1, 3)
    hairy = torch.ones(len(points), dtype=torch.bool)
    colors = HAIR.expand(len(points), 3)
    found = textured_hair(colors, points, hairy, photographed(arc), seen, PITCH_M) / HAIR
    from_axis = (x**2 + (z + 0.09) ** 2).sqrt().flatten()
    near, far = (found[zone].std() for zone in (from_axis < 0.03, from_axis > 0.06))
    assert 0.6 < float(near / far) < 1.4


def test_smooth_hair_stays_smooth_and_little_hair_tells_nothing():
    seen, *_, arc = band(0.0, 0.08, 0.3, (160, 320))
    points, *_ = band(-0.05, 0.05, 1.0, STEPS)
    hairy = torch.ones(len(points), dtype=torch.bool)
    colors = HAIR.expand(len(points), 3)
    smooth = textured_hair(colors, points, hairy, HAIR.expand(len(seen), 3), seen, PITCH_M)
    torch.testing.assert_close(smooth, colors, atol=1e-3, rtol=0)
    few = photographed(arc)[:50]
    assert textured_hair(colors, points, hairy, few, seen[:50], PITCH_M) is colors


def test_wild_contrast_is_tamed():
    seen, *_, arc = band(0.0, 0.08, 0.3, (160, 320))
    points, *_ = band(-0.05, 0.05, 1.0, STEPS)
    hairy = torch.ones(len(points), dtype=torch.bool)
    found = textured_hair(
        HAIR.expand(len(points), 3), points, hairy, photographed(arc, 0.55), seen, PITCH_M
    )
    assert 0.1 < float((found / HAIR).std()) < 0.3
