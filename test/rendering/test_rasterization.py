"""The CPU rasterizer against the float64 reference, and against what must hold by itself."""

import inspect
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avat3r_ros import native, rendering
from avat3r_ros.rendering import gsplat_backend
from avat3r_ros.rendering.rasterization import resolve_backend
from avat3r_ros.rendering.reference import render_reference

WIDTH, HEIGHT = 52, 43
NAMES = ("means", "quats_wxyz", "scales", "opacities", "colors", "viewmats")


def render(scene, *, width=WIDTH, height=HEIGHT, **options):
    return rendering.rasterization(
        *(getattr(scene, name) for name in NAMES), scene.Ks, width, height, **options
    )


def reference(scene, camera=0, dtype=torch.float64, **options):
    tensors = [getattr(scene, name).to(dtype) for name in NAMES[:5]]
    viewmat, intrinsics = scene.viewmats[camera].to(dtype), scene.Ks[camera].to(dtype)
    return render_reference(*tensors, viewmat, intrinsics, WIDTH, HEIGHT, **options)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("num_colors", [1, 2, 3])
def test_image_equals_the_reference(make_scene, instruction_set, seed, num_colors):
    # Seed 2 stands inside the cloud: Gaussians behind the camera and far outside the image.
    scene = make_scene(seed, num_colors=num_colors, far=0.6 if seed < 2 else 0.08)
    background = torch.linspace(0.2, 0.9, num_colors)
    channels = torch.empty(1, HEIGHT, WIDTH, num_colors + 1)
    alphas = torch.empty(1, HEIGHT, WIDTH)
    native.SplatWorkspace().forward(
        native.SplatScene(
            *(getattr(scene, name) for name in NAMES),
            scene.Ks,
            WIDTH,
            HEIGHT,
            backgrounds=background[None],
            with_depth=True,
        ),
        channels=channels,
        alphas=alphas,
        instruction_set=instruction_set,
    )
    expected = reference(scene, background=background.double())
    sure = ~expected.fragile
    assert sure.float().mean() > 0.9
    assert expected.alpha.mean() > 0.2
    # Measured over all cases here: mean 8e-8, worst 1.2e-6 (float32 itself: 6e-8).
    difference = (channels[0] - expected.channels).abs()[sure]
    assert difference.mean() < 1e-6
    assert difference.max() < 1e-5
    assert (alphas[0] - expected.alpha).abs()[sure].mean() < 1e-6
    # A flip at 1/255 or at the last of the transmittance is bounded by them.
    assert (channels[0] - expected.channels).abs().max() < 6e-3


