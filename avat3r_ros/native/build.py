"""Compile libavat3r_native for this machine and keep it in the user's cache.

Only used where no library was installed beside the package (a checkout, or a pip install): the ROS
build compiles the same files through CMake. Both read `src/sources.txt`.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIBRARY_NAME = "libavat3r_native.so"
SOURCE_DIR = Path(__file__).parent / "src"

_logger = logging.getLogger(__name__)


def cached_library() -> Path:
    """Return the library built from the present sources, compiling it first where needed.

    Processes that ask at the same time wait for one of them to compile.

    Raises:
        RuntimeError: There is no C++ compiler, it fails, or the cache folder cannot be written.
    """
    compiler = _compiler()
    folder = _cache_root() / _key(compiler)
    library = folder / LIBRARY_NAME
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not library.exists():
                _logger.info("compiling %s, once, with %s", library, compiler)
                _compile(compiler, library)
    except OSError as error:
        raise RuntimeError(
            f"cannot write the build cache {folder}: {error}. Set XDG_CACHE_HOME to a folder that "
            "can be written"
        ) from error
    return library


def compile_commands(
    compiler: str, object_dir: Path, processor: str | None = None
) -> list[tuple[Path, list[str]]]:
    """Pairs of object file and command, one for each source that `processor` takes."""
    processor = processor or platform.machine().lower()
    processor = {"amd64": "x86_64", "arm64": "aarch64"}.get(processor, processor)
    common: list[str] = []
    commands = []
    for line in (SOURCE_DIR / "sources.txt").read_text().splitlines():
        kind, *words = line.split() or ["#"]
        if kind == "flags":
            common = words
        elif kind == "source":
            name, processors, *flags = words
            if not {"any", processor} & set(processors.split(",")):
                continue
            target = object_dir / f"{name}.o"
            command = [compiler, *common, *flags, "-c", str(SOURCE_DIR / name), "-o", str(target)]
            commands.append((target, command))
    return commands


def _compiler() -> str:
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["g++", "clang++", "c++"]:
        if found := shutil.which(shlex.split(candidate)[0]):
            return found
    raise RuntimeError(
        f"{LIBRARY_NAME} is not installed and there is no C++ compiler to build it "
        f"({'CXX=' + named if named else 'g++, clang++'} not found). Install one "
        "(Debian, Ubuntu: sudo apt-get install g++) or build the package with colcon"
    )


def _cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "avat3r" / "native"


def _key(compiler: str) -> str:
    """Hash of all that decides what comes out: sources, compiler, machine."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE_DIR.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    status = os.stat(compiler)
    digest.update(f"{compiler} {status.st_size} {int(status.st_mtime)}".encode())
    digest.update(f"{platform.system()} {platform.machine()} {platform.libc_ver()}".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(compiler: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        commands = compile_commands(compiler, Path(scratch))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, [command for _, command in commands]))
        finished = Path(scratch) / LIBRARY_NAME
        objects = [str(target) for target, _ in commands]
        _run([compiler, "-shared", *objects, "-o", str(finished), "-pthread"])
        os.replace(finished, library)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(
            f"compiling {LIBRARY_NAME} failed (exit {result.returncode}): {shlex.join(command)}\n"
            f"{result.stderr[-4000:]}"
        )
