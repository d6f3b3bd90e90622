"""What the photos of a build do not show or show badly, with a remedy."""

from collections.abc import Sequence

import numpy as np
import torch

from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.geometry import project_points, transform_points
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import FaceState

FRONTAL_SPREAD_RAD = np.radians(12.0)
"""Below this spread of yaw the sides of the head are mostly guessed."""

SIDE_RAD = np.radians(10.0)
"""A photo turned by less does not show the ear of that side."""

MAX_RESIDUAL_FRACTION = 0.03
"""Landmark residual of a photo, relative to its face height, above which its fit is doubtful."""

HAIR_M = 0.01
"""Of hair above the scalp, at least, for the top of a head to be in the picture."""


def side_warnings(fit: TemplateFit) -> list[str]:
    """Sides of the head that several photos do not show."""
    warnings = []
    back = np.asarray(fit.camera_from_head)[:, :3, :3].transpose(0, 2, 1) @ np.array([0, 0, -1.0])
    yaw = np.arctan2(back[:, 0], back[:, 2])
    if np.ptp(yaw) < FRONTAL_SPREAD_RAD:
        warnings.append(
            f"all photos are within {np.degrees(np.ptp(yaw)):.0f} degrees of yaw: the sides and "
            "ears are guessed; add photos with the head turned left and right"
        )
    else:
        # Yaw is positive where the camera stands on the subject's left: the head turned right.
        for side, turn, seen in (("left", "right", yaw.max()), ("right", "left", -yaw.min())):
            if seen < SIDE_RAD:
                warnings.append(
                    f"no photo shows the {side} side: its cheek and ear are guessed; add one with "
                    f"the head turned to the {turn}"
                )
    return warnings


def crown_warnings(
    fit: TemplateFit, sizes_px: Sequence[tuple[int, int]], template: HeadTemplate
) -> list[str]:
    """The top of the head, if it is beyond the border of every photo.

    Args:
        fit: Of all photos.
        sizes_px: Width and height of each photo.
        template: What was fitted.
    """
    vertices = template.vertices(torch.from_numpy(fit.identity).float()).double()
    crown = vertices[vertices[:, 1].argmax()] + torch.tensor([0.0, HAIR_M, 0.0])
    poses = torch.from_numpy(fit.camera_from_head).double()
    crowns = transform_points(poses, crown.expand(len(poses), 1, 3))
    pixels = project_points(torch.from_numpy(fit.intrinsics).double(), crowns)[:, 0]
    inside = (pixels >= 0) & (pixels <= torch.tensor(sizes_px))
    if bool(inside.all(-1).any()):
        return []
    return ["no photo shows the top of the head: it is guessed; leave room above the hair"]


def photo_warnings(fit: TemplateFit, faces: Sequence[FaceState], names: Sequence[str]) -> list[str]:
    """Photos whose fit is doubtful or whose eyes are closed."""
    warnings = []
    for index, (face, name) in enumerate(zip(faces, names, strict=True)):
        residual = float(fit.residual_px[index])
        height = float(np.ptp(face.landmarks_px[:, 1]))
        if residual > MAX_RESIDUAL_FRACTION * height:
            warnings.append(
                f"{name}: landmarks miss the fitted head by {residual:.1f} px "
                f"({residual / height:.0%} of the face); same person, unmirrored, sharp?"
            )
        unmatched = fit.num_matches is not None and fit.num_matches[index] == 0
        if unmatched and len(faces) > 1:
            warnings.append(
                f"{name}: shares no detail of the skin with the other photos, so its camera rests "
                "on the face's landmarks alone; is it sharp, and turned at most 40 degrees away "
                "from the next photo?"
            )
        blink = max(face.code[0], face.code[7])
        if blink > 0.6:
            warnings.append(f"{name}: eyes are closed; a photo with open eyes gives better eyes")
    return warnings
