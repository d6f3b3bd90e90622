"""From a stream to a few sharp, open-eyed, well-spread views, and what is still wanted."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from avat3r_ros.capture.frame_selection import (
    FrameSelector,
    camera_direction,
    face_activity,
    face_sharpness,
    farthest_views,
)
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import look_at_head, pose_matrix
from avat3r_ros.types import FaceState

LEFT = "turn your head a little to your left"
RIGHT = "turn your head a little to your right"
CHIN = "raise or lower your chin a little"
STRAIGHT = "look straight into the camera"


def face(
    yaw_deg=0.0,
    pitch_deg=0.0,
    *,
    code=None,
    num_faces=1,
    size_px=120.0,
    at=(180, 70),
    confidence=1.0,
):
    """A tracked face seen by a camera at this direction; + yaw is the subject's left."""
    steps = np.linspace(0, size_px, 478)
    return FaceState(
        stamp_s=0.0,
        detected=True,
        confidence=confidence,
        code=np.zeros(52, np.float32) if code is None else code,
        gaze=np.zeros(2, np.float32),
        camera_from_head=look_at_head(np.radians(yaw_deg), np.radians(pitch_deg), 0.6),
        landmarks_px=np.stack([at[0] + 0.8 * steps, at[1] + steps], -1),
        num_faces=num_faces,
    )


NO_FACE = FaceState(
    0.0, False, 0.0, np.zeros(52), np.zeros(2), np.eye(4), np.zeros((0, 2)), num_faces=0
)


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    return astronaut()


@pytest.fixture(scope="module")
def blurred(sharp) -> np.ndarray:
    return cv2.GaussianBlur(sharp, (0, 0), 4)


def directions_deg(selector):
    return [
        (round(np.degrees(view.yaw_rad)), round(np.degrees(view.pitch_rad)))
        for view in selector.selected()
    ]


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-30, 10), (12, -20)])
def test_camera_direction_inverts_look_at_head_whatever_the_roll(yaw, pitch):
    pose = look_at_head(np.radians(yaw), np.radians(pitch), 0.7)
    rolled = pose_matrix(cv2.Rodrigues(np.array([0, 0, 0.4]))[0], np.zeros(3)) @ pose
    np.testing.assert_allclose(np.degrees(camera_direction(rolled)), (yaw, pitch), atol=1e-6)


def test_a_turning_head_gives_frontal_and_far_views(sharp):
    selector = FrameSelector(4)
    for yaw in range(-36, 37, 2):
        status = selector.offer(sharp, face(yaw))
    assert status.wanted == (CHIN,) and not status.complete
    for pitch in range(0, 21, 2):
        status = selector.offer(sharp, face(0, pitch))
    assert status.complete and status.wanted == ()
    views = directions_deg(selector)
    # One frame per cell of 6 degrees: the first of equally sharp ones stays.
    assert abs(views[0][0]) <= 3, "frontal first"
    assert min(yaw for yaw, _ in views) <= -33 and max(yaw for yaw, _ in views) >= 33
    assert np.ptp([pitch for _, pitch in views]) >= 12


def test_requests_name_the_side_the_subject_must_turn_to(sharp):
    """The camera sees the subject's left side (yaw > 0) when the subject turns right."""
    selector = FrameSelector(3)
    assert selector.wanted() == (STRAIGHT, LEFT, RIGHT)
    assert selector.offer(sharp, face(0)).wanted == (LEFT, RIGHT)
    assert selector.offer(sharp, face(25)).wanted == (LEFT,)
    assert selector.offer(sharp, face(-25)).wanted == ()


def test_six_views_want_the_chin_both_ways(sharp):
    selector = FrameSelector(6)
    for yaw in (0, 12, 25, -25):
        selector.offer(sharp, face(yaw))
    assert selector.wanted() == ("raise your chin a little, then lower it",)
    assert not selector.offer(sharp, face(0, 15)).complete
    assert selector.offer(sharp, face(0, -12)).complete


def test_what_was_complete_stays_complete(sharp):
    selector = FrameSelector(4)
    for yaw, pitch in [(0, 0), (25, 0), (-25, 0), (0, 14)]:
        status = selector.offer(sharp, face(yaw, pitch))
    assert status.complete
    for pitch in range(2, 14, 2):
        assert selector.offer(sharp, face(3, pitch)).complete


def test_a_camera_below_the_eyes_is_no_obstacle(sharp):
    """Straight is where this person looks straight, whatever pitch the camera's height gives."""
    selector = FrameSelector(4)
    for yaw in range(-30, 31, 3):
        selector.offer(sharp, face(yaw, -16))
    assert selector.wanted() == (CHIN,)
    yaw, pitch = directions_deg(selector)[0]
    assert abs(yaw) <= 3 and pitch == -16


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (NO_FACE, "no face"),
        (face(num_faces=2), "2 faces"),
        (face(confidence=0.2), "not clearly visible"),
        (face(at=(450, 70)), "reaches out of the picture"),
        (face(size_px=40.0), "40 px high, expected at least 64; come closer"),
        (face(code=arkit_code(eyeBlinkLeft=0.8)), "eyes are closed"),
        (face(code=arkit_code(jawOpen=0.6)), "mouth is wide open"),
        (face(70.0), "turned too far"),
    ],
)
def test_unusable_frames_are_refused_with_a_reason(sharp, seen, reason):
    selector = FrameSelector()
    status = selector.offer(sharp, seen)
    assert reason in status.reason and not status.accepted
    assert status.num_usable == 0 and selector.selected() == []


