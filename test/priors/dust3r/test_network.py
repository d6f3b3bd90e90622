"""The network gives the published network's numbers, and has the properties that follow from it."""

import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avat3r_ros.priors.dust3r import Dust3r, Dust3rConfig, load_dust3r
from avat3r_ros.priors.dust3r.layers import rotary_tables, rotate
from avat3r_ros.priors.dust3r.pairs import all_pairs

OUTPUTS = {
    "pts3d_1": "points_first",
    "conf_1": "confidence_first",
    "pts3d_2_in_1": "points_second",
    "conf_2": "confidence_second",
}
MAX_RELATIVE_ERROR = 1e-4


def predict(network, images, pairs=((0, 1),)):
    with torch.no_grad():
        tokens = network.encode(images)
        return network.decode(tokens, torch.tensor(pairs), *images.shape[-2:])


def relative_error(ours, reference):
    """Largest error of any pixel, relative to that pixel's own value."""
    error, size = (ours - reference), reference
    if ours.ndim == 4:
        error, size = error.norm(dim=-1), size.norm(dim=-1)
    return float((error.abs() / size.abs().clamp(min=1e-3)).max())


def noise_image(seed, height=48, width=32):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ── numbers ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", ["sq", "ls", "pt"], ids=["square", "landscape", "portrait"])
def test_same_numbers_as_the_published_network_scaled_down(reference_folder, shape):
    """Measured worst 1e-5, at points far away."""
    config = Dust3rConfig(
        encoder_width=64, encoder_layers=3, encoder_heads=4,
        decoder_width=48, decoder_layers=12, decoder_heads=3,
        head_level_widths=(12, 24, 32, 48), head_width=32, head_last_width=16,
    )  # fmt: skip
    network = load_dust3r(reference_folder / "dust3r_tiny.safetensors", config)
    reference = load_file(reference_folder / "dust3r_tiny_io.safetensors")
    images = torch.cat([reference[f"{shape}.img1"], reference[f"{shape}.img2"]]) / 2 + 0.5
    ours = predict(network, images)
    for name, field in OUTPUTS.items():
        error = relative_error(getattr(ours, field), reference[f"{shape}.{name}"])
        assert error < MAX_RELATIVE_ERROR, f"{name}: {error:.1e}"


def weights_from_name(name, shape):
    """The reference's rule that makes full-size weights out of nothing but their names."""
    generator = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    noise = generator.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        values = 0.05 * noise if name.endswith("bias") else 1 + 0.1 * noise
    else:
        upwards = name.endswith(("act_postprocess.0.1.weight", "act_postprocess.1.1.weight"))
        fan = shape[0] if upwards else int(np.prod(shape[1:]))
        values = noise / np.sqrt(fan) * (0.2 if name.endswith("dpt.head.4.weight") else 1.0)
    return torch.from_numpy(values.astype(np.float32))


def test_same_numbers_as_the_published_network_in_full_size(reference_folder):
    """571 million parameters, 30 s; measured worst 2e-5."""
    with torch.device("meta"):
        network = Dust3r()
    state = {
        name: weights_from_name(name, tuple(value.shape))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    reference = load_file(reference_folder / "dust3r_full_detinit_io.safetensors")
    images = torch.cat([reference["img1"], reference["img2"]]) / 2 + 0.5
    ours = predict(network.eval(), images)
    for name, field in OUTPUTS.items():
        error = relative_error(getattr(ours, field), reference[name])
        assert error < MAX_RELATIVE_ERROR, f"{name}: {error:.1e}"


def test_names_and_shapes_of_the_published_checkpoint(reference_folder):
    with torch.device("meta"):
        ours = {name: tuple(v.shape) for name, v in Dust3r().state_dict().items()}
    layout = {}
    for line in (reference_folder / "dust3r_full_layout.txt").read_text().splitlines():
        name, _, shape = line.partition(" (")
        if shape and ".layer_rn." not in name:
            layout[name] = tuple(int(n) for n in shape.rstrip(")").split(",") if n.strip())
    assert ours == layout


def test_published_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in Dust3r().parameters()) == 571_171_208


# ── properties ───────────────────────────────────────────────────────────────────────────────


def test_attention_sees_only_how_far_tokens_are_apart():
    """Scores of rotated queries and keys do not change when both move by the same step."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 16, generator=generator) for _ in range(2))
    tables = rotary_tables(5, 7, 16, 100.0, torch.device("cpu"))

    def score(query_at, key_at):
        at = [row * 7 + column for row, column in (query_at, key_at)]
        return (rotate(q, tables[:, at[:1]]) * rotate(k, tables[:, at[1:]])).sum()

    assert torch.allclose(score((0, 1), (2, 4)), score((2, 3), (4, 6)), atol=1e-5)
    assert not torch.allclose(score((0, 1), (2, 4)), score((0, 1), (4, 2)), atol=1e-2)


def test_pairs_do_not_touch_each_other(tiny_network):
    """A batch of pairs gives what each pair gives alone."""
    images = torch.cat([noise_image(i) for i in range(3)])
    together = predict(tiny_network, images, all_pairs(3).tolist())
    for row in (1, 2):
        i, j = all_pairs(3).tolist()[row]
        alone = predict(tiny_network, images[[i, j]])
        assert torch.allclose(together.points_second[row], alone.points_second[0], atol=1e-5)
        assert torch.allclose(together.confidence_first[row], alone.confidence_first[0], atol=1e-5)


def test_every_image_is_paired_with_every_other_in_both_orders():
    pairs = all_pairs(4).tolist()
    assert len(pairs) == 12 and all([j, i] in pairs for i, j in pairs)
    assert all(i != j for i, j in pairs)


def test_odd_token_grids_keep_the_image_size(tiny_network):
    for height, width in ((48, 80), (16, 48)):
        images = torch.cat([noise_image(i, height, width) for i in range(2)])
        out = predict(tiny_network, images)
        assert out.points_first.shape == (1, height, width, 3)
        assert (out.confidence_second > 1).all()


def test_sizes_that_are_no_multiple_of_a_patch_are_refused(tiny_network):
    with pytest.raises(ValueError, match="multiples of 16, got 40x48"):
        tiny_network.encode(torch.zeros(1, 3, 48, 40))


def test_half_precision_stays_close(tiny_network):
    images = torch.cat([noise_image(i) for i in range(2)])
    exact = predict(tiny_network, images)
    with torch.autocast("cpu", torch.bfloat16):
        half = predict(tiny_network, images)
    assert half.points_first.dtype == torch.float32
    error = (half.points_first - exact.points_first).norm() / exact.points_first.norm()
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder_heads": 3}, "multiple of 4 x encoder_heads"),
        ({"decoder_layers": 6}, "multiple of 4, got 6"),
        ({"patch_size": 8}, "patch_size 16"),
    ],
)
def test_impossible_sizes_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Dust3rConfig(**change)
