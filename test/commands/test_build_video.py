"""`avat3r build --video`: which frames it takes, and what it says of videos that do not suffice."""

import cv2
import numpy as np
import pytest

from avat3r_ros.capture.frame_selection import camera_direction
from avat3r_ros.capture.hands import HandFinder, HandOverFace
from avat3r_ros.capture.video import VideoWriter
from avat3r_ros.commands.build import select_from_video
from avat3r_ros.data.operator import SyntheticOperator

pytest.importorskip("mediapipe", reason="needs mediapipe: make env")

RATE_HZ = 3.0
BLURRED = range(2, 40, 3)
"""Every third frame is out of focus."""


def film(path, seconds, operator):
    with VideoWriter(path, 640, 480, RATE_HZ) as writer:
        for index in range(int(seconds * RATE_HZ)):
            frame = operator.frame(index / RATE_HZ)
            writer.write(cv2.GaussianBlur(frame, (0, 0), 5.0) if index in BLURRED else frame)
    return path


@pytest.fixture(scope="module")
def operator():
    return SyntheticOperator(5)


def test_sharp_frames_from_all_sides_are_chosen(tmp_path, operator):
    images, faces = select_from_video(film(tmp_path / "turn.mp4", 9.0, operator), 4)
    assert len(images) == len(faces) == 4
    chosen = [round(face.stamp_s * RATE_HZ) for face in faces]
    assert not set(chosen) & set(BLURRED)
    yaw, pitch = np.degrees([camera_direction(face.camera_from_head) for face in faces]).T
    # The operator turns by 25 degrees to either side and nods by 12.
    assert yaw.min() < -15
    assert yaw.max() > 15
    assert np.ptp(pitch) > 8
    assert min(abs(yaw)) < 10
    for face in faces:
        assert max(face.code[0], face.code[7]) < 0.5, "eyes are open"


def test_a_video_without_turns_gives_what_it_has_and_says_how_to_film(tmp_path, operator, caplog):
    images, faces = select_from_video(film(tmp_path / "still.mp4", 1.7, operator), 4)
    assert 1 <= len(images) == len(faces) < 3
    assert f"usable views of a face: only {len(images)}; film" in caplog.text
    assert "turns slowly left" in caplog.text


def test_frames_with_a_hand_before_the_face_are_not_taken(tmp_path, operator, monkeypatch):
    path = film(tmp_path / "hand.mp4", 3.0, operator)
    assert len(select_from_video(path, 4)[0]) >= 3
    always = HandOverFace(0.3, True)
    monkeypatch.setattr(HandFinder, "over_face", lambda self, image, face: always)
    with pytest.raises(ValueError, match=r"no usable view of a face.*nothing before it"):
        select_from_video(path, 4)


def test_frames_with_a_thing_before_the_mouth_are_not_taken(tmp_path, operator, monkeypatch):
    cup_s, frame = (2.0, 3.5), operator.frame

    def with_cup(time_s):
        image = frame(time_s).copy()
        if cup_s[0] <= time_s <= cup_s[1]:
            cv2.circle(image, (320, 300), 60, (225, 225, 220), -1)
        return image

    monkeypatch.setattr(operator, "frame", with_cup)
    _, faces = select_from_video(film(tmp_path / "cup.mp4", 9.0, operator), 4)
    assert len(faces) == 4
    assert not any(cup_s[0] <= face.stamp_s <= cup_s[1] for face in faces)