def test_bytes_alone_leave_out_no_more_than_a_quarter_of_a_step(make_scene, instruction_set):
    scene = make_scene(3, num=900, far=0.3)  # far more than the pixels' transmittance lasts for
    scene.opacities[::2] = 0.97
    images = torch.empty(2, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    channels = torch.empty(1, HEIGHT, WIDTH, 3)
    for image, others in ((images[:1], {}), (images[1:], {"channels": channels})):
        native.SplatWorkspace().forward(
            native.SplatScene(*(getattr(scene, name) for name in NAMES), scene.Ks, WIDTH, HEIGHT),
            image_bytes=image,
            instruction_set=instruction_set,
            **others,
        )
    rounding = (images - 255 * channels).abs()
    assert rounding[1].max() < 0.5 + 1e-3
    assert rounding[0].max() < 0.5 + 0.25
    assert (images[0] != images[1]).any()  # else nothing was left out


@pytest.mark.parametrize("mode", ["RGB", "RGB+D"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_equal_the_reference(make_scene, instruction_set, monkeypatch, mode, seed):
    monkeypatch.setattr(
        native.SplatWorkspace,
        "forward",
        lambda self, scene, _call=native.SplatWorkspace.forward, **options: _call(
            self, scene, **{**options, "instruction_set": instruction_set}
        ),
    )
    monkeypatch.setattr(
        native.SplatWorkspace,
        "backward",
        lambda self, scene, *images, _call=native.SplatWorkspace.backward, **options: _call(
            self, scene, *images, **{**options, "instruction_set": instruction_set}
        ),
    )
    scene = make_scene(seed, far=0.6 if seed < 2 else 0.1)
    single = [getattr(scene, name).clone().requires_grad_() for name in NAMES]
    double = [getattr(scene, name).double().requires_grad_() for name in NAMES]
    single_background = torch.tensor([[0.3, 0.6, 0.1]], requires_grad=True)
    double_background = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64, requires_grad=True)
    expected = render_reference(
        *double[:5],
        double[5][0],
        scene.Ks[0].double(),
        WIDTH,
        HEIGHT,
        background=double_background,
    )
    num_channels = 3 if mode == "RGB" else 4
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(HEIGHT, WIDTH, num_channels + 1, generator=generator).double()
    weight[expected.fragile] = 0  # a flip there has another gradient, rightly
    image = torch.cat([expected.channels[..., :num_channels], expected.alpha[..., None]], -1)
    (image * weight).sum().backward()
    channels, alphas, _ = rendering.rasterization(
        *single, scene.Ks, WIDTH, HEIGHT, backgrounds=single_background, render_mode=mode
    )
    (torch.cat([channels, alphas], -1)[0] * weight.float()).sum().backward()
    for name, a, b in zip(
        (*NAMES, "backgrounds"),
        (*double, double_background),
        (*single, single_background),
        strict=True,
    ):
        error = (a.grad.reshape(-1) - b.grad.double().reshape(-1)).norm() / a.grad.norm()
        assert error < 3e-5, name  # measured: at most 5e-6


def test_gaussian_on_the_axis_lands_where_the_intrinsics_say():
    means = torch.tensor([[0.0, 0.0, 2.0]])
    intrinsics = torch.tensor([[[100.0, 0, 20.5], [0, 100.0, 13.5], [0, 0, 1]]])
    channels, alphas, _ = rendering.rasterization(
        means,
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.tensor([[0.02, 0.04, 0.01]]),
        torch.tensor([0.8]),
        torch.tensor([[1.0, 0.5, 0.25]]),
        torch.eye(4)[None],
        intrinsics,
        40,
        32,
    )
    # (20.5, 13.5) is the centre of column 20 and row 13; there alpha is the opacity itself.
    assert alphas[0, :, :, 0].argmax() == 13 * 40 + 20
    assert alphas[0, 13, 20, 0] == pytest.approx(0.8, abs=1e-6)
    assert channels[0, 13, 20].tolist() == pytest.approx([0.8, 0.4, 0.2], abs=1e-6)
    # Screen sigma: focal / z * scale, plus the blur of 0.3 px^2.
    for (row, column), scale in (((13, 21), 0.02), ((14, 20), 0.04)):
        variance = (50 * scale) ** 2 + 0.3
        assert alphas[0, row, column, 0] == pytest.approx(0.8 * np.exp(-0.5 / variance), abs=1e-6)
    total = alphas[0, ..., 0].sum()
    x = (alphas[0, ..., 0].sum(0) * (torch.arange(40) + 0.5)).sum() / total
    y = (alphas[0, ..., 0].sum(1) * (torch.arange(32) + 0.5)).sum() / total
    assert (x.item(), y.item()) == pytest.approx((20.5, 13.5), abs=1e-4)


def test_left_of_the_camera_is_left_in_the_image():
    means = torch.tensor([[-0.1, -0.2, 1.0], [0.1, 0.2, 1.0]])
    channels, _, _ = rendering.rasterization(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4),
        torch.full((2, 3), 0.02),
        torch.full((2,), 0.9),
        torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]),
        torch.eye(4)[None],
        torch.tensor([[[50.0, 0, 20], [0, 50.0, 20], [0, 0, 1]]]),
        40,
        40,
    )
    assert channels[0, 10, 15, 0] > 0.7 > channels[0, 30, 25, 0]
    assert channels[0, 30, 25, 1] > 0.7 > channels[0, 10, 15, 1]


def test_nearer_gaussian_hides_the_farther_whatever_their_order(make_scene):
    scene = make_scene(3)
    forward = render(scene, render_mode="RGB+D")[0]
    shuffle = torch.randperm(len(scene.means), generator=torch.Generator().manual_seed(0))
    for name in NAMES[:5]:
        setattr(scene, name, getattr(scene, name)[shuffle])
    assert torch.equal(render(scene, render_mode="RGB+D")[0], forward)


@pytest.mark.parametrize("num", [20, 150, 2000, 6000])
def test_lists_of_every_length_are_sorted(make_scene, instruction_set, num):
    # One tile holds all; faint, so that the last of the list still counts.
    scene = make_scene(12, num=num)
    scene.opacities *= 40 / num if num > 40 else 1
    scene.Ks[:, :2] *= 0.3
    width = height = 16
    channels = torch.empty(1, height, width, 3)
    stats = native.SplatWorkspace().forward(
        native.SplatScene(*(getattr(scene, name) for name in NAMES), scene.Ks, width, height),
        channels=channels,
        instruction_set=instruction_set,
    )
    expected = render_reference(
        *(getattr(scene, name).double() for name in NAMES[:5]),
        scene.viewmats[0].double(),
        scene.Ks[0].double(),
        width,
        height,
    )
    sure = ~expected.fragile
    assert stats.num_pairs > 0.3 * num and sure.float().mean() > 0.5
    assert (channels[0] - expected.channels[..., :3]).abs()[sure].max() < 2e-5


