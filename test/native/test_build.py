"""Finding, compiling and refusing the native library."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from avat3r_ros import native
from avat3r_ros.native import build, loader


def test_instruction_sets_end_with_one_that_always_runs():
    always = {"x86_64": "sse2", "aarch64": "neon"}.get(platform.machine(), "generic")
    assert native.instruction_sets()[-1] == always


def test_header_and_python_agree_on_the_interface():
    header = (build.SOURCE_DIR / "avat3r_native.h").read_text()
    assert f"AVAT3R_ABI_VERSION = {loader.ABI_VERSION};" in header


def test_every_source_is_listed_and_needs_what_it_names():
    commands = dict(build.compile_commands("c++", Path("objects"), "x86_64"))
    listed = {target.name.removesuffix(".o") for target in commands}
    assert listed == {path.name for path in build.SOURCE_DIR.glob("*.cpp")}
    for target, command in commands.items():
        wide = {word for word in command if word.startswith(("-mavx", "-march"))}
        assert bool(wide) == ("avx" in target.name), target


def test_arm_builds_leave_x86_sources_out():
    for processor in ("aarch64", "arm64"):
        targets = [t.name for t, _ in build.compile_commands("c++", Path("objects"), processor)]
        assert "splat_kernels_baseline.cpp.o" in targets
        assert not any("avx" in target for target in targets)


def test_missing_compiler_is_explained(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no C.. compiler.*apt-get install"):
        build.cached_library()


def test_failing_compiler_is_explained(monkeypatch, tmp_path):
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(RuntimeError, match=r"(?s)exit 3.*no such flag"):
        build.cached_library()
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_unwritable_cache_is_explained(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RuntimeError, match="cannot write the build cache.*XDG_CACHE_HOME"):
        build.cached_library()


def test_cache_follows_the_sources(monkeypatch, tmp_path):
    compiler = build._compiler()
    before = build._key(compiler)
    copy = tmp_path / "src"
    shutil.copytree(build.SOURCE_DIR, copy)
    monkeypatch.setattr(build, "SOURCE_DIR", copy)
    assert build._key(compiler) == before
    (copy / "mesh.cpp").write_text("// changed\n")
    assert build._key(compiler) != before


def test_library_of_other_sources_is_refused(monkeypatch):
    monkeypatch.setattr(loader, "ABI_VERSION", -1)
    with pytest.raises(RuntimeError, match="expected .* with interface -1, got"):
        loader.library.__wrapped__()


def test_damaged_library_is_refused(monkeypatch, tmp_path):
    (tmp_path / build.LIBRARY_NAME).write_bytes(b"not a library")
    monkeypatch.setattr(loader, "__file__", str(tmp_path / "loader.py"))
    with pytest.raises(RuntimeError, match="cannot load .*Delete it"):
        loader.library.__wrapped__()


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake: apt-get install cmake")
def test_cmake_reads_the_same_list(tmp_path):
    """Configure only: the list of commands must be that of build.py."""
    subprocess.run(
        ["cmake", "-S", build.SOURCE_DIR.parent, "-B", tmp_path, "-G", "Unix Makefiles"]
        + ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
        check=True,
        capture_output=True,
    )
    exported = (tmp_path / "compile_commands.json").read_text()
    for target, command in build.compile_commands("c++", Path("objects")):
        assert target.name.removesuffix(".o") in exported
        flags = [word for word in command if word.startswith(("-m", "-f", "-O", "-std"))]
        assert all(flag in exported for flag in flags)
