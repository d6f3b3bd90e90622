"""The data that travels between stages: small frozen dataclasses, shapes written on every field.

    photos ─capture, priors─► ReferenceViews ─model─► Avatar ─animation(code)─► Gaussians ─► image
    webcam ─tracking─► FaceState ──────────────────────────────────┘

Units are metres, radians and seconds. Images are RGB in [0, 1], float32, channels first. Poses are
`a_from_b` (see geometry.py). Quaternions are wxyz. Left and right are the subject's.

Dimension letters: V reference views, C cameras, H W image, N Gaussians, E expression code length,
K identity coefficients of the head template.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """Pinhole cameras, OpenCV axes (x right, y down, z forward); pixel centres at +0.5.

    Attributes:
        intrinsics: Pixel units; [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].
        camera_from_head: Maps head-frame points (metres) to the camera frame.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    intrinsics: Float[Tensor, "*c 3 3"]
    camera_from_head: Float[Tensor, "*c 4 4"]
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"expected a positive image size, got {self.width}x{self.height}")
        if self.intrinsics.shape[-2:] != (3, 3) or self.camera_from_head.shape[-2:] != (4, 4):
            raise ValueError(
                f"expected intrinsics (..., 3, 3) and camera_from_head (..., 4, 4), got "
                f"{tuple(self.intrinsics.shape)} and {tuple(self.camera_from_head.shape)}"
            )

    def __getitem__(self, index: Any) -> "Camera":
        """Select along the leading camera dimension."""
        return replace(
            self, intrinsics=self.intrinsics[index], camera_from_head=self.camera_from_head[index]
        )


