"""Views of one textured sheet under different light must agree after harmonisation."""

import numpy as np
import pytest
import torch

from avat3r_ros.capture.exposure import harmonize_colors
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, ReferenceViews, SurfaceBinding

SIZE = 64


def sheet_template(cells: int = 16) -> HeadTemplate:
    """A flat grid of two triangles a cell that fills the image."""
    side = np.linspace(0, 1, cells + 1)
    x, y = np.meshgrid(side, side)
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], -1)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + cells + 2], -1),
            np.stack([corner, corner + cells + 2, corner + cells + 1], -1),
        ]
    )
    return HeadTemplate(
        neutral=torch.tensor(vertices, dtype=torch.float32),
        triangles=torch.tensor(triangles),
        identity_basis=torch.zeros(1, len(vertices), 3),
        expression_basis=torch.zeros(52, len(vertices), 3),
        triangle_regions=torch.zeros(len(triangles), dtype=torch.long),
        uv=torch.zeros(len(triangles), 3, 2),
        landmark_triangles=torch.zeros(478, dtype=torch.long),
        landmark_barycentrics=torch.zeros(478, 3),
        landmark_weights=torch.zeros(478),
    )


def binding_of_pixels(cells: int = 16) -> SurfaceBinding:
    center = (np.arange(SIZE) + 0.5) / SIZE * cells
    u, v = np.meshgrid(center, center)
    column, row = u.astype(int), v.astype(int)
    a, b = u - column, v - row
    upper = a >= b
    ids = row * cells + column + np.where(upper, 0, cells * cells)
    bary = np.where(
        upper[..., None], np.stack([1 - a, a - b, b], -1), np.stack([1 - b, a, b - a], -1)
    )
    return SurfaceBinding(
        triangle_ids=torch.tensor(np.stack([ids, ids])),
        barycentrics=torch.tensor(np.stack([bary, bary]), dtype=torch.float32),
    )


def two_views(gain: np.ndarray) -> ReferenceViews:
    """The same texture twice, the second under `gain`; each view claims one half."""
    texture = 0.3 + 0.05 * np.random.default_rng(0).standard_normal((3, SIZE, SIZE))
    images = np.stack([texture, texture * gain])
    confidence = np.zeros((2, 1, SIZE, SIZE))
    confidence[0, :, :, : SIZE // 2] = 1
    confidence[1, :, :, SIZE // 2 :] = 1
    eye = torch.eye(4).repeat(2, 1, 1)
    return ReferenceViews(
        images=torch.tensor(images, dtype=torch.float32),
        masks=torch.ones(2, 1, SIZE, SIZE),
        cameras=Camera(torch.eye(3).repeat(2, 1, 1), eye, SIZE, SIZE),
        codes=torch.zeros(2, 52),
        position_maps=torch.zeros(2, 3, SIZE, SIZE),
        confidence=torch.tensor(confidence, dtype=torch.float32),
        binding=binding_of_pixels(),
        identity=torch.zeros(1),
    )


@pytest.mark.parametrize(
    "gain",
    [
        np.array([1.5, 1.2, 0.8])[:, None, None],  # exposure and white balance
        np.linspace(0.7, 1.6, SIZE)[None, None, :],  # light from the side
    ],
)
def test_views_agree_at_the_seam_and_keep_detail(gain):
    template = sheet_template()
    before = two_views(gain)
    after = harmonize_colors(before, template)
    seam = slice(SIZE // 2 - 8, SIZE // 2 + 8)

    def disagreement(views: ReferenceViews) -> float:
        difference = (views.images[0] - views.images[1])[:, 8:-8, seam]
        return float(difference.mean((1, 2)).abs().max())

    assert disagreement(after) < 0.15 * disagreement(before)
    # Detail is high-frequency and must survive.
    detail = [v.images[1] - v.images[1].mean((1, 2), keepdim=True) for v in (before, after)]
    center = (slice(None), slice(8, -8), seam)
    correlation = np.corrcoef(detail[0][center].ravel(), detail[1][center].ravel())[0, 1]
    assert correlation > 0.9


def test_equal_views_are_left_alone():
    views = two_views(np.ones((1, 1, 1)))
    after = harmonize_colors(views, sheet_template())
    assert (after.images - views.images).abs().max() < 5e-3


def test_pixels_off_the_template_follow_the_mean_gain():
    views = two_views(np.full((1, 1, 1), 1.5))
    views.binding.triangle_ids[:, :8] = -1
    after = harmonize_colors(views, sheet_template())
    ratio = (after.images[1] / views.images[1])[:, 2:6].mean()
    on_template = (after.images[1] / views.images[1])[:, 20:40].mean()
    assert ratio == pytest.approx(float(on_template), rel=0.1)
    assert ratio < 0.95
