"""Predicting photos: who is left out when, and that light is no error."""

import json

import torch

from avat3r_ros.cli import make_parser
from avat3r_ros.commands import evaluate, evaluate_photos


def test_each_photo_is_predicted_from_all_others(tmp_path, monkeypatch, capsys):
    rounds = []
    monkeypatch.setattr(evaluate_photos, "load_photo", lambda path: path)
    monkeypatch.setattr(
        evaluate_photos,
        "build_avatar_from_photos",
        lambda photos, preset, trained, min_photos: (photos, min_photos),
    )

    def score_targets(built, targets):
        references, fewest = built
        rounds.append((references, targets))
        assert fewest == len(references) == 2, "a build takes three otherwise"
        scores = {"psnr_db": 10.0 * len(rounds), "ssim": 0.5, "landmark_distance_px": 1.0}
        scores["identity_distance"] = 0.25
        row = {"target": targets[0]} | dict.fromkeys(evaluate_photos.METHODS, scores)
        picture = torch.zeros(8, 8, 3).byte().numpy()
        return [row], [[picture] * (1 + len(evaluate_photos.METHODS))]

    monkeypatch.setattr(evaluate_photos, "score_targets", score_targets)
    args = ["evaluate", "--leave-one-out", "a", "b", "c", "-o", str(tmp_path)]
    assert evaluate.run(make_parser().parse_args(args)) == 0
    assert rounds == [(["b", "c"], ["a"]), (["a", "c"], ["b"]), (["a", "b"], ["c"])]
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["mean"]["avatar"]["psnr_db"] == 20
    assert "20.00 dB 0.500  1.0 px 0.25" in capsys.readouterr().out


def test_exposure_and_white_balance_are_no_error():
    torch.manual_seed(0)
    target = torch.rand(3, 6, 6)
    dim = target * torch.tensor([0.5, 0.7, 0.9])[:, None, None]
    assert torch.allclose(dim * evaluate_photos._gains(dim, target), target, atol=1e-6)
