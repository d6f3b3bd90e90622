"""From photos with known truth to what the network gets, through the same stages as in use.

    photos ─► observed landmarks ─► template fit ─► crops ─► position maps ─► ReferenceViews
            (tracker, or imitated)      (capture)             (priors)
    truth: surface under every crop pixel, and the similarity between the fit's head frame and ours

A fit has errors in identity, pose, focal length and expression that the network is there to
correct; random numbers would miss how they hang together. Three kinds of references:

    tracked   the tracker finds the landmarks and reads the codes, the driver's too: as in use
    fitted    landmarks and codes of the photos with imitated errors, exact driver codes
    exact     no errors
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from avat3r_ros.capture.crop import crop_details, crop_heads
from avat3r_ros.capture.exposure import harmonize_colors
from avat3r_ros.capture.matting import cut_out_heads
from avat3r_ros.capture.template_fit import FaceObservation, TemplateFit, fit_template
from avat3r_ros.data.head_surface import HeadSurface
from avat3r_ros.data.person_mesh import PersonMesh
from avat3r_ros.data.sampling import SyntheticPhoto, TargetViews, TrainingSample
from avat3r_ros.expression import ARKIT_INDEX
from avat3r_ros.mattes import SEEN_MASK
from avat3r_ros.pictures import uint8_image
from avat3r_ros.priors.template import position_maps
from avat3r_ros.rig import HeadTemplate, LandmarkBias
from avat3r_ros.tracking import FaceTracker
from avat3r_ros.training.alignment import (
    Similarity,
    align_landmarks,
    align_photographed,
    align_to_photos,
)
from avat3r_ros.types import Camera, FaceState, ReferenceViews, SurfaceBinding

Prior = Literal["exact", "fitted", "tracked"]

LANDMARK_NOISE = 0.004
"""Spread of each landmark around its true place, relative to the face's height. Ours."""

LANDMARK_WARP = 0.006
"""Spread of the smooth part of the landmarks' error (a quadratic in the image), likewise."""

CODE_GAIN, CODE_NOISE = (0.6, 1.0), 0.05
"""A tracker's scores: too small by this factor, off by about this much."""

LANDMARKS_IN_MATTE = 0.9
"""Share of a face's landmarks inside a matte that is of this face."""


class FaceNotFoundError(ValueError):
    """The tracker finds no face in a photo."""


@dataclass(frozen=True)
class Person:
    """References of one person as the network gets them, and the truth in the references' frame.

    Attributes:
        seed: Of the sample.
        views: References.
        surfaces: True surface under every pixel of the references; -1 where there is none.
        fit_from_true: Maps true head-frame points to the head frame of `views`.
        mesh: The person's true shape, in its own frame.
        targets: What to predict; cameras in the frame of `views`.
        driver_codes: What the network is told of the expression of each target.
        photo_codes: True expression of each reference; `views.codes` is what a fit made of it.
    """

    seed: int
    views: ReferenceViews
    surfaces: SurfaceBinding
    fit_from_true: Similarity
    mesh: HeadSurface
    targets: TargetViews
    driver_codes: Float[Tensor, "t 52"]
    photo_codes: Float[Tensor, "v 52"]

    def true_positions(
        self, pixels: Int[Tensor, "p"], codes: Float[Tensor, "c 52"]
    ) -> Float[Tensor, "c p 3"]:
        """Where the surface under some reference pixels is in some expressions.

        Args:
            pixels: Indices into the flattened (V, H, W) grid, all with a surface.
            codes: Target expressions.
        """
        surface = SurfaceBinding(
            self.surfaces.triangle_ids.flatten()[pixels],
            self.surfaces.barycentrics.reshape(-1, 3)[pixels],
        )
        points = [self.mesh.points(surface, code.numpy()) for code in codes]
        return self.fit_from_true.points(torch.stack(points))

    def photographed_positions(self, pixels: Int[Tensor, "p"]) -> Float[Tensor, "p 3"]:
        """Where the surface under some reference pixels was when its photo was taken."""
        in_each = self.true_positions(pixels, self.photo_codes)
        views = pixels // self.views.masks[0].numel()
        return in_each[views, torch.arange(len(pixels))]