@pytest.mark.parametrize("num", [100, 1000, 5000])
def test_depths_one_ulp_apart_are_told_apart(instruction_set, num):
    # Depths 1 + k ulp in random order at one place, and one far behind that stretches the range.
    generator = torch.Generator().manual_seed(num)
    means = torch.zeros(num + 1, 3)
    means[:num, 2] = 1 + torch.randperm(num, generator=generator) * 2.0**-23
    means[num, 2] = 1000
    colors = torch.rand(num + 1, 3, generator=generator)
    fields = [
        means,
        torch.tensor([[1.0, 0, 0, 0]]).repeat(num + 1, 1),
        torch.full((num + 1, 3), 0.01),
        torch.full((num + 1,), 0.2),
        colors,
    ]
    intrinsics = torch.tensor([[[50.0, 0, 8.5], [0, 50.0, 8.5], [0, 0, 1]]])
    channels = torch.empty(1, 16, 16, 3)
    native.SplatWorkspace().forward(
        native.SplatScene(*fields, torch.eye(4)[None], intrinsics, 16, 16),
        channels=channels,
        instruction_set=instruction_set,
    )
    weights = 0.2 * 0.8 ** torch.arange(30)
    expected = weights @ colors[means[:, 2].argsort()][:30]
    assert torch.allclose(channels[0, 8, 8], expected, atol=2e-3)
    wrong = weights @ colors[means[:, 2].argsort()][1:31]
    assert not torch.allclose(wrong, expected, atol=2e-2)


def test_instruction_sets_agree_on_a_larger_picture(make_scene):
    # Many tiles, all three list lengths, Gaussians that straddle tiles.
    scene = make_scene(13, num=12000)
    scene.Ks[:, :2] *= 4
    images = {}
    for name in native.instruction_sets():
        images[name] = torch.empty(1, 180, 210, 3)
        native.SplatWorkspace().forward(
            native.SplatScene(*(getattr(scene, n) for n in NAMES), scene.Ks, 210, 180),
            channels=images[name],
            instruction_set=name,
        )
    first = images[native.instruction_sets()[0]]
    for image in images.values():
        assert (image - first).abs().mean() < 1e-6


def test_q_and_minus_q_and_any_length_are_one_rotation(make_scene):
    scene = make_scene(4)
    expected = render(scene)[0]
    scene.quats_wxyz = -2.5 * scene.quats_wxyz
    assert torch.allclose(render(scene)[0], expected, atol=1e-6)


def test_several_cameras_equal_one_by_one(make_scene):
    scene = make_scene(5, num_cameras=3)
    backgrounds = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    together, alphas, _ = render(scene, backgrounds=backgrounds, render_mode="RGB+D")
    viewmats, intrinsics = scene.viewmats, scene.Ks
    for camera in range(3):
        only = slice(camera, camera + 1)
        scene.viewmats, scene.Ks = viewmats[only], intrinsics[only]
        alone, alpha, _ = render(scene, backgrounds=backgrounds[only], render_mode="RGB+D")
        assert torch.equal(alone[0], together[camera])
        assert torch.equal(alpha[0], alphas[camera])


def test_gradients_of_several_cameras_add_up(make_scene):
    scene = make_scene(5, num_cameras=2)
    scene.means.requires_grad_()
    render(scene)[0].square().sum().backward()
    together, scene.means.grad = scene.means.grad, None
    viewmats, intrinsics = scene.viewmats, scene.Ks
    for camera in range(2):
        scene.viewmats = viewmats[camera : camera + 1]
        scene.Ks = intrinsics[camera : camera + 1]
        render(scene)[0].square().sum().backward()
    assert torch.allclose(scene.means.grad, together, rtol=1e-5, atol=1e-5)


