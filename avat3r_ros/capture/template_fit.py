"""Joint fit of the head template to all photos: who it is, and where each camera was.

Unknown are one identity for all photos, a pose and an expression of each, and the focal lengths
that nobody knows. Landmarks fix the face, and the irises its size; then, in turns, the outlines of
the fitted head are drawn and pulled to the edges of the mattes; at last the photos, laid on the
head, are matched with each other. `landmark_problem.py` holds the cost and its solver.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from avat3r_ros.capture.fit_terms import FitState
from avat3r_ros.capture.focal import refine_focal
from avat3r_ros.capture.irises import iris_widths_m, log_size_from_irises
from avat3r_ros.capture.landmark_problem import LandmarkProblem
from avat3r_ros.capture.matches import MatchFinder
from avat3r_ros.capture.outline import Outline, find_outline
from avat3r_ros.expression import validate_code
from avat3r_ros.geometry import intrinsics_matrix, pose_matrix
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig import CHIN_LANDMARK, NUM_LANDMARKS, HeadTemplate, LandmarkBias
from avat3r_ros.types import FaceState

OUTLINE_ROUNDS = 4
"""Turns of drawing the outlines and solving; later ones change little."""


@dataclass(frozen=True)
class FaceObservation:
    """One photo as the fit needs it.

    Attributes:
        face: What the tracker saw; `landmarks_px` and `code` are used.
        width: Of the photo, pixels.
        height: Of the photo, pixels.
        focal_px: Focal length of the whole photo where known (EXIF, calibration), else None.
    """

    face: FaceState
    width: int
    height: int
    focal_px: float | None = None

    def __post_init__(self) -> None:
        if not self.face.detected:
            raise ValueError("expected a photo with a detected face, got one without")
        if self.face.landmarks_px.shape != (NUM_LANDMARKS, 2):
            raise ValueError(
                f"expected ({NUM_LANDMARKS}, 2) landmarks, got {self.face.landmarks_px.shape}"
            )
        if not np.isfinite(self.face.landmarks_px).all():
            raise ValueError("expected finite landmarks, got nan or infinity")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"expected a positive image size, got {self.width}x{self.height}")
        if self.focal_px is not None and not 0 < self.focal_px < np.inf:
            raise ValueError(f"expected a positive focal length in pixels, got {self.focal_px}")


@dataclass(frozen=True)
class TemplateFit:
    """One person in V photos.

    Attributes:
        identity: Template identity, standard deviations.
        codes: Refined `arkit_52` expression of each photo.
        intrinsics: Of each whole photo, pixels.
        camera_from_head: Pose of the head in each photo's camera.
        residual_px: Weighted RMS distance of the landmarks from the fitted head in each photo.
        num_matches: Matches of each photo with others that the fit explains; None where photos
            were not matched. A photo without any stands where its landmarks put it.
    """

    identity: Float[np.ndarray, "k"]
    codes: Float[np.ndarray, "v 52"]
    intrinsics: Float[np.ndarray, "v 3 3"]
    camera_from_head: Float[np.ndarray, "v 4 4"]
    residual_px: Float[np.ndarray, "v"]
    num_matches: Int[np.ndarray, "v"] | None = None


def fit_template(
    observations: Sequence[FaceObservation],
    template: HeadTemplate,
    *,
    mattes: Sequence[Float[np.ndarray, "_ _"]] | None = None,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]] | None = None,
    shared_focal: bool = True,
    landmark_bias: LandmarkBias | None = None,
) -> TemplateFit:
    """Fit one person to all photos together.

    Args:
        observations: At least one photo of the same person.
        template: The head model, with measured landmarks.
        mattes: Share of each pixel that belongs to the person, [0, 1], of each whole photo; the
            head's outline is fitted to them. Landmarks alone if None.
        images: The photos, RGB: their irises are measured, which tells the head's size, and they
            are matched with each other, which holds their cameras together. Not done if None.
        shared_focal: Photos of equal size and unknown focal length come from one camera; False
            gives each photo its own.
        landmark_bias: Known errors of the tracker that found the landmarks, taken off them; none
            if None.

    Raises:
        ValueError: There is no observation, the head cannot lie in front of a camera, or mattes
            or images and photos differ in number or size.
    """
    if not observations:
        raise ValueError("expected at least one observation, got none")
    _check_sizes("images", images, observations)
    _check_sizes("mattes", mattes, observations)
    # Flow from one photo to another is not that back, and rounding decides which matches count:
    # sorted by what they show, the same photos make the same head in any order.
    order = sorted(
        range(len(observations)), key=lambda view: observations[view].face.landmarks_px.tolist()
    )
    fit = _solve(
        [observations[i] for i in order],
        template,
        shared_focal,
        identity=None,
        mattes=None if mattes is None else [mattes[i] for i in order],
        images=None if images is None else [images[i] for i in order],
        landmark_bias=landmark_bias,
    )
    given = np.argsort(order)
    per_view = ("codes", "intrinsics", "camera_from_head", "residual_px", "num_matches")
    values = {name: getattr(fit, name) for name in per_view}
    return replace(fit, **{k: None if v is None else v[given] for k, v in values.items()})


def refit_pose(
    observation: FaceObservation,
    identity: Float[np.ndarray, "k"],
    template: HeadTemplate,
    focal: float | None = None,
    matte: Float[np.ndarray, "_ _"] | None = None,
    landmark_bias: LandmarkBias | None = None,
) -> TemplateFit:
    """Find camera and expression of one more photo of a person who is already known.

    Args:
        observation: The photo.
        identity: From `fit_template`; stays as it is.
        template: The head model.
        focal: Focal length in pixels of this photo; overrides the observation's. Estimated if
            neither is known.
        matte: Of the whole photo, as for `fit_template`.
        landmark_bias: As for `fit_template`.

    Returns:
        A fit with one view.

    Raises:
        ValueError: The head cannot lie in front of a camera, or the matte has not the photo's size.
    """
    mattes = None if matte is None else [matte]
    _check_sizes("mattes", mattes, [observation])
    if focal is not None:
        observation = FaceObservation(
            observation.face, observation.width, observation.height, float(focal)
        )
    identity = np.asarray(identity)
    return _solve(
        [observation],
        template,
        True,
        identity=identity,
        mattes=mattes,
        landmark_bias=landmark_bias,
    )


def _check_sizes(
    kind: str, arrays: Sequence[np.ndarray] | None, observations: Sequence[FaceObservation]
) -> None:
    """Refuse images or mattes that are not those of the photos."""
    expected = [(o.height, o.width) for o in observations]
    if arrays is not None and (got := [array.shape[:2] for array in arrays]) != expected:
        raise ValueError(f"expected {kind} of the photos' sizes {expected}, got {got}")


def _solve(
    observations: Sequence[FaceObservation],
    template: HeadTemplate,
    shared_focal: bool,
    identity: np.ndarray | None,
    mattes: Sequence[np.ndarray] | None = None,
    images: Sequence[np.ndarray] | None = None,
    landmark_bias: LandmarkBias | None = None,
) -> TemplateFit:
    """Group the photos by camera, solve, and put the result into the agreed form."""
    cameras: list[object] = []
    camera_of = []
    for index, o in enumerate(observations):
        camera = (o.width, o.height) if shared_focal and o.focal_px is None else index
        if camera not in cameras:
            cameras.append(camera)
        camera_of.append(cameras.index(camera))
    first = [observations[camera_of.index(camera)] for camera in range(len(cameras))]
    problem = LandmarkProblem(
        template,
        detected_px=np.stack([o.face.landmarks_px for o in observations]).astype(np.float64),
        centers_px=np.array([[o.width / 2, o.height / 2] for o in observations]),
        tracker_codes=np.stack([validate_code("arkit_52", o.face.code) for o in observations]),
        camera_of=camera_of,
        focals_px=[o.focal_px for o in first],
        image_sizes_px=[max(o.width, o.height) for o in first],
        identity=identity,
    )
    state = problem.start
    for _ in range(1 if landmark_bias is None else 2):
        if landmark_bias is not None:
            problem.correct_landmarks(landmark_bias, state)
        state = problem.solve(state)
    if images is not None:
        problem.expected_log_size = _log_size(problem, state, template, images, observations)
        state = problem.solve(state)
    for _ in range(OUTLINE_ROUNDS if mattes is not None else 0):
        problem.use_outlines(_outlines(problem, state, template, mattes))
        state = problem.solve(state)
    if images is not None:
        # Once: a second turn took 1.5 s more and moved the cameras by less than their error.
        found = MatchFinder(images, template).find(*_posed_heads(problem, state, template))
        problem.use_matches(found, state)
        if mattes is not None:
            problem.use_outlines(_outlines(problem, state, template, mattes))
        state = refine_focal(problem, problem.solve(state))
    focals = np.exp(state.log_focals)[camera_of]
    return TemplateFit(
        identity=state.identity.astype(np.float32),
        codes=state.codes.astype(np.float32),
        intrinsics=np.stack(
            [
                intrinsics_matrix(focal, *center)
                for focal, center in zip(focals, problem.centers_px, strict=True)
            ]
        ),
        camera_from_head=np.stack(
            [pose_matrix(r, t) for r, t in zip(state.rotations, state.translations, strict=True)]
        ),
        residual_px=problem.residual_px(state),
        num_matches=None if images is None else problem.num_matches(state),
    )


def _log_size(
    problem: LandmarkProblem,
    state: FitState,
    template: HeadTemplate,
    images: Sequence[np.ndarray],
    observations: Sequence[FaceObservation],
) -> float:
    """Size of the head as its irises tell."""
    widths = []
    posed = zip(*_posed_heads(problem, state, template), images, observations, strict=True)
    for vertices, intrinsics, pose, image, observation in posed:
        points = template.landmarks(torch.from_numpy(vertices)).double().numpy()
        points = points @ pose[:3, :3].T + pose[:3, 3]
        landmarks = observation.face.landmarks_px
        widths += iris_widths_m(image, landmarks, points, float(intrinsics[0, 0]))
    return log_size_from_irises(widths, problem.log_size(state))


def _outlines(
    problem: LandmarkProblem,
    state: FitState,
    template: HeadTemplate,
    mattes: Sequence[np.ndarray],
) -> list[Outline]:
    """Outlines of the heads of a solution, paired with the mattes' edges."""
    identity = torch.from_numpy(state.identity).float()
    chin = template.landmarks(template.vertices(identity))[CHIN_LANDMARK].numpy()
    of_photo = partial(find_outline, template=template, chin=chin)
    return in_threads(of_photo, *_posed_heads(problem, state, template), mattes)


def _posed_heads(
    problem: LandmarkProblem, state: FitState, template: HeadTemplate
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Vertices in each photo's expression, intrinsics and camera_from_head of each photo."""
    identity = torch.from_numpy(state.identity).float()
    focals = np.exp(state.log_focals)[problem.camera_of]
    vertices = [
        template.vertices(identity, torch.from_numpy(code).float()).numpy() for code in state.codes
    ]
    intrinsics = [
        intrinsics_matrix(f, *center) for f, center in zip(focals, problem.centers_px, strict=True)
    ]
    poses = [pose_matrix(r, t) for r, t in zip(state.rotations, state.translations, strict=True)]
    return vertices, intrinsics, poses
