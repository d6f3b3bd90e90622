"""One small person, made once, in both kinds of references; the trainer's tests share them."""

import pytest

from avat3r_ros.data.sampling import training_sample
from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.people import TrainingPerson
from avat3r_ros.training.references import person_from_sample


@pytest.fixture(scope="session")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="session")
def sample(template):
    return training_sample(
        5, template, image_size=64, num_photos=3, num_codes=2, cameras_per_code=1
    )


@pytest.fixture(scope="session")
def exact(sample):
    return person_from_sample(sample, 64, "exact")


@pytest.fixture(scope="session")
def fitted(sample):
    return person_from_sample(sample, 64, "fitted")


@pytest.fixture(scope="session")
def small_person(sample, template):
    """For the `debug` preset, with the errors of a fit to correct."""
    person = person_from_sample(sample, 32, "fitted")
    base = build_base_guess(person.views, preset("debug"), template)
    known = person.surfaces.triangle_ids.flatten()[base.pixel_indices] >= 0
    return TrainingPerson(person, base, known.nonzero()[:, 0])
