import numpy as np
import pytest

from avat3r_ros.data.appearance import random_appearance
from avat3r_ros.data.template_surface import template_surface
from avat3r_ros.rig import REGIONS

SIZES = (0.9, 1.0, 1.15)


def iris_radius_m(albedo, template, size):
    """Where the left eye's colour turns into the white's, along the eyeball."""
    surface = template_surface(template)
    rows = np.flatnonzero(surface.hard_regions == REGIONS.index("eye_left"))
    offset = surface.points[rows] - surface.eye_centers[0]
    length = np.linalg.norm(offset, axis=1)
    angle = np.arccos(offset[:, 2] / length)
    bins = np.arange(0.2, 0.6, 0.02)
    light = [albedo[rows][(angle >= low) & (angle < low + 0.02), 2].mean() for low in bins]
    edge = bins[np.argmax(np.diff(light))] + 0.02
    return np.sin(edge) * length.mean() * size


@pytest.mark.parametrize("seed", [1, 5])
def test_the_iris_is_as_wide_in_large_heads_as_in_small_ones(template, seed):
    neutral = template.neutral.numpy()
    radii = [
        iris_radius_m(
            random_appearance(np.random.default_rng(seed), template, "bald", size * neutral).albedo,
            template,
            size,
        )
        for size in SIZES
    ]
    # Rings of 0.02 rad are 0.3 mm wide; an iris that grows with the head differs by 1.5 mm.
    assert max(radii) - min(radii) < 0.0006
    assert 0.0051 < np.mean(radii) < 0.0066
