"""Strangers, covered faces and unusable photos are found among good ones, and named."""

import cv2
import numpy as np
import pytest
import torch

from avat3r_ros.capture.likeness import contradicting
from avat3r_ros.capture.photo_checks import choose_photos, people
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import Camera

SIZE = 360
K = intrinsics_matrix(560.0, SIZE / 2, SIZE / 2)
ANGLES = ((-0.35, 0.0), (0.0, 0.05), (0.35, 0.0), (0.05, 0.25))
NAMES = ["left.jpg", "front.jpg", "right.jpg", "up.jpg"]


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def photograph(head, angles=ANGLES):
    images = []
    for yaw, pitch in angles:
        pose = look_at_head(yaw, pitch, 0.6)
        camera = Camera(torch.tensor(K).float(), torch.tensor(pose).float(), SIZE, SIZE)
        view = head.render(camera, np.zeros(52, np.float32))
        image = (view.image + (1 - view.mask) * 0.45).movedim(0, -1).clamp(0, 1) * 255
        images.append(image.byte().contiguous().numpy())
    return images


@pytest.fixture(scope="module")
def photos(template):
    return photograph(SyntheticHead(12, template, style="short"))


@pytest.fixture(scope="module")
def strangers(template):
    """Someone else from the same sides."""
    return photograph(SyntheticHead(32, template, style="short"))


@pytest.fixture(scope="module")
def look_alike(template):
    """Seen from the right; the descriptor alone does not tell."""
    return photograph(SyntheticHead(31, template, style="short"), ANGLES[2:3])[0]


@pytest.fixture(scope="module")
def tracker():
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        yield tracker


def chosen(images, tracker, template):
    faces = [tracker.track(image, 0.0) for image in images]
    count = len(images)
    return choose_photos(images, faces, NAMES[:count], [None] * count, template, 3)


def replaced(photos, index, image):
    return [image if i == index else photo for i, photo in enumerate(photos)]


def test_four_good_photos_are_all_kept_without_a_word(photos, tracker, template):
    choice = chosen(photos, tracker, template)
    assert choice.kept == [0, 1, 2, 3]
    assert choice.warnings == []


def test_a_stranger_is_named_and_left_out(photos, strangers, tracker, template):
    choice = chosen(replaced(photos, 2, strangers[2]), tracker, template)
    assert choice.kept == [0, 1, 3]
    assert len(choice.warnings) == 1
    assert choice.warnings[0].startswith("right.jpg: another person? The face is 0.6")
    assert "nearer than 0.57" in choice.warnings[0]
    assert "built without this photo" in choice.warnings[0]


def test_a_stranger_who_looks_alike_is_left_out_too(photos, look_alike, tracker, template):
    choice = chosen(replaced(photos, 2, look_alike), tracker, template)
    assert choice.kept == [0, 1, 3]
    assert "right.jpg" in choice.warnings[0]
    assert "another person" in choice.warnings[0]
    assert "built without" in choice.warnings[0]


def test_among_three_photos_a_stranger_is_named_but_kept(photos, strangers, tracker, template):
    choice = chosen([*photos[:2], strangers[2]], tracker, template)
    assert choice.kept == [0, 1, 2]
    assert choice.warnings[0].startswith("right.jpg: another person?")
    assert "replace this photo" in choice.warnings[0]
    assert "built without" not in choice.warnings[0]


def test_two_and_two_photos_are_told_apart_but_kept(photos, strangers, tracker, template):
    choice = chosen([photos[0], strangers[1], photos[2], strangers[3]], tracker, template)
    assert choice.kept == [0, 1, 2, 3]
    assert choice.warnings[0].startswith(
        "these photos look like 2 people: left.jpg and right.jpg; front.jpg and up.jpg"
    )


def test_photos_are_grouped_by_people():
    places = np.array([0.0, 0.3, 0.9, 0.4, 1.0])
    distances = np.abs(places[:, None] - places[None])
    assert people(distances) == [[0, 1, 3], [2, 4]]
    assert people(distances[:1, :1]) == [[0]]
    assert people(distances[:2, :2]) == [[0, 1]]
    assert people(distances[1:3, 1:3]) == [[0], [1]]


