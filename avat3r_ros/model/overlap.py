"""Where pixels' discs must lie so that their colours appear where the photo shows them.

Splats are drawn front to back and each is nearly opaque, so a disc covers much of its neighbour
behind and nothing of the one in front:

    seen from here ↓         what is left of each disc lies on its far side, and the whole surface
     ◖█◖█◖█◖█  ─► farther    appears 0.4 pixels farther from the viewer, however little it slopes

Uncorrected, cheeks and foreheads of avatars bulge by 0.3 to 0.45 pixels of a reference (0.7 mm) in
the very view of their photo. The shift is the same on every slope and is one of the surface, not of
the picture, so that moving each disc against it puts it right for all viewers on that side of it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.geometry import invert_poses, matrices_from_quats_wxyz
from avat3r_ros.model.pixel_maps import smoothed
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.types import Camera

PIXEL_SIGMA = 0.55
"""Standard deviation of a pixel's disc in pixel footprints. Larger blurs, smaller lets light
through: on rendered heads drawn at twice the references' resolution 0.55 gives the best PSNR (28.6
dB; 27.1 at 0.45, 27.9 at 0.65), and 0.25 % of the background shows."""

SHIFT_PX = 0.39
"""How far a surface of discs with `PIXEL_SIGMA` appears moved, in its pixels: of a plane of discs,
front to back; optical flow between photos and their avatars finds 0.3 to 0.45."""

SPREAD = 0.3
"""Viewers stand around each photo's camera, too, this far aside for each unit of distance."""

SMOOTH = 0.015
"""Shifts are smoothed over this share of the picture's side."""


def overlap_shifts(base: BaseGuess, cameras: Camera) -> Float[Tensor, "p 3"]:
    """How far the discs of pixels have to move, along their surface, metres.

    It is towards those who look at them. Where they disagree about which side of a disc is the
    nearer one, in the middle of the face, it is their mean. Round Gaussians, which lie on no
    surface, stay.

    Args:
        base: On the CPU. Whether its discs have moved already makes no difference to speak of.
        cameras: The photos'; viewers are taken to stand around them.
    """
    count = base.num_pixels
    g = base.gaussians
    scales = g.scales[:count]
    flat = scales[:, 2] < scales[:, 1]
    axes = matrices_from_quats_wxyz(g.quats_wxyz[:count])[..., :2]
    # A step of one pixel along each axis of a disc.
    steps = (axes * scales[:, None, :2] / PIXEL_SIGMA).transpose(1, 2)  # (P, 2, 3)
    # How much nearer each step is to each viewer, up to a factor per disc and viewer.
    slopes = steps @ _viewers(cameras).T - (steps @ g.means[:count, :, None])  # (P, 2, K)
    lengths = torch.hypot(*slopes.unbind(1)).clamp(min=1e-12)
    nearer = (slopes / lengths[:, None]).mean(-1)
    shifts = SHIFT_PX * (nearer[..., None] * steps).sum(1)
    # Triangles are flat: between them unsmoothed shifts would open gaps.
    shifts = smoothed(shifts * flat[:, None], base, len(cameras.intrinsics), SMOOTH)
    return shifts * flat[:, None]


def _viewers(cameras: Camera) -> Float[Tensor, "k 3"]:
    """Places from which the head is looked at: cameras, and left, right, above and below them."""
    pose = cameras.camera_from_head.float()
    centers = invert_poses(pose)[:, :3, 3]
    distance = centers.norm(dim=-1)[:, None]
    right, down = pose[:, 0, :3], pose[:, 1, :3]
    aside = SPREAD * distance
    around = [right * aside, -right * aside, down * aside, -down * aside]
    return torch.cat([centers, *(centers + step for step in around)])
