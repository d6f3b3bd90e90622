import pytest

from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.rig import HeadTemplate


@pytest.fixture(scope="session")
def template():
    return HeadTemplate.load()


@pytest.fixture(scope="session")
def long_haired(template):
    return SyntheticHead(3, template, style="long")
