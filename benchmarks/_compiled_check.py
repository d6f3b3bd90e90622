"""The compiled animation beside the full one: over a driven performance, and at its worst pairs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from avat3r_ros.animation import Animator
from avat3r_ros.animation.accuracy import psnr_db
from avat3r_ros.animation.codes import frequent_pairs
from avat3r_ros.animation.compiled import KEY
from avat3r_ros.data.heads import SyntheticHead
from avat3r_ros.data.performance import CAPTURE_S, PERFORMANCE_S, Performance
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.pictures import contact_sheet, write_png
from avat3r_ros.rendering import FrameRenderer
from avat3r_ros.types import Avatar, Camera

SIZE = 512
TRUTH_EVERY = 12
"""The truth is painted at one in so many frames: it takes longer than all the rest."""

DIFFERENCE_GAIN, PAIR_PX = 8, 260
PERFORMANCE_SEED = 7


def view(yaw_rad: float) -> Camera:
    """A camera in front of the head, turned."""
    intrinsics = torch.from_numpy(intrinsics_matrix(SIZE * 0.6 / 0.3, SIZE / 2, SIZE / 2)).float()
    pose = look_at_head(yaw_rad, 0.05, 0.6, np.array([0.0, -0.01, -0.06]))
    return Camera(intrinsics[None], torch.from_numpy(pose).float()[None], SIZE, SIZE)


def compare(
    avatar: Avatar, head: SyntheticHead, frames: int, out: Path | None
) -> dict[str, float | list]:
    """Render both paths over a performance, and the person's truth now and then.

    Returns:
        PSNR of the compiled path against the full one, of both against the truth, and the worst
        pairs that were measured when the avatar was compiled.
    """
    full, fast = Animator(avatar, path="full"), Animator(avatar, path="compiled")
    renderer, performance = FrameRenderer("cpu"), Performance(PERFORMANCE_SEED)
    between, losses, truths = [], [], []
    for i in range(frames):
        code = performance.code(CAPTURE_S + PERFORMANCE_S * i / frames)
        camera = view(0.5 * np.sin(2 * np.pi * i / 150))
        reference = renderer.render_u8(full.animate(code), camera).copy()
        picture = renderer.render_u8(fast.animate(code), camera)
        between.append(psnr_db(picture, reference))
        if i % TRUTH_EVERY == 0:
            shot = head.render(camera[0], code).image
            truth = (shot.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()
            truths.append(psnr_db(reference[0], truth))
            losses.append(truths[-1] - psnr_db(picture[0], truth))
    worst = avatar.config[KEY]["accuracy"]["worst_pairs"]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        pairs = pairs_sheet(full, fast, renderer, worst)
        curve = plot(between, width=pairs.shape[1])
        write_png(np.concatenate([curve, pairs]), out / "compiled_against_full.png")
    return {
        "psnr_mean_db": float(np.mean(between)),
        "psnr_min_db": float(np.min(between)),
        "full_against_truth_db": float(np.mean(truths)),
        "loss_against_truth_db": float(np.mean(losses)),
        "largest_loss_db": float(np.max(losses)),
        "worst_pairs": worst,
    }


def pairs_sheet(full: Animator, fast: Animator, renderer: FrameRenderer, worst: list) -> np.ndarray:
    """Rows of full path, compiled path and their difference, enlarged."""
    rows, codes = [], frequent_pairs()
    for name, error_mm in worst:
        reference = renderer.render_u8(full.animate(codes[name]), view(0.2))[0].copy()
        picture = renderer.render_u8(fast.animate(codes[name]), view(0.2))[0].copy()
        difference = np.abs(picture.astype(int) - reference) * DIFFERENCE_GAIN
        caption = f"{name}: {error_mm:.2f} mm, {psnr_db(picture, reference):.1f} dB; full, "
        caption += f"compiled, difference x {DIFFERENCE_GAIN}"
        rows.append((caption, [reference, picture, difference.clip(0, 255).astype(np.uint8)]))
    return contact_sheet(rows, PAIR_PX)


def plot(psnr: list[float], width: int, height: int = 300) -> np.ndarray:
    """PSNR of the compiled path against the full one, frame by frame."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 50, 30, width - 15, height - 35
    high = 10 * np.ceil(max(psnr) / 10)
    low = 10 * np.floor(min(psnr) / 10)
    draw.text((left, 8), "compiled against full path, PSNR in dB, by frame", fill=(0, 0, 0))
    for level in np.arange(low, high + 1, 10):
        y = bottom - (level - low) / max(high - low, 1) * (bottom - top)
        draw.line([(left, y), (right, y)], fill=(220, 220, 220))
        draw.text((12, y - 6), f"{level:.0f}", fill=(0, 0, 0))
    points = [
        (
            left + i / max(len(psnr) - 1, 1) * (right - left),
            bottom - (value - low) / max(high - low, 1) * (bottom - top),
        )
        for i, value in enumerate(psnr)
    ]
    draw.line(points, fill=(200, 60, 40), width=2)
    draw.text((right - 30, bottom + 8), f"{len(psnr)}", fill=(0, 0, 0))
    return np.asarray(image)
