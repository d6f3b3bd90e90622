"""Videos are written whole or not at all, and read back upright with their times."""

import av
import numpy as np
import pytest

from avat3r_ros.capture.video import VideoWriter, iter_frames


def picture(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Left half red, a top band that brightens with the index."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 200
    image[: height // 4] = 20 * index % 256
    return image


def written(path, count=8, fps=25.0, **size):
    with VideoWriter(path, size.get("width", 96), size.get("height", 64), fps) as writer:
        for index in range(count):
            writer.write(picture(index, **size))
    return path


@pytest.mark.parametrize("fps", [25.0, 29.97, 60.0])
def test_frames_come_back_with_their_times(tmp_path, fps):
    frames = list(iter_frames(written(tmp_path / "a.mp4", fps=fps)))
    assert len(frames) == 8
    np.testing.assert_allclose([t for t, _ in frames], np.arange(8) / fps, atol=1e-4)
    for index, (_, image) in enumerate(frames):
        # Chroma is stored at half size and compressed; away from edges the error stays below 8.
        error = np.abs(image.astype(int) - picture(index))
        assert error[4:12, 4:44].max() < 12
        assert error[24:60, 56:92].max() < 12


@pytest.mark.parametrize(("most", "given"), [(4, [0, 2, 4, 6]), (3, [0, 3, 6]), (20, range(8))])
def test_of_many_frames_some_are_given_evenly_spread(tmp_path, most, given):
    frames = list(iter_frames(written(tmp_path / "a.mp4", fps=25.0), max_frames=most))
    np.testing.assert_allclose([t for t, _ in frames], np.array(given) / 25.0, atol=1e-4)


def test_the_file_plays_everywhere(tmp_path):
    path = written(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "index first: plays while loading"


def test_odd_sizes_are_padded(tmp_path):
    frames = list(iter_frames(written(tmp_path / "a.mp4", width=97, height=63)))
    assert frames[0][1].shape == (64, 98, 3)


def patch_rotation(path, matrix):
    """Overwrite the track's display matrix in the MP4's tkhd box."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    content[start : start + 36] = b"".join(int(v).to_bytes(4, "big", signed=True) for v in matrix)
    path.write_bytes(bytes(content))


ONE, W = 1 << 16, 1 << 30


@pytest.mark.parametrize(
    ("matrix", "upright_from_stored"),
    [
        # Rows of the matrix of ISO 14496-12, 6.2.2: (x, y) -> (a x + c y, b x + d y).
        ((0, ONE, 0, -ONE, 0, 0, 0, 0, W), lambda a: np.rot90(a, -1)),
        ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, W), lambda a: np.rot90(a, 2)),
        ((0, -ONE, 0, ONE, 0, 0, 0, 0, W), lambda a: np.rot90(a, 1)),
    ],
    ids=["90 clockwise", "180", "90 counter-clockwise"],
)
def test_rotation_of_the_file_is_applied(tmp_path, matrix, upright_from_stored):
    path = written(tmp_path / "a.mp4")
    stored = next(iter_frames(path))[1]
    patch_rotation(path, matrix)
    np.testing.assert_array_equal(next(iter_frames(path))[1], upright_from_stored(stored))


def test_large_frames_are_shrunk(tmp_path):
    _, image = next(iter_frames(written(tmp_path / "a.mp4"), max_side_px=48))
    assert image.shape == (32, 48, 3)


def test_an_exception_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", 96, 64, 25) as writer:
        writer.write(picture(0))
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    writer = VideoWriter(path, 96, 64, 25)
    writer.write(picture(0))
    assert path.read_bytes() == b"old"
    writer.close()
    assert len(list(iter_frames(path))) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_writer_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(ValueError, match="ends in .mp4"):
        VideoWriter(tmp_path / "a.avi", 96, 64, 25)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        VideoWriter(tmp_path / "no" / "a.mp4", 96, 64, 25)
    with pytest.raises(ValueError, match="positive size and rate, got 96x64, 0 fps"):
        VideoWriter(tmp_path / "a.mp4", 96, 64, 0)
    writer = VideoWriter(tmp_path / "a.mp4", 96, 64, 25)
    with pytest.raises(ValueError, match=r"\(64, 96, 3\) uint8, got \(64, 96, 3\) float32"):
        writer.write(picture(0).astype(np.float32))
    with pytest.raises(ValueError, match="at least one frame"):
        writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(picture(0))
    assert list(tmp_path.iterdir()) == []


def test_reader_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="b.mp4: no such file"):
        next(iter_frames(tmp_path / "b.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    with pytest.raises(ValueError, match="text.mp4: expected a video file"):
        next(iter_frames(text))
    path = written(tmp_path / "a.mp4", count=60)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="a.mp4: "):
        list(iter_frames(path))


def test_a_full_disk_leaves_the_last_film_and_nothing_else(tmp_path, full_disk):
    path = written(tmp_path / "a.mp4", count=2)
    last = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    with pytest.raises(OSError, match="File too large"), VideoWriter(path, 96, 64, 25.0) as writer:
        for shift in range(200):
            writer.write(np.roll(noise, 7 * shift, 1))
    assert path.read_bytes() == last
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
