import dataclasses
import json

import numpy as np
import pytest
import torch

from avat3r_ros.cli import make_parser
from avat3r_ros.commands import evaluate
from avat3r_ros.data.sampling import ICT_SEEDS, training_sample
from avat3r_ros.model import Avat3r, preset
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training import evaluation
from avat3r_ros.training.evaluation import PersonResult, score_person, summary
from avat3r_ros.training.face_scores import (
    UNITS,
    identity_distance,
    landmark_distance,
    likeness,
    likeness_picture,
    share_found,
    tracked,
    unit_errors,
)
from avat3r_ros.training.methods import METHODS, Subject, subjects
from avat3r_ros.training.metrics import psnr, widened
from avat3r_ros.training.people import prepare_person
from avat3r_ros.training.people_files import PeopleFolder
from avat3r_ros.training.references import FaceNotFoundError, person_from_sample
from avat3r_ros.training.report import write_report
from avat3r_ros.training.textured_mesh import TexturedMesh, nearest_view


@pytest.fixture(scope="module")
def result(small_person, template):
    network = Avat3r(preset("debug"), template).eval()
    return score_person(network, small_person, template, optimise_s=0.3, num_pictures=2)


def test_an_untrained_network_scores_as_its_base_guess(result):
    assert tuple(result.scores) == METHODS
    assert result.scores["network"] == result.scores["base guess"]


def test_what_stands_still_misses_the_moving_points(result):
    moving = {name: scores.get("moving_mm") for name, scores in result.scores.items()}
    for still in ("frozen neutral", "still base guess", "cloud"):
        assert moving[still] > moving["base guess"]
        assert result.scores[still]["flicker"] == 0
    assert moving["nearest reference"] is None


def test_one_photo_shows_less_than_all(result):
    assert result.scores["nearest reference"]["psnr"] < result.scores["cloud"]["psnr"]


def test_the_report_holds_all_numbers_and_pictures(result, tmp_path):
    data = write_report([result], tmp_path, {"weights": "<none>"})
    page = (tmp_path / "report.html").read_text()
    for method in METHODS:
        assert f"<th>{method}" in page
        assert f"{result.scores[method]['psnr']:.3f}" in page
    assert "&lt;none&gt;" in page
    assert page.count("data:image/jpeg") == 1
    assert (tmp_path / "people.png").is_file()
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["scores"]["network"] == data["scores"]["network"]
    best = max(result.scores[method]["psnr"] for method in METHODS)
    assert f'<td class="best">{best:.3f}' in page


def test_people_of_the_other_head_model_have_their_own_table(result, tmp_path):
    other = dataclasses.replace(result, seed=ICT_SEEDS.start)
    data = write_report([result, other], tmp_path, {})
    own, theirs = data["parts"].values()
    assert (own["people"], theirs["people"]) == ([result.seed], [ICT_SEEDS.start])
    page = (tmp_path / "report.html").read_text()
    assert "1 people of ICT-FaceKit" in page
    assert page.count("<table>") == 3 + ("Expression error by unit" in page)
    assert "parts" not in write_report([result], tmp_path, {})


def test_the_textured_template_repeats_its_photos(small_person, exact, template):
    views = exact.views
    mesh = TexturedMesh(views, template)
    for view in range(len(views.images)):
        camera = views.cameras[view]
        assert nearest_view(views, camera) == view
        drawn = mesh.picture(views.codes[view], camera)
        skin = (views.binding.triangle_ids[view] >= 0) & (views.masks[view, 0] > 0.99)
        skin &= drawn.sum(0) > 0
        assert psnr(drawn, views.images[view], skin[None].float()) > 20


def test_faces_are_compared_with_their_truth(template):
    one, other = (
        training_sample(seed, template, image_size=128, num_photos=1, num_codes=1).targets
        for seed in (1, 5)
    )
    with FaceTracker(smoothing=None, running_mode="image", full_range=True) as tracker:
        mine, theirs = tracked(one.images[:1], tracker), tracked(other.images[:1], tracker)
    assert mine[0].detected
    assert theirs[0].detected
    assert landmark_distance(mine, mine) == 0
    assert landmark_distance(mine, theirs) > 1
    assert unit_errors(mine[0], mine[0]) == dict.fromkeys(UNITS, 0.0)
    assert max(unit_errors(mine[0], theirs[0]).values()) > 0.01
    lost = dataclasses.replace(mine[0], detected=False)
    assert share_found([*mine, *mine], [*mine, lost]) == 0.5
    assert np.isnan(share_found([lost], mine))
    assert unit_errors(mine[0], lost) == {}
    assert likeness_picture(one.images[0], lost) is None
    assert identity_distance(one.images[:1], one.images[:1], mine) == 0
    apart = identity_distance(other.images[:1], one.images[:1], mine)
    assert apart > 0.3
    both = identity_distance(
        torch.cat([other.images[:1], one.images[:1]]), one.images[[0, 0]], mine * 2
    )
    assert both == pytest.approx(apart / 2, rel=1e-3)
    assert np.isnan(identity_distance(one.images[:1], one.images[:1], [lost]))
    a, b = likeness_picture(one.images[0], mine[0]), likeness_picture(other.images[0], theirs[0])
    mean = (a + b) / 2
    assert likeness([a], [a], mean) == pytest.approx(1)
    assert likeness([a], [b], mean) == pytest.approx(-1)


