"""The `avat3r` command as a user runs it: from photos to pictures; one clear line for mistakes."""

import functools
import json
import re

import numpy as np
import pytest
from PIL import Image

from avat3r_ros.animation import Animator, CompileConfig
from avat3r_ros.avatar_file import load_avatar
from avat3r_ros.cli import EXAMPLES, main
from avat3r_ros.code_file import read_codes
from avat3r_ros.data.operator import SyntheticOperator

pytest.importorskip("mediapipe", reason="needs mediapipe: make env")

PHOTO_TIMES_S = (0.5, 2.5, 5.0)
"""The operator's capture script: front, turned to one side, turned to the other."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Photos of a synthetic person, an avatar of them, and a short video of the same person."""
    folder = tmp_path_factory.mktemp("cli")
    operator = SyntheticOperator(5)
    for i, time_s in enumerate(PHOTO_TIMES_S):
        Image.fromarray(operator.frame(time_s)).save(folder / f"photo{i}.png")
    Image.new("RGB", (320, 240), (90, 120, 90)).save(folder / "wall.png")
    from avat3r_ros.capture.video import VideoWriter

    with VideoWriter(folder / "driver.mp4", 640, 480, 10.0) as writer:
        for frame in range(8):  # opens the mouth
            writer.write(operator.frame(10.0 + 0.1 * frame))
    photos = [str(folder / f"photo{i}.png") for i in range(len(PHOTO_TIMES_S))]
    photos.insert(1, str(folder / "wall.png"))
    arguments = [*photos, "-o", str(folder / "me.avat3r"), "--no-compile"]
    assert main(["build", *arguments]) == 0
    return folder


def brightness(path) -> float:
    return float(np.asarray(Image.open(path).convert("RGB")).mean())


def test_build_leaves_an_avatar_and_a_report(workplace):
    assert (workplace / "me.avat3r").stat().st_size > 100_000
    page = (workplace / "me_report" / "report.html").read_text()
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == 3 * 6 + 8
    for name in pictures:
        assert brightness(workplace / "me_report" / name) > 3, name
    assert "wall.png: no face found" in page


def test_a_useless_photo_among_four_is_left_out_and_named(workplace):
    metadata = load_avatar(workplace / "me.avat3r").metadata
    assert len(metadata["view_stamps_s"]) == 3
    assert any(
        "wall.png: no face found" in w and "built without" in w for w in metadata["warnings"]
    )


def test_render_shows_a_head_that_opens_its_mouth(workplace):
    pictures = []
    for name, expression in (("closed", "jawOpen=0"), ("open", "jawOpen=0.8")):
        path = workplace / f"{name}.png"
        options = ["--size", "128", "-o", str(path)]
        assert (
            main(["render", str(workplace / "me.avat3r"), "--expression", expression, *options])
            == 0
        )
        pictures.append(np.asarray(Image.open(path).convert("RGB")).astype(float))
    closed, opened = pictures
    assert closed.shape == (128, 128, 3)
    assert 0.1 < (closed.max(-1) > 20).mean() < 0.8  # a head on black
    change = np.abs(closed - opened).max(-1) > 20
    rows = np.nonzero(change)[0]
    assert change.sum() > 60
    assert np.median(rows) > 64  # the mouth is in the lower half


def test_a_stereo_pair_is_for_crossed_eyes(workplace):
    path = workplace / "pair.png"
    options = ["--stereo", "--camera", "0,0,0.5", "--size", "128", "-o", str(path)]
    assert main(["render", str(workplace / "me.avat3r"), *options]) == 0
    pair = np.asarray(Image.open(path).convert("L")).astype(float)
    assert pair.shape == (128, 256)
    right_eye, left_eye = pair[:, :128], pair[:, 128:]
    # The face is nearer than the middle of the head: farther right in the left eye's picture.
    shifts = range(-12, 13)
    errors = [
        np.square(np.roll(right_eye, s, axis=1) - left_eye)[30:90, 40:88].mean() for s in shifts
    ]
    shift = shifts[int(np.argmin(errors))]
    focal_px = 128 / (2 * np.tan(0.28))
    assert 1 <= shift <= focal_px * 0.063 * (1 / 0.36 - 1 / 0.5), "pixels, up to 14 cm nearer"


