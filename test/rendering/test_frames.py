"""`render_gaussians` and the live path to bytes."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avat3r_ros import rendering
from avat3r_ros.types import Camera, Gaussians

WIDTH, HEIGHT = 52, 43


@pytest.fixture
def view(make_scene):
    scene = make_scene(0, num_cameras=2)
    gaussians = Gaussians(
        scene.means, scene.quats_wxyz, scene.scales, scene.opacities, scene.colors
    )
    return gaussians, Camera(scene.Ks, scene.viewmats.double(), WIDTH, HEIGHT)


def test_views_are_channels_first_and_one_camera_needs_no_dimension(view):
    gaussians, cameras = view
    views = rendering.render_gaussians(gaussians, cameras, depth=True)
    assert views.rgb.shape == (2, 3, HEIGHT, WIDTH)
    assert views.alpha.shape == views.depth.shape == (2, 1, HEIGHT, WIDTH)
    single = rendering.render_gaussians(gaussians, cameras[1])
    assert single.depth is None
    assert torch.equal(single.rgb[0], views.rgb[1])


def test_background_fills_what_the_gaussians_leave(view):
    gaussians, cameras = view
    background = torch.tensor([0.2, 0.4, 0.6])
    black = rendering.render_gaussians(gaussians, cameras)
    colored = rendering.render_gaussians(gaussians, cameras, background=background)
    expected = black.rgb + (1 - black.alpha) * background[:, None, None]
    assert torch.allclose(colored.rgb, expected, atol=1e-6)


def test_gradients_reach_the_gaussians(view):
    gaussians, cameras = view
    gaussians.colors.requires_grad_()
    rendering.render_gaussians(gaussians, cameras).rgb.sum().backward()
    assert gaussians.colors.grad.abs().sum() > 0


def test_bytes_are_the_rounded_image(view):
    gaussians, cameras = view
    gaussians.colors.mul_(2)  # beyond white: must be clamped, not wrapped
    background = np.array([0.1, 0.5, 0.9])
    expected = rendering.render_gaussians(
        gaussians, cameras, background=torch.tensor(background, dtype=torch.float32)
    )
    image = rendering.FrameRenderer().render_u8(gaussians, cameras, background)
    assert image.shape == (2, HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    exact = (expected.rgb.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    # What is left out, a quarter of a step of each unit of colour, counts twice here.
    assert np.abs(image - exact).max() <= 0.5 + 2 * 0.25
    assert image.max() == 255


def test_bgr_swaps_the_channels_but_not_the_meaning_of_the_background(view):
    gaussians, cameras = view
    background = np.array([0.1, 0.5, 0.9])
    renderer = rendering.FrameRenderer()
    rgb = renderer.render_u8(gaussians, cameras, background).copy()
    bgr = renderer.render_u8(gaussians, cameras, background, "bgr")
    assert np.array_equal(bgr, rgb[..., ::-1])


def test_memory_is_reused_and_follows_the_size(view):
    gaussians, cameras = view
    renderer = rendering.FrameRenderer()
    first = renderer.render_u8(gaussians, cameras)
    assert renderer.render_u8(gaussians, cameras).ctypes.data == first.ctypes.data
    assert renderer.render_u8(gaussians, cameras[0]).shape == (1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("field", ["means", "quats_wxyz", "scales", "opacities", "colors"])
def test_live_picture_leaves_bad_gaussians_out_and_counts_them(view, field):
    gaussians, cameras = view
    keep = torch.ones(len(gaussians), dtype=torch.bool)
    keep[5:8] = False
    renderer = rendering.FrameRenderer()
    good = Gaussians(**{n: getattr(gaussians, n)[keep] for n in gaussians.__dataclass_fields__})
    expected = renderer.render_u8(good, cameras).copy()
    assert renderer.last_num_invalid == 0
    getattr(gaussians, field)[5:8] = float("nan")
    assert np.array_equal(renderer.render_u8(gaussians, cameras), expected)
    assert renderer.last_num_invalid == 3


def test_bad_arguments_are_refused(view):
    gaussians, cameras = view
    render = inspect.unwrap(rendering.FrameRenderer.render_u8)
    with pytest.raises(ValueError, match="expected order"):
        render(rendering.FrameRenderer(), gaussians, cameras, None, "hsv")
    with pytest.raises(ValueError, match="expected a background of 3 numbers"):
        render(rendering.FrameRenderer(), gaussians, cameras, np.array([1.0, 2.0]))
    broken = Camera(cameras.intrinsics, cameras.camera_from_head * float("nan"), WIDTH, HEIGHT)
    with pytest.raises(ValueError, match="expected finite viewmats"):
        render(rendering.FrameRenderer(), gaussians, broken)
    short = SimpleNamespace(**{**vars(gaussians), "quats_wxyz": gaussians.quats_wxyz[:, :3]})
    with pytest.raises(ValueError, match=r"expected quats_wxyz \(300, 4\), got \(300, 3\)"):
        render(rendering.FrameRenderer(), short, cameras)
    with pytest.raises(RuntimeError, match="backend 'gsplat' cannot run"):
        render(rendering.FrameRenderer("gsplat"), gaussians, cameras)


def test_alpha_is_straight_and_depth_comes_with_the_same_pass(view):
    gaussians, cameras = view
    views = rendering.render_gaussians(gaussians, cameras, depth=True)
    renderer = rendering.FrameRenderer("cpu")
    image = renderer.render_u8(gaussians, cameras, None, "bgra", depth=True).astype(float)
    alpha, depth = views.alpha[:, 0].numpy(), views.depth[:, 0].numpy()
    assert np.abs(image[..., 3] - 255 * alpha).max() <= 0.5 + 1e-3
    rgb = (views.rgb / views.alpha.clamp(min=1e-6)).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(image[..., 2::-1] - 255 * rgb)[alpha > 0.01].max() <= 0.5 + 1e-2
    solid = alpha >= 0.5
    assert (renderer.last_depth_m[~solid] == 0).all() and solid.any()
    np.testing.assert_allclose(renderer.last_depth_m[solid], depth[solid], rtol=1e-5)


def test_layers_are_premultiplied_and_keep_their_memory_while_they_live(view):
    gaussians, cameras = view
    views = rendering.render_gaussians(gaussians, cameras)
    renderer = rendering.FrameRenderer("cpu")
    layer = renderer.render_layer(gaussians, cameras)
    rgb = 255 * views.rgb.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    kept = layer.rgba.copy()
    assert np.abs(kept[..., :3] - rgb).max() <= 0.5 + 1e-3
    gaussians.colors.zero_()
    held = [renderer.render_layer(gaussians, cameras) for _ in range(4)]
    assert np.array_equal(layer.rgba, kept)
    address = held.pop().rgba.ctypes.data
    assert renderer.render_layer(gaussians, cameras).rgba.ctypes.data == address, "reused"
    assert renderer.render_layer(gaussians, cameras[0]).rgba.shape == (1, HEIGHT, WIDTH, 4)


def test_a_background_beside_alpha_is_refused(view):
    gaussians, cameras = view
    with pytest.raises(ValueError, match="expected no background"):
        rendering.FrameRenderer("cpu").render_u8(gaussians, cameras, np.zeros(3), "rgba")
