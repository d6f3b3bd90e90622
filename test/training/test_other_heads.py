"""References of people of the second head model. Needs the user's own model file."""

import os
from pathlib import Path

import pytest

from avat3r_ros.data.sampling import ICT_SEEDS, training_sample
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.training.references import person_from_sample

MODEL = Path(os.environ.get("AVAT3R_SHARED", "/nonexistent")) / "data" / "ict_facekit.npz"
needs_model = pytest.mark.skipif(
    not MODEL.is_file(), reason="set AVAT3R_SHARED to a folder with data/ict_facekit.npz"
)


@pytest.fixture(scope="module")
def sample(template):
    return training_sample(
        ICT_SEEDS.start + 2, template, image_size=128, num_codes=3, ict_facekit=MODEL
    )


@needs_model
def test_tracked_references_have_the_errors_of_a_fit(sample, template):
    person = person_from_sample(sample, 128, "tracked", template)
    known = (person.surfaces.triangle_ids >= 0) & (person.views.masks[:, 0] > 0.5)
    pixels = known.flatten().nonzero()[:, 0]
    placed = person.views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)[pixels]
    error = (placed - person.photographed_positions(pixels)).norm(dim=-1) * 1000
    assert 0.5 < error.median() < 10  # millimetres; a wrong frame: > 30


@needs_model
def test_nobody_is_asked_for_a_tongue_that_is_not_there(sample):
    assert (sample.targets.codes[:, ARKIT_INDEX["tongueOut"]] == 0).all()
    assert sample.targets.codes.abs().max() > 0.3


@needs_model
def test_only_tracked_references_can_be_made(sample, template):
    with pytest.raises(ValueError, match="are tracked, got prior='exact'"):
        person_from_sample(sample, 128, "exact", template)