def test_means_leave_out_what_was_not_found():
    rng = np.random.default_rng(0)
    results = []
    for seed, distance in ((0, 2.0), (1, float("nan"))):
        scores = {"psnr": 20.0 + seed, "akd_px": distance}
        face = rng.random(12).astype(np.float32)
        results.append(
            PersonResult(
                seed,
                {"network": scores},
                {"network": {unit: [0.1 * seed] for unit in UNITS}},
                {"network": [face], "truth": [face]},
            )
        )
    table = summary(results)
    assert table["people"] == [0, 1]
    assert table["network"]["psnr"] == 20.5
    assert table["network"]["akd_px"] == 2.0
    assert table["network"]["likeness"] == pytest.approx(1)
    assert table["units"]["network"]["jawOpen"] == pytest.approx(0.05)


def test_flicker_is_taken_over_the_whole_ramp(small_person):
    seen = []

    def pictures(code, cameras):
        seen.append(code)
        return torch.zeros(1, 3, 4, 4)

    assert evaluation._flicker(Subject("recorded", pictures), small_person) == 0
    assert torch.equal(seen[0], small_person.codes[0])
    assert torch.allclose(seen[-1], small_person.codes[-1])


def test_people_are_drawn_as_fine_as_avatars_are(sample, template, tmp_path):
    """Pixels cut in four where the photos show something; their points are the whole pixels'."""
    network = Avat3r(preset("debug"), template).eval()
    person = person_from_sample(sample, 32, "fitted", template, details=True)
    fine = prepare_person(person, network.config, template)
    whole = dataclasses.replace(fine, views=dataclasses.replace(fine.views, details=None))
    folder = PeopleFolder(tmp_path, network.config, "fitted", picture_size=64)
    folder.save(fine)
    code, camera = fine.codes[0], fine.targets.cameras[:1]
    with torch.no_grad():
        shown = [
            {s.name: s for s in subjects(network, one, template, optimise_s=0.0)}
            for one in (fine, whole, folder.load(fine.seed))
        ]
        for name in ("network", "base guess", "frozen neutral", "still base guess"):
            pictures = [by_name[name].pictures(code, camera) for by_name in shown]
            assert (pictures[0] - pictures[1]).abs().mean() > 1e-3, name
            assert (pictures[0] - pictures[2]).abs().mean() < 1e-3, name
            assert len(shown[0][name].gaussians(code)) == len(fine.base)
        clouds = [by_name["cloud"].pictures(code, camera) for by_name in shown]
    assert torch.equal(clouds[0], clouds[1])


def test_people_are_drawn_with_necks_as_avatars_are(template):
    """Below the cut of the references there is something; where there are no details, nothing."""
    network = Avat3r(preset("debug"), template).eval()
    sample = training_sample(
        3, template, image_size=128, num_photos=3, num_codes=1, cameras_per_code=1, necks=True
    )
    person = person_from_sample(sample, 32, "exact", template, details=True)
    one = prepare_person(person, network.config, template)
    cut = dataclasses.replace(one, views=dataclasses.replace(one.views, details=None))
    # Discs of so coarse references reach some pixels beyond the cut.
    below = (one.targets.necks > 0.9) & (widened(one.targets.masks, 6) < 0.01)

    def brightness(person):
        by_name = {s.name: s for s in subjects(network, person, template, optimise_s=0.0)}
        with torch.no_grad():
            picture = by_name["network"].pictures(one.codes[0], one.targets.cameras)
        return float(picture.mean(1, keepdim=True)[below].mean())

    assert below.sum() > 20
    assert brightness(one) > 2 * brightness(cut)


def test_the_command_passes_over_lost_faces_and_reports_what_it_has_when_stopped(
    small_person, tmp_path, monkeypatch, capsys
):
    def make_person(seed, config, prior, template, *, casual, picture_size, ict_facekit, details):
        assert casual and picture_size == 512 and ict_facekit is None and details
        if seed == 1:
            raise FaceNotFoundError("person 1: no face found in a photo")
        if seed == 3:
            raise KeyboardInterrupt
        return dataclasses.replace(small_person, seed=seed)

    monkeypatch.setattr(evaluate, "make_person", make_person)
    # At 32 x 32 pixels no tracker finds a face; what the tracker tells is tested above.
    monkeypatch.setattr(evaluate, "QUICK_OPTIMISE_S", 0.0)
    monkeypatch.setattr(evaluate, "QUICK_PEOPLE", 6)
    command = ["evaluate", "--preset", "debug", "--untrained", "--quick", "--pictures", "1"]
    args = make_parser().parse_args([*command, "-o", str(tmp_path)])
    assert evaluate.run(args) == 0
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["scores"]["people"] == [0, 2]
    assert "optimised" not in stored["scores"]
    assert str(stored["about"]["people"]).startswith("2 of the seeds 0 to 5")
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize("photos", [[], ["--leave-one-out", "a.jpg", "b.jpg", "c.jpg"]])
def test_sizes_that_do_not_halve_four_times_are_refused(photos):
    args = make_parser().parse_args(["evaluate", *photos, "--picture-size", "250", "-o", "x"])
    with pytest.raises(ValueError, match="multiple of 16 from 64 on, got 250"):
        evaluate.run(args)


def test_photos_and_targets_come_together():
    args = make_parser().parse_args(["evaluate", "--references", "a.jpg", "-o", "x"])
    with pytest.raises(ValueError, match="both --references and --targets"):
        evaluate.run(args)
    args = make_parser().parse_args(["evaluate", "--leave-one-out", "a.jpg", "b.jpg", "-o", "x"])
    with pytest.raises(ValueError, match="at least 3 photos"):
        evaluate.run(args)
