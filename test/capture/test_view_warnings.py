"""What photos do not show."""

import numpy as np
import pytest

from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.capture.view_warnings import crown_warnings, photo_warnings, side_warnings
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import FaceState

SIZE = (480, 640)


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def fit_of(yaws_deg, *, up_px=0.0, residual_px=1.0, num_matches=None):
    """A mean head 60 cm before cameras that look at its middle; `up_px` moves it in the photos."""
    views = len(yaws_deg)
    return TemplateFit(
        identity=np.zeros(HeadTemplate.load().num_identity),
        codes=np.zeros((views, 52)),
        intrinsics=np.repeat(intrinsics_matrix(700.0, 240.0, 320.0 - up_px)[None], views, 0),
        camera_from_head=np.stack([look_at_head(np.radians(y), 0.0, 0.6) for y in yaws_deg]),
        residual_px=np.full(views, residual_px),
        num_matches=num_matches,
    )


def face(**scores):
    code = np.zeros(52, np.float32)
    code[[0, 7]] = scores.get("blink", 0.0)
    return FaceState(
        stamp_s=0.0,
        detected=True,
        confidence=1.0,
        code=code,
        gaze=np.zeros(2, np.float32),
        camera_from_head=np.eye(4),
        landmarks_px=np.array([[0.0, 0.0], [100.0, 100.0]], np.float32),
    )


@pytest.mark.parametrize(
    ("yaws", "said"),
    [
        ([-30, 0, 30], []),
        ([-3, 0, 3], ["within 6 degrees"]),
        ([-30, 0, 5], ["the left side"]),
        ([30, 0, -5], ["the right side"]),
    ],
)
def test_sides_that_no_photo_shows(yaws, said):
    warnings = side_warnings(fit_of(yaws))
    assert len(warnings) == len(said)
    assert all(words in warning for words, warning in zip(said, warnings, strict=True))


def test_a_head_cut_off_by_every_photo(template):
    sizes = [SIZE, SIZE]
    assert crown_warnings(fit_of([0, 20]), sizes, template) == []
    cut = fit_of([0, 20], up_px=230.0)
    (warning,) = crown_warnings(cut, sizes, template)
    assert "the top of the head" in warning and "leave room" in warning
    one_whole = TemplateFit(
        **{**vars(cut), "intrinsics": np.stack([cut.intrinsics[0], fit_of([0]).intrinsics[0]])}
    )
    assert crown_warnings(one_whole, sizes, template) == []


def test_doubtful_photos_are_named():
    names, faces = ["a.jpg", "b.jpg"], [face(), face(blink=0.9)]
    assert photo_warnings(fit_of([0, 20]), [face(), face()], names) == []
    (closed,) = photo_warnings(fit_of([0, 20]), faces, names)
    assert closed.startswith("b.jpg: eyes are closed")
    missed = photo_warnings(fit_of([0, 20], residual_px=5.0), [face(), face()], names)
    assert [warning.split(":")[0] for warning in missed] == names
    (alone,) = photo_warnings(
        fit_of([0, 20], num_matches=np.array([7, 0])), [face(), face()], names
    )
    assert alone.startswith("b.jpg: shares no detail")
