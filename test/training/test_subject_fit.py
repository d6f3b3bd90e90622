import pytest
import torch

from avat3r_ros.model import preset
from avat3r_ros.model.changes import ATTRIBUTES
from avat3r_ros.model.pixel_decoder import between_tokens, pixel_places
from avat3r_ros.model.prefix import Prefix, make_motion
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.training.metrics import psnr
from avat3r_ros.training.subject_fit import changed_gaussians, fit_changes

CONFIG = preset("debug")


@pytest.fixture
def prefix(small_person, template):
    motion = make_motion(small_person.base, small_person.views.identity, template, CONFIG)
    return Prefix(small_person.base, motion, len(small_person.views.images))


def fitted(prefix, one, **options):
    views = one.views
    return fit_changes(
        prefix, views.images, views.masks, views.cameras, views.codes.float(), **options
    )


def test_the_photos_are_met_better(prefix, small_person):
    views, codes = small_person.views, small_person.views.codes.float()
    changes = fitted(prefix, small_person, steps=60)

    def score(changes):
        values = []
        for view, code in enumerate(codes):
            gaussians = changed_gaussians(prefix, prefix.base_gaussians(code), changes)
            rgb = render_gaussians(gaussians, views.cameras[view : view + 1]).rgb
            values.append(psnr(rgb, views.images[view : view + 1], views.masks[view : view + 1]))
        return float(torch.stack(values).mean())

    assert score(changes) > score(torch.zeros_like(changes)) + 1.0


def test_only_the_named_attributes_change(prefix, small_person):
    changes = fitted(prefix, small_person, attributes=("color",), steps=3)
    parts = dict(zip(ATTRIBUTES, changes.split(list(ATTRIBUTES.values()), -1), strict=True))
    assert [name for name, part in parts.items() if part.any()] == ["color"]
    with pytest.raises(ValueError, match="attributes"):
        fitted(prefix, small_person, attributes=("colour",))


def test_smooth_changes_lie_between_those_of_the_tokens(prefix, small_person):
    places = pixel_places(prefix.base.pixel_indices, CONFIG.image_size, CONFIG.patch_size)[1]
    changes = fitted(prefix, small_person, places=places, steps=5)
    # As many numbers as tokens explain all pixels.
    tokens = int(places.tokens.max()) + 1
    basis = between_tokens(torch.eye(tokens), places, slice(None))
    solved = torch.linalg.lstsq(basis, changes).solution
    assert torch.allclose(basis @ solved, changes, atol=1e-4)
    assert changes.any()


def test_it_ends_when_its_time_is_over(prefix, small_person):
    none = fitted(prefix, small_person, steps=1000, seconds=0.0)
    some = fitted(prefix, small_person, steps=1000, seconds=0.2)
    assert none.abs().sum() <= some.abs().sum()
    assert some.any()