def test_sunglasses_are_named(photos, tracker, template):
    image = photos[1].copy()
    marks = tracker.track(image, 0.0).landmarks_px
    for outer, inner in ((33, 133), (362, 263)):
        middle, width = marks[[outer, inner]].mean(0), np.linalg.norm(marks[outer] - marks[inner])
        axes = (int(0.85 * width), int(0.6 * width))
        cv2.ellipse(image, tuple(middle.astype(int).tolist()), axes, 0, 0, 360, (25, 25, 30), -1)
    choice = chosen(replaced(photos, 1, image), tracker, template)
    assert len(choice.warnings) == 1
    assert choice.warnings[0].startswith("front.jpg: the eyes look unlike")


def with_hand(photo, tracker, draw_hand):
    face = tracker.track(photo, 0.0)
    height = face.box_px[3] - face.box_px[1]
    wrist = face.landmarks_px[13] + np.array([0.1, 0.65]) * height
    return draw_hand(photo, wrist, 0.95 * height, -0.2, (190, 120, 90))


def test_a_hand_before_the_face_is_named_and_left_out(photos, tracker, template, draw_hand):
    covered = with_hand(photos[1], tracker, draw_hand)
    choice = chosen(replaced(photos, 1, covered), tracker, template)
    assert choice.kept == [0, 2, 3]
    assert choice.warnings == [
        "front.jpg: a hand covers part of the face; take it away (built without this photo)"
    ]


def test_among_three_photos_a_hand_is_named_but_kept(photos, tracker, template, draw_hand):
    covered = with_hand(photos[1], tracker, draw_hand)
    choice = chosen([photos[0], covered, photos[2]], tracker, template)
    assert choice.kept == [0, 1, 2]
    assert choice.warnings == [
        "front.jpg: a hand covers part of the face; take it away, or replace this photo"
    ]


@pytest.mark.parametrize("index", [1, 3])
def test_a_mirrored_photo_is_named(photos, tracker, template, index):
    flipped = np.ascontiguousarray(photos[index][:, ::-1])
    choice = chosen(replaced(photos, index, flipped), tracker, template)
    assert choice.kept == [0, 1, 2, 3]
    assert len(choice.warnings) == 1
    assert choice.warnings[0].startswith(f"{NAMES[index]}: looks mirrored")
    assert "flip the photo" in choice.warnings[0]


def test_photos_that_are_all_mirrored_agree(photos, tracker, template):
    flipped = [np.ascontiguousarray(photo[:, ::-1]) for photo in photos]
    assert chosen(flipped, tracker, template).warnings == []


def test_only_one_against_all_others_is_mirrored():
    agreeing = np.full((4, 4), 0.4)
    np.fill_diagonal(agreeing, np.nan)
    assert (contradicting(agreeing) < 0).all()
    flipped = np.array([1, 1, -1, 1])
    scores = contradicting(agreeing * np.outer(flipped, flipped))
    assert scores.argmax() == 2
    assert scores[2] == pytest.approx(0.4)
    assert max(np.delete(scores, 2)) <= 0
    half = np.array([1, -1, 1, -1])
    assert not contradicting(agreeing * np.outer(half, half)).any()
    assert not contradicting((agreeing * np.outer(flipped, flipped))[1:, 1:]).any()


def test_a_dark_photo_is_named(photos, tracker, template):
    dark = (photos[1] * 0.12).astype(np.uint8)
    warnings = chosen(replaced(photos, 1, dark), tracker, template).warnings
    assert any(w.startswith("front.jpg: the face is very dark") for w in warnings), warnings


def test_a_blurred_photo_is_named(photos, tracker, template):
    blurred = cv2.GaussianBlur(photos[0], (0, 0), 4.0)
    warnings = chosen(replaced(photos, 0, blurred), tracker, template).warnings
    assert any(w.startswith("left.jpg: much less sharp") for w in warnings), warnings


def test_photos_without_a_face_are_left_out_while_three_remain(photos, tracker, template):
    wall = np.full((SIZE, SIZE, 3), 128, np.uint8)
    choice = chosen(replaced(photos, 3, wall), tracker, template)
    assert choice.kept == [0, 1, 2]
    assert "up.jpg: no face found" in choice.warnings[0]
    two = np.concatenate([photos[1], photos[1]], axis=1)
    with pytest.raises(ValueError, match=r"left.jpg: no face found.*front.jpg: 2 faces"):
        chosen([wall, two, photos[2], photos[3]], tracker, template)
