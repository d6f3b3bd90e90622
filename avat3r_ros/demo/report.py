"""What a demo run leaves behind: contact sheet, video and report.json."""

import pathlib
from collections.abc import Sequence

import numpy as np

from avat3r_ros.animation import Animator
from avat3r_ros.capture.video import VideoWriter
from avat3r_ros.commands._arguments import head_camera
from avat3r_ros.demo.scoring import DemoFrame, Truth
from avat3r_ros.expression import arkit_code
from avat3r_ros.pictures import contact_sheet, fit_square, middle_cut, uint8_image, write_png
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.types import Avatar

NOVEL_VIEWS_DEG = ((-45, 0), (-30, 0), (-15, 0), (0, 20), (0, -15), (15, 0), (30, 0), (45, 0))
"""Yaw and pitch of the novel views on the contact sheet."""

VIDEO_SIDE_PX = 512


def write_contact_sheet(
    path: pathlib.Path,
    references: Sequence[np.ndarray],
    frames: Sequence[DemoFrame],
    truths: Sequence[Truth],
    avatar: Avatar,
) -> None:
    """Draw references, driver beside avatar beside truth, and views nobody photographed."""
    gaussians = Animator(avatar).animate(arkit_code(mouthSmile=0.5))
    novel = [
        uint8_image(
            render_gaussians(gaussians, head_camera(np.radians(yaw), np.radians(pitch), 0.6, 256))
            .rgb[0]
            .numpy()
        )
        for yaw, pitch in NOVEL_VIEWS_DEG
    ]
    # The middle alone: the face is larger on the sheet.
    shown = [middle_cut(image, 1, 1) for image in references]
    rows = [("references, captured over ROS", shown)]
    for start in range(0, len(frames), 8):
        part, true = frames[start : start + 8], truths[start : start + 8]
        rows += [
            ("driver's camera", [middle_cut(frame.driver, 1, 1) for frame in part]),
            ("avatar, as the renderer published it", [frame.rendered for frame in part]),
            ("truth from the same camera", [truth.picture for truth in true]),
        ]
    rows.append((f"novel views of a smile, yaw and pitch {NOVEL_VIEWS_DEG} degrees", novel))
    write_png(contact_sheet(rows, 224), path)


def write_video(
    path: pathlib.Path, frames: Sequence[tuple[float, np.ndarray, np.ndarray]], fps: float
) -> None:
    """Write driver and avatar side by side.

    Args:
        path: An .mp4 file.
        frames: Stamp, driver's picture and rendered picture of each moment.
        fps: Frame rate of the video.
    """
    with VideoWriter(path, 2 * VIDEO_SIDE_PX, VIDEO_SIDE_PX, fps) as writer:
        for _, driver, rendered in frames:
            pair = [fit_square(picture, VIDEO_SIDE_PX) for picture in (driver, rendered)]
            writer.write(np.concatenate(pair, axis=1))