def person_from_sample(
    sample: TrainingSample,
    image_size: int,
    prior: Prior,
    template: HeadTemplate,
    *,
    details: bool = False,
) -> Person:
    """Make the references of a sample.

    Args:
        sample: A person.
        image_size: Side of the crops, pixels.
        prior: "tracked" goes through tracker, matting and template fit as real photos do, "fitted"
            through the template fit alone; "exact" uses true cameras, identity, expressions and
            positions.
        template: What is fitted.
        details: Keep what the photos show within the crops' pixels, as avatars do.

    Raises:
        ValueError: There is no such prior, or people of another head model are not tracked.
        FaceNotFoundError: The tracker finds no face in a photo, or in no picture of a driver.
    """
    if prior not in get_args(Prior):
        raise ValueError(f"expected a prior of {get_args(Prior)}, got {prior!r}")
    if prior != "tracked" and not isinstance(sample.mesh, PersonMesh):
        raise ValueError(f"people of another head model are tracked, got prior={prior!r}")
    targets, driver_codes = sample.targets, sample.targets.codes
    images = [photo.image for photo in sample.photos]
    mattes = [photo.matte for photo in sample.photos]
    if prior == "exact":
        fit = _true_fit(sample)
    else:
        if prior == "tracked":
            observations = _tracked_observations(sample)
            mattes = _cut_out(sample, observations)
            targets, driver_codes = _tracked_targets(sample.targets)
        else:
            observations = _observations(sample, np.random.default_rng([sample.seed, 0xF17]))
        fit = fit_template(
            observations,
            template,
            mattes=mattes,
            images=images if prior == "tracked" else None,
            landmark_bias=LandmarkBias.load() if prior == "tracked" else None,
        )
    photo_codes = torch.from_numpy(np.stack([photo.code for photo in sample.photos]))
    crops = crop_heads(images, mattes, fit, template, image_size)
    views = harmonize_colors(position_maps(crops, template), template)
    if details:
        views = replace(views, details=crop_details(images, fit, image_size))
    surfaces = _true_surfaces(sample.photos, sample.mesh, fit, crops.cameras)
    if prior == "exact":
        views = _with_true_positions(views, surfaces, sample)
        fit_from_true = Similarity(1.0, np.eye(3), np.zeros(3))
    else:
        if isinstance(sample.mesh, PersonMesh):
            fitted = template.vertices(torch.from_numpy(fit.identity)).numpy()
            guess = align_landmarks(template, sample.mesh.rest, fitted)
        else:
            guess = align_photographed(views, surfaces, sample.mesh, photo_codes, template)
        fit_from_true = align_to_photos(guess, views, surfaces, sample.mesh, photo_codes)
    return Person(
        seed=sample.seed,
        views=views,
        surfaces=surfaces,
        fit_from_true=fit_from_true,
        mesh=sample.mesh,
        targets=replace(targets, cameras=fit_from_true.cameras(targets.cameras)),
        driver_codes=driver_codes,
        photo_codes=photo_codes,
    )


@lru_cache(maxsize=2)
def _tracker(of_driver: bool) -> FaceTracker:
    """The tracker as stills are read for an avatar, or as a driver is read."""
    as_driver = {"full_range": True} if of_driver else {}
    return FaceTracker(smoothing=None, max_faces=1, running_mode="image", **as_driver)


def _tracked_observations(sample: TrainingSample) -> list[FaceObservation]:
    """What the tracker reports of the photos."""
    faces = [_tracker(of_driver=False).track(photo.image, 0.0) for photo in sample.photos]
    if not all(face.detected for face in faces):
        raise FaceNotFoundError(f"person {sample.seed}: no face found in a photo")
    return [
        FaceObservation(face, photo.camera.width, photo.camera.height)
        for face, photo in zip(faces, sample.photos, strict=True)
    ]


def _cut_out(sample: TrainingSample, observations: list[FaceObservation]) -> list[np.ndarray]:
    """Mattes as those of real photos; the true one where a drawn person was not recognised."""
    faces = [observation.face for observation in observations]
    mattes = cut_out_heads([photo.image for photo in sample.photos], faces)
    for index, (photo, face) in enumerate(zip(sample.photos, faces, strict=True)):
        x, y = face.landmarks_px.round().astype(int).T
        height, width = photo.matte.shape
        x, y = x.clip(0, width - 1), y.clip(0, height - 1)
        if (mattes[index] > SEEN_MASK)[y, x].mean() < LANDMARKS_IN_MATTE:
            mattes[index] = photo.matte
    return mattes


def _tracked_targets(targets: TargetViews) -> tuple[TargetViews, Float[Tensor, "t 52"]]:
    """The targets whose driver the tracker finds, and what it reads of each."""
    kept, codes = [], []
    read: FaceState | None = None
    for row, code in enumerate(targets.codes):
        if row == 0 or not torch.equal(code, targets.codes[row - 1]):
            read = _tracker(of_driver=True).track(uint8_image(targets.images[row].numpy()), 0.0)
        if read.detected:
            kept.append(row)
            # The tracker is blind to the tongue; whoever drives it has another source.
            tongue = ARKIT_INDEX["tongueOut"]
            codes.append(torch.from_numpy(read.code).clone())
            codes[-1][tongue] = code[tongue]
    if not kept:
        raise FaceNotFoundError("no face found in any driver's picture")
    return (
        TargetViews(
            images=targets.images[kept],
            masks=targets.masks[kept],
            cameras=targets.cameras[kept],
            codes=targets.codes[kept],
            necks=None if targets.necks is None else targets.necks[kept],
        ),
        torch.stack(codes),
    )


