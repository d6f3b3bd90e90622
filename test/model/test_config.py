"""Configurations: presets, validation, JSON, and the sizes the paper states."""

import dataclasses
import json

import pytest
import torch

from avat3r_ros.model import PRESETS, Avat3r, Avat3rConfig, cloud, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = preset(name)
    assert config.name == name
    assert Avat3rConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_cloud_to_be_compared_with(name):
    still = cloud(preset(name))
    assert still.motion_prior == "none"
    assert still.image_size == preset(name).image_size


def test_unknown_preset_names_the_closest():
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        preset("tinny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 12}, "power of two"),
        ({"image_size": 100}, "multiple of patch_size"),
        ({"num_heads": 5}, "divide"),
        ({"upsampler": "GRM"}, "did you mean 'grm'"),
        ({"layout": "interleaved", "self_attention_layers": 3}, "as many"),
        (
            {"expression_basis": 8, "condition_on_reference_codes": False},
            "condition_on_reference_codes",
        ),
        ({"use_features": True}, "feature_channels"),
        ({"position_skip": False}, "position_skip"),
        ({"code_space": "ava256_256"}, "arkit_52"),
        ({"confidence_threshold": 1.5}, "confidence_threshold"),
        ({"width": 0}, "width"),
        ({"evidence_features": -1}, "evidence_features"),
        ({"upsampler": "none"}, "evidence_features > 0"),
        ({"evidence_layers": 2}, "evidence_features > 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(preset("mini"), **change)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("width"), "lacks"),
        (lambda d: d.update(widht=3), "did you mean 'width'"),
        (lambda d: d.update(width="192"), "expected int"),
        (lambda d: d.update(use_features=1), "expected bool"),
    ],
)
def test_json_is_read_strictly(edit, message):
    data = preset("mini").to_json()
    edit(data)
    with pytest.raises(ValueError, match=message):
        Avat3rConfig.from_json(data)


def test_paper_preset_has_the_papers_size():
    """16 blocks of 12 D^2 weights at D = 768 are 113 M; the upsampler adds a few."""
    with torch.device("meta"):
        network = Avat3r(preset("paper"))
    blocks = sum(
        p.numel()
        for part in (network.token_encoder.self_attention, network.expression_path.cross_attention)
        for p in part.parameters()
    )
    assert blocks == pytest.approx(16 * 12 * 768**2, rel=0.01)
    upsampler = sum(p.numel() for p in network.expression_path.upsampler.parameters())
    assert 5e6 < upsampler < 8e6
    assert len(network.expression_path.upsampler.expansions) == 4
    assert network.config.motion_prior == "none"
    assert not network.config.condition_on_reference_codes


def test_configurations_of_older_versions_lack_what_was_added_since():
    data = preset("mini").to_json()
    del data["evidence_features"], data["evidence_layers"]
    assert Avat3rConfig.from_json(data) == preset("mini")
