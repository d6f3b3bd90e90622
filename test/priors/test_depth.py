"""A depth network puts hair where it is, and leaves the face to the template."""

import numpy as np
import pytest
import torch

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.priors import depth as depth_prior
from avat3r_ros.priors import template as template_prior
from avat3r_ros.priors.depth_models import DepthEstimator, load_depth
from avat3r_ros.priors.networks import APACHE, Normalisation
from avat3r_ros.types import Camera, HeadCrops

SIZE = 64
PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def photographed(template):
    """Three exact crops of a person with short hair, and the truth behind them."""
    head = SyntheticHead(3, template, style="short")
    middle = np.array([0.0, 0.0, -0.08])
    poses = [
        torch.tensor(look_at_head(np.radians(yaw), 0.0, 0.6, middle)).float()
        for yaw in (-28, 3, 28)
    ]
    k = torch.tensor(intrinsics_matrix(SIZE * 0.6 / 0.32, SIZE / 2, SIZE / 2)).float()
    code = np.zeros(52, np.float32)
    seen = [head.render(Camera(k, pose, SIZE, SIZE), code) for pose in poses]
    crops = HeadCrops(
        images=torch.stack([view.image for view in seen]),
        masks=torch.stack([view.mask for view in seen]),
        cameras=Camera(k.expand(3, 3, 3), torch.stack(poses), SIZE, SIZE),
        codes=torch.zeros(3, 52),
        identity=torch.from_numpy(head.identity).float(),
    )
    return crops, seen


@pytest.fixture(scope="module")
def drawn(photographed, template):
    return template_prior.position_maps(photographed[0], template)


def oracle(values, inverse=True):
    """A network that answers with these values, whatever it sees."""
    waiting = list(values)
    return DepthEstimator(
        "oracle", inverse, SIZE, SIZE, PLAIN, APACHE,
        lambda images: waiting.pop(0)[None], torch.device("cpu"),
    )  # fmt: skip


def disparities(seen):
    depth = torch.stack([view.depth_m for view in seen])
    return torch.where(depth.isfinite(), 37 / depth + 5, 0.0)


@pytest.mark.parametrize("inverse", [True, False])
def test_hair_is_where_it_is_and_the_face_stays(photographed, drawn, template, inverse):
    crops, seen = photographed
    depth = torch.stack([view.depth_m for view in seen]).nan_to_num(posinf=3.0)
    network = oracle(disparities(seen) if inverse else 0.4 * depth - 0.1, inverse)
    views = depth_prior.position_maps(crops, template, network)
    truth = torch.stack([view.position_map for view in seen])
    hair = torch.stack([(v.surface.triangle_ids >= 0) & (v.binding.triangle_ids < 0) for v in seen])
    hair &= crops.masks[:, 0] > 0.5
    before, after = (
        (maps.position_maps - truth).norm(dim=1)[hair].median() for maps in (drawn, views)
    )
    # Measured 4 and 1.1 mm.
    assert 0.003 < before < 0.006 and after < 0.5 * before
    face = template.region_mask(*depth_prior.FACE_REGIONS)[
        drawn.binding.triangle_ids.clamp(min=0)
    ] & (drawn.binding.triangle_ids >= 0)
    moved = (views.position_maps - drawn.position_maps).norm(dim=1)
    assert moved[face].max() < 1e-5
    assert torch.equal(views.binding.triangle_ids[face], drawn.binding.triangle_ids[face])
    assert (views.confidence <= drawn.confidence + 1e-6).all()
    assert (views.position_maps[(crops.masks == 0).expand(-1, 3, -1, -1)] == 0).all()


def test_steps_in_depth_are_not_trusted(photographed, drawn, template):
    crops, seen = photographed
    values = disparities(seen)
    values[:, :9] += 15 * (torch.arange(SIZE) % 4 < 2)  # a comb in the hair
    views = depth_prior.position_maps(crops, template, oracle(values))
    comb = torch.zeros_like(crops.masks[:, 0], dtype=torch.bool)
    comb[:, :8] = crops.masks[:, 0, :8] > 0.5
    assert comb.sum() > 15
    kept = [(maps.confidence[:, 0][comb] > 0.5).float().mean() for maps in (drawn, views)]
    assert kept[1] < 0.5 * kept[0]


