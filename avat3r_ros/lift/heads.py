"""The lift of our own: one photo to six views, by a head learned on synthetic people.

    photo ──► hair: thickness at the outline, presence by colour ──► completed (looks.hair)
      │                                                                   │ shell over the template
      ├─────► colours of the vertices that it shows ──► completed (looks.skin, looks.hair),
      │                                                 corrected by the other side of the face
      └─────► what it shows is taken from it, pixel by pixel ─────────────┴──► five pictures

The shape is the template as it was fitted to the photo, so the pictures' cameras are exact.
"""

import dataclasses

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from avat3r_ros import native
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.lift.hair import UNLIKE_SKIN, find_hair
from avat3r_ros.lift.photo import PhotoOnHead, mix
from avat3r_ros.lift.strands import strands
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.fields import follow
from avat3r_ros.rig.framing import (
    BOX_CENTER_HEAD_M,
    BOX_SIZE_M,
    NECK_BELOW_CHIN_M,
    height_over_chin_plane,
)
from avat3r_ros.rig.looks import (
    HAIR_CHANNELS,
    HAIR_NOISE,
    SKIN_NOISE,
    Components,
    HeadLooks,
    mirrored_vertices,
)
from avat3r_ros.types import Camera, HeadCrops

DIRECTIONS_DEG = ((-55, 0), (55, 0), (0, 45), (0, -30), (180, 0))
"""Yaw and pitch of the pictures' cameras. The paper's author stayed within 22.5 degrees to the
sides and 11.5 up and down, where a 3D GAN still holds; this head has sides and a back."""

DISTANCE_M = 0.8
SUPERSAMPLING = 2

CLOTHES_BRIGHTER, CLOTHES_HUE = 0.35, 0.4
"""A pixel on the neck is cloth when its log colour is this much brighter than skin, or differs this
much in hue."""

GAIN_SPREAD = 0.4
"""Spread of the photo's exposure and tint (log), which the drawn people do not have."""

TEXTURE_WEIGHT = 0.02
"""Independent observations that a vertex counts as: neighbours tell the same."""

SEEN_WEIGHT, MIRROR_WEIGHT = 4.0, 0.4
"""How closely colours follow the photo, and what it shows of the other side of the head."""

SMOOTHNESS, REST = 0.1, 0.003
"""What the photo shows at its outline, such as a rim of light, fades over some six vertices."""

LIGHTEST = 0.8
"""Guessed skin is no lighter than this quantile of the skin that the photo shows: a rim of light
would spread over the hidden side."""

MIN_STRAND_PIXELS, MAX_STRAND_CONTRAST, USUAL_STRAND_CONTRAST = 200, 0.2, 0.15
"""Hair that the photo shows on so many pixels lends its contrast to the strands of the rest."""

FULL_STRANDS_M, CROPPED_SHARE = 0.01, 0.25
"""Hair of this thickness shows its strands in full, cropped hair this share of them."""

MAX_DETAIL = 0.5
"""What the other side lends differs from the smooth colours by at most this (log): hairlines,
lashes and shadows lie elsewhere here."""


def lift(crops: HeadCrops, template: HeadTemplate, looks: HeadLooks | None = None) -> HeadCrops:
    """Make five more views of a head of which there is one photo.

    Args:
        crops: One fitted view.
        template: The head model of the fit.
        looks: What heads look like; the shipped prior if None.

    Returns:
        The photo without clothes and what lies at its outline, then the pictures of
        `DIRECTIONS_DEG` in the photo's expression, with the hair over the template that they show.

    Raises:
        ValueError: There is not exactly one view, or it shows nothing of the face.
    """
    if len(crops.codes) != 1:
        raise ValueError(f"expected one photo to lift, got {len(crops.codes)}")
    looks = looks or HeadLooks.load()
    head = _WholeHead(PhotoOnHead(crops, template), looks, _chin(template, crops))
    cameras = _cameras(crops.images.shape[-1])
    pictures = [head.draw(camera) for camera in cameras]
    mask = torch.from_numpy(head.photo.view.mask).float()[None, None]
    return HeadCrops(
        images=torch.cat([crops.images * (mask > 0), torch.stack([p[0] for p in pictures])]),
        masks=torch.cat([mask, torch.stack([p[1] for p in pictures])]),
        cameras=Camera(
            torch.cat([crops.cameras.intrinsics, torch.stack([c.intrinsics for c in cameras])]),
            torch.cat(
                [crops.cameras.camera_from_head, torch.stack([c.camera_from_head for c in cameras])]
            ),
            crops.cameras.width,
            crops.cameras.height,
        ),
        codes=crops.codes.expand(1 + len(cameras), -1).clone(),
        identity=crops.identity,
        num_guessed=len(cameras),
        hair_thickness_m=torch.from_numpy(head.shell.thickness_m).float(),
        shown=_with_whole_views(crops.shown, len(cameras)),
        told=_with_whole_views(crops.told, len(cameras)),
    )