def test_blurred_frames_lose_against_sharp_ones(sharp, blurred):
    box = (180.0, 70.0, 276.0, 190.0)
    assert face_sharpness(blurred, box) < 0.4 * face_sharpness(sharp, box)
    selector = FrameSelector()
    assert selector.offer(blurred, face(0)).accepted, "nothing better is known yet"
    assert selector.offer(blurred, face(20)).num_usable == 2
    status = selector.offer(sharp, face(1))
    assert status.accepted and status.num_usable == 1, "the blurred ones no longer count"
    assert "blurred" in selector.offer(blurred, face(-20)).reason
    assert "sharper or calmer" in selector.offer(sharp, face(1)).reason


def test_resting_faces_are_preferred_and_the_frontal_one_must_rest(sharp):
    """Trackers read some people as never at rest: only the difference counts."""
    resting, raised = arkit_code(mouthPucker=0.4), arkit_code(mouthPucker=0.4, browOuterUp=0.8)
    selector = FrameSelector(3)
    for yaw in (-25, 25):
        selector.offer(sharp, face(yaw, code=resting))
    assert selector.offer(sharp, face(0, code=raised)).wanted == (
        f"{STRAIGHT} with a resting face",
    )
    assert selector.offer(sharp, face(1, code=resting)).complete
    assert "calmer frame" in selector.offer(sharp, face(1, code=raised)).reason
    for yaw in (-33, 33):
        selector.offer(sharp, face(yaw, code=raised))
    chosen = [view.face.code for view in selector.selected()]
    assert all(np.array_equal(code, resting) for code in chosen), "8 degrees more are not worth it"


def test_an_open_mouth_is_not_worth_its_sharper_edges(sharp, blurred):
    resting = cv2.addWeighted(sharp, 0.8, blurred, 0.2, 0)
    box = face().box_px
    assert 1.3 < face_sharpness(sharp, box) / face_sharpness(resting, box) < 1.5
    selector = FrameSelector(3)
    selector.offer(resting, face(0))
    assert "calmer frame" in selector.offer(sharp, face(1, code=arkit_code(jawOpen=0.2))).reason


def test_gaze_is_no_expression(sharp):
    looking = arkit_code(eyeLookUpLeft=0.9, eyeLookUpRight=0.9)
    assert face_activity(face(code=looking)) == face_activity(face()) == 0


def test_sharpness_does_not_depend_on_size_or_brightness(sharp):
    box = (180.0, 70.0, 276.0, 190.0)
    reference = face_sharpness(cv2.GaussianBlur(sharp, (0, 0), 1.5), box)
    large = cv2.resize(sharp, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    large = cv2.GaussianBlur(large, (0, 0), 3)
    assert face_sharpness(large, [2 * side for side in box]) == pytest.approx(reference, rel=0.25)
    dark = (cv2.GaussianBlur(sharp, (0, 0), 1.5) // 2).astype(np.uint8)
    # Rounding to half as many levels adds noise: measured 20 %.
    assert face_sharpness(dark, box) == pytest.approx(reference, rel=0.3)


def test_memory_is_bounded_and_frames_are_copies(sharp):
    selector = FrameSelector()
    image = sharp.copy()
    for _ in range(50):
        selector.offer(image, face(0))
    assert len(selector._cells) == 1
    image[:] = 0
    assert selector.selected()[0].image.any()


def test_farthest_views_prefer_spread_and_then_sharpness():
    directions = np.radians([(0.0, 0), (1, 0), (30, 0), (31, 0), (-30, 0)])
    side = np.radians(18)
    assert farthest_views(directions, np.ones(5), 3, side) == [0, 3, 4]
    quality = np.array([0.5, 1, 1, 0.5, 1])
    assert farthest_views(directions, quality, 3, side) == [1, 2, 4]
    assert len(farthest_views(directions[:2], np.ones(2), 4, side)) == 2


def test_both_sides_are_chosen_before_raised_and_lowered_chins():
    directions = np.radians([(0.0, 0), (25, 0), (-22, 0), (0, 40), (0, -40), (-12, 30)])
    chosen = farthest_views(directions, np.ones(6), 4, np.radians(18))
    assert chosen[:3] == [0, 1, 2] and chosen[3] in (3, 4)
    assert set(farthest_views(directions, np.ones(6), 4, np.radians(90))) == {0, 1, 3, 4}


def test_bad_settings_and_images_are_refused(sharp):
    with pytest.raises(ValueError, match="3 to 6 views, got 2"):
        FrameSelector(2)
    with pytest.raises(ValueError, match="uint8 RGB, got .* float64"):
        FrameSelector().offer(sharp / 255.0, face())


def test_covered_faces_are_refused_and_only_asked_about_if_they_would_be_kept(sharp, blurred):
    asked = []

    def covered(image, seen):
        asked.append(image)
        return len(asked) == 1

    selector = FrameSelector(covered=covered)
    assert selector.offer(sharp, face()).reason == "a hand covers part of the face"
    assert selector.selected() == []
    assert selector.offer(sharp, face()).accepted
    assert not selector.offer(blurred, face()).accepted
    assert not selector.offer(sharp, NO_FACE).accepted
    assert len(asked) == 2
