"""Weights that ship: whole, small, described, and better than doing without them."""

import json

import pytest
import torch

from avat3r_ros.data.sampling import training_sample
from avat3r_ros.model import load_network, preset
from avat3r_ros.model.checkpoint import WEIGHTS_FOLDER
from avat3r_ros.model_files import find_model
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.evaluation import AROUND_PX
from avat3r_ros.training.metrics import psnr, widened
from avat3r_ros.training.people import prepare_person
from avat3r_ros.training.references import person_from_sample

FOLDERS = sorted(path.parent for path in WEIGHTS_FOLDER.glob("*/config.json"))
LIMIT_BYTES = {"tiny": 20e6, "small": 64e6}


def test_tiny_ships():
    assert [folder.name for folder in FOLDERS] == ["tiny"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_weights_are_whole_small_and_described(folder):
    network = load_network(folder.name)  # hash, names and shapes are checked here
    assert not network.is_untrained()
    assert network.config == preset(folder.name)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LIMIT_BYTES[folder.name]
    digest = json.loads((folder / "config.json").read_text())["weights_sha256"]
    card = (folder / "README.md").read_text()
    assert digest[:12] in card, "the model card is that of other weights"
    for part in ("Data", "Training", "Scores", "Limits", "Licence"):
        assert f"## {part}" in card


def test_pictures_are_better_with_the_weights_than_without():
    """On a person never trained on, with references and codes as in use."""
    pytest.importorskip("mediapipe", reason="pip install mediapipe==1.2.2")
    try:
        find_model("face_landmarker")
    except FileNotFoundError as error:
        pytest.skip(f"no face_landmarker model: {error}")
    template, config = HeadTemplate.load(), preset("tiny")
    sample = training_sample(
        9, template, image_size=config.image_size, num_codes=3, cameras_per_code=1
    )
    one = prepare_person(
        person_from_sample(sample, config.image_size, "tracked", template), config, template
    )
    network, targets = load_network("tiny", template=template), one.targets
    scores = []
    with torch.no_grad():
        prefix = network.encode(one.views, base=one.base)
        for row, code in enumerate(one.codes):
            shown = (one.shown == row).nonzero()[:, 0]
            # Outlines count from both sides: they are what the weights change most.
            around = widened((targets.masks[shown] > 0.5).float(), AROUND_PX)
            drawn = (network.decode(prefix, code), prefix.base_gaussians(code))
            pictures = [render_gaussians(g, targets.cameras[shown]).rgb.clamp(0, 1) for g in drawn]
            truth = targets.images[shown]
            scores.append([float(psnr(rgb, truth, around).mean()) for rgb in pictures])
    with_weights, without = torch.tensor(scores).mean(0).tolist()
    assert with_weights > without + 0.6  # decibels; measured 0.8
