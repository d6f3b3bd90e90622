"""What an avatar stores: small, complete, checked, and the same before and after a file."""

import dataclasses

import numpy as np
import pytest
import torch

from avat3r_ros.avatar_file import avatar_from_bytes, avatar_to_bytes
from avat3r_ros.expression import arkit_code
from avat3r_ros.model import (
    Avat3r,
    build_avatar,
    checkpoint,
    preset,
    restore_avatar,
    save_network,
)
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.photo_fit import PLACE_LIMIT_M
from avat3r_ros.types import Gaussians

CODE = torch.from_numpy(arkit_code(jawOpen=0.6))
FIELDS = tuple(Gaussians.__dataclass_fields__)


STILL = dataclasses.replace(
    preset("debug"),
    upsampler="none",
    self_attention_layers=0,
    cross_attention_layers=0,
    expression_basis=0,
)


def network_of(template, trained, config=preset("debug")):  # noqa: B008 (frozen)
    torch.manual_seed(0)
    network = Avat3r(config, template).eval()
    if trained:
        for layer in network.output_layers():
            torch.nn.init.normal_(layer.weight, std=0.1)
    return network


def animated(avatar, template, **kwargs):
    prefix, network = restore_avatar(avatar, template=template, **kwargs)
    with torch.no_grad():
        return prefix.base_gaussians(CODE) if network is None else network.decode(prefix, CODE)


def assert_animates_as(network, avatar, views, template):
    prefix, _ = restore_avatar(avatar, template=template)
    with torch.no_grad():
        base = build_base_guess(views, network.config, template, neck=True)
        seen = network.encode(views, base=base)
        # What is shown was then fitted to the photos (photo_fit.py).
        held = prefix.base.gaussians
        fitted = dataclasses.replace(base.gaussians, colors=held.colors, means=held.means)
        direct = network.prefix_from_tokens(
            network.encode_tokens(views),
            dataclasses.replace(base, gaussians=fitted),
            views.identity,
            len(views.images),
            still=seen.still,
        )
        direct = network.decode(direct, CODE)
    stored = animated(avatar, template)
    # Half-precision tokens, weights, shapes and 8-bit colours; measured worst 0.002 (colour).
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(stored, name), getattr(direct, name), atol=6e-3, rtol=1e-2
        )
    torch.testing.assert_close(stored.means, direct.means, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def avatar(views, template):
    return build_avatar(views, network_of(template, True), metadata={"owner": "test"})


def test_an_avatar_animates_as_its_network_does(avatar, views, template):
    network = network_of(template, True)
    assert_animates_as(network, avatar, views, template)


def test_an_avatar_keeps_the_blocks_between_cross_attention(views, template):
    layers = {"self_attention_layers": 2, "cross_attention_layers": 2}
    config = dataclasses.replace(preset("debug"), layout="interleaved", **layers)
    network = network_of(template, True, config)
    avatar = build_avatar(views, network)
    assert any("expression_path.self_attention" in name for name in avatar.tensors)
    assert_animates_as(network, avatar, views, template)


def test_an_avatar_without_tokens_keeps_what_stays(views, template):
    network = network_of(template, True, STILL)
    avatar = build_avatar(views, network)
    assert "tokens" not in avatar.tensors
    assert_animates_as(network, avatar, views, template)
    missing = dataclasses.replace(
        avatar, tensors={n: t for n, t in avatar.tensors.items() if n != "still_changes"}
    )
    with pytest.raises(ValueError, match="still_changes"):
        restore_avatar(missing, template=template)


def test_a_trip_through_bytes_changes_nothing(avatar, template):
    back = avatar_from_bytes(avatar_to_bytes(avatar))
    a, b = animated(avatar, template), animated(back, template)
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert back.metadata == {"owner": "test"}
    assert back.thumbnails.shape == (3, 96, 96, 3)


def test_an_untrained_network_and_none_at_all_store_the_base_guess(views, template):
    avatar = build_avatar(
        views, network_of(template, False), thumbnails=np.zeros((0, 8, 8, 3), "u1")
    )
    assert avatar.weights_sha256 == ""
    assert not [n for n in avatar.tensors if n == "tokens" or n.startswith("network.")]
    assert len(avatar_to_bytes(avatar)) < 200_000
    prefix, network = restore_avatar(avatar, template=template)
    assert network is None
    expected = build_base_guess(views, preset("debug"), template).gaussians.means
    found = prefix.base_gaussians(torch.zeros(52)).means
    pixels = slice(prefix.base.num_pixels)
    assert (found[pixels] - expected[pixels]).abs().max() <= PLACE_LIMIT_M * 1.001


def test_shipped_weights_are_found_by_hash_and_not_embedded(views, template, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", tmp_path)
    network = network_of(template, True)
    save_network(network, tmp_path / "debug")
    avatar = build_avatar(views, network)
    assert not [name for name in avatar.tensors if name.startswith("network.")]
    assert len(animated(avatar, template)) == len(avatar.tensors["means"])
    (tmp_path / "debug/config.json").unlink()
    with pytest.raises(ValueError, match="does not ship"):
        animated(avatar, template)
    assert len(animated(avatar, template, network=network)) == len(avatar.tensors["means"])
    with pytest.raises(ValueError, match="not the one"):
        animated(avatar, template, network=network_of(template, False))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("means", lambda t: t[:-1], "expected avatar tensor"),
        ("means", lambda t: t * float("nan"), "not finite"),
        ("tokens", lambda t: t[:, :-1], "tokens"),
        ("triangle_ids", lambda t: t + 10_000, "outside"),
        ("code_rows", lambda t: t + 100, "outside"),
        ("pixel_indices", lambda t: t - 5000, "outside"),
        ("moving", lambda t: t.flip(0), "moving"),
        ("identity", lambda t: t[:1], "identity"),
        ("network.expression_path.cross_attention.0.mlp.0.bias", lambda t: t[:1], "does not fit"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(avatar, template, name, change, message):
    tensors = dict(avatar.tensors)
    tensors[name] = change(tensors[name])
    broken = dataclasses.replace(avatar, tensors=tensors)
    with pytest.raises(ValueError, match=message):
        restore_avatar(broken, template=template)
    del tensors[name]
    with pytest.raises(ValueError, match="missing|differs"):
        restore_avatar(dataclasses.replace(avatar, tensors=tensors), template=template)


def test_heads_with_and_without_a_shape_of_the_neck_are_restored(avatar, template):
    """Avatars of before have none; zeros are the same."""
    plain = avatar.tensors["identity"][: template.num_identity]
    shown = []
    for identity in (plain, torch.cat([plain, torch.zeros(4)])):
        tensors = dict(avatar.tensors) | {"identity": identity}
        shown.append(animated(dataclasses.replace(avatar, tensors=tensors), template))
    for name in FIELDS:
        torch.testing.assert_close(getattr(shown[0], name), getattr(shown[1], name))
    tensors = dict(avatar.tensors) | {"identity": torch.cat([plain, torch.zeros(3)])}
    with pytest.raises(ValueError, match="identity of .* values, got"):
        restore_avatar(dataclasses.replace(avatar, tensors=tensors), template=template)


def test_another_head_template_is_refused(avatar):
    with pytest.raises(ValueError, match="another head template"):
        restore_avatar(avatar)  # with the shipped template
