"""Predicting photos: who is left out when, and that light is no error."""

import json
import pathlib
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from avat3r_ros.capture.photos import Photo
from avat3r_ros.cli import make_parser
from avat3r_ros.commands import evaluate, evaluate_photos
from avat3r_ros.pipeline import BuildResult
from avat3r_ros.types import Camera, FaceState, HeadCrops

NO_FACE = FaceState(0.0, False, 0.0, np.zeros(52), np.zeros(2), np.eye(4), np.zeros((0, 2)))


def test_each_photo_is_predicted_from_all_others(tmp_path, monkeypatch, capsys):
    rounds = []
    monkeypatch.setattr(evaluate_photos, "load_photo", lambda path: path)
    monkeypatch.setattr(
        evaluate_photos,
        "build_avatar_from_photos",
        lambda photos, preset, trained: photos,
    )

    def score_targets(built, targets, size):
        assert size == 512, "as avatars are shown"
        rounds.append((built, targets))
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


@pytest.mark.parametrize("size", [256, 512])
def test_landmarks_are_compared_in_pixels_of_256_at_any_size(size, monkeypatch):
    """A face 1 % of the picture's width off, drawn and photographed at the size asked for."""

    def crop_targets(photos, faces, result, size):
        cameras = Camera(torch.eye(3)[None], torch.eye(4)[None], size, size)
        return HeadCrops(torch.rand(1, 3, size, size), torch.ones(1, 1, size, size), cameras,
                         torch.zeros(1, 52), torch.zeros(1))  # fmt: skip

    def tracked(images, tracker):
        place = images.shape[-1] * np.float32([0.5, 0.51])
        return [replace(NO_FACE, detected=True, landmarks_px=np.full((478, 2), x)) for x in place]

    def draw(code, camera):
        return torch.rand(3, camera.height, camera.width)

    monkeypatch.setattr(evaluate_photos, "detect_faces", lambda images, names: [None])
    monkeypatch.setattr(evaluate_photos, "crop_targets", crop_targets)
    monkeypatch.setattr(evaluate_photos, "tracked", tracked)
    monkeypatch.setattr(evaluate_photos, "identity_distance", lambda *_: 0.0)
    methods = dict.fromkeys(evaluate_photos.METHODS, draw)
    monkeypatch.setattr(evaluate_photos, "_methods", lambda views, avatar: methods)
    built = Mock(BuildResult, views=None, avatar=None)
    photo = Photo(np.zeros((4, 4, 3), np.uint8), None, pathlib.Path("a.jpg"))
    [row], [pictures] = evaluate_photos.score_targets(built, [photo], size)
    assert row["avatar"]["landmark_distance_px"] == pytest.approx(2.56 * 2**0.5, rel=1e-4)
    assert {picture.shape for picture in pictures} == {(size, size, 3)}


def test_exposure_and_white_balance_are_no_error():
    torch.manual_seed(0)
    target = torch.rand(3, 6, 6)
    dim = target * torch.tensor([0.5, 0.7, 0.9])[:, None, None]
    assert torch.allclose(dim * evaluate_photos._gains(dim, target), target, atol=1e-6)
