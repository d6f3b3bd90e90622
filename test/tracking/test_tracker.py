"""The whole tracker on a real photo: what it sees, what it refuses, and what it remembers."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from avat3r_ros.expression import ARKIT_52, ARKIT_INDEX
from avat3r_ros.geometry import intrinsics_matrix
from avat3r_ros.model_files import find_model
from avat3r_ros.tracking import FaceTracker, SmoothingConfig, mouth_opening
from avat3r_ros.tracking.landmarker import COUNT_EVERY, Landmarker
from avat3r_ros.tracking.neutral import TYPICAL_NEUTRAL, relative_to_neutral
from avat3r_ros.tracking.raw_face import RawFace
from avat3r_ros.tracking.response import TYPICAL_REACH
from avat3r_ros.types import FaceState

try:
    find_model("face_landmarker")
except FileNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)

MIDLINE = [10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 0, 13, 14, 17, 200, 199, 175, 152]
RIGHT_EYE, LEFT_EYE, CHIN, NOSE_TIP = 33, 263, 152, 1


@pytest.fixture(scope="module")
def face_image() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[:300, 60:400])


@pytest.fixture(scope="module")
def blank() -> np.ndarray:
    return np.full((240, 320, 3), 127, np.uint8)


@pytest.fixture(scope="module")
def stills():
    with FaceTracker(running_mode="image") as tracker:
        yield tracker


@pytest.fixture(scope="module")
def shared_video_tracker():
    with FaceTracker() as opened:
        yield opened


@pytest.fixture
def tracker(shared_video_tracker):
    """One native tracker for all tests, with an empty past."""
    shared_video_tracker.reset()
    shared_video_tracker.set_neutral(None)
    return shared_video_tracker


def test_a_smiling_face(stills, face_image):
    state = stills.track(face_image, 1.25)
    assert (state.detected, state.num_faces, state.stamp_s) == (True, 1, 1.25)
    assert state.landmarks_px.shape == (478, 2)
    assert state.confidence > 0.9
    assert state.code.shape == (52,) and state.code.dtype == np.float32
    assert state.code.min() >= 0 and state.code.max() <= 1
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        assert state.code[ARKIT_INDEX[name]] > 0.6
    for name in ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "tongueOut"):
        assert state.code[ARKIT_INDEX[name]] < 0.2
    assert np.abs(state.gaze).max() < np.radians(15), "she looks at the camera"


def test_left_is_the_subjects_left_and_pixels_are_pixels(stills, face_image):
    points = stills.track(face_image, 0.0).landmarks_px
    assert points[LEFT_EYE, 0] > points[RIGHT_EYE, 0] + 50, "not mirrored: her left is on the right"
    assert points[CHIN, 1] > points[NOSE_TIP, 1] + 20
    # Read off the picture: the tip of the nose, within 6 px.
    assert np.linalg.norm(points[NOSE_TIP] - (165, 129)) < 6


def test_the_head_is_upright_in_front_of_the_camera(stills, face_image):
    pose = stills.track(face_image, 0.0).camera_from_head
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    # Subject's left is image right, up is -y, out of the face is towards the camera.
    assert pose[0, 0] > 0.9 and pose[1, 1] < -0.8 and pose[2, 2] < -0.8
    assert 0.2 < pose[2, 3] < 1.0


def test_the_known_camera_sets_the_distance_and_the_pose_reprojects(stills, face_image):
    height, width = face_image.shape[:2]
    for focal_px in (300.0, 600.0):
        k = intrinsics_matrix(focal_px, width / 2, height / 2)
        state = stills.track(face_image, 0.0, k)
        sellion = k @ state.camera_from_head[:3, 3]
        offset = sellion[:2] / sellion[2] - state.landmarks_px[168]
        assert np.linalg.norm(offset) < 5, "the head's origin lies on the nose bridge"
        per_focal = state.camera_from_head[2, 3] / focal_px
        assert per_focal == pytest.approx(0.00145, rel=0.15)


def test_pixel_centres_are_at_one_half(stills, face_image):
    """Mirroring a picture of width W takes x to W - x; with centres at integers to W - 1 - x."""
    image = cv2.resize(face_image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    points = stills.track(image, 0.0).landmarks_px
    mirrored = stills.track(np.ascontiguousarray(image[:, ::-1]), 0.0).landmarks_px
    offset_px = (points[MIDLINE, 0] + mirrored[MIDLINE, 0]).mean() / 2 - image.shape[1] / 2
    # Measured: -0.20 for this face of 180 px, -0.39 at 90 px, -0.10 at 270 px; integers give -0.5.
    assert abs(offset_px) < 0.35


def test_turning_the_picture_over_swaps_the_sides(stills, face_image):
    state = stills.track(face_image, 0.0)
    mirrored = stills.track(np.ascontiguousarray(face_image[:, ::-1]), 0.0)
    width = face_image.shape[1]
    middle = (state.landmarks_px[LEFT_EYE, 0] + mirrored.landmarks_px[RIGHT_EYE, 0]) / 2
    assert middle == pytest.approx(width / 2, abs=1.5)
    yaw = [
        np.arctan2(-s.camera_from_head[2, 0], -s.camera_from_head[2, 2]) for s in (state, mirrored)
    ]
    assert np.degrees(yaw[0] + yaw[1]) == pytest.approx(0.0, abs=4)


def test_no_face_is_an_answer(tracker, blank, face_image):
    state = tracker.track(blank, 0.0)
    assert (state.detected, state.num_faces, state.confidence) == (False, 0, 0.0)
    assert state.landmarks_px.shape == (0, 2) and not state.code.any()
    np.testing.assert_array_equal(state.camera_from_head, np.eye(4))
    assert tracker.track(face_image, 0.1).detected


def test_the_larger_of_two_faces_is_reported(stills, face_image):
    small = cv2.resize(face_image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    canvas = np.full((530, 340, 3), 150, np.uint8)
    canvas[:225, :255] = small
    canvas[230:] = face_image
    state = stills.track(canvas, 0.0)
    assert state.num_faces == 2
    assert state.landmarks_px[:, 1].min() > 230


def test_a_small_face_in_a_large_photo_is_found(stills, face_image):
    """70 px of 1280: half of what MediaPipe sees at once."""
    small = cv2.resize(face_image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    canvas = np.full((720, 1280, 3), 150, np.uint8)
    canvas[200:440, 620:892] = small
    state = stills.track(canvas, 0.0)
    assert (state.detected, state.num_faces) == (True, 1)
    alone = stills.track(small, 0.0)
    offset = state.landmarks_px - alone.landmarks_px - (620, 200)
    # Measured: mean (0.15, 0.22) px, the crops of the network differ.
    assert np.abs(offset.mean(0)).max() < 1.0
    assert np.abs(state.code - alone.code).max() < 0.2


def test_a_second_person_is_noticed_within_a_second(tracker, face_image):
    """A lone face is followed alone, and counted again every COUNT_EVERY images."""
    alone = np.full((530, 340, 3), 150, np.uint8)
    alone[230:] = face_image
    both = alone.copy()
    both[:225, :255] = cv2.resize(face_image, (255, 225), interpolation=cv2.INTER_AREA)
    for i in range(3):
        assert tracker.track(alone, i / 30).num_faces == 1
    counts = [tracker.track(both, (3 + i) / 30).num_faces for i in range(COUNT_EVERY + 2)]
    assert counts[0] == 1 and counts[-1] == 2, counts
    states = [tracker.track(alone, 3 + i / 30) for i in range(COUNT_EVERY)]
    assert states[-1].num_faces == 1
    assert tracker.track(both[:225].copy(), 5.0).detected, "found anew where the face moved"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((10, 10, 3), np.uint8), "from 32 to 16384 px, got 10x10"),
        (np.zeros((64, 64), np.uint8), r"uint8 RGB, got \(64, 64\) uint8"),
        (np.zeros((64, 64, 4), np.uint8), r"got \(64, 64, 4\) uint8"),
        (np.zeros((3, 64, 64), np.uint8), r"got \(3, 64, 64\) uint8"),
        (np.full((64, 64, 3), np.nan, np.float32), "float32 with values that are not finite"),
        (np.zeros((0, 0, 3), np.uint8), "got 0x0"),
    ],
)
def test_images_that_cannot_be_tracked_are_refused(tracker, image, said):
    with pytest.raises(ValueError, match=said):
        tracker.track(image, 0.0)


def test_a_refused_frame_leaves_the_tracker_as_it_was(tracker, face_image):
    tracker.track(face_image, 5.0)
    for bad in (np.zeros((4, 4, 3), np.uint8), face_image.astype(np.float32)):
        with pytest.raises(ValueError, match="expected"):
            tracker.track(bad, 5.1)
    with pytest.raises(ValueError, match=r"5.000000 s before|lies 1.000000 s before"):
        tracker.track(face_image, 4.0)
    with pytest.raises(ValueError, match="finite stamp"):
        tracker.track(face_image, float("nan"))
    with pytest.raises(ValueError, match="pinhole intrinsics"):
        tracker.track(face_image, 5.2, np.zeros((3, 3)))
    assert tracker.track(face_image, 5.05).detected


def test_equal_and_very_close_stamps_are_accepted(tracker, face_image):
    states = [tracker.track(face_image, stamp) for stamp in (1e9, 1e9, 1e9 + 1e-4, 1e9 + 2e-4)]
    assert all(state.detected for state in states)
    # The pose, and with it distances, starts from the last one.
    np.testing.assert_allclose(states[0].code, states[1].code, atol=1e-4)


def test_reset_accepts_an_earlier_clock(tracker, face_image):
    tracker.track(face_image, 100.0)
    tracker.reset()
    assert tracker.track(face_image, 1.0).detected


class Script:
    """Stands in for the landmarker: one scripted list of faces per image."""

    def __init__(self, *frames):
        self.frames = list(frames)

    def detect(self, image, dt_s):
        return self.frames.pop(0)


@pytest.fixture(scope="module")
def seen(face_image):
    with Landmarker(video=False) as landmarker:
        return landmarker.detect(face_image)[0]


def moved(face, pixels=0.0, **scores):
    code = face.scores.copy()
    for name, score in scores.items():
        code[ARKIT_INDEX[name]] = score
    return RawFace(face.landmarks + np.float32([pixels, 0, 0]), code)


@pytest.fixture
def scripted(tracker, monkeypatch, face_image):
    """Track scripted faces at given stamps."""

    def run(faces, stamps):
        monkeypatch.setattr(tracker, "_landmarker", Script(*([f] if f else [] for f in faces)))
        return [tracker.track(face_image, stamp) for stamp in stamps]

    return run


def amplified(unit, score):
    """What becomes of a score within the typical reach of its unit."""
    reach = TYPICAL_REACH[unit]
    return score + (1 - reach) * (score / reach) ** 2


def x_of(state):
    return state.camera_from_head[0, 3]


@pytest.mark.parametrize("gap", ["time", "lost face", "another person"])
def test_smoothing_starts_afresh_after_a_gap(scripted, seen, gap):
    jump = 150.0 if gap == "another person" else 8.0
    (target,) = scripted([moved(seen, jump)], [-1.0])
    faces = [seen, *([None] if gap == "lost face" else []), moved(seen, jump)]
    stamps = {"time": [0.0, 0.6], "lost face": [0.0, 0.03, 0.06]}.get(gap, [0.0, 0.03])
    assert x_of(scripted(faces, stamps)[-1]) == x_of(target)


def test_landmarks_start_afresh_after_a_gap(tracker, face_image):
    """What is filtered from before a gap is not carried over it."""
    for i in range(3):
        tracker.track(face_image, i / 30)
    moved = np.roll(face_image, 6, axis=1)
    soon = tracker.track(moved, 3 / 30).landmarks_px
    assert np.abs(soon - tracker._landmarker._follower._place).max() > 0.1
    after_gap = tracker.track(face_image, 3.0).landmarks_px
    np.testing.assert_array_equal(after_gap, tracker._landmarker._follower._place)


def test_small_moves_are_smoothed(scripted, seen):
    first, second = scripted([seen, moved(seen, 8.0, cheekPuff=0.5)], [0.0, 0.03])
    (target,) = scripted([moved(seen, 8.0, cheekPuff=0.5)], [9.0])
    assert x_of(first) < x_of(second) < x_of(target)
    puff = [state.code[ARKIT_INDEX["cheekPuff"]] for state in (first, second, target)]
    assert puff[0] < puff[1] < puff[2] == pytest.approx(0.5)
    np.testing.assert_array_equal(second.landmarks_px, target.landmarks_px, "never smoothed")


def test_calibration_makes_this_face_the_neutral_one(tracker, scripted, seen):
    rest = moved(seen, mouthSmileLeft=0.3, mouthSmileRight=0.2, browDownLeft=0.4)
    calm = [0.0, 0.03, 0.06, 0.09, 0.12, 0.15]
    neutral = tracker.calibrate_neutral(scripted([rest] * 6, calm))
    np.testing.assert_allclose(neutral, rest.scores, atol=1e-6)
    (state,) = scripted([rest], [0.2])
    # But for the lips, which are as far apart as they are: this face shows its teeth.
    read = [name not in mouth_opening.UNIT_SPREAD for name in ARKIT_52]
    np.testing.assert_allclose(state.code[read], 0.0, atol=0.02)
    # Once more: raw scores are looked up, the calibrated ones would give 0.
    again = tracker.calibrate_neutral(scripted([rest] * 6, [1.0 + stamp for stamp in calm]))
    np.testing.assert_allclose(again, rest.scores, atol=1e-6)
    tracker.set_neutral(None)
    (state,) = scripted([rest], [2.0])
    smile = state.code[ARKIT_INDEX["mouthSmileLeft"]]
    assert smile == pytest.approx(amplified("mouthSmileLeft", 0.3))


def smiles(scripted, seen, scores, start_s):
    """Code of a smile with each of these scores, as if each were held for good."""
    states = scripted(
        [moved(seen, mouthSmileLeft=score) for score in scores],
        [start_s + 0.6 * i for i in range(len(scores))],  # smoothing starts afresh each time
    )
    return [float(state.code[ARKIT_INDEX["mouthSmileLeft"]]) for state in states]


def test_full_movements_reach_one_and_the_range_adapts(tracker, scripted, seen):
    before = smiles(scripted, seen, [0.4, 0.75], 0.0)
    assert before == pytest.approx([amplified("mouthSmileLeft", 0.4), 1.0])
    after = smiles(scripted, seen, [0.9, 0.75, 0.4], 9.0)
    assert after[0] == pytest.approx(1.0)
    assert after[1] < 1.0
    assert after[2] < before[0]
    tracker.set_neutral(None)
    assert smiles(scripted, seen, [0.4], 20.0) == pytest.approx(before[:1]), "forgotten"


def test_stills_are_above_typical_rest_and_not_stretched_unless_asked_for(face_image, seen):
    with FaceTracker(running_mode="image") as tracker:
        state = tracker.track(face_image, 0.0)
    expected = relative_to_neutral(seen.scores, TYPICAL_NEUTRAL)
    np.testing.assert_allclose(state.code, expected, atol=1e-6)
    for side in ("Left", "Right"):  # resting people read as squinting
        squint = ARKIT_INDEX[f"eyeSquint{side}"]
        assert seen.scores[squint] > 0.2 and state.code[squint] < 0.1
    with FaceTracker(running_mode="image", full_range=True) as tracker:
        codes = [tracker.track(face_image, 0.0).code for _ in range(2)]
    np.testing.assert_array_equal(*codes, "still images teach nothing")


@pytest.mark.parametrize(("away_s", "same"), [(2.0, True), (8.0, False)])
def test_who_comes_back_after_a_while_may_be_another_person(scripted, seen, away_s, same):
    """Their brows rest elsewhere than the last person's."""
    frowning = moved(seen, browDownLeft=0.4, browDownRight=0.4)
    scripted([frowning] * 60, 0.25 * np.arange(60))
    (back,) = scripted([frowning], [15.0 + away_s])
    assert (back.code[ARKIT_INDEX["browDownLeft"]] < 0.1) == same


