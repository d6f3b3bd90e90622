"""A face is inside its matte, with what joins it in colour; what does not join it stays out."""

import cv2
import numpy as np
import pytest

from avat3r_ros.capture.matting import Matting
from avat3r_ros.capture.whole_face import with_whole_face
from avat3r_ros.model_files import find_model


@pytest.fixture
def dark_face():
    """A dark face with darker hair before a dark wall, its landmarks, and where the head is."""
    rows, columns = np.mgrid[:128, :128]
    head = ((columns - 64) / 26) ** 2 + ((rows - 60) / 34) ** 2 < 1
    image = np.where(head[..., None], [46, 30, 22], [20, 21, 26])
    image[head & (rows < 40)] = [12, 4, 2]
    image = image + np.random.default_rng(0).normal(0, 1.5, image.shape)
    turn = np.linspace(0, 2 * np.pi, 60)
    landmarks = np.stack([64 + 22 * np.cos(turn), 66 + 24 * np.sin(turn)], -1)
    return image.clip(0, 255).astype(np.uint8), landmarks, head


def test_missed_half_returns_with_ear_and_hair_but_without_the_wall(dark_face):
    image, landmarks, head = dark_face
    half = (head & (np.arange(128) < 60)).astype(np.float32)
    matte = with_whole_face(image, half, landmarks) > 0.5
    # Measured 0.99 and 0.002.
    assert matte[head].mean() > 0.95
    assert matte[~head].mean() < 0.02


def test_face_that_nothing_was_seen_of_returns(dark_face):
    image, landmarks, head = dark_face
    matte = with_whole_face(image, np.zeros(head.shape, np.float32), landmarks) > 0.5
    assert matte[head].mean() > 0.95
    assert matte[~head].mean() < 0.02


def test_matte_that_has_the_face_stays(dark_face, monkeypatch):
    image, landmarks, head = dark_face
    monkeypatch.setattr(cv2, "grabCut", lambda *args: pytest.fail("no need to look at colours"))
    soft = cv2.GaussianBlur(head.astype(np.float32), (0, 0), 1.5)
    np.testing.assert_allclose(with_whole_face(image, soft, landmarks), soft, atol=0.01)


def test_landmarks_outside_the_picture_change_nothing(dark_face):
    image, landmarks, _ = dark_face
    matte = np.zeros(image.shape[:2], np.float32)
    assert not with_whole_face(image, matte, landmarks + 500).any()


def test_segmenter_is_told_of_the_face(dark_face):
    """What the network makes of a drawn ellipse does not matter: the face is in."""
    try:
        find_model("selfie_segmenter")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    image, landmarks, head = dark_face
    box = (*landmarks.min(0), *landmarks.max(0))
    with Matting() as matting:
        matte = matting.matte(image, box, landmarks)
    face = cv2.fillConvexPoly(np.zeros(head.shape, np.uint8), landmarks.astype(np.int32), 1)
    assert matte[cv2.erode(face, np.ones((7, 7))) > 0].min() > 0.5