def test_a_view_that_contradicts_the_face_keeps_the_template(photographed, drawn, template, caplog):
    crops, seen = photographed
    values = disparities(seen)
    values[1] = -values[1]
    views = depth_prior.position_maps(crops, template, oracle(values))
    assert "view 2: the depth of oracle misses the face" in caplog.text
    assert torch.allclose(views.position_maps[1], drawn.position_maps[1], atol=1e-5)
    assert (views.position_maps[0] - drawn.position_maps[0]).norm(dim=0).max() > 0.005


def test_a_network_that_fits_no_view_is_refused(photographed, template):
    crops, seen = photographed
    with pytest.raises(ValueError, match="depth of oracle fits the face in none of 3 photos"):
        depth_prior.position_maps(crops, template, oracle(-disparities(seen)))


def test_scale_and_offset_are_found_among_outliers():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 0.7, (20, 20))
    values = 3 / depth - 1
    values[:5] = 9.0
    fitted, misfit = depth_prior.fit_depth(values, depth, np.ones((20, 20), bool), inverse=True)
    assert np.abs(fitted[5:] - depth[5:]).max() < 1e-3 and misfit < 1e-3
    nothing = np.zeros((20, 20), bool)
    assert depth_prior.fit_depth(values, depth, nothing, True)[1] == np.inf
    assert depth_prior.fit_depth(np.ones((20, 20)), depth, ~nothing, True)[1] == np.inf


# ── networks of the package transformers ─────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def hub():
    return pytest.importorskip(
        "transformers", reason="needs transformers: pip install transformers==5.23.0"
    )


def depth_anything(hub, width=32, **options):
    encoder = hub.Dinov2Config(
        hidden_size=width, num_hidden_layers=4, num_attention_heads=2, image_size=56,
        patch_size=14, out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    return hub.DepthAnythingForDepthEstimation(
        hub.DepthAnythingConfig(
            backbone_config=encoder, reassemble_hidden_size=width, patch_size=14,
            neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, head_hidden_size=4, **options,
        )
    ).eval()  # fmt: skip


def sapiens2_points(hub, labels=3):
    return hub.Sapiens2ForPointmapEstimation(
        hub.Sapiens2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            image_size=[96, 64], patch_size=16, num_labels=labels,
            head_config={
                "upsample_out_channels": [16, 8], "conv_out_channels": [8],
                "scale_conv_out_channels": [8], "scale_final_hidden_sizes": [8, 8],
            },
        )
    ).eval()  # fmt: skip


def test_depth_anything_tells_inverse_depth(hub, tmp_path):
    model = depth_anything(hub)
    model.save_pretrained(tmp_path)
    network = load_depth(tmp_path)
    assert network.inverse and network.licence == APACHE and network.input_height == 518
    image = torch.rand(1, 3, 518, 518)
    values = network.estimate(image)
    assert values.shape == (1, 518, 518)
    with torch.no_grad():
        expected = model(network.normalisation(image)).predicted_depth
    assert torch.allclose(values, expected, atol=1e-5)


def test_larger_and_metric_depth_anything_are_told_apart(hub, tmp_path):
    depth_anything(hub, width=512, depth_estimation_type="metric", max_depth=20).save_pretrained(
        tmp_path
    )
    network = load_depth(tmp_path)
    assert not network.inverse and "non-commercial" in str(network.licence)


def test_sapiens2_sees_the_square_in_the_middle_of_its_own_format(hub, tmp_path):
    model = sapiens2_points(hub)
    model.save_pretrained(tmp_path)
    network = load_depth(tmp_path)
    assert (network.input_height, network.input_width, network.inverse) == (96, 64, False)
    image = torch.rand(1, 3, 64, 64)
    fractions = []
    values = network.estimate(image, progress=fractions.append)
    padded = torch.zeros(1, 3, 96, 64)
    padded[:, :, 16:80] = image
    with torch.no_grad():
        points = model(network.normalisation(padded)).pointmaps
    expected = torch.nn.functional.interpolate(points, (96, 64), mode="bilinear")[:, 2, 16:80]
    assert torch.allclose(values, expected, atol=1e-5)
    assert fractions == [1.0]


def test_other_networks_are_refused(hub, tmp_path):
    sapiens2_points(hub, labels=2).save_pretrained(tmp_path / "normals")
    with pytest.raises(ValueError, match="point maps of 3 values, got 2"):
        load_depth(tmp_path / "normals")
    hub.Dinov2Model(
        hub.Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "dinov2")
    with pytest.raises(ValueError, match="expected a network of .*depth_anything.*, got 'dinov2'"):
        load_depth(tmp_path / "dinov2")