def _with_whole_views(
    shown: Bool[torch.Tensor, "1 1 h w"] | None, views: int
) -> Bool[torch.Tensor, "v 1 h w"] | None:
    """What of the photo is shown, and all of so many more views."""
    if shown is None:
        return None
    return torch.nn.functional.pad(shown, (0,) * 7 + (views,), value=True)


def _cameras(size: int) -> list[Camera]:
    k = torch.tensor(intrinsics_matrix(size * DISTANCE_M / BOX_SIZE_M, size / 2, size / 2)).float()
    poses = [
        look_at_head(*np.radians(angles), DISTANCE_M, BOX_CENTER_HEAD_M)
        for angles in DIRECTIONS_DEG
    ]
    return [Camera(k, torch.tensor(pose).float(), size, size) for pose in poses]


class _WholeHead:
    """Shape and colours of the photo's head, completed all round."""

    def __init__(self, photo: PhotoOnHead, looks: HeadLooks, chin: np.ndarray) -> None:
        self.photo, self.looks, self.chin = photo, looks, chin
        self.mirror = mirrored_vertices(photo.template)
        self.shell = find_hair(photo, looks.hair)
        photo.draw_hair(self.shell.thickness_m, self.shell.present)
        photo.leave_out(self._clothes())
        self.seen, colors = photo.look()
        self.own = np.where(photo.hair, photo.hair_trust(), self.seen)
        same = self.shell.present == self.shell.present[self.mirror]
        self.alike = photo.narrowed(self.seen, same)
        self.log_colors = self._complete(colors)
        self.strand_contrast = self._strand_contrast()
        photo.leave_out(photo.smeared())

    def _clothes(self) -> Bool[np.ndarray, "h w"]:
        """Pixels on the neck that are brighter than the person's skin or of another hue."""
        photo = self.photo
        bare = ~self.shell.present[photo.view.triangles[photo.view.ids]].any(-1)
        change = photo.log_photo - photo.skin_color()
        brighter = change.mean(-1) > CLOTHES_BRIGHTER
        hue = np.linalg.norm(change - change.mean(-1, keepdims=True), axis=-1)
        return photo.shows("neck") & bare & (brighter | (hue > CLOTHES_HUE))

    def _complete(self, colors: np.ndarray) -> np.ndarray:
        """Log colours of all vertices of the shell."""
        present = self.shell.present
        trusted = TEXTURE_WEIGHT * self.seen
        weights = np.repeat((trusted * ~present)[:, None], 3, 1)
        skin = _with_gain(self.looks.skin, 0).complete(colors, weights / SKIN_NOISE**2)
        observed = np.concatenate([np.zeros((len(colors), 2)), colors], 1)
        if self.photo.cuts_crown:
            trusted, observed = self._of_cut_hair(trusted, observed)
        weights = np.repeat((trusted * present)[:, None], HAIR_CHANNELS, 1)
        weights[:, :2] = 0
        hair = _with_gain(self.looks.hair, 2).complete(observed, weights / HAIR_NOISE**2)[:, 2:]
        guide = np.where(present[:, None], hair, skin)
        # What the components cannot say about one side holds for the other, too.
        gap = np.where(self.seen[:, None] > 0, colors - guide, 0)
        other = self.alike[self.mirror]
        direct = SEEN_WEIGHT * self.seen
        mirrored = MIRROR_WEIGHT * other * (1 - self.seen)
        total = direct + mirrored
        mixed = direct[:, None] * gap + mirrored[:, None] * gap[self.mirror]
        mixed /= np.maximum(total, 1e-9)[:, None]
        mixed = follow(guide, guide + mixed, total, self.photo.laplacian, SMOOTHNESS, REST)
        return mixed - (self._too_light(mixed, colors) * (1 - self.seen))[:, None]

    def _too_light(self, log_colors: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """By how much skin is lighter than most of what the photo shows, log; 0 where it is not."""
        bare = ~self.shell.present
        seen = bare & (self.seen > 0.5)
        lightest = np.quantile(observed[seen].mean(1), LIGHTEST) if seen.any() else np.inf
        return (log_colors.mean(1) - lightest).clip(0) * bare

    def _of_cut_hair(
        self, trusted: np.ndarray, observed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is known of hair of which the photo shows a rim: without skin, with its colour."""
        from_skin = np.linalg.norm(observed[:, 2:] - self.photo.skin_color(), axis=1)
        trusted = np.where(from_skin < UNLIKE_SKIN, 0.0, trusted)
        if self.shell.color is not None:
            unknown = trusted == 0
            observed = np.where(unknown[:, None], [0.0, 0.0, *self.shell.color], observed)
            trusted = np.where(unknown, TEXTURE_WEIGHT, trusted)
        return trusted, observed

    def _strand_contrast(self) -> float:
        """Spread of the photo's hair around its smooth colours, log; 0 where it shows none.

        Of hair that the photo cuts off nobody knows; without strands it would be a cap.
        """
        view = self.photo.view
        on = view.on_mesh & self.photo.solid
        on[on] = self.shell.present[view.triangles[view.ids[on]]].all(-1)
        corners, shares = view.triangles[view.ids[on]], view.weights[on].astype(np.float64)
        sure = mix(self.seen[:, None], corners, shares)[:, 0] > 0.5
        if sure.sum() < MIN_STRAND_PIXELS:
            return USUAL_STRAND_CONTRAST if self.photo.cuts_crown else 0.0
        gap = self.photo.log_photo[on] - mix(self.log_colors, corners, shares)
        return float(min(gap.mean(-1)[sure].std(), MAX_STRAND_CONTRAST))

    def _strands(self, corners: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Texture of guessed hair at points of the surface, (n, 1) log."""
        neutral = self.photo.template.neutral.double().numpy()
        length = (self.shell.thickness_m / FULL_STRANDS_M).clip(CROPPED_SHARE, 1)
        hair = mix((self.shell.present * length)[:, None], corners, shares)
        return self.strand_contrast * hair * strands(mix(neutral, corners, shares))[:, None]

    def draw(
        self, camera: Camera
    ) -> tuple[Float[torch.Tensor, "3 h w"], Float[torch.Tensor, "1 h w"]]:
        """Picture of the head before black, and its mask."""
        photo = self.photo
        k = camera.intrinsics.double().numpy().copy()
        k[:2] *= SUPERSAMPLING
        size = (camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
        triangles = photo.template.triangles_without_lashes().int().numpy()
        ids, shares, _ = native.rasterize_mesh(
            photo.view.vertices, triangles, k, camera.camera_from_head.double().numpy(), *size
        )
        on = ids >= 0
        corners, shares = photo.view.triangles[ids[on]], shares[on].astype(np.float64)
        low = mix(self.log_colors, corners, shares)
        direct, own = photo.at(corners, shares, self.own)
        opposite = self.mirror[corners]
        mirrored, other = photo.at(opposite, shares, self.alike)
        detail = (mirrored - mix(self.log_colors, opposite, shares)).clip(-MAX_DETAIL, MAX_DETAIL)
        combed = self._strands(corners, shares)
        guess = low + other[:, None] * detail + (1 - other[:, None]) * combed
        log_color = guess + own[:, None] * (direct - guess)
        points = mix(photo.view.vertices.astype(np.float64), corners, shares)
        neck = photo.template.region_mask("neck", "scalp").numpy()[ids[on]]
        below = neck & (height_over_chin_plane(points, self.chin) < -NECK_BELOW_CHIN_M)
        rgba = np.zeros((*ids.shape, 4))
        rgba[on] = np.concatenate([np.exp(log_color), np.ones((len(points), 1))], 1)
        rgba[on] *= ~below[:, None]
        rgba = cv2.resize(rgba, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        picture = torch.from_numpy(rgba).float().movedim(-1, 0)
        return picture[:3].clamp(0, 1), picture[3:].clamp(0, 1)


def _chin(template: HeadTemplate, crops: HeadCrops) -> np.ndarray:
    return template.landmarks(template.vertices(crops.identity))[CHIN_LANDMARK].numpy()


def _with_gain(components: Components, first: int) -> Components:
    """Components that may also change all colours, the channels from the first on, alike."""
    gains = np.zeros((3, *components.mean.shape))
    for channel in range(3):
        gains[channel, :, first + channel] = GAIN_SPREAD
    return dataclasses.replace(components, basis=np.concatenate([components.basis, gains]))
