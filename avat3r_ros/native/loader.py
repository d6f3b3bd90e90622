"""Find and load libavat3r_native.

The library lies beside this file where the package was installed with colcon or as a built wheel;
anywhere else it is compiled once from `src/` into the user's cache (build.py).
"""

import ctypes
import functools
from pathlib import Path

from avat3r_ros.native import build

ABI_VERSION = 4
"""Must equal AVAT3R_ABI_VERSION of src/avat3r_native.h."""


@functools.cache
def library() -> ctypes.CDLL:
    """Load the native library, compiling it first where none is installed.

    Raises:
        RuntimeError: It cannot be compiled or loaded, or belongs to another version of the package;
            the message says what helps.
    """
    installed = Path(__file__).parent / build.LIBRARY_NAME
    path = installed if installed.exists() else build.cached_library()
    try:
        loaded = ctypes.CDLL(str(path))
        version = loaded.avat3r_abi_version()
    except (OSError, AttributeError) as error:
        raise RuntimeError(f"cannot load {path}: {error}. Delete it and build again") from error
    if version != ABI_VERSION:
        raise RuntimeError(
            f"expected {path} with interface {ABI_VERSION}, got {version}: it was built from other "
            "sources. Delete it or build the package again"
        )
    return loaded
