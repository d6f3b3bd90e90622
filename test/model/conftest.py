"""A fake head and a drawn person as fixtures for the tests of the model and of animation."""

import importlib.util
import pathlib

import pytest
import torch

from avat3r_ros.data.sampling import training_sample
from avat3r_ros.model import base_guess, detail
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.references import person_from_sample

_path = pathlib.Path(__file__).with_name("fake_head.py")
_spec = importlib.util.spec_from_file_location("fake_head", _path)
fake_head = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_head)


@pytest.fixture(scope="session")
def head():
    """The module `fake_head.py`."""
    return fake_head


@pytest.fixture(scope="session")
def template():
    return fake_head.fake_template()


@pytest.fixture(scope="session")
def views(template):
    return fake_head.fake_views(template)


@pytest.fixture
def on_rays(monkeypatch):
    """Pixels of base guesses stay on their rays, where they are drawn too far out (overlap.py)."""
    monkeypatch.setattr(base_guess, "overlap_shifts", lambda base, cameras: 0.0)
    monkeypatch.setattr(detail, "overlap_shifts", lambda base, cameras: torch.zeros(len(base), 3))


@pytest.fixture(scope="session")
def drawn_person():
    """Exact references of a drawn person, three views of 64 pixels."""
    template = HeadTemplate.load()
    sample = training_sample(5, template, image_size=64, num_photos=3, num_codes=1)
    return person_from_sample(sample, 64, "exact", template).views
