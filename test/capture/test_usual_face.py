"""What is before a face for a while stands out against the rest of the video; moving does not."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from avat3r_ros.capture import usual_face
from avat3r_ros.capture.usual_face import MIN_FRAMES, UsualFace
from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker

pytest.importorskip("mediapipe", reason="needs mediapipe: make env")

RATE_HZ = 3.0
MOUTH, NOSE, CHIN = 13, 4, 152


@pytest.fixture(scope="module")
def video():
    """Nine seconds of somebody who talks, smiles, turns and nods: images and faces."""
    operator = SyntheticOperator(5)
    images = [operator.frame(index / RATE_HZ) for index in range(27)]
    with FaceTracker(smoothing=None) as tracker:
        faces = [tracker.track(image, i / RATE_HZ) for i, image in enumerate(images)]
    return images, faces


def strange_frames(images, faces):
    usual = UsualFace(HeadTemplate.load())
    for image, face in zip(images, faces, strict=True):
        usual.look(image, face)
    return [round(time_s * RATE_HZ) for time_s in usual.strange_times()]


def covered(video, landmark, radius, color, which):
    """The video with a disc before the face in some frames; `radius` in heights of the face."""
    images, faces = [image.copy() for image in video[0]], video[1]
    for i in which:
        _, top, _, bottom = faces[i].box_px
        center = faces[i].landmarks_px[landmark].round().astype(int).tolist()
        cv2.circle(images[i], center, round(radius * (bottom - top)), color, -1)
    return images, faces


def test_turns_and_expressions_are_not_strange(video):
    assert strange_frames(*video) == []


@pytest.mark.parametrize(
    ("landmark", "radius", "color"),
    [(MOUTH, 0.16, (20, 20, 20)), (NOSE, 0.12, (190, 30, 30)), (CHIN, 0.2, (225, 225, 220))],
    ids=["microphone", "clown's nose", "cup"],
)
def test_what_comes_before_the_face_is_strange(video, landmark, radius, color):
    which = list(range(10, 15))
    assert strange_frames(*covered(video, landmark, radius, color, which)) == which


def test_light_that_changes_is_not_strange(video):
    images, faces = list(video[0]), video[1]
    side = np.linspace(0.4, 1.0, images[0].shape[1])[:, None]
    for i in range(10, 15):
        images[i] = (images[i] * side).astype(np.uint8)
    assert strange_frames(images, faces) == []


def test_a_short_video_tells_nothing(video):
    images, faces = covered(video, MOUTH, 0.16, (20, 20, 20), range(10, 15))
    assert strange_frames(images[: MIN_FRAMES - 1], faces[: MIN_FRAMES - 1]) == []


def test_what_is_before_the_face_half_the_time_may_be_the_usual(video):
    assert strange_frames(*covered(video, MOUTH, 0.16, (20, 20, 20), range(12))) == []


def test_long_videos_are_looked_at_less_often(video, monkeypatch):
    monkeypatch.setattr(usual_face, "MAX_FRAMES", 50)
    which = range(60, 72)
    images, faces = [list(of_one) * 3 for of_one in video]
    faces = [replace(face, stamp_s=0.1 * i) for i, face in enumerate(faces)]
    images, faces = covered((images, faces), MOUTH, 0.16, (20, 20, 20), which)
    usual = UsualFace(HeadTemplate.load())
    for image, face in zip(images, faces, strict=True):
        usual.look(image, face)
    strange_s = usual.strange_times()
    assert 0 < len(strange_s) < len(which), "every second of them is known"
    assert all(abs(strange_s - 0.1 * i).min() < usual.nearby_s for i in which)
    assert abs(strange_s - 5.0).min() >= usual.nearby_s