def test_compile_makes_a_fast_avatar_that_looks_the_same(workplace, capsys, monkeypatch):
    brief = functools.partial(CompileConfig, num_test_codes=3, num_test_pairs=4)
    monkeypatch.setattr("avat3r_ros.commands.compile.CompileConfig", brief)
    plain, fast = workplace / "me.avat3r", workplace / "fast.avat3r"
    options = ["--codes", "60", "--prune-below", "0", "--thin"]
    assert main(["compile", str(plain), "-o", str(fast), *options]) == 0
    said = capsys.readouterr().out
    assert "against the full path:" in said and "worst pairs:" in said
    assert Animator(load_avatar(plain)).path == "full"
    assert Animator(load_avatar(fast)).path == "compiled"
    pictures = []
    for avatar in (plain, fast):
        shot = workplace / f"{avatar.stem}_smile.png"
        expression = ["--expression", "mouthSmile=0.8,eyeBlink=0.6", "--size", "128"]
        assert main(["render", str(avatar), *expression, "-o", str(shot)]) == 0
        pictures.append(np.asarray(Image.open(shot).convert("RGB")).astype(float))
    # Measured 0.43 with the shipped network.
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.6, "grey levels"


def test_track_then_render_a_video(workplace):
    codes, video = workplace / "codes.jsonl", workplace / "out.mp4"
    assert main(["track", str(workplace / "driver.mp4"), "-o", str(codes)]) == 0
    states = read_codes(codes)
    assert len(states) == 8
    assert all(state.detected for state in states)
    arguments = ["--codes", str(codes), "--camera", "orbit", "--size", "64", "-o", str(video)]
    assert main(["render", str(workplace / "me.avat3r"), *arguments]) == 0
    from avat3r_ros.capture.video import iter_frames

    assert len(list(iter_frames(video))) == 8


def test_export(workplace):
    from avat3r_ros.rendering.ply import read_ply

    path = workplace / "me.ply"
    assert main(["export", str(workplace / "me.avat3r"), "-o", str(path)]) == 0
    assert len(read_ply(path)) > 10_000


def test_evaluate_predicts_an_unseen_photo(workplace, capsys):
    Image.fromarray(SyntheticOperator(5).frame(1.5)).save(workplace / "unseen.png")
    references = [str(workplace / f"photo{i}.png") for i in range(3)]
    output = workplace / "scores"
    arguments = ["--references", *references, "--targets", str(workplace / "unseen.png")]
    assert main(["evaluate", *arguments, "-o", str(output)]) == 0
    scores = json.loads((output / "scores.json").read_text())["mean"]
    avatar, mesh = scores["avatar"], scores["nearest photo on mesh"]
    # Measured 24 dB and 2.4 px of a 256 px crop; a wrong camera or a lost face falls far below.
    assert avatar["psnr_db"] > 18
    assert avatar["psnr_db"] > mesh["psnr_db"] > 10
    assert avatar["landmark_distance_px"] < 6
    assert brightness(output / "side_by_side.png") > 10
    assert "nearest photo on mesh" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert EXAMPLES[command].splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "-o", "x.avat3r"], "either photos or --video"),
        (["build", "a.jpg", "b.jpg", "c.jpg", "-o", "x.txt"], "ending in .avat3r"),
        (["build", "gone.jpg", "b.jpg", "c.jpg", "-o", "x.avat3r"], "gone.jpg"),
        (["render", "gone.avat3r", "-o", "x.png"], "gone.avat3r"),
        (["render", "x.avat3r", "-o", "x.gif"], "ending in .png or .mp4"),
        (["render", "x.avat3r", "--camera", "left", "-o", "x.png"], "yaw,pitch,distance"),
        (["render", "x.avat3r", "--size", "2", "-o", "x.png"], "from 16 to 4096"),
        (["render", "x.avat3r", "--background", "2,0,0", "-o", "x.png"], "in \\[0, 1\\]"),
        (["track", "gone.mp4", "-o", "codes.jsonl"], "gone.mp4"),
        (["generate", "--count", "0", "-o", "x.png"], "from 1 to 256"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"avat3r {arguments[0]}: ")
    assert re.search(message, error)
    assert not list(tmp_path.glob("*.part"))


