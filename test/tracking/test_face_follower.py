"""Following a face with MediaPipe's networks, against MediaPipe itself on a real photo."""

import sys

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.model_files import find_model
from avat3r_ros.tracking.face_follower import SCORE_NAMES, SCORED_LANDMARKS, FaceFollower
from avat3r_ros.tracking.landmarker import Landmarker
from avat3r_ros.tracking.smoothing import SmoothingConfig, landmark_filter

try:
    MODEL = find_model("face_landmarker")
except FileNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)

UPPER_LIP, LOWER_LIP, MOUTH_CORNERS = 13, 14, [61, 291]
TONGUE = ARKIT_INDEX["tongueOut"]


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(astronaut()[:300, 60:400])


@pytest.fixture(scope="module")
def found(photo):
    with Landmarker(video=False) as landmarker:
        return landmarker.detect(photo)[0]


@pytest.fixture(scope="module")
def follower():
    return FaceFollower(MODEL)


def followed(follower, image, face):
    follower.start(face.landmarks_px)
    return follower.follow(image, 0.0)


def test_the_names_of_the_scores_are_mediapipes(photo):
    with Landmarker(video=False) as landmarker:
        image = landmarker._image_class(image_format=landmarker._srgb, data=photo)
        categories = landmarker._task.detect(image).face_blendshapes[0]
    assert tuple(category.category_name for category in categories) == SCORE_NAMES
    assert len(SCORED_LANDMARKS) == 146


@pytest.mark.parametrize("num_threads", [1, 2])
def test_mediapipe_finds_the_same(photo, found, num_threads):
    face = followed(FaceFollower(MODEL, num_threads=num_threads), photo, found)
    width = np.ptp(found.landmarks_px[:, 0])
    # MediaPipe looked from the detector's box instead of the landmarks': another crop.
    assert np.median(np.abs(face.landmarks - found.landmarks)) < 0.01 * width
    assert np.abs(face.scores - found.scores).mean() < 0.03
    assert face.scores[ARKIT_INDEX["mouthSmileLeft"]] > 0.5


def test_it_holds_on_to_a_face_that_moves_turns_and_comes_nearer(photo, found, follower):
    follower.start(found.landmarks_px)
    for i in range(30):
        turn = cv2.getRotationMatrix2D((170, 150), 1.5 * i, 1 + i / 60)
        turn[:, 2] += [2 * i, i]
        image = cv2.warpAffine(photo, turn, (480, 420))
        face = follower.follow(image, 1 / 30)
    expected = found.landmarks_px @ turn[:, :2].T + turn[:, 2]
    width = np.ptp(expected[:, 0])
    assert np.median(np.linalg.norm(face.landmarks_px - expected, axis=1)) < 0.03 * width
    assert face.landmarks[:, 2].std() == pytest.approx(1.48 * found.landmarks[:, 2].std(), rel=0.15)


def test_a_tongue_is_seen(photo, found, follower):
    shown = photo.copy()
    mouth = found.landmarks_px[[UPPER_LIP, LOWER_LIP]].mean(0)
    wide = np.linalg.norm(np.subtract(*found.landmarks_px[MOUTH_CORNERS]))
    size = (int(0.38 * wide), int(0.25 * np.ptp(found.landmarks_px[:, 1])))
    middle = tuple(int(place) for place in mouth)
    cv2.ellipse(shown, middle, size, 0, 0, 180, (205, 105, 110), -1, cv2.LINE_AA)
    without, with_tongue = (
        followed(follower, image, found).scores[TONGUE] for image in (photo, shown)
    )
    # A flat ellipse is a poor tongue; one with shades took it to 0.15.
    assert without < 0.005
    assert with_tongue > 0.03


def test_a_tongue_over_a_shut_jaw_is_a_hand_or_the_like(photo, found, monkeypatch):
    """The networks stand still here: what they say of a hand before the mouth is written in."""
    follower = FaceFollower(MODEL)
    mesh, blendshapes, jaw = follower._mesh, follower._blendshapes, [0.0]
    read_mesh, read_scores = mesh.get_tensor, blendshapes.get_tensor

    def scores_with_jaw(index):
        scores = read_scores(index)
        scores[SCORE_NAMES.index("jawOpen")] = jaw[0]
        return scores

    def mesh_with_tongue(index):
        return np.full((1, 1), 0.9) if index == follower._tongue else read_mesh(index)

    monkeypatch.setattr(mesh, "get_tensor", mesh_with_tongue)
    monkeypatch.setattr(blendshapes, "get_tensor", scores_with_jaw)
    tongues = []
    for jaw[0] in (0.0, 0.075, 0.15, 0.6):
        tongues.append(followed(follower, photo, found).scores[TONGUE])
    np.testing.assert_allclose(tongues, [0.0, 0.45, 0.9, 0.9], atol=1e-6)


def test_a_face_that_is_gone_is_not_followed(found, follower):
    assert followed(follower, np.full((300, 340, 3), 127, np.uint8), found) is None
    noise = np.random.default_rng(0).integers(0, 255, (300, 340, 3), np.uint8)
    assert followed(follower, noise, found) is None


def test_a_face_that_was_lost_is_not_followed_until_it_is_found(photo, found, follower):
    assert followed(follower, np.full_like(photo, 127), found) is None
    assert follower.follow(photo, 0.03) is None
    assert followed(follower, photo, found) is not None


def test_jitter_of_the_landmarks_is_filtered_and_movement_is_not(photo, found):
    rng = np.random.default_rng(0)
    noisy = [
        (photo + rng.normal(0, 4, photo.shape)).clip(0, 255).astype(np.uint8) for _ in range(20)
    ]
    moved = np.roll(photo, 30, axis=1)

    def jitter_and_move(landmark_filter):
        follower = FaceFollower(MODEL, landmark_filter=landmark_filter)
        follower.start(found.landmarks_px)
        still = np.array([follower.follow(image, 1 / 30).landmarks_px for image in noisy])
        shift = follower.follow(moved, 1 / 30).landmarks_px - still[-1]
        return np.diff(still, axis=0).std(), float(np.median(shift[:, 0]))

    raw_jitter, _ = jitter_and_move(None)
    jitter, move = jitter_and_move(landmark_filter(SmoothingConfig()))
    assert jitter < 0.6 * raw_jitter
    assert move > 24


def test_the_remedy_is_named_where_litert_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(RuntimeError, match="pip install ai-edge-litert"):
        FaceFollower(MODEL)
