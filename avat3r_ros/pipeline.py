"""The order of the stages: photos -> faces -> cameras and crops -> position maps -> avatar.

    images ─tracking─► FaceStates ─capture─► HeadCrops ─priors─► ReferenceViews ─model─► Avatar
                                              └─lift─┘ (one photo only)

Stages know nothing of each other; this file joins them, for the command line and the nodes alike.
"""

import datetime
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from avat3r_ros.animation import compile_avatar, quick
from avat3r_ros.capture.crop import crop_details, crop_heads
from avat3r_ros.capture.exposure import harmonize_colors
from avat3r_ros.capture.matting import cut_out_heads
from avat3r_ros.capture.photo_checks import choose_photos, face_problem
from avat3r_ros.capture.photos import Photo
from avat3r_ros.capture.template_fit import (
    FaceObservation,
    TemplateFit,
    fit_template,
    refit_pose,
)
from avat3r_ros.capture.view_warnings import crown_warnings, photo_warnings, side_warnings
from avat3r_ros.lift.choice import HEADS, Lift, PictureLift
from avat3r_ros.model import Avat3r, build_avatar, load_network
from avat3r_ros.model.tone import only_tone
from avat3r_ros.parallel import meanwhile
from avat3r_ros.priors.choice import TEMPLATE, PositionPrior
from avat3r_ros.priors.features import FeatureExtractor
from avat3r_ros.rig import HeadTemplate, LandmarkBias
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.types import Avatar, FaceState, HeadCrops, ReferenceViews

logger = logging.getLogger(__name__)

MIN_VIEWS, MAX_VIEWS = 3, 6
"""The network was trained with 4 views and accepts 3 to 6."""

MIN_PHOTOS = 2
"""Fewest photos without a lift, which is for one."""

TWO_PHOTOS = (
    "made from two photos, without the trained weights: they take 3 and more; one more, the head "
    "turned to a side that is not seen yet, looks more like the person"
)

ONE_TONE = "the photos have no colours, and so the avatar has none; colour photos give it some"

MAX_IMAGE_SIZE = 1024
"""Larger crops make a million Gaussians, which no renderer of ours draws at display rate."""

MIN_SINGLE_FACE_PX = 40
"""Of several photos a small one only gets a warning; a single one is all there is."""

Progress = Callable[[str, float], None]


class BuildCancelledError(RuntimeError):
    """The caller's `cancelled` callback asked to stop."""


class BuildError(ValueError):
    """The images cannot become an avatar; the message names the image and the remedy."""


@dataclass(frozen=True)
class BuildResult:
    """An avatar with everything that explains it.

    Attributes:
        avatar: Ready for animation.
        views: Crops, cameras, position maps and confidence it was made of.
        fit: The head template fitted to all photos.
        faces: What the tracker saw in each image it was made of.
        kept: Indices of these images among those given: unusable ones are left out.
        warnings: One sentence each, with a remedy.
    """

    avatar: Avatar
    views: ReferenceViews
    fit: TemplateFit
    faces: list[FaceState]
    kept: list[int]
    warnings: list[str] = field(default_factory=list)


def detect_faces(images: Sequence[np.ndarray], names: Sequence[str]) -> list[FaceState]:
    """Track one face in each still image.

    Args:
        images: RGB uint8 (H, W, 3), sizes may differ.
        names: How to call each image in an error.

    Raises:
        BuildError: An image shows no face or several faces.
    """
    faces = _track(images)
    problems = [
        f"{name}: {face_problem(face)}"
        for face, name in zip(faces, names, strict=True)
        if face_problem(face)
    ]
    if problems:
        raise BuildError("; ".join(problems))
    return faces


def _track(images: Sequence[np.ndarray]) -> list[FaceState]:
    with FaceTracker(smoothing=None, running_mode="image") as tracker:
        return [tracker.track(np.ascontiguousarray(image), 0.0) for image in images]