def test_one_photo_says_what_is_missing_without_the_lift(workplace, capsys):
    arguments = ["build", str(workplace / "photo0.png"), "-o", str(workplace / "one.avat3r")]
    assert main([*arguments, "--lift", "off"]) == 1
    assert "expected 2 to 6 photos" in capsys.readouterr().err
    assert not (workplace / "one.avat3r").exists()


def test_one_photo_becomes_an_avatar_that_says_what_was_guessed(workplace, capsys):
    output = workplace / "one.avat3r"
    photo = str(workplace / "photo0.png")
    assert main(["build", photo, "-o", str(output), "--no-compile"]) == 0
    said = capsys.readouterr().out
    assert "warning: made from a single photo" in said
    assert "1 photo and 5 guessed views" in said
    assert load_avatar(output).metadata["lifted_by"] == "heads"
    report = workplace / "one_report"
    assert "guessed view 5" in (report / "report.html").read_text()
    assert (report / "guess5_crop.png").is_file()
    output.unlink()


def test_two_usable_photos_of_three_become_an_avatar_that_asks_for_one_more(workplace, capsys):
    output = workplace / "two.avat3r"
    photos = [str(workplace / name) for name in ("photo0.png", "photo1.png", "wall.png")]
    assert main(["build", *photos, "-o", str(output), "--no-compile", "--no-report"]) == 0
    said = capsys.readouterr().out
    assert "warning: wall.png: no face found" in said
    assert "warning: made from two photos, without the trained weights" in said
    avatar = load_avatar(output)
    assert len(avatar.metadata["view_stamps_s"]) == 2
    assert avatar.weights_sha256 == ""
    assert "lifted_by" not in avatar.metadata
    output.unlink()


def test_the_only_usable_photo_is_lifted(workplace, capsys):
    output = workplace / "lifted.avat3r"
    photos = [str(workplace / name) for name in ("wall.png", "photo0.png")]
    arguments = ["build", *photos, "-o", str(output), "--no-compile", "--no-report"]
    assert main([*arguments, "--lift", "off"]) == 1
    assert "wall.png: no face found" in capsys.readouterr().err
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "warning: wall.png: no face found" in said
    assert "warning: made from a single photo" in said
    output.unlink()


def test_two_faces_are_named(workplace, capsys):
    one = Image.open(workplace / "photo0.png")
    both = Image.new("RGB", (1280, 480))
    both.paste(one, (0, 0))
    both.paste(one, (640, 0))
    both.save(workplace / "both.png")
    photos = [str(workplace / name) for name in ("wall.png", "both.png")]
    assert main(["build", *photos, "-o", str(workplace / "bad.avat3r")]) == 1
    said = capsys.readouterr().err
    assert "wall.png: no face found" in said
    assert "both.png: 2 faces found" in said


def test_a_truncated_avatar_is_refused(workplace, capsys):
    whole = (workplace / "me.avat3r").read_bytes()
    (workplace / "cut.avat3r").write_bytes(whole[: len(whole) // 2])
    assert main(["render", str(workplace / "cut.avat3r"), "-o", str(workplace / "x.png")]) == 1
    assert "cut.avat3r" in capsys.readouterr().err


def test_doctor_lists_every_part(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for part in ("torch", "native library", "ROS 2", "face landmarker", "trained weights"):
        assert part in printed
    assert "MISSING" not in printed


def test_a_download_shows_its_licence_first(capsys):
    assert main(["doctor", "--download", "face_landmarker"]) == 1
    printed = capsys.readouterr().out
    assert "Apache-2.0" in printed
    assert "nothing was downloaded" in printed
    assert main(["doctor", "--download", "dust3r"]) == 1
    assert "NON-COMMERCIAL" in capsys.readouterr().out
