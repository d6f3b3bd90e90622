"""Photo files to upright RGB arrays with their focal length, or one clear error.

Working size: photos with a longer side above WORKING_SIDE_PX are shrunk to it on loading, and the
focal length with them; a head crop of the largest preset is a quarter of that.
"""

import io
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

WORKING_SIDE_PX = 2048
"""Longer side of the largest image that leaves this module."""

MIN_SIDE_PX = 96
"""Shorter side below which no usable face fits."""

MAX_MEGAPIXELS = 170.0
"""Larger files are refused before they are decoded (Pillow's own limit lies just above)."""

FILM_DIAGONAL_MM = 43.27
"""Diagonal of 36 x 24 mm film; CIPA DCG-001 defines the equivalent focal length by the diagonal."""

BACKGROUND = (128, 128, 128)
"""Shown through transparent pixels: matting needs some background, and grey tints edges least."""


@dataclass(frozen=True)
class Photo:
    """A photo as the pipeline uses it.

    Attributes:
        image: Upright RGB, at most WORKING_SIDE_PX on the longer side.
        focal_px: Focal length in pixels of `image`, None where the file does not tell.
        path: The file.
        scale: Size of `image` relative to the file's.
    """

    image: UInt8[np.ndarray, "h w 3"]
    focal_px: float | None
    path: Path
    scale: float = 1.0


def load_photo(path: str | os.PathLike) -> Photo:
    """Load a photo file: any colour mode and bit depth, EXIF rotation applied.

    Args:
        path: JPEG, PNG, WebP, TIFF, BMP or whatever else Pillow reads; of several frames the first.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not an image, damaged, too small or too large; the message names the file, what
            was expected and what was found.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on; those are shrunk here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(path)
        with file:
            width, height = file.size
            _check_size(path, width, height)
            if file.format == "JPEG":
                # Decodes at 1/2, 1/4 or 1/8, never below the working size: less memory and time.
                file.draft(None, (WORKING_SIDE_PX, WORKING_SIDE_PX))
            file.load()
            exif = file.getexif()
            picture = _rgb(ImageOps.exif_transpose(file), path)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected at most {MAX_MEGAPIXELS:.0f} megapixels") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: expected an image file, got {_kind(path)}") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path}: damaged or truncated image ({error})") from error
    longer = max(picture.size)
    if longer > WORKING_SIDE_PX:
        factor = WORKING_SIDE_PX / longer
        size = [max(1, round(side * factor)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    scale = max(picture.size) / max(width, height)
    if scale < 1.0:
        logger.info(
            "%s: %dx%d (%.0f megapixels) shrunk to %dx%d",
            *(path, width, height, width * height / 1e6, *picture.size),
        )
    focal_px = _focal_px(exif, width, height)
    return Photo(
        image=np.array(picture),
        focal_px=None if focal_px is None else focal_px * scale,
        path=path,
        scale=scale,
    )


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise ValueError(
            f"{path}: expected at least {MIN_SIDE_PX} px on the shorter side, got {width}x{height}"
        )
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise ValueError(
            f"{path}: expected at most {MAX_MEGAPIXELS:.0f} megapixels, got "
            f"{width * height / 1e6:.0f} ({width}x{height})"
        )


def _rgb(file: Image.Image, path: Path) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB in sRGB."""
    if file.mode.startswith("I") or file.mode == "F":
        return _from_deep_grey(file, path)
    if file.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in file.info:
        layer = file.convert("RGBA")
        picture = Image.new("RGB", file.size, BACKGROUND)
        picture.paste(layer, mask=layer.getchannel("A"))
        return picture
    return _to_srgb(file, path)


def _from_deep_grey(file: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(file).astype(np.float64)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f"{path}: expected finite pixel values, got {count} that are not")
    # Floating point is [0, 1] by convention; integers here are 16 bit.
    full = 1.0 if file.mode == "F" and values.max() <= 1.0 else 255.0
    full = 65535.0 if file.mode != "F" and (file.mode != "I" or values.max() > 255) else full
    grey = (values * (255.0 / full)).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _to_srgb(file: Image.Image, path: Path) -> Image.Image:
    """Phones save Display P3 or Adobe RGB; without conversion skin comes out pale."""
    profile = file.info.get("icc_profile")
    if profile and file.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(
                file, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("%s: colour profile ignored (%s)", path, error)
    return file.convert("RGB")


def _focal_px(exif: Image.Exif, width: int, height: int) -> float | None:
    """Focal length in pixels of the full-size file from its EXIF data, None if it does not tell.

    A file whose aspect ratio is not the one the camera recorded was cropped afterwards, and its
    focal length in pixels is unknown.
    """
    details = exif.get_ifd(ExifTags.IFD.Exif)
    recorded = [
        details.get(tag) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
    ]
    if all(recorded):
        aspect = max(recorded) / min(recorded) * min(width, height) / max(width, height)
        if not 0.98 < aspect < 1.02:
            return None
    try:
        equivalent_mm = float(details.get(ExifTags.Base.FocalLengthIn35mmFilm) or 0)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not 5.0 <= equivalent_mm <= 2000.0:
        return None
    return equivalent_mm * float(np.hypot(width, height)) / FILM_DIAGONAL_MM


_SIGNATURES = (
    (b"ftypheic", "a HEIC file; convert it to JPEG"),
    (b"ftypavif", "an AVIF file; convert it to JPEG"),
    (b"ftyp", "a video file"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        return "an empty file"
    for signature, name in _SIGNATURES:
        if signature in head:
            return name
    return f"a file that starts with {head[:12]!r}"