def build_avatar_from_images(
    images: Sequence[np.ndarray],
    *,
    names: Sequence[str] | None = None,
    faces: Sequence[FaceState] | None = None,
    focals_px: Sequence[float | None] | None = None,
    preset: str = "tiny",
    trained: bool = True,
    network: Avat3r | None = None,
    image_size: int | None = None,
    position_prior: PositionPrior = TEMPLATE,
    features: FeatureExtractor | None = None,
    lift: Lift | PictureLift | None = HEADS,
    compiled: bool = False,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    metadata: dict | None = None,
) -> BuildResult:
    """Build an avatar from 2 to 6 photos of one person, or from a single one.

    Args:
        images: RGB uint8 (H, W, 3); sizes and expressions may differ.
        names: How to call each image in messages; "photo 1" and so on if None.
        faces: Tracker results for the images, if the caller has them; found here otherwise.
        focals_px: Focal length of each image in pixels, None where unknown.
        preset: Network preset (`model.preset`).
        trained: Use the preset's shipped weights; False builds on the untrained base guess, and so
            do a lifted photo, two photos, and position maps other than the template's: the weights
            were trained with those and with 3 photos and more.
        network: Used instead of a preset, e.g. to compare variants.
        image_size: Side of the crops in pixels, each of which may become a Gaussian: finer heads
            for more work per frame. The network's own size if None, which is the least.
        position_prior: Where the crops' pixels lie; from the fitted template unless another
            back-end is given (`priors.choice.position_prior`).
        features: What makes the feature maps of a network that was trained with some.
        lift: What makes further views of a single photo, or of the only one that can be used; None
            refuses it. Unused with several.
        compiled: Also make the compiled animation, quickly (`animation.quick`).
        progress: Called with a stage name and the fraction done in [0, 1].
        cancelled: Polled between stages.
        metadata: Owner, consent and other JSON data to keep in the avatar.

    Raises:
        BuildError: Too few or too many images that show exactly one face, or
            features that do not fit the network.
        BuildCancelledError: `cancelled` returned True.
    """
    names = list(names) if names is not None else [f"photo {i + 1}" for i in range(len(images))]
    fewest = MIN_PHOTOS if lift is None else 1
    if not fewest <= len(images) <= MAX_VIEWS:
        raise BuildError(
            f"expected {fewest} to {MAX_VIEWS} photos of one person (4 is best: front, left, "
            f"right and one from above or below), got {len(images)}"
        )
    ours = network is None
    if ours:
        # Shipped weights correct the errors of the template's fit, and of nothing else: on lifted
        # views they lose 0.5 to 1.5 dB (benchmarks/lift.py). They take no two photos.
        trained = trained and position_prior is TEMPLATE and len(images) >= MIN_VIEWS
        network = load_network(preset, trained=trained)
    _check_features(network, features)
    image_size = image_size or network.config.image_size
    if not network.config.image_size <= image_size <= MAX_IMAGE_SIZE:
        raise BuildError(
            f"expected an image size from {network.config.image_size} (the network's own) to "
            f"{MAX_IMAGE_SIZE} pixels, got {image_size}"
        )

    def step(stage: str, fraction: float) -> None:
        if cancelled is not None and cancelled():
            raise BuildCancelledError(f"build cancelled before {stage}")
        if progress is not None:
            progress(stage, fraction)

    step("detecting faces", 0.0)
    if faces is None:
        faces = _track(images)
    focals = list(focals_px) if focals_px is not None else [None] * len(images)
    template = HeadTemplate.load()
    usable = [i for i, face in enumerate(faces) if not face_problem(face)]
    to_cut = [images[i] for i in usable], [faces[i] for i in usable]
    with meanwhile(cut_out_heads, *to_cut) as cutting:
        try:
            choice = choose_photos(images, faces, names, focals, template, fewest)
        except ValueError as error:
            raise BuildError(str(error)) from error
        images, names, faces, focals = (
            [given[i] for i in choice.kept] for given in (images, names, faces, focals)
        )
        single = len(images) == 1
        if ours and trained and len(images) < MIN_VIEWS:
            network = load_network(preset, trained=False)

        height = faces[0].box_px[3] - faces[0].box_px[1]
        if single and height < MIN_SINGLE_FACE_PX:
            raise BuildError(
                f"{names[0]}: the face is only {height:.0f} px high, expected at least "
                f"{MIN_SINGLE_FACE_PX} in a single photo; come closer, or give more photos"
            )

        step("cutting out the head", 0.15)
        of_photo = dict(zip(usable, cutting.result(), strict=True))
    mattes = [of_photo[i] for i in choice.kept]
    shown = faces
    if single and isinstance(lift, PictureLift):
        step("searching for the face", 0.2)
        pictures, of_pictures = _draw_views(lift, images[0], mattes[0], faces[0])
        images, shown = images + pictures, faces + of_pictures
        mattes = mattes + cut_out_heads(pictures, of_pictures)
        focals = focals + [lift.focal_px] * len(pictures)

    step("fitting the head template", 0.45)
    observations = [
        FaceObservation(face=face, width=image.shape[1], height=image.shape[0], focal_px=focal)
        for face, image, focal in zip(shown, images, focals, strict=True)
    ]
    fit = fit_template(
        observations, template, mattes=mattes, images=images, landmark_bias=LandmarkBias.load()
    )
    crops = crop_heads(list(images), mattes, fit, template, image_size)
    crops = replace(crops, num_guessed=len(shown) - len(faces))
    if single and isinstance(lift, Lift):
        step("guessing the other sides", 0.55)
        try:
            crops = lift(crops, template)
        except ValueError as error:
            raise BuildError(f"{names[0]}: {error}") from error

    step("mapping positions", 0.6)
    views = position_prior(crops, template)
    if not (single and isinstance(lift, Lift)):  # which paints its views in the photo's own colours
        views = harmonize_colors(views, template)
    details = crop_details(images, fit, image_size)
    drawn = len(views.images) - len(details)  # by a lift, and no finer than they are
    views = replace(views, details=torch.nn.functional.pad(details, (0,) * 7 + (drawn,)))

    feature_maps = None
    if features is not None:
        step("describing the crops", 0.7)
        feature_maps = features.extract(views.images)

    step("building the avatar", 0.75)
    about_views = [_lift_warning(lift.name)] if single else side_warnings(fit)
    if len(faces) == MIN_PHOTOS:
        about_views.append(TWO_PHOTOS)
    if only_tone(views) is not None:
        about_views.append(ONE_TONE)
    about_views += crown_warnings(fit, [image.shape[1::-1] for image in images], template)
    warnings = choice.warnings + about_views + photo_warnings(fit, faces, names)
    for warning in warnings:
        logger.warning(warning)
    avatar = build_avatar(
        views,
        network,
        features=feature_maps,
        metadata={
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "warnings": warnings,
            "view_stamps_s": [face.stamp_s for face in faces],
            **({"lifted_by": lift.name} if single else {}),
            "weights_of_others": [
                {"name": part.name, "licence": part.licence.name}
                for part in (position_prior, features, lift if single else None)
                if part is not None and part.licence is not None
            ],
            **(metadata or {}),
        },
    )
    if compiled:
        avatar = compile_avatar(
            avatar,
            quick(),
            network=network,
            progress=lambda stage, fraction: step(stage, 0.8 + 0.2 * fraction),
        )
    step("done", 1.0)
    return BuildResult(
        avatar=avatar, views=views, fit=fit, faces=faces, kept=choice.kept, warnings=warnings
    )