def _true_fit(sample: TrainingSample) -> TemplateFit:
    photos = sample.photos
    return TemplateFit(
        identity=sample.mesh.identity,
        codes=np.stack([photo.code for photo in photos]),
        intrinsics=np.stack([photo.camera.intrinsics.double().numpy() for photo in photos]),
        camera_from_head=np.stack(
            [photo.camera.camera_from_head.double().numpy() for photo in photos]
        ),
        residual_px=np.zeros(len(photos), np.float32),
    )


def _observations(sample: TrainingSample, rng: np.random.Generator) -> list[FaceObservation]:
    """What a tracker would report: true landmarks and scores with its kinds of error."""
    template = sample.mesh.template
    weights = template.landmark_weights.numpy()
    # Errors of a landmark repeat over the photos of a person: half of them are the person's.
    own = rng.normal(0, LANDMARK_NOISE, (len(weights), 2))
    gain = rng.uniform(*CODE_GAIN, 52)
    observations = []
    for photo in sample.photos:
        camera = photo.camera
        vertices = torch.from_numpy(sample.mesh.template_vertices(photo.code))
        pose = camera.camera_from_head
        points = template.landmarks(vertices) @ pose[:3, :3].T + pose[:3, 3]
        pixels = points @ camera.intrinsics.T
        landmarks = (pixels[:, :2] / pixels[:, 2:]).double().numpy()
        middle, height = landmarks.mean(0), float(np.ptp(landmarks[:, 1]))
        x, y = ((landmarks - middle) / height).T
        smooth = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
        error = own + rng.normal(0, LANDMARK_NOISE, landmarks.shape)
        error /= np.maximum(weights, 0.3)[:, None]
        error += smooth @ rng.normal(0, LANDMARK_WARP, (6, 2))
        code = gain * photo.code + rng.normal(0, CODE_NOISE, 52)
        code[ARKIT_INDEX["tongueOut"]] = 0.0
        observations.append(
            FaceObservation(
                FaceState(
                    stamp_s=0.0,
                    detected=True,
                    confidence=1.0,
                    code=code.clip(0, 1).astype(np.float32),
                    gaze=np.zeros(2),
                    camera_from_head=camera.camera_from_head.double().numpy(),
                    landmarks_px=landmarks + height * error,
                ),
                camera.width,
                camera.height,
            )
        )
    return observations


def _true_surfaces(
    photos: list[SyntheticPhoto], mesh: HeadSurface, fit: TemplateFit, crops: Camera
) -> SurfaceBinding:
    """The person's surface under the crops' pixels.

    A crop is a window of its photo; the window is read off the two intrinsics of the fit.
    """
    ids, barycentrics = [], []
    for index, photo in enumerate(photos):
        crop_k, photo_k = crops.intrinsics[index].double(), torch.from_numpy(fit.intrinsics[index])
        scale = crop_k[0, 0] / photo_k[0, 0]
        intrinsics = scale * photo.camera.intrinsics.double()
        intrinsics[:2, 2] += crop_k[:2, 2] - scale * photo_k[:2, 2]
        intrinsics[2, 2] = 1.0
        camera = Camera(intrinsics, photo.camera.camera_from_head, crops.width, crops.height)
        surface = mesh.visible_surface(camera, photo.code)
        ids.append(surface.triangle_ids)
        barycentrics.append(surface.barycentrics)
    return SurfaceBinding(torch.stack(ids), torch.stack(barycentrics))


def _with_true_positions(
    views: ReferenceViews, surfaces: SurfaceBinding, sample: TrainingSample
) -> ReferenceViews:
    """Replace the template's surface points by the person's, wherever the person has a surface."""
    positions = torch.stack(
        [
            sample.mesh.points(
                SurfaceBinding(surfaces.triangle_ids[v], surfaces.barycentrics[v]), photo.code
            )
            for v, photo in enumerate(sample.photos)
        ]
    ).permute(0, 3, 1, 2)
    known = (surfaces.triangle_ids >= 0)[:, None] & (views.masks > 0)
    on_template = known[:, 0] & (surfaces.triangle_ids < sample.mesh.num_template_triangles)
    return replace(
        views,
        position_maps=torch.where(known, positions, views.position_maps),
        binding=SurfaceBinding(
            torch.where(on_template, surfaces.triangle_ids, -1),
            torch.where(on_template[..., None], surfaces.barycentrics, 0.0),
        ),
    )
