"""Argument values shared by several subcommands, parsed with errors that name what was expected."""

import pathlib
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from avat3r_ros import geometry
from avat3r_ros.expression import arkit_code
from avat3r_ros.types import Camera

HEAD_CENTER = np.array([0.0, -0.02, -0.06])
"""Point that orbit cameras look at: mid-head, a little below and behind the sellion."""

VERTICAL_FIELD_OF_VIEW_RAD = 0.56
"""Of rendered pictures; shows head and neck at the default distance of 0.6 m. Ours."""


def parse_expression(text: str | None) -> np.ndarray:
    """Turn `jawOpen=0.6,eyeBlink=1` into an `arkit_52` code; None or "" is neutral."""
    scores = {}
    for item in filter(None, (text or "").split(",")):
        name, separator, value = item.partition("=")
        try:
            scores[name.strip()] = float(value)
        except ValueError:
            separator = ""
        if not separator:
            raise ValueError(f"expected NAME=SCORE in --expression, got {item!r}")
    return arkit_code(**scores)


def parse_background(text: str) -> Float[np.ndarray, "3"]:
    """Turn black, white or `r,g,b` into RGB in [0, 1], float32."""
    named = {"black": "0,0,0", "white": "1,1,1"}
    try:
        red, green, blue = (float(v) for v in named.get(text, text).split(","))
    except ValueError:
        raise ValueError(f"expected black, white or r,g,b for --background, got {text!r}") from None
    if not all(0 <= v <= 1 for v in (red, green, blue)):
        raise ValueError(f"expected background values in [0, 1], got {text!r}")
    return np.array([red, green, blue], np.float32)


def parse_camera(text: str) -> tuple[float, float, float]:
    """Turn `yaw,pitch,distance` (degrees, degrees, metres) into radians and metres."""
    try:
        yaw, pitch, distance = (float(v) for v in text.split(","))
    except ValueError:
        raise ValueError(
            f"expected 'orbit' or yaw,pitch,distance (e.g. 20,5,0.6) for --camera, got {text!r}"
        ) from None
    return float(np.radians(yaw)), float(np.radians(pitch)), distance


def head_camera(yaw_rad: float, pitch_rad: float, distance_m: float, size: int) -> Camera:
    """A square camera on an orbit around the head, as a batch of one."""
    focal = size / (2 * np.tan(VERTICAL_FIELD_OF_VIEW_RAD / 2))
    pose = geometry.look_at_head(yaw_rad, pitch_rad, distance_m, HEAD_CENTER)
    intrinsics = geometry.intrinsics_matrix(focal, size / 2, size / 2)
    return Camera(
        intrinsics=torch.tensor(intrinsics, dtype=torch.float32)[None],
        camera_from_head=torch.tensor(pose, dtype=torch.float32)[None],
        width=size,
        height=size,
    )


def stereo_pair(camera: Camera, ipd_m: float, distance_m: float) -> Camera:
    """The left and the right eye of a viewer in a camera's place.

    The eyes look straight ahead, and each image is shifted so that things `distance_m` away lie at
    the same place in both: converging cameras would tilt the planes of the images instead.

    Args:
        camera: A batch of one.
        ipd_m: Distance between the eyes.
        distance_m: Where the pair has no parallax.
    """
    intrinsics = camera.intrinsics.repeat(2, 1, 1)
    poses = camera.camera_from_head.repeat(2, 1, 1)
    for index, offset_m in enumerate((-0.5 * ipd_m, 0.5 * ipd_m)):
        poses[index, 0, 3] -= offset_m
        intrinsics[index, 0, 2] += intrinsics[index, 0, 0] * offset_m / distance_m
    return replace(camera, intrinsics=intrinsics, camera_from_head=poses)


def output_path(text: str, *suffixes: str) -> pathlib.Path:
    """Check an output file's suffix before any work is done, and make its folder."""
    path = pathlib.Path(text)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"expected an output ending in {' or '.join(suffixes)}, got {text!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
