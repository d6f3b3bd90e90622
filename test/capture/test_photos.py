"""Photo files of every kind become upright RGB arrays, or one clear error."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from avat3r_ros.capture.photos import (
    BACKGROUND,
    FILM_DIAGONAL_MM,
    MAX_MEGAPIXELS,
    MIN_SIDE_PX,
    WORKING_SIDE_PX,
    load_photo,
)

WIDTH, HEIGHT = 160, 120


@pytest.fixture
def gradient() -> np.ndarray:
    """Red grows to the right, green grows downwards: any turn or swap shows."""
    x, y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    return np.stack([x, y, np.full_like(x, 40)], -1).astype(np.uint8)


def saved(folder, name, picture, **options):
    path = folder / name
    picture.save(path, **options)
    return path


def exif(orientation=1, focal_35mm=None, recorded=None) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    details = data.get_ifd(0x8769)
    if focal_35mm:
        details[0xA405] = focal_35mm
    if recorded:
        details[0xA002], details[0xA003] = recorded
    return data


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp", "a.webp"])
def test_rgb_files_keep_their_pixels(tmp_path, gradient, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    photo = load_photo(saved(tmp_path, name, Image.fromarray(gradient), **options))
    assert photo.image.dtype == np.uint8
    np.testing.assert_array_equal(photo.image, gradient)
    assert (photo.focal_px, photo.scale, photo.path.name) == (None, 1.0, name)


@pytest.mark.parametrize(
    ("orientation", "stored_from_upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_exif_rotation_is_applied(tmp_path, gradient, orientation, stored_from_upright, name):
    stored = Image.fromarray(np.ascontiguousarray(stored_from_upright(gradient)))
    photo = load_photo(saved(tmp_path, name, stored, exif=exif(orientation)))
    np.testing.assert_array_equal(photo.image, gradient)


def test_exif_rotation_of_transparent_and_deep_files(tmp_path, gradient):
    rgba = np.dstack([gradient, np.full(gradient.shape[:2], 255, np.uint8)])
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(rgba)))
    photo = load_photo(saved(tmp_path, "a.png", turned, exif=exif(6)))
    np.testing.assert_array_equal(photo.image, gradient)


def test_equivalent_focal_length_becomes_pixels(tmp_path, gradient):
    path = saved(tmp_path, "a.jpg", Image.fromarray(gradient), exif=exif(6, focal_35mm=26))
    expected = 26 * np.hypot(WIDTH, HEIGHT) / FILM_DIAGONAL_MM
    assert load_photo(path).focal_px == pytest.approx(expected)


def test_focal_length_of_a_cropped_file_is_unknown(tmp_path, gradient):
    picture = Image.fromarray(gradient)
    whole = exif(focal_35mm=26, recorded=(4 * WIDTH, 4 * HEIGHT))
    cropped = exif(focal_35mm=26, recorded=(4 * WIDTH, 3 * WIDTH // 2))
    assert load_photo(saved(tmp_path, "a.jpg", picture, exif=whole)).focal_px is not None
    assert load_photo(saved(tmp_path, "b.jpg", picture, exif=cropped)).focal_px is None


def test_grey_palette_and_cmyk_become_rgb(tmp_path, gradient):
    picture = Image.fromarray(gradient)
    grey = load_photo(saved(tmp_path, "grey.png", picture.convert("L"))).image
    np.testing.assert_array_equal(grey, np.asarray(picture.convert("L").convert("RGB")))
    few = picture.quantize(32)
    palette = load_photo(saved(tmp_path, "palette.png", few)).image
    np.testing.assert_array_equal(palette, np.asarray(few.convert("RGB")))
    cmyk = load_photo(
        saved(tmp_path, "cmyk.jpg", picture.convert("CMYK"), quality=98, subsampling=0)
    ).image
    # Measured worst case of the JPEG: 0 levels, once without subsampling.
    assert np.abs(cmyk.astype(int) - gradient).max() <= 2


def test_transparent_pixels_show_grey(tmp_path, gradient):
    alpha = np.zeros(gradient.shape[:2], np.uint8)
    alpha[:, WIDTH // 2 :] = 255
    image = load_photo(
        saved(tmp_path, "a.png", Image.fromarray(np.dstack([gradient, alpha])))
    ).image
    np.testing.assert_array_equal(image[:, WIDTH // 2 :], gradient[:, WIDTH // 2 :])
    assert (image[:, : WIDTH // 2] == BACKGROUND).all()


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    deep = np.linspace(0, 65535, WIDTH).astype(np.uint16)[None].repeat(HEIGHT, 0)
    image = load_photo(saved(tmp_path, "a.png", Image.fromarray(deep))).image
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image[..., 0] - deep / 257.0).max() <= 0.5


def test_floating_point_with_nan_is_refused(tmp_path):
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    path = saved(tmp_path, "a.tiff", Image.fromarray(values))
    assert (load_photo(path).image == 128).all()
    values[3, 4] = np.nan
    with pytest.raises(ValueError, match="a.tiff: expected finite pixel values, got 1"):
        load_photo(saved(tmp_path, "a.tiff", Image.fromarray(values)))


def test_embedded_colour_profile_is_converted(tmp_path, gradient):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = load_photo(saved(tmp_path, "a.png", Image.fromarray(gradient), icc_profile=lab)).image
    assert np.abs(same.astype(int) - gradient).max() <= 1
    broken = saved(tmp_path, "b.png", Image.fromarray(gradient), icc_profile=b"x" * 200)
    np.testing.assert_array_equal(load_photo(broken).image, gradient)


def test_fifty_megapixels_are_shrunk_with_their_focal_length(tmp_path, gradient, caplog):
    width, height = 8660, 5774
    large = Image.fromarray(gradient).resize((width, height))
    path = saved(tmp_path, "a.jpg", large, exif=exif(focal_35mm=50), quality=60)
    with caplog.at_level("INFO"):
        photo = load_photo(path)
    assert max(photo.image.shape) == WORKING_SIDE_PX
    assert photo.scale == pytest.approx(WORKING_SIDE_PX / width)
    assert photo.focal_px == pytest.approx(
        50 * np.hypot(*photo.image.shape[:2]) / FILM_DIAGONAL_MM, rel=1e-3
    )
    assert "50 megapixels" in caplog.text


def test_too_small_and_too_large_files_are_refused(tmp_path, gradient):
    tiny = saved(tmp_path, "tiny.png", Image.fromarray(gradient[:10, :10]))
    with pytest.raises(ValueError, match=rf"tiny.png: expected at least {MIN_SIDE_PX} px.*10x10"):
        load_photo(tiny)
    huge = saved(tmp_path, "huge.png", Image.new("1", (20000, 9000)))
    with pytest.raises(ValueError, match=f"huge.png: expected at most {MAX_MEGAPIXELS:.0f}"):
        load_photo(huge)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\x00\x00\x00\x18ftypheic....", "HEIC file; convert it to JPEG"),
        (b"\x00\x00\x00\x18ftypisom....", "a video file"),
        (b"name,age\n", "starts with b'name,age"),
    ],
)
def test_other_files_are_named(tmp_path, content, said):
    path = tmp_path / "me.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="me.jpg: expected an image file") as caught:
        load_photo(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_truncated_files_are_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    path = saved(tmp_path, name, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=f"{name}: damaged or truncated"):
        load_photo(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody.jpg: no such file"):
        load_photo(tmp_path / "nobody.jpg")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_photo(tmp_path)
