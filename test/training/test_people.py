"""People on disk and at hand, what the tracker reads of them, and the log of a run."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from avat3r_ros.model import preset
from avat3r_ros.model_files import find_model
from avat3r_ros.training import crowd as crowd_module
from avat3r_ros.training import people_files
from avat3r_ros.training.crowd import Crowd
from avat3r_ros.training.curves import LOG, PICTURE, RunLog, cut_log, draw_curves, read_log
from avat3r_ros.training.people import on_device, shared_pixels
from avat3r_ros.training.people_files import PeopleFolder
from avat3r_ros.training.perturb import Perturbation
from avat3r_ros.training.references import FaceNotFoundError, person_from_sample
from avat3r_ros.training.steps import StepConfig, _blended_codes, _sampled_rows

DEBUG = preset("debug")


def test_a_person_comes_back_from_disk(small_person, tmp_path):
    folder = PeopleFolder(tmp_path / "people", DEBUG, "fitted")
    folder.save(small_person)
    back = PeopleFolder(tmp_path / "people", DEBUG, "fitted").load(small_person.seed)
    assert torch.equal(back.points, small_person.points)
    assert torch.equal(back.base.gaussians.means, small_person.base.gaussians.means)
    assert torch.equal(back.views.binding.triangle_ids, small_person.views.binding.triangle_ids)
    assert back.base.moving_stop == small_person.base.moving_stop
    assert back.targets.cameras.width == small_person.targets.cameras.width
    assert back.views.code_space == small_person.views.code_space
    # Half a step of a byte, and of half precision at 4 cm.
    assert (back.views.images - small_person.views.images).abs().max() < 0.51 / 255
    assert (back.moved - small_person.moved).abs().max() < 2e-5


def test_people_made_for_something_else_are_refused(small_person, tmp_path):
    PeopleFolder(tmp_path, DEBUG, "fitted")
    with pytest.raises(ValueError, match="made for"):
        PeopleFolder(tmp_path, DEBUG, "exact")
    with pytest.raises(ValueError, match="made for"):
        PeopleFolder(tmp_path, DEBUG, "fitted", picture_size=512)
    with pytest.raises(FileNotFoundError, match="no person 7"):
        PeopleFolder(tmp_path, DEBUG, "fitted").load(7)


def test_people_of_another_shape_of_record_are_refused(tmp_path, monkeypatch):
    PeopleFolder(tmp_path, DEBUG, "fitted")
    made_for = json.loads((tmp_path / "people.json").read_text())
    assert {"before", "views.images", "base.gaussians.means"} <= set(made_for["fields"])
    assert "motion" not in made_for["fields"]
    fields = dataclasses.fields(people_files.TrainingPerson)
    longer = dataclasses.make_dataclass(
        "TrainingPerson", [*((one.name, one.type) for one in fields), ("hair", torch.Tensor)]
    )
    monkeypatch.setattr(people_files, "TrainingPerson", longer)
    with pytest.raises(ValueError, match="made for"):
        PeopleFolder(tmp_path, DEBUG, "fitted")


def test_a_crowd_keeps_people_and_shows_the_first_ones_again(monkeypatch, small_person, tmp_path):
    made = []

    def quickly(seed, *arguments, **options):
        made.append(seed)
        return dataclasses.replace(small_person, seed=seed)

    monkeypatch.setattr(crowd_module, "make_person", quickly)
    settings = {"size": 2, "steps_per_person": 4, "people": 3, "folder": tmp_path}
    with Crowd(DEBUG, "fitted", **settings) as crowd:
        seen = [crowd.person(slot, step).seed for step in range(24) for slot in (0, 1)]
        assert crowd.person(0, 0).motion is not None
        assert crowd.person(0, 0).patches is not None
        assert len(crowd.person(0, 0).evidence.numbers) == small_person.base.num_pixels
    assert len(set(seen)) == 3
    assert sorted(made) == sorted(set(seen))  # each is made once
    with pytest.raises(ValueError, match="at least as many people"):
        Crowd(DEBUG, "fitted", size=4, steps_per_person=8, people=3)


def test_pictures_are_compared_where_references_show_something(small_person):
    """Hair that hangs below the references' cut is in the pictures, and nobody can know it."""
    targets = small_person.targets
    masks = targets.masks.clone()
    masks[0, :, -4:] = 1.0  # the lower edge, far below the chin
    other = dataclasses.replace(small_person, targets=dataclasses.replace(targets, masks=masks))
    shared = shared_pixels(other, None)
    assert not shared[0, :, -4:].all()
    assert shared[masks < 0.5].all()
    assert shared[targets.masks > 0.5].float().mean() > 0.95


