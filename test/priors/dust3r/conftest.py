"""A DUSt3R small enough for tests, and where reference tensors lie if someone has them."""

import os
import pathlib

import pytest
import torch

from avat3r_ros.priors.dust3r import Dust3r, Dust3rConfig

TINY = Dust3rConfig(
    encoder_width=32,
    encoder_layers=2,
    encoder_heads=2,
    decoder_width=24,
    decoder_layers=4,
    decoder_heads=3,
    head_level_widths=(8, 8, 12, 16),
    head_width=16,
    head_last_width=8,
    image_size=64,
)


@pytest.fixture(scope="session")
def tiny_config():
    return TINY


@pytest.fixture
def tiny_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dust3r(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def reference_folder():
    """Inputs and outputs of the network the published weights come from."""
    folder = pathlib.Path(os.environ.get("AVAT3R_SHARED", "/nowhere")) / "dust3r"
    if not folder.is_dir():
        pytest.skip("no DUSt3R reference tensors: set AVAT3R_SHARED to the folder that holds them")
    return folder
