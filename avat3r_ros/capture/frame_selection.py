"""Chooses the reference views of a person from a stream while it runs.

A frame is usable when exactly one face is wholly visible with open eyes and a resting mouth, and
about as sharp as the sharpest face so far; where that is asked for, with no hand before it. Views
are chosen by direction: one frontal first, one of each side, then always the one farthest from all
chosen ones (k-farthest), up to the range where the face can still be tracked well. Sharp and
resting faces come first: an expression that is photographed has to be taken out of the avatar
again, and what the tracker did not see of it stays.

Directions are where the camera stands seen from the head: yaw positive towards the subject's left.
A subject who turns to the right shows the camera the left side: yaw grows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.geometry import camera_direction
from avat3r_ros.types import FaceState

MIN_VIEWS, MAX_VIEWS = 3, 6

FACE_UNITS = [index for name, index in ARKIT_INDEX.items() if not name.startswith("eye")]

CALM_ACTIVITY = 0.35
"""A frontal view is asked for until one is not this much more active than the calmest face."""

HALF_GOOD_ACTIVITY = 0.2
"""A face that is this much more active than the calmest counts as half as good: open mouths have
more edges, which reads as sharper."""


@dataclass(frozen=True)
class SelectionConfig:
    """What makes a frame usable and when the views suffice. All defaults are ours.

    Attributes:
        min_confidence: Of the tracker.
        min_face_px: Height of the landmarks' box; smaller faces give blurred avatars.
        max_blink: eyeBlink score of either eye; higher accepts narrower eyes.
        max_jaw_open: A wide open mouth hides what the chin looks like.
        min_relative_sharpness: To the sharpest usable face so far; lower accepts more motion blur.
        max_turn_rad: Views farther from the front than this are refused: the tracker is off there.
        frontal_rad: A view with less yaw than this counts as frontal.
        wanted_yaw_rad: A side view starts here.
        wanted_pitch_rad: Range of pitch that 4 views need; 5 and 6 need twice that.
        cell_rad: Of views closer together than this, only the best is kept.
    """

    min_confidence: float = 0.5
    min_face_px: float = 64.0
    max_blink: float = 0.5
    max_jaw_open: float = 0.35
    min_relative_sharpness: float = 0.4
    max_turn_rad: float = np.radians(50.0)
    frontal_rad: float = np.radians(10.0)
    wanted_yaw_rad: float = np.radians(18.0)
    wanted_pitch_rad: float = np.radians(12.0)
    cell_rad: float = np.radians(6.0)

    def __post_init__(self) -> None:
        if not 0 < self.frontal_rad < self.max_turn_rad or self.cell_rad <= 0:
            raise ValueError(
                f"expected 0 < frontal_rad < max_turn_rad and cell_rad > 0, got "
                f"{self.frontal_rad}, {self.max_turn_rad}, {self.cell_rad}"
            )


@dataclass(frozen=True)
class SelectedFrame:
    """A frame kept as a candidate or chosen as a view.

    Attributes:
        image: RGB (H, W, 3) uint8, a copy.
        face: What the tracker saw in it.
        yaw_rad: Camera direction; positive is the subject's left.
        pitch_rad: Positive: the camera looks from above.
        sharpness: Of the face, `face_sharpness`; comparable within a stream.
        activity: Of the face, `face_activity`; comparable within a stream.
    """

    image: np.ndarray
    face: FaceState
    yaw_rad: float
    pitch_rad: float
    sharpness: float
    activity: float


@dataclass(frozen=True)
class SelectionStatus:
    """Where the selection stands after a frame.

    Attributes:
        accepted: The frame became a candidate (it may displace a worse one).
        reason: Why not, one sentence; "" when accepted.
        num_usable: Different directions seen so far.
        wanted: What the person should do next, most important first; empty when complete.
        complete: Enough well-spread views are there.
    """

    accepted: bool
    reason: str
    num_usable: int
    wanted: tuple[str, ...]
    complete: bool


class FrameSelector:
    """Collects candidates from a stream and picks the views.

    Args:
        num_views: Views to pick, 3 to 6.
        config: What counts as usable.
        covered: Tells whether something covers the face of an image; asked last, of frames that
            would be kept. None: not asked.

    Raises:
        ValueError: A number of views outside the range.
    """

    def __init__(
        self,
        num_views: int = 4,
        config: SelectionConfig | None = None,
        covered: Callable[[np.ndarray, FaceState], bool] | None = None,
    ) -> None:
        if not MIN_VIEWS <= num_views <= MAX_VIEWS:
            raise ValueError(f"expected {MIN_VIEWS} to {MAX_VIEWS} views, got {num_views}")
        self.num_views = num_views
        self.config = config if config is not None else SelectionConfig()
        self._covered = covered
        # One candidate per cell of directions: memory stays bounded however long the stream is.
        self._cells: dict[tuple[int, int], SelectedFrame] = {}
        self._sharpest, self._calmest = 0.0, np.inf

    def offer(self, image: np.ndarray, face: FaceState) -> SelectionStatus:
        """Consider one frame; it is copied if it is kept.

        Args:
            image: RGB (H, W, 3) uint8.
            face: The tracker's result for it, not smoothed.

        Raises:
            ValueError: The image is of another type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"expected an image (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        reason = self._unusable(image, face)
        if not reason:
            reason = self._keep(image, face)
        wanted = self.wanted()
        return SelectionStatus(
            accepted=not reason,
            reason=reason,
            num_usable=len(self._usable()),
            wanted=wanted,
            complete=not wanted,
        )

    def selected(self) -> list[SelectedFrame]:
        """The views chosen so far, frontal first, at most `num_views`.

        Views from one spot are not repeated: a person who never moved gives one view.
        """
        usable = self._usable()
        if not usable:
            return []
        level = _level_pitch(usable, self.config)
        directions = np.array([(f.yaw_rad, PITCH_WORTH * (f.pitch_rad - level)) for f in usable])
        quality = np.array([self._quality(f.sharpness, f.activity) for f in usable])
        sides = self.config.wanted_yaw_rad
        return [usable[i] for i in farthest_views(directions, quality, self.num_views, sides)]

    def wanted(self) -> tuple[str, ...]:
        """What is missing, as requests to the person; empty when the views suffice."""
        config, usable = self.config, self._usable()
        yaw = np.array([frame.yaw_rad for frame in usable])
        pitch = np.array([frame.pitch_rad for frame in usable])
        requests = []
        frontal = [frame for frame in usable if abs(frame.yaw_rad) < config.frontal_rad]
        if not frontal:
            requests.append("look straight into the camera")
        elif all(frame.activity > self._calmest + CALM_ACTIVITY for frame in frontal):
            requests.append("look straight into the camera with a resting face")
        if not (yaw < -config.wanted_yaw_rad).any():
            requests.append("turn your head a little to your left")
        if not (yaw > config.wanted_yaw_rad).any():
            requests.append("turn your head a little to your right")
        # A range, not sides: what is level for this person is only known in the end.
        pitch_range = np.ptp(pitch) if usable else 0.0
        if self.num_views == 4 and pitch_range < config.wanted_pitch_rad:
            requests.append("raise or lower your chin a little")
        if self.num_views > 4 and pitch_range < 2 * config.wanted_pitch_rad:
            requests.append("raise your chin a little, then lower it")
        if not requests and len(usable) < self.num_views:
            requests.append("turn your head slowly from side to side")
        return tuple(requests)

    def _usable(self) -> list[SelectedFrame]:
        """Candidates that are sharp next to the sharpest, which may have come after them."""
        lowest = self.config.min_relative_sharpness * self._sharpest
        return [frame for frame in self._cells.values() if frame.sharpness >= lowest]

    def _unusable(self, image: np.ndarray, face: FaceState) -> str:
        config = self.config
        if not face.detected:
            return "no face"
        if face.num_faces > 1:
            return f"{face.num_faces} faces; one person should be alone in the picture"
        if face.confidence < config.min_confidence:
            return "the face is not clearly visible"
        low, high = face.landmarks_px.min(0), face.landmarks_px.max(0)
        if (low < 0).any() or (high > image.shape[1::-1]).any():
            return "the face reaches out of the picture"
        if high[1] - low[1] < config.min_face_px:
            return (
                f"the face is {high[1] - low[1]:.0f} px high, expected at least "
                f"{config.min_face_px:.0f}; come closer"
            )
        blink = max(face.code[ARKIT_INDEX[f"eyeBlink{side}"]] for side in ("Left", "Right"))
        if blink > config.max_blink:
            return "the eyes are closed"
        if face.code[ARKIT_INDEX["jawOpen"]] > config.max_jaw_open:
            return "the mouth is wide open"
        if np.hypot(*camera_direction(face.camera_from_head)) > config.max_turn_rad:
            return "the head is turned too far"
        return ""

    def _keep(self, image: np.ndarray, face: FaceState) -> str:
        sharpness = face_sharpness(image, face.box_px)
        if sharpness < self.config.min_relative_sharpness * self._sharpest:
            return "the face is blurred; hold still for a moment"
        activity = face_activity(face)
        self._sharpest = max(self._sharpest, sharpness)
        self._calmest = min(self._calmest, activity)
        yaw, pitch = camera_direction(face.camera_from_head)
        cell = (round(yaw / self.config.cell_rad), round(pitch / self.config.cell_rad))
        held = self._cells.get(cell)
        quality = self._quality(sharpness, activity)
        if held is not None and self._quality(held.sharpness, held.activity) >= quality:
            return "a sharper or calmer frame of this view is there"
        if self._covered is not None and self._covered(image, face):
            return "a hand covers part of the face"
        self._cells[cell] = SelectedFrame(image.copy(), face, yaw, pitch, sharpness, activity)
        return ""

    def _quality(self, sharpness: float, activity: float) -> float:
        """In (0, 1], relative to the best of this stream: some faces never read as calm."""
        excess = (activity - self._calmest) / HALF_GOOD_ACTIVITY
        return sharpness / self._sharpest / (1.0 + excess**2)


