"""Weights on disk: strict, checked, replaced whole."""

import json

import pytest
import torch

from avat3r_ros.model import (
    Avat3r,
    CheckpointError,
    checkpoint,
    load_network,
    preset,
    save_network,
    weights_sha256,
)


@pytest.fixture
def network(template):
    torch.manual_seed(0)
    network = Avat3r(preset("debug"), template).eval()
    for layer in network.output_layers():
        torch.nn.init.normal_(layer.weight, std=0.1)
    return network


def test_a_saved_network_comes_back(network, template, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_SHARD_BYTES", 50_000)  # several shards
    digest = save_network(network, tmp_path / "run", about={"steps": 3})
    assert digest == weights_sha256(network)
    assert len(list((tmp_path / "run").glob("*.safetensors"))) > 2
    loaded = load_network(tmp_path / "run", template=template)
    assert loaded.config == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert weights_sha256(loaded) == digest
    assert json.loads((tmp_path / "run/config.json").read_text())["about"] == {"steps": 3}


def test_half_precision_is_hashed_as_stored(network, template, tmp_path):
    digest = save_network(network, tmp_path, dtype="float16")
    assert digest != weights_sha256(network)
    assert weights_sha256(load_network(tmp_path, template=template)) == digest


def test_saving_again_replaces_the_old_shards(network, template, tmp_path):
    save_network(network, tmp_path)
    with torch.no_grad():
        network.token_encoder.position_embedding += 1
    digest = save_network(network, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert weights_sha256(load_network(tmp_path, template=template)) == digest


def test_changed_cut_or_missing_weights_are_refused(network, template, tmp_path):
    save_network(network, tmp_path)
    shard = next(tmp_path.glob("*.safetensors"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="do not match their hash"):
        load_network(tmp_path, template=template)
    shard.write_bytes(good[: len(good) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_network(tmp_path, template=template)
    shard.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_network(tmp_path, template=template)


def test_weights_of_another_configuration_are_refused(network, template, tmp_path):
    save_network(network, tmp_path)
    path = tmp_path / "config.json"
    about = json.loads(path.read_text())
    about["config"]["expression_tokens"] = 3
    path.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(tmp_path, template=template)
    about["format"] = 2
    path.write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="expected checkpoint format 1, got 2"):
        load_network(tmp_path, template=template)


def test_names_that_are_neither_preset_nor_folder(template, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'small'"):
        load_network("smal", template=template)
    with pytest.raises(CheckpointError, match="no config.json"):
        load_network(tmp_path, template=template)


def test_a_preset_without_weights_comes_untrained_and_says_so(template, caplog, monkeypatch):
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", checkpoint.WEIGHTS_FOLDER / "none")
    assert load_network("debug", template=template).is_untrained()
    assert "no weights ship for preset 'debug'" in caplog.text
    assert weights_sha256(load_network("debug", trained=False, template=template)) == ""