def _draw_views(
    lift: PictureLift, image: np.ndarray, matte: np.ndarray, face: FaceState
) -> tuple[list[np.ndarray], list[FaceState]]:
    try:
        pictures = lift(image, matte, face, _track)
    except ValueError as error:
        raise BuildError(str(error)) from error
    return pictures, detect_faces(
        pictures, [f"view {i + 1} of {lift.name!r}" for i in range(len(pictures))]
    )


def _lift_warning(name: str) -> str:
    return (
        f"made from a single photo: what it does not show (sides, back, hair) is guessed by "
        f"{name!r}; 3 or more photos, the head turned to both sides, look more like the person"
    )


def build_avatar_from_photos(photos: Sequence[Photo], **kwargs: object) -> BuildResult:
    """Build an avatar from loaded photos, with the focal length of each where its file has it."""
    return build_avatar_from_images(
        [photo.image for photo in photos],
        names=[photo.path.name for photo in photos],
        focals_px=[photo.focal_px for photo in photos],
        **kwargs,
    )


def crop_targets(
    photos: Sequence[Photo], faces: Sequence[FaceState], result: BuildResult, size: int
) -> HeadCrops:
    """Crop further photos of the avatar's person to `size` pixels, each with its own fitted camera.

    The identity stays the avatar's, so that a prediction cannot profit from the photo it predicts.
    Photos of unknown focal length have that of the avatar's photos of their size: one camera.
    """
    template = HeadTemplate.load()
    identity = np.asarray(result.fit.identity)
    focal_of_size = {
        (round(2 * float(k[1, 2])), round(2 * float(k[0, 2]))): float(k[0, 0])
        for k in result.fit.intrinsics
    }
    images = [photo.image for photo in photos]
    mattes = cut_out_heads(images, faces)
    fits = [
        refit_pose(
            FaceObservation(
                face,
                photo.image.shape[1],
                photo.image.shape[0],
                photo.focal_px or focal_of_size.get(photo.image.shape[:2]),
            ),
            identity,
            template,
            matte=matte,
            landmark_bias=LandmarkBias.load(),
        )
        for photo, face, matte in zip(photos, faces, mattes, strict=True)
    ]
    fit = TemplateFit(
        identity=result.views.identity.numpy(),  # with its neck
        **{
            name: np.concatenate([getattr(one, name) for one in fits])
            for name in ("codes", "intrinsics", "camera_from_head", "residual_px")
        },
    )
    return crop_heads(images, mattes, fit, template, size)


def _check_features(network: Avat3r, features: FeatureExtractor | None) -> None:
    """Refuse features the network was not made for, before the work of making them."""
    name, wanted = network.config.name, network.config.feature_channels
    if wanted and features is None:
        raise BuildError(
            f"the network {name!r} was trained with feature maps of {wanted} channels; choose "
            "--features and their weights"
        )
    if features is not None and features.channels != wanted:
        raise BuildError(
            f"{features.name} makes feature maps of {features.channels} channels, but the network "
            f"{name!r} takes {wanted or 'none'}; "
            + ("choose others" if wanted else "leave --features out, or choose another network")
        )
