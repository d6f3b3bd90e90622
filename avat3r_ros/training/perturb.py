"""Other errors of the fit and of the camera: references as they could have been as well.

Synthetic photos are all taken and fitted in one way, and real ones are not. So some people's
references are disturbed when they come to hand, and the truth stays: what is left to learn is to
see how photos lie on the geometry they come with, and on each other.

    per view   a similarity about the middle of the head (pose, size), of cameras and points alike
               a stretch along the rays, smooth over the image (shape in depth)
               exposure and white balance

The first two keep every point on its pixel's ray, so rays do not give the disturbance away.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from avat3r_ros.geometry import invert_poses
from avat3r_ros.training.alignment import Similarity
from avat3r_ros.training.people import TrainingPerson
from avat3r_ros.types import Camera

_MIDDLE_HEAD_M = np.array([0.0, 0.0, -0.08])


@dataclass(frozen=True)
class Perturbation:
    """Spreads of the disturbance of each view; larger ones teach more looking, less guessing.

    The defaults are about half the size of the errors of a fit, which they add to (ours).

    Attributes:
        share: People who are disturbed; the others' references stay as they are.
        turn_deg: Rotation about a random axis.
        shift_m: Translation along each axis.
        growth: Relative size.
        stretch: Relative distance from the camera, at the head's edge.
        exposure: Relative brightness.
        tint: Relative brightness of each channel.
    """

    share: float = 0.5
    turn_deg: float = 0.8
    shift_m: float = 0.001
    growth: float = 0.008
    stretch: float = 0.003
    exposure: float = 0.06
    tint: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"expected share in [0, 1], got {self.share}")
        for name in ("turn_deg", "shift_m", "growth", "stretch", "exposure", "tint"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"expected {name} >= 0, got {getattr(self, name)}")


def perturbed(one: TrainingPerson, how: Perturbation, rng: np.random.Generator) -> TrainingPerson:
    """Return the person with otherwise wrong references; the truth is the same.

    Gaussians keep their orientation. What is kept at hand (rig, patches ...) is dropped: it has to
    be made anew.
    """
    views, base = one.views, one.base
    positions = views.position_maps.clone()
    means, colors = base.gaussians.means.clone(), base.gaussians.colors.clone()
    images = views.images.clone()
    intrinsics, poses = views.cameras.intrinsics, views.cameras.camera_from_head.clone()
    rows = base.code_rows[: base.num_pixels]
    for view in range(len(positions)):
        moved = _similarity(how, rng)
        camera = moved.cameras(views.cameras[view])
        center = invert_poses(camera.camera_from_head.float())[:3, 3]
        stretch = torch.from_numpy(rng.normal(0, how.stretch, 6)).to(center)
        poses[view] = camera.camera_from_head
        flat = positions[view].flatten(1).T
        positions[view] = _stretched(moved.points(flat), center, stretch).T.view_as(positions[view])
        gain = np.exp(rng.normal(0, how.exposure) + rng.normal(0, how.tint, 3))
        gain = torch.from_numpy(gain).to(colors)
        images[view] = (images[view] * gain[:, None, None]).clamp(0, 1)
        own = (rows == view).nonzero()[:, 0]
        colors[own] = (colors[own] * gain).clamp(0, 1)
        means[own] = _stretched(moved.points(means[own]), center, stretch)
    return replace(
        one,
        views=replace(
            views,
            images=images,
            position_maps=positions * (views.masks > 0),
            cameras=Camera(intrinsics, poses, views.cameras.width, views.cameras.height),
        ),
        base=replace(base, gaussians=replace(base.gaussians, means=means, colors=colors)),
        motion=None,
        patches=None,
        evidence=None,
        shared=None,
    )


def _similarity(how: Perturbation, rng: np.random.Generator) -> Similarity:
    turn = np.radians(rng.normal(0, how.turn_deg / np.sqrt(3), 3))
    rotation = Rotation.from_rotvec(turn).as_matrix()
    scale = float(np.exp(rng.normal(0, how.growth)))
    shift = rng.normal(0, how.shift_m, 3)
    return Similarity(scale, rotation, _MIDDLE_HEAD_M - scale * rotation @ _MIDDLE_HEAD_M + shift)


def _stretched(
    points: Float[Tensor, "n 3"], center: Float[Tensor, "3"], stretch: Float[Tensor, "6"]
) -> Float[Tensor, "n 3"]:
    """Move points along their rays by a quadratic in their place across the head."""
    x, y = points[:, 0] / 0.1, points[:, 1] / 0.1  # about +-1 on the face's edge
    terms = torch.stack([0.5 * torch.ones_like(x), x, y, x * x - 0.5, x * y, y * y - 0.5], -1)
    return center + (points - center) * (1 + terms @ stretch)[:, None]
