"""The page on which a build explains itself: what each photo gave, and what came out.

me.avat3r
me_report/report.html     beside PNGs: photo, fitted head, crop, matte, positions, confidence,
                          and the avatar from eight directions
"""

import html
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from avat3r_ros import native
from avat3r_ros.animation import Animator
from avat3r_ros.commands._arguments import head_camera
from avat3r_ros.files import write_text
from avat3r_ros.geometry import camera_direction, crop_and_resize_intrinsics
from avat3r_ros.pictures import uint8_image, write_png
from avat3r_ros.pipeline import BuildResult
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate

PAGE = "report.html"
DIRECTIONS_DEG = ((-60, 0), (-30, 0), (0, 0), (30, 0), (60, 0), (0, 25), (0, -20), (180, 0))
"""Yaw (positive: from the subject's left) and pitch of the avatar's pictures."""

SIDE_PX = 320
SHOWN_FACES = 1.9
"""Side of the photo's cutout, in heights of the face."""

POSITION_RANGE_M = 0.15
"""Distance from the sellion at which a coordinate has its full colour."""

COLUMNS = {
    "photo": "with what the tracker saw",
    "head": "the fitted head (blue) over it",
    "crop": "what is built from, colours made alike",
    "matte": "what belongs to the head",
    "positions": "where each pixel lies: red to the subject's left, green up, blue forward",
    "confidence": "how far this view is trusted there; black is left to the others or guessed",
}