def face_activity(face: FaceState) -> float:
    """How far a face is from rest: the length of its code, without blinks, squints and gaze.

    These say little: lids are asked for apart, and where somebody looks is seen in the eyes alone.
    """
    return float(np.linalg.norm(face.code[FACE_UNITS]))


SHARPNESS_SIDE_PX = 128
"""Size at which faces are compared."""

QUALITY_WORTH_RAD = np.radians(8.0)
"""How much less frontal a sharp, resting view may be than a fully blurred or active one."""

PITCH_WORTH = 2.0
"""A view from above or below counts as this much farther: chins move less than heads turn, and it
shows what no turn does."""


def face_sharpness(image: np.ndarray, face_box: Sequence[float]) -> float:
    """Variance of the Laplacian inside the face box, at a fixed size and relative to its contrast.

    The fixed size makes near and far faces comparable, the contrast bright and dark ones.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    height, width = image.shape[:2]
    left, top = (int(max(0, np.floor(v))) for v in face_box[:2])
    right = int(min(width, max(left + 2, np.ceil(face_box[2]))))
    bottom = int(min(height, max(top + 2, np.ceil(face_box[3]))))
    grey = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
    shrinks = max(grey.shape) > SHARPNESS_SIDE_PX
    size = (SHARPNESS_SIDE_PX, SHARPNESS_SIDE_PX)
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    grey = grey.astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var() / (grey.var() + 1.0))


def farthest_views(
    directions: Float[np.ndarray, "n 2"],
    quality: Float[np.ndarray, "n"],
    count: int,
    side_rad: float,
) -> list[int]:
    """Choose views that cover the directions: a frontal one, one of each side, then k-farthest.

    Without the sides first, chins raised and lowered would be chosen before the second cheek and
    ear, which no other view shows.

    Args:
        directions: Angles from the frontal direction, radians.
        quality: In (0, 1]; a view's distance counts by it: a blurred or active one must be farther
            away.
        count: How many; fewer are returned where there are fewer.
        side_rad: Views with more yaw than this show a side.

    Returns:
        Indices in the order of choice.
    """
    # Quality decides among views that are about equally frontal.
    from_front = np.linalg.norm(directions, axis=1) + QUALITY_WORTH_RAD * (1 - quality)
    chosen = [int(np.argmin(from_front))]
    anywhere = np.ones(len(directions), bool)
    sides = [directions[:, 0] > side_rad, directions[:, 0] < -side_rad]
    for among in [side for side in sides if side.any()] + [anywhere] * count:
        if len(chosen) == min(count, len(directions)):
            break
        apart = np.linalg.norm(directions[:, None] - directions[None, chosen], axis=-1).min(1)
        gain = np.where(among, apart * np.sqrt(quality), -1.0)
        gain[chosen] = -1.0
        chosen.append(int(np.argmax(gain)))
    return chosen


def _level_pitch(frames: Sequence[SelectedFrame], config: SelectionConfig) -> float:
    """Pitch of this person's straight look: the middle of the views without much yaw.

    It is not 0: cameras stand above or below the eyes, and people carry their heads differently.
    """
    pitches = [f.pitch_rad for f in frames if abs(f.yaw_rad) < config.wanted_yaw_rad]
    return float(np.median(pitches)) if pitches else 0.0
