"""A hand before the face is found, one beside it is none of our business."""

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from avat3r_ros.capture.hands import HandFinder, HandOverFace, HandWatch
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import Camera, FaceState

SIZE = 360
TONE = (190, 120, 90)


@pytest.fixture(scope="module")
def photo():
    """A drawn face, 100 px high, in the middle."""
    k = torch.tensor(intrinsics_matrix(560.0, SIZE / 2, SIZE / 2)).float()
    camera = Camera(k, torch.tensor(look_at_head(0.0, 0.05, 0.6)).float(), SIZE, SIZE)
    head = SyntheticHead(12, HeadTemplate.load(), style="short")
    view = head.render(camera, np.zeros(52, np.float32))
    image = (view.image + (1 - view.mask) * 0.45).movedim(0, -1).clamp(0, 1) * 255
    return image.byte().contiguous().numpy()


@pytest.fixture(scope="module")
def tracker():
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        yield tracker


@pytest.fixture(scope="module")
def face(photo, tracker):
    return tracker.track(photo, 0.0)


@pytest.fixture(scope="module")
def finder():
    with HandFinder() as finder:
        yield finder


def before_face(draw_hand, photo, face):
    """A palm over one half of the mouth and cheek, fingers up to the eye."""
    left, top, right, bottom = face.box_px
    height = bottom - top
    wrist = face.landmarks_px[13] + np.array([0.1, 0.65]) * height
    return draw_hand(photo, wrist, 0.95 * height, -0.2, TONE)


def test_a_hand_before_the_face_is_certain(photo, face, finder, tracker, draw_hand):
    covered = before_face(draw_hand, photo, face)
    found = finder.over_face(covered, tracker.track(covered, 0.0))
    assert found.certain
    assert 0.1 < found.share < 0.5


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_large_photos_say_the_same(photo, face, finder, tracker, draw_hand, scale):
    covered = before_face(draw_hand, photo, face)
    found = finder.over_face(covered, tracker.track(covered, 0.0))
    large = cv2.resize(covered, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    again = finder.over_face(large, tracker.track(large, 0.0))
    assert again.certain
    assert again.share == pytest.approx(found.share, abs=0.05)


def test_faces_without_hands_are_free(photo, face, finder, tracker):
    assert finder.over_face(photo, face) == HandOverFace(0.0, False)
    picture = astronaut()
    assert finder.over_face(picture, tracker.track(picture, 0.0)) == HandOverFace(0.0, False)


def test_a_hand_beside_the_face_covers_nothing(photo, face, finder, draw_hand):
    left, top, right, bottom = face.box_px
    waving = draw_hand(photo, (right + 70, bottom + 20), 0.95 * (bottom - top), 0.2, TONE)
    assert np.abs(waving.astype(int) - photo).max() > 50
    assert finder.over_face(waving, face).share == 0.0


def test_a_closed_finder_says_so(photo, face):
    finder = HandFinder()
    finder.close()
    finder.close()
    with pytest.raises(RuntimeError, match="closed"):
        finder.over_face(photo, face)


MISSED, DOUBTFUL, CERTAIN = HandOverFace(), HandOverFace(0.1, False), HandOverFace(0.1, True)


PERIOD_S = 0.09
"""Four frames before and four after one are nearby."""


def frames_covered(hands, asked_about=None):
    """Frames in which a watch sees a hand, and those it looked at. None: no face in a frame."""
    rest = {"confidence": 1.0, "code": np.zeros(52), "gaze": np.zeros(2)}
    rest |= {"camera_from_head": np.eye(4), "landmarks_px": np.zeros((478, 2))}
    faces = [FaceState(PERIOD_S * i, hand is not None, **rest) for i, hand in enumerate(hands)]
    looked_at, covered = [], []

    def over_face(image, face):
        looked_at.append(round(face.stamp_s / PERIOD_S))
        return hands[looked_at[-1]]

    watch = HandWatch(over_face)
    image = np.zeros((4, 4, 3), np.uint8)
    passed_on = []
    for _, face in watch.delayed((image, face) for face in faces):
        passed_on.append(face)
        index = len(passed_on) - 1
        asked = asked_about is None or index in asked_about
        if asked and face.detected and watch.covered(image, face):
            covered.append(index)
    assert all(a is b for a, b in zip(passed_on, faces, strict=True))
    assert len(looked_at) == len(set(looked_at)), "each frame is looked at once"
    return covered, sorted(looked_at)


def test_a_hand_that_is_missed_for_a_moment_is_still_there():
    hands = [MISSED] * 6 + [CERTAIN] + [MISSED] * 5 + [CERTAIN] + [MISSED] * 6
    assert frames_covered(hands)[0] == [6, 8, 9, 10, 12]


def test_a_doubtful_hand_nearby_is_believed_when_seen_three_times():
    twice = [MISSED] * 8 + [DOUBTFUL] * 2 + [MISSED] * 8
    assert frames_covered(twice)[0] == [8, 9]
    thrice = [MISSED] * 8 + [DOUBTFUL] * 3 + [MISSED] * 8
    assert frames_covered(thrice)[0] == [6, 7, 8, 9, 10, 11, 12]


def test_only_frames_around_those_asked_about_are_looked_at():
    hands = [MISSED] * 10 + [None] + [MISSED] * 10
    assert frames_covered(hands, asked_about={9}) == ([], [5, 6, 7, 8, 9, 11, 12, 13])
