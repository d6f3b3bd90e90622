"""`avat3r build` with other priors: what reaches the avatar, and the sentence for each mistake."""

import dataclasses

import pytest
import torch
from PIL import Image

from avat3r_ros.animation import CompileConfig, is_compiled
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.cli import main
from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.model import Avat3r, preset
from avat3r_ros.model.checkpoint import save_network

pytest.importorskip("mediapipe", reason="needs mediapipe: make env")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

CHANNELS = 20


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Three photos, a Sapiens-like encoder, and a network that was trained with its features."""
    folder = tmp_path_factory.mktemp("priors")
    operator = SyntheticOperator(5)
    for i, time_s in enumerate((0.5, 2.5, 5.0)):
        Image.fromarray(operator.frame(time_s)).save(folder / f"{i}.png")
    encoder = torch.nn.Conv2d(3, CHANNELS, 16, 16)
    torch.jit.trace(encoder, torch.zeros(1, 3, 64, 64)).save(folder / "sapiens.pt2")
    config = dataclasses.replace(
        preset("debug"), name="described", use_features=True, feature_channels=CHANNELS
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Avat3r(config)
        torch.nn.init.normal_(network.output_layers()[0].weight, std=1e-3)
    save_network(network, folder / "network")
    return folder


def build(folder, *options):
    photos = [str(folder / f"{i}.png") for i in range(3)]
    return main(["build", *photos, "-o", str(folder / "me.avat3r"), *map(str, options)])


def test_features_reach_the_network_and_their_licence_the_user(workplace, capsys, monkeypatch):
    brief = CompileConfig(num_codes=54, prune_below_px=0.0, num_test_codes=1, num_test_pairs=1)
    monkeypatch.setattr("avat3r_ros.pipeline.quick", lambda: brief)
    options = ("--features", "sapiens", "--features-weights", workplace / "sapiens.pt2")
    assert build(workplace, "--preset", workplace / "network", *options) == 0
    assert "CC BY-NC 4.0" in capsys.readouterr().out
    avatar = load_avatar(workplace / "me.avat3r")
    licences = [{"name": f"sapiens with {CHANNELS} channels", "licence": "CC BY-NC 4.0"}]
    assert avatar.metadata["weights_of_others"] == licences
    assert avatar.config["network"]["feature_channels"] == CHANNELS
    # The tokens hold what the features said, so an animator needs neither photos nor encoder.
    assert "tokens" in avatar.tensors
    assert is_compiled(avatar), "a build compiles unless it is told not to"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "NETWORK"], "was trained with feature maps of 20 channels; choose"),
        (["--features", "sapiens", "--features-weights", "ENCODER"], "'tiny' takes none; leave"),
        (["--features", "sapiens"], "features of sapiens need their weights"),
        (["--features", "dinov2", "--features-weights", "ENCODER"], "no such folder"),
        (["--position-maps", "depth"], "need the folder of a depth network"),
        (["--position-maps", "dust3r", "--dust3r-weights", "ENCODER"], "a TorchScript program"),
        (["--dust3r-weights", "a.pth"], "only used with --position-maps dust3r"),
    ],
)
def test_mistakes_end_in_one_sentence(workplace, capsys, options, message):
    places = {"NETWORK": workplace / "network", "ENCODER": workplace / "sapiens.pt2"}
    assert build(workplace, *(places.get(option, option) for option in options)) == 1
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert printed.startswith("avat3r build: ") and message in printed