@dataclass(frozen=True)
class FaceState:
    """What the tracker saw in one image.

    Attributes:
        stamp_s: Acquisition time of the image, seconds (the camera's clock, never the tracker's).
        detected: False when no face was found; every other field is then its neutral value.
        confidence: In [0, 1]; 0 when nothing was detected.
        code: `arkit_52` scores in [0, 1] (expression.py).
        gaze: Yaw and pitch of the mean eye direction in the head frame, radians; + is the subject's
            left and up.
        camera_from_head: Head pose in the OpenCV camera frame, metres.
        landmarks_px: 478 MediaPipe landmarks in pixels (centres at +0.5), empty if no face.
        num_faces: Faces seen in the image; the largest one is reported.
    """

    stamp_s: float
    detected: bool
    confidence: float
    code: Float[np.ndarray, "52"]
    gaze: Float[np.ndarray, "2"]
    camera_from_head: Float[np.ndarray, "4 4"]
    landmarks_px: Float[np.ndarray, "l 2"]
    num_faces: int = 1

    @property
    def box_px(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the landmarks; there must be a face."""
        low, high = self.landmarks_px.min(0), self.landmarks_px.max(0)
        return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


@dataclass(frozen=True)
class SurfaceBinding:
    """Where points sit on the head template: a triangle and barycentric weights for each.

    Attributes:
        triangle_ids: Index into the template's triangles; -1 where a point is off the template.
        barycentrics: Weights of the triangle's corners, summing to 1; 0 where off the template.
    """

    triangle_ids: Int[Tensor, "*p"]
    barycentrics: Float[Tensor, "*p 3"]


@dataclass(frozen=True)
class HeadCrops:
    """V square head crops with fitted cameras: what capture hands to the position priors.

    Attributes:
        images: RGB in [0, 1], background black (already multiplied by `masks`).
        masks: Soft matte of the head in [0, 1], hair kept, cut at the neck.
        cameras: One camera per view; each is relative to the head at that view's moment.
        codes: Expression code of each view, as the template fit refined it, `arkit_52`.
        identity: Head-template identity coefficients (standard deviations).
        hair: Which pixels show hair, on the head template and beside it; None if nobody looked.
        num_guessed: How many views, the last ones, nobody photographed: they were lifted from the
            others, which speak first wherever they see anything.
        hair_thickness_m: Of the hair over each vertex of the head template, along its coarse
            normals, where it is known; None if it must be read off the masks.
        residuals_m: How far the landmarks of each view lie off the fitted head on the whole; None
            if nobody measured it.
        shown: Which pixels lie inside the photos; all of them if None.
        told: Where masks tell the head's end, everywhere if None: inside the photos, but not over
            the brows if a photo ends before the crown, as segmenters round off what is left.
    """

    images: Float[Tensor, "v 3 h w"]
    masks: Float[Tensor, "v 1 h w"]
    cameras: Camera
    codes: Float[Tensor, "v e"]
    identity: Float[Tensor, "k"]
    hair: Bool[Tensor, "v 1 h w"] | None = None
    num_guessed: int = 0
    hair_thickness_m: Float[Tensor, "n"] | None = None
    residuals_m: Float[Tensor, "v"] | None = None
    shown: Bool[Tensor, "v 1 h w"] | None = None
    told: Bool[Tensor, "v 1 h w"] | None = None


@dataclass(frozen=True)
class ReferenceViews:
    """V head crops of one person, each at its own moment and expression, in one common head frame.

    Attributes:
        images: RGB in [0, 1], background black.
        masks: Soft matte of the head in [0, 1].
        cameras: One camera per view; each is relative to the head at that view's moment.
        codes: Expression code of each view, in `code_space`.
        position_maps: Head-frame surface point of each pixel in that view's own expression,
            metres; 0 where the mask is 0.
        confidence: In [0, 1]; trust in the position times this view's claim to the surface.
        binding: Place of each pixel on the head template.
        identity: Head-template identity coefficients (standard deviations).
        code_space: A key of `expression.CODE_SPACES`.
        num_guessed: How many views, the last ones, nobody photographed.
        hair_thickness_m: Of the hair over each vertex of the head template, along its coarse
            normals, on which bound pixels lie; None if they lie on the template itself.
        details: What crops twice as fine (H' = 2 H) show beyond `images`; None if nobody looked.
        told: Where masks tell the head's end, everywhere if None (`HeadCrops`).
    """

    images: Float[Tensor, "v 3 h w"]
    masks: Float[Tensor, "v 1 h w"]
    cameras: Camera
    codes: Float[Tensor, "v e"]
    position_maps: Float[Tensor, "v 3 h w"]
    confidence: Float[Tensor, "v 1 h w"]
    binding: SurfaceBinding
    identity: Float[Tensor, "k"]
    code_space: str = "arkit_52"
    num_guessed: int = 0
    hair_thickness_m: Float[Tensor, "n"] | None = None
    details: Float[Tensor, "v 3 fh fw"] | None = None
    told: Bool[Tensor, "v 1 h w"] | None = None

    def __getitem__(self, index: Any) -> "ReferenceViews":
        """Select along the leading dimension; what is the person's, and `num_guessed`, stays."""
        return replace(
            self,
            images=self.images[index],
            masks=self.masks[index],
            cameras=self.cameras[index],
            codes=self.codes[index],
            position_maps=self.position_maps[index],
            confidence=self.confidence[index],
            binding=SurfaceBinding(
                self.binding.triangle_ids[index], self.binding.barycentrics[index]
            ),
            details=None if self.details is None else self.details[index],
            told=None if self.told is None else self.told[index],
        )


@dataclass(frozen=True)
class Gaussians:
    """Anisotropic 3D Gaussians in the head frame.

    Attributes:
        means: Centres, metres.
        quats_wxyz: Unit quaternions, head_from_gaussian.
        scales: Standard deviations along the Gaussian's own axes, metres, > 0.
        opacities: In [0, 1].
        colors: RGB; clamped to [0, 1] only when an image leaves the renderer.
    """

    means: Float[Tensor, "n 3"]
    quats_wxyz: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    colors: Float[Tensor, "n 3"]

    def __len__(self) -> int:
        return self.means.shape[0]

    def to(self, device: Any) -> "Gaussians":
        """Return the same Gaussians on another device."""
        return Gaussians(
            **{name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        )


@dataclass(frozen=True)
class Avatar:
    """One person, ready to be animated: everything that does not depend on the expression.

    Attributes:
        avatar_id: Hash of the content (see avatar_file.py); "" until it has been saved or sealed.
        code_space: Code space the avatar is driven with.
        model: Preset name of the network that made it.
        weights_sha256: Hash of that network's weights; "" for the untrained base guess.
        config: The network's configuration as plain JSON data.
        tensors: Cached prefix, base guess and bindings, by name; the model package owns the names.
        metadata: Owner, created (ISO 8601), consent, expires, and other JSON data.
        thumbnails: Small RGB uint8 pictures of the references, (V, h, w, 3); may be empty.
    """

    avatar_id: str
    code_space: str
    model: str
    weights_sha256: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    thumbnails: np.ndarray | None = None