def test_result_does_not_depend_on_the_number_of_threads(make_scene):
    # More Gaussians than one chunk of 4096, so that threads really share the work.
    scene = make_scene(6, num=20000)
    results = []
    for num_threads in (1, 2, 3, 7):
        leaves = [getattr(scene, name).clone().requires_grad_() for name in NAMES]
        channels, _, _ = rendering.rasterization(
            *leaves, scene.Ks, WIDTH, HEIGHT, num_threads=num_threads
        )
        channels.square().sum().backward()
        results.append([channels.detach(), *(leaf.grad for leaf in leaves)])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_render_modes_agree(make_scene):
    scene = make_scene(7)
    rgb, alphas, _ = render(scene)
    rgb_depth = render(scene, render_mode="RGB+D")[0]
    rgb_expected = render(scene, render_mode="RGB+ED")[0]
    assert torch.equal(rgb_depth[..., :3], rgb)
    assert torch.equal(render(scene, render_mode="D")[0], rgb_depth[..., 3:])
    assert torch.equal(render(scene, render_mode="ED")[0], rgb_expected[..., 3:])
    seen = alphas[..., 0] > 0.5
    assert torch.allclose((rgb_depth[..., 3] / alphas[..., 0])[seen], rgb_expected[..., 3][seen])
    depths = rgb_expected[..., 3][seen]
    assert 0.3 < depths.min() < depths.max() < 0.9  # the cloud is 0.6 m away


def test_empty_scene_and_scene_behind_the_camera_show_the_background(make_scene):
    backgrounds = torch.tensor([[0.1, 0.2, 0.3]])
    scene = make_scene(8)
    scene.viewmats = scene.viewmats.clone()
    scene.viewmats[:, 2, 3] = -5
    leaves = [getattr(scene, name).clone().requires_grad_() for name in NAMES]
    behind, alphas, _ = rendering.rasterization(
        *leaves, scene.Ks, WIDTH, HEIGHT, backgrounds=backgrounds
    )
    assert torch.equal(behind, backgrounds.expand_as(behind)) and not alphas.any()
    behind.sum().backward()
    assert not any(leaf.grad.any() for leaf in leaves)
    for name in NAMES[:5]:
        setattr(scene, name, getattr(scene, name)[:0])
    empty, alphas, info = render(scene, backgrounds=backgrounds)
    assert torch.equal(empty, backgrounds.expand_as(empty)) and not alphas.any()
    assert info["num_visible"] == 0


def test_interleaved_and_repeated_backward_passes(make_scene):
    scenes = [make_scene(seed) for seed in range(3)]

    def gradient(scene):
        leaf = scene.means.clone().requires_grad_()
        loss = (
            rendering.rasterization(
                leaf, *(getattr(scene, n) for n in NAMES[1:]), scene.Ks, WIDTH, HEIGHT
            )[0]
            .square()
            .sum()
        )
        return leaf, loss

    expected = []
    for scene in scenes:
        leaf, loss = gradient(scene)
        loss.backward()
        expected.append(leaf.grad)
    # All forwards first, each in a workspace of its own, then backwards in another order.
    leaves, losses = zip(*(gradient(scene) for scene in scenes), strict=True)
    for i in (1, 2, 0):
        losses[i].backward(retain_graph=True)
        assert torch.equal(leaves[i].grad, expected[i])
    # Again through the kept graph, when the workspaces have been given to others.
    gradient(scenes[0])[1].backward()
    for i in (0, 1, 2):
        losses[i].backward()
        assert torch.equal(leaves[i].grad, 2 * expected[i])


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gaussians_that_are_not_finite_are_refused(make_scene, name, value):
    scene = make_scene(9)
    getattr(scene, name)[7] = value
    with pytest.raises(ValueError, match="expected finite Gaussians, got 1 of 300"):
        render(scene)


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_bad_gaussians_are_left_out_by_every_instruction_set(
    make_scene, instruction_set, name, value
):
    scene = make_scene(9)
    images = []
    for bad in (False, True):
        if bad:
            getattr(scene, name)[7:9].reshape(2, -1)[:, -1] = value
        else:
            scene.opacities[7:9] = 0
        channels = torch.empty(1, HEIGHT, WIDTH, 3)
        stats = native.SplatWorkspace().forward(
            native.SplatScene(*(getattr(scene, n) for n in NAMES), scene.Ks, WIDTH, HEIGHT),
            channels=channels,
            instruction_set=instruction_set,
        )
        assert stats.num_invalid == (2 if bad else 0)
        images.append(channels)
        scene.opacities[7:9] = 0.9
    assert torch.equal(*images)


