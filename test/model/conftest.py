"""The fake head as a fixture for the tests of the model and of animation."""

import importlib.util
import pathlib

import pytest

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