def test_a_refused_calibration_changes_nothing(tracker, scripted, seen):
    tracker.set_neutral(np.full(52, 0.1))
    smiling = moved(seen, mouthSmileLeft=0.9)
    states = scripted([smiling] * 6, [0.0, 0.03, 0.06, 0.09, 0.12, 0.15])
    with pytest.raises(ValueError, match="not a face at rest .*mouthSmileLeft"):
        tracker.calibrate_neutral(states)
    np.testing.assert_allclose(tracker.neutral, 0.1)


def test_calibration_needs_states_of_this_tracker(tracker, face_image):
    state = tracker.track(face_image, 0.0)
    foreign = FaceState(**{**state.__dict__, "stamp_s": 77.0})
    with pytest.raises(ValueError, match="77.000 s is not among the last"):
        tracker.calibrate_neutral([foreign])
    with pytest.raises(ValueError, match="at least 5 images"):
        tracker.calibrate_neutral([state])
    with pytest.raises(ValueError, match="below 1"):
        tracker.set_neutral(np.ones(52))


def test_wrong_settings_and_use_after_closing():
    with pytest.raises(ValueError, match="running_mode 'video' or 'image', got 'live'"):
        FaceTracker(running_mode="live")
    with pytest.raises(ValueError, match="max_faces >= 1, got 0"):
        FaceTracker(max_faces=0)
    tracker = FaceTracker(smoothing=SmoothingConfig(), max_faces=1)
    tracker.close()
    tracker.close()
    with pytest.raises(RuntimeError, match="closed"):
        tracker.track(np.zeros((64, 64, 3), np.uint8), 0.0)


def test_a_missing_or_wrong_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.task: no such file"):
        FaceTracker(tmp_path / "nowhere.task")
    (tmp_path / "fake.task").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="fake.task: not the published face_landmarker"):
        FaceTracker(tmp_path / "fake.task")
