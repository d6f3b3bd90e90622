"""Contact sheets: rows of equally tall pictures with captions, for reports that are looked at."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avat3r_ros.files import whole_file

CAPTION_PX = 18
PAPER, INK = (250, 250, 250), (20, 20, 20)


def write_png(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write an RGB uint8 picture in one move, and the folders above it where they are missing."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        # Half the time of the usual level, and 8 % larger.
        Image.fromarray(image).save(partial, format="PNG", compress_level=3)


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """Shrink or enlarge an RGB uint8 picture into a square, keeping its shape (grey borders)."""
    scale = size / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
    sheet = Image.new("RGB", (size, size), (128, 128, 128))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    sheet.paste(resized, ((size - width) // 2, (size - height) // 2))
    return np.asarray(sheet)


def middle_cut(image: np.ndarray, width: float, height: float) -> np.ndarray:
    """Largest part around a picture's middle whose sides are as `width` to `height`; a view."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = [
        min(have, max(1, round(want / scale)))
        for have, want in zip(image.shape[:2], (height, width), strict=True)
    ]
    top, left = ((have - cut) // 2 for have, cut in zip(image.shape[:2], size, strict=True))
    return image[top : top + size[0], left : left + size[1]]


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], size: int = 192) -> np.ndarray:
    """Lay out captioned rows of RGB uint8 pictures, each fitted into `size` pixels."""
    columns = max(len(pictures) for _, pictures in rows)
    sheet = Image.new("RGB", (columns * size, len(rows) * (size + CAPTION_PX)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, (caption, pictures) in enumerate(rows):
        top = row * (size + CAPTION_PX)
        draw.text((4, top + 2), caption, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            sheet.paste(
                Image.fromarray(fit_square(picture, size)), (column * size, top + CAPTION_PX)
            )
    return np.asarray(sheet)


def uint8_image(image: np.ndarray) -> np.ndarray:
    """Convert RGB in [0, 1], channels first, to uint8 channels last."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