def test_wild_but_finite_gaussians_do_no_harm(make_scene):
    scene = make_scene(10)
    scene.scales[:50] = 1e30
    scene.scales[50:60] = 0
    scene.quats_wxyz[60:70] = 0
    scene.means[70:80] = 1e20
    scene.opacities[80:90] = 1e30
    scene.opacities[90:100] = -3
    channels, alphas, _ = render(scene)
    assert torch.isfinite(channels).all() and torch.isfinite(alphas).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.zeros(5, 2)}, r"expected means \(5, 3\), got \(5, 2\)"),
        ({"quats_wxyz": torch.zeros(4, 4)}, r"expected quats_wxyz \(300, 4\), got \(4, 4\)"),
        ({"opacities": torch.zeros(300, 1)}, r"expected opacities \(300,\), got \(300, 1\)"),
        ({"colors": torch.zeros(300, 4)}, r"expected colors \(N, 1..3\), got \(300, 4\)"),
        ({"viewmats": torch.zeros(1, 3, 4)}, r"expected viewmats \(1, 4, 4\), got \(1, 3, 4\)"),
        ({"viewmats": torch.full((1, 4, 4), torch.nan)}, "expected finite viewmats"),
        ({"Ks": torch.zeros(1, 3, 3)}, "expected positive focal lengths"),
        ({"scales": torch.zeros(300, 3, dtype=torch.int64)}, "expected scales of floats"),
        ({"Ks": torch.eye(3)[None].requires_grad_()}, "expected Ks without requires_grad"),
    ],
)
def test_bad_tensors_are_refused(make_scene, change, message):
    scene = make_scene(11)
    for name, value in change.items():
        setattr(scene, name, value)
    # Without the test-time shape checker, as in production.
    bare = inspect.unwrap(rendering.rasterization)
    with pytest.raises(ValueError, match=message):
        bare(*(getattr(scene, name) for name in NAMES), scene.Ks, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "expected a positive image size, got 0x43"),
        ({"near_plane": 0.0}, "expected 0 < near_plane"),
        ({"backgrounds": torch.full((1, 3), torch.inf)}, "expected finite backgrounds"),
    ],
)
def test_bad_numbers_are_refused(make_scene, options, message):
    with pytest.raises(ValueError, match=message):
        render(make_scene(11), **options)


def test_unknown_names_are_refused(make_scene):
    scene = make_scene(11)
    tensors = [getattr(scene, name) for name in NAMES]
    with pytest.raises(ValueError, match="expected render_mode of .*RGB.* got 'RGBD'"):
        inspect.unwrap(rendering.rasterization)(
            *tensors, scene.Ks, WIDTH, HEIGHT, render_mode="RGBD"
        )
    with pytest.raises(ValueError, match="expected backend of .*gsplat.* got 'opengl'"):
        inspect.unwrap(resolve_backend)("opengl", torch.device("cpu"))
    with pytest.raises(ValueError, match="expected tensors on cpu for backend 'cpu', got cuda:0"):
        inspect.unwrap(resolve_backend)("cpu", torch.device("cuda:0"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
def test_gsplat_without_cuda_names_the_remedy(make_scene):
    with pytest.raises(RuntimeError, match="no CUDA device.*backend='cpu'"):
        render(make_scene(11), backend="gsplat")


def test_gsplat_is_called_with_our_conventions(make_scene, monkeypatch):
    """With a stand-in for gsplat: the arguments must be right on machines without a GPU, too."""
    calls = []

    def stand_in(means, quats, scales, opacities, colors, viewmats, *rest, **options):
        calls.append((quats, viewmats, *rest, options))
        height, width = rest[2], rest[1]
        return torch.zeros(1, height, width, 1), torch.zeros(1, height, width, 1), {"tile_size": 16}

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=stand_in))
    monkeypatch.setattr(gsplat_backend, "require", lambda: None)
    scene = make_scene(11)
    gsplat_backend.rasterize(
        *(getattr(scene, name) for name in NAMES[:4]),
        None,
        scene.viewmats,
        scene.Ks,
        WIDTH,
        HEIGHT,
        near_plane=0.02,
        far_plane=9.0,
        eps2d=0.1,
        backgrounds=None,
        render_mode="ED",
    )
    quats, viewmats, intrinsics, width, height, options = calls[0]
    assert quats is scene.quats_wxyz and viewmats is scene.viewmats and intrinsics is scene.Ks
    assert (width, height) == (WIDTH, HEIGHT)
    assert options["near_plane"] == 0.02 and options["far_plane"] == 9 and options["eps2d"] == 0.1
    assert options["render_mode"] == "ED" and options["backgrounds"] is None


def test_rendering_survives_fork(make_scene):
    # The threads of the pool stay behind in the parent.
    scene = make_scene(6, num=9000)
    expected = render(scene, num_threads=3)[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(render(scene, num_threads=3)[0], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