def write_build_report(
    folder: pathlib.Path,
    result: BuildResult,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    names: Sequence[str],
) -> pathlib.Path:
    """Write the page and its pictures.

    Args:
        folder: Created if missing; pictures of an earlier report there are written over.
        result: Of the build.
        images: All photos that were given to it, RGB.
        names: How to call each.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    template = HeadTemplate.load()
    rows = []
    for view, index in enumerate(result.kept):
        pictures = _pictures_of_view(result, view, images[index], template)
        cells = []
        for kind, picture in pictures.items():
            name = f"view{view + 1}_{kind}.png"
            write_png(picture, folder / name)
            cells.append(f'<td><img src="{name}" alt="{kind} of view {view + 1}">')
        yaw, pitch = np.degrees(camera_direction(result.fit.camera_from_head[view]))
        facts = [
            f"yaw {yaw:.0f}, pitch {pitch:.0f} degrees",
            f"focal length {result.fit.intrinsics[view, 0, 0]:.0f} px",
            f"landmarks {result.fit.residual_px[view]:.1f} px from the fitted head",
        ]
        if result.fit.num_matches is not None:
            facts.append(f"{result.fit.num_matches[view]} spots found again in other photos")
        about = "<br>".join(facts)
        rows.append(f"<tr><th>{html.escape(names[index])}<p>{about}</p>{''.join(cells)}")
    rows += _guessed_rows(result, folder)
    directions = []
    for (yaw, pitch), picture in zip(DIRECTIONS_DEG, _directions(result), strict=True):
        name = f"avatar_{yaw}_{pitch}.png"
        write_png(picture, folder / name)
        directions.append(
            f'<figure><img src="{name}" alt="avatar"><figcaption>yaw {yaw}, pitch {pitch}'
            "</figcaption></figure>"
        )
    warnings = "".join(f"<li>{html.escape(warning)}" for warning in result.warnings)
    head = "".join(f"<th>{kind}<p>{text}</p>" for kind, text in COLUMNS.items())
    page = [
        "<!doctype html><meta charset=utf-8><title>avat3r build</title>",
        "<style>body{font:15px sans-serif;margin:2em}img{width:100%;display:block}"
        "table{border-spacing:.3em;table-layout:fixed;width:100%}"
        "th{text-align:left;vertical-align:top;overflow-wrap:anywhere}"
        "p,figcaption{font-weight:normal;font-size:12px;margin:.2em 0}"
        "figure{display:inline-block;width:23%;margin:.4em}li{margin:.3em 0}"
        ".warnings{background:#fff3d6;padding:.6em 2em}</style>",
        f"<h1>{len(result.kept)} of {len(images)} photos became a head</h1>",
        f'<ul class="warnings">{warnings}</ul>' if warnings else "<p>No warnings.",
        f"<table><tr><th>{head}{''.join(rows)}</table>",
        f"<h2>The avatar at rest, in degrees around it</h2>{''.join(directions)}",
    ]
    path = folder / PAGE
    write_text(path, "\n".join(page) + "\n")
    return path


def _pictures_of_view(
    result: BuildResult, view: int, image: np.ndarray, template: HeadTemplate
) -> dict[str, np.ndarray]:
    photo, k, landmarks = _cutout(image, result, view)
    marked = photo.copy()
    for x, y in landmarks:
        cv2.circle(marked, (round(float(x)), round(float(y))), 1, (80, 255, 80), -1)
    return {
        "photo": marked,
        "head": _overlay(photo, k, result, view, template),
        **_maps(result, view),
    }


def _maps(result: BuildResult, view: int) -> dict[str, np.ndarray]:
    """What the avatar is made of: the last four of `COLUMNS`."""
    views = result.views
    positions = views.position_maps[view].numpy() / (2 * POSITION_RANGE_M) + 0.5
    grey = {
        "matte": views.masks[view].numpy(),
        "confidence": views.confidence[view].numpy(),
    }
    return {
        "crop": uint8_image(views.images[view].numpy()),
        "matte": uint8_image(np.repeat(grey["matte"], 3, axis=0)),
        "positions": uint8_image(positions * (views.masks[view].numpy() > 0)),
        "confidence": uint8_image(np.repeat(grey["confidence"], 3, axis=0)),
    }


def _guessed_rows(result: BuildResult, folder: pathlib.Path) -> list[str]:
    """Rows of the views that nobody photographed, with their pictures written."""
    views, rows = result.views, []
    for number, view in enumerate(range(len(result.kept), len(views.images)), 1):
        yaw, pitch = np.degrees(camera_direction(views.cameras.camera_from_head[view].numpy()))
        cells = ["<td><td>"]
        for kind, picture in _maps(result, view).items():
            name = f"guess{number}_{kind}.png"
            write_png(picture, folder / name)
            cells.append(f'<td><img src="{name}" alt="{kind} of guess {number}">')
        about = f"yaw {yaw:.0f}, pitch {pitch:.0f} degrees"
        rows.append(f"<tr><th>guessed view {number}<p>{about}</p>{''.join(cells)}")
    return rows


def _cutout(
    image: np.ndarray, result: BuildResult, view: int
) -> tuple[np.ndarray, Float[np.ndarray, "3 3"], Float[np.ndarray, "478 2"]]:
    """The photo around the face at `SIDE_PX`, its intrinsics, and the landmarks in it."""
    landmarks = result.faces[view].landmarks_px.astype(np.float64)
    low, high = landmarks.min(0), landmarks.max(0)
    side = SHOWN_FACES * float(max(high - low))
    left, top = ((low + high) / 2 - side / 2 - np.array([0, 0.1 * side])).tolist()
    scale = SIDE_PX / side
    # OpenCV's pixel centres are integers.
    shift = np.array([[scale, 0, -scale * left], [0, scale, -scale * top]])
    shift[:, 2] += 0.5 * scale - 0.5
    if scale < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / scale)
    photo = cv2.warpAffine(np.ascontiguousarray(image), shift, (SIDE_PX, SIDE_PX))
    k = crop_and_resize_intrinsics(result.fit.intrinsics[view], left, top, side, SIDE_PX)
    return photo, k, (landmarks - [left, top]) * scale - 0.5


def _overlay(
    photo: np.ndarray, k: np.ndarray, result: BuildResult, view: int, template: HeadTemplate
) -> np.ndarray:
    """The fitted head in the photo's expression, shaded by its normals, half transparent."""
    fit = result.fit
    vertices = template.vertices(torch.from_numpy(fit.identity), torch.from_numpy(fit.codes[view]))
    triangles = template.triangles_without_lashes().int().numpy()
    pose = fit.camera_from_head[view]
    seen = native.rasterize_mesh(vertices.numpy(), triangles, k, pose, SIDE_PX, SIDE_PX)
    shown = seen.triangle_ids >= 0
    normals = template.vertex_normals(vertices).numpy()[triangles[seen.triangle_ids[shown]]]
    toward = -(seen.barycentrics[shown][..., None] * normals).sum(-2) @ pose[2, :3]
    shade = (0.25 + 0.75 * toward.clip(0, 1))[:, None] * np.array([120, 190, 255])
    out = photo.astype(np.float32)
    out[shown] = 0.5 * out[shown] + 0.5 * shade
    return out.astype(np.uint8)


def _directions(result: BuildResult) -> list[np.ndarray]:
    code = np.zeros(result.views.codes.shape[1], np.float32)
    gaussians = Animator(result.avatar).animate(code)
    cameras = [head_camera(*np.radians(angles), 0.6, SIDE_PX) for angles in DIRECTIONS_DEG]
    return [uint8_image(render_gaussians(gaussians, c).rgb[0].numpy()) for c in cameras]