def test_the_same_people_are_disturbed_alike_and_others_not_at_all(monkeypatch, small_person):
    monkeypatch.setattr(
        crowd_module, "make_person",
        lambda seed, *rest, **options: dataclasses.replace(small_person, seed=seed),
    )  # fmt: skip
    known = small_person.base.gaussians.means

    def means(share, slot):
        settings = {"size": 4, "steps_per_person": 4, "perturbation": Perturbation(share=share)}
        with Crowd(DEBUG, "fitted", **settings) as crowd:
            return crowd.person(slot, 0).base.gaussians.means

    assert torch.equal(means(0.0, 1), known)
    assert not torch.equal(means(1.0, 1), known)
    assert torch.equal(means(1.0, 1), means(1.0, 1))
    assert not torch.equal(means(1.0, 1), means(1.0, 2))


def test_somebody_stands_in_for_a_person_without_a_face(monkeypatch, small_person, caplog):
    def shy(seed, *arguments, **options):
        if seed < 1_400_000:
            raise FaceNotFoundError(f"person {seed}: no face found in a photo")
        return dataclasses.replace(small_person, seed=seed)

    monkeypatch.setattr(crowd_module, "make_person", shy)
    with Crowd(DEBUG, "fitted", size=1, steps_per_person=1) as crowd:
        assert crowd.person(0, 0).seed == 1_000_000
    assert "stands in" in caplog.text


def test_blends_of_expressions_move_as_the_person_does(fitted, small_person):
    """Points of a blend of two codes are the blend of the points: the true rig is linear."""
    config = StepConfig(points=40, codes=8, views=2)
    rng = np.random.default_rng(0)
    rows = _sampled_rows(small_person, config, rng)
    assert len(rows) == 40
    assert len(torch.unique(small_person.base.code_rows[small_person.points[rows]])) <= 2
    codes, moved = _blended_codes(small_person, rows, config, rng)
    true_codes = fitted.targets.codes[:: len(fitted.targets.codes) // 2][:2]
    assert torch.equal(small_person.codes, true_codes)  # "fitted" tells the true codes
    share = (codes - true_codes[0]).norm(dim=-1) / (true_codes[1] - true_codes[0]).norm()
    ends = small_person.moved[:, rows]
    expected = torch.lerp(ends[:1], ends[1:], share[:, None, None])
    assert ((share > 0.01) & (share < 0.99)).any()
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)


@pytest.fixture(scope="module")
def tracked(template):
    pytest.importorskip("mediapipe", reason="pip install mediapipe==1.2.2")
    try:
        find_model("face_landmarker")
    except FileNotFoundError as error:
        pytest.skip(f"no face_landmarker model: {error}")
    from avat3r_ros.data.sampling import training_sample

    sample = training_sample(
        5, template, image_size=160, num_photos=3, num_codes=3, cameras_per_code=2
    )
    return sample, person_from_sample(sample, 64, "tracked", template)


def test_tracked_people_are_read_by_the_tracker(tracked):
    sample, person = tracked
    assert person.driver_codes.shape == person.targets.codes.shape
    assert not torch.equal(person.driver_codes, person.targets.codes)
    assert 0 < (person.driver_codes - person.targets.codes).abs().mean() < 0.2
    # Pictures of one expression are read once, in the driver's picture.
    pairs = person.driver_codes.view(-1, 2, 52)
    assert torch.equal(pairs[:, 0], pairs[:, 1])
    assert len(person.targets.images) <= len(sample.targets.images)


def test_a_log_continues_after_a_checkpoint_and_is_drawn(tmp_path):
    with RunLog(tmp_path) as log:
        for step in (20, 40, 60):
            log.write(step, {"loss": 1 / step, "moving_mm": 3.0, "base_moving_mm": 4.0})
    cut_log(tmp_path, 40)
    assert [line["step"] for line in read_log(tmp_path)] == [20, 40]
    with RunLog(tmp_path) as log:
        log.write(60, {"loss": float("nan")})
    assert json.loads((tmp_path / LOG).read_text().splitlines()[-1])["step"] == 60
    draw_curves(tmp_path)
    with Image.open(tmp_path / PICTURE) as picture:  # moving points, their share, loss; one is free
        assert picture.size == (840, 440)
        drawn = np.asarray(picture.convert("RGB"))
    assert (drawn[:220] == (200, 60, 40)).all(-1).any()
    assert (drawn[:220, :420] == (130, 130, 130)).all(-1).any()
    assert (drawn[220:, 420:] == 255).all()
    draw_curves(tmp_path / "nothing")  # a run without a line yet


def test_a_whole_person_changes_device(small_person):
    there = on_device(small_person, "meta")
    for value in (
        there.points, there.views.images, there.views.cameras.intrinsics,
        there.views.binding.triangle_ids, there.base.gaussians.means, there.base.barycentrics,
        there.targets.masks,
    ):  # fmt: skip
        assert value.device.type == "meta"
    assert there.base.moving_stop == small_person.base.moving_stop
    assert there.motion is None
