"""Back-ends by name, with clear errors for missing, wrong and superfluous weights."""

import pytest
import torch

from avat3r_ros.priors import template as template_prior
from avat3r_ros.priors.choice import feature_extractor, position_prior


def test_the_template_needs_nothing():
    prior = position_prior("template")
    assert prior.function is template_prior.position_maps and prior.licence is None


def test_weights_nobody_needs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="from the template need no weights"):
        position_prior("template", tmp_path / "a.pth")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown position maps 'nerf', expected one of"):
        position_prior("nerf")


def test_missing_dust3r_weights_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AVAT3R_MODELS", raising=False)
    with pytest.raises(FileNotFoundError, match=r"avat3r doctor --download dust3r.*CC BY-NC-SA"):
        position_prior("dust3r")


def test_wrong_dust3r_weights_are_named(tmp_path):
    torch.save({"model": {"enc_norm.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: not the expected DUSt3R: lacks .* 996 more"):
        position_prior("dust3r", tmp_path / "other.pth")


def test_a_depth_network_must_be_named():
    with pytest.raises(FileNotFoundError, match=r"folder of a depth network.*docs/priors.md"):
        position_prior("depth")


def test_depth_by_name(tmp_path):
    hub = pytest.importorskip(
        "transformers", reason="needs transformers: pip install transformers==5.23.0"
    )
    hub.Sapiens2ForPointmapEstimation(
        hub.Sapiens2Config(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            image_size=[64, 64], patch_size=16, num_labels=3,
            head_config={"upsample_out_channels": [8], "conv_out_channels": [8]},
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    prior = position_prior("depth", tmp_path)
    assert prior.name == "sapiens2 point maps" and "biometric" in str(prior.licence)


def test_features_by_name(tmp_path):
    assert feature_extractor("none") is None
    with pytest.raises(ValueError, match="no features were chosen"):
        feature_extractor("none", tmp_path)
    with pytest.raises(ValueError, match="unknown features 'clip', expected one of"):
        feature_extractor("clip")
    with pytest.raises(FileNotFoundError, match="features of sapiens need their weights"):
        feature_extractor("sapiens")
    with pytest.raises(FileNotFoundError, match="no config.json"):
        feature_extractor("dinov2", tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        feature_extractor("sapiens", tmp_path / "absent.pt2", input_size=64)
