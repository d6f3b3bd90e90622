"""One small person, made once, in both kinds of references; the trainer's tests share them."""

import pytest

from avat3r_ros.data.sampling import training_sample
from avat3r_ros.model import preset
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.people import prepare_person
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
def exact(sample, template):
    return person_from_sample(sample, 64, "exact", template)


@pytest.fixture(scope="session")
def fitted(sample, template):
    return person_from_sample(sample, 64, "fitted", template)


@pytest.fixture(scope="session")
def small_person(sample, template):
    """For the `debug` preset, with the errors of a fit to correct."""
    return prepare_person(
        person_from_sample(sample, 32, "fitted", template), preset("debug"), template
    )
