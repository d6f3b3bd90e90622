"""Back-ends by name, with clear errors for missing, wrong and superfluous weights."""

import pytest
import torch

from avat3r_ros.priors import template as template_prior
from avat3r_ros.priors.choice import position_prior


def test_the_template_needs_nothing():
    assert position_prior("template") is template_prior.position_maps


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
