"""Scores of the demo: what must rank how, on pictures whose order is known."""

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros import geometry
from avat3r_ros.commands._arguments import head_camera
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.demo.scoring import (
    DemoFrame,
    correlations,
    distinct_moments,
    pearson,
    score_pictures,
    true_camera,
    true_view,
)
from avat3r_ros.expression import arkit_code
from avat3r_ros.rig import HeadTemplate

pytest.importorskip("mediapipe", reason="needs mediapipe: make env")


@pytest.fixture(scope="module")
def head():
    return SyntheticHead(5, HeadTemplate.load())


def frame_of(head, code) -> DemoFrame:
    """A frame whose rendered picture is the truth itself."""
    camera = head_camera(0.0, 0.0, 0.6, 256)
    frame = DemoFrame(0.0, np.zeros((8, 8, 3), np.uint8), code, np.zeros((8, 8, 3), np.uint8),
                      camera, code)  # fmt: skip
    rendered = true_view(head, frame, torch.from_numpy(head.identity)).picture
    return DemoFrame(0.0, frame.driver, code, rendered, camera, code)


def test_true_camera_undoes_scale_and_place(head):
    """A head twice as large, twice as far away, gives the same picture of its landmarks."""
    camera = head_camera(0.2, 0.1, 0.6, 256)
    identity = torch.from_numpy(head.identity)
    moved = true_camera(camera, head, identity)
    template = head.template
    mine = template.landmarks(template.vertices(identity))
    true = template.landmarks(torch.from_numpy(head.mesh.rest))

    def pixels(view, points):
        points = geometry.transform_points(view.camera_from_head, points[None])
        return geometry.project_points(view.intrinsics, points)[0]

    difference = (pixels(camera, mine) - pixels(moved, true)).norm(dim=-1)
    # The person's shape is bent away from the template by about 1 mm: 1 px at this distance.
    assert difference.mean() < 1.5


def test_the_right_expression_beats_the_frozen_face(head):
    codes = [arkit_code(), arkit_code(jawOpen=0.8), arkit_code(mouthSmile=0.9)]
    frames = [frame_of(head, code) for code in codes]
    identity = torch.from_numpy(head.identity)
    truths = [true_view(head, frame, identity) for frame in frames]
    right = [frame.rendered // 4 * 4 for frame in frames]  # coarser colours, same face
    pictures = {
        "right": right,
        "frozen": [right[0]] * 3,
        "blank": [np.zeros_like(frames[0].rendered)] * 3,
    }
    scores = score_pictures(pictures, truths)
    assert scores["right"]["psnr_db"] > scores["frozen"]["psnr_db"] + 3
    assert scores["right"]["landmark_distance_px"] < 0.5 < scores["frozen"]["landmark_distance_px"]
    assert scores["blank"]["faces_found"] == 0
    assert np.isnan(scores["blank"]["landmark_distance_px"])


def test_drawing_beside_the_head_costs(head):
    """A picture that spills over the outline is worse, though nothing inside the head changed."""
    frame = frame_of(head, arkit_code())
    truth = true_view(head, frame, torch.from_numpy(head.identity))
    right = frame.rendered // 4 * 4
    spilled = np.where(truth.mask[..., None] > 0, right, cv2.dilate(right, np.ones((9, 9))))
    scores = score_pictures({"right": [right], "spilled": [spilled]}, [truth])
    assert scores["right"]["psnr_db"] > scores["spilled"]["psnr_db"] + 3
    inside = [scores[name]["psnr_inside_db"] for name in ("right", "spilled")]
    assert inside[0] == pytest.approx(inside[1], abs=1e-6)


def test_a_neck_below_the_truths_cut_costs_nothing(head):
    frame = frame_of(head, arkit_code())
    truth = true_view(head, frame, torch.from_numpy(head.identity))
    cut = frame.rendered // 4 * 4
    uncut = head.paint_portrait(frame.camera[0], frame.code, part="head")
    neck = np.zeros(truth.mask.shape, np.uint8)
    neck[uncut.window] = uncut.rgba[..., 3] > 0
    wider = cv2.dilate(neck & (truth.mask == 0), np.ones((7, 7)))
    chin_row = np.flatnonzero(truth.mask.max(1)).max() - 20
    below = (wider > 0) & (truth.mask == 0) & (np.arange(len(neck))[:, None] > chin_row)
    assert below.sum() > 100
    with_neck = np.where(below[..., None], 200, cut).astype(np.uint8)
    scores = score_pictures({"cut": [cut], "with neck": [with_neck]}, [truth])
    assert scores["with neck"]["psnr_db"] == scores["cut"]["psnr_db"]


def test_correlation_follows_movement_and_not_names(head):
    amounts = np.linspace(0, 0.8, 5)
    frames = [frame_of(head, arkit_code(jawOpen=amount)) for amount in amounts]
    assert correlations(frames)["mouth opening"] > 0.9
    swapped = [
        DemoFrame(0.0, f.driver, g.code, f.rendered, f.camera, f.true_code)
        for f, g in zip(frames, frames[::-1], strict=True)
    ]
    assert correlations(swapped)["mouth opening"] < -0.9


def test_the_sheet_shows_different_expressions_in_their_order():
    smile, blink = arkit_code(mouthSmile=0.9), arkit_code(eyeBlink=1.0)
    codes = np.stack([smile, *[0.01 * smile] * 20, blink, arkit_code(), 0.9 * blink, smile])
    assert distinct_moments(codes, 3) == [0, 21, 22]
    assert distinct_moments(codes[:2], 16) == [0, 1]


def test_pearson_of_constants_is_nan():
    assert np.isnan(pearson(np.ones(5), np.arange(5.0)))
    assert np.isnan(pearson(np.arange(2.0), np.arange(2.0)))
    assert pearson(np.arange(5.0), 3 * np.arange(5.0) - 1) == pytest.approx(1)
