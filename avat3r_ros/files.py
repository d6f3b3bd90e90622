"""Files that are whole or not there: whoever reads one never sees half of it."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name to write under; what was written there becomes `path` when the block ends.

    If the block fails, nothing is left of it, and what was at `path` before stays.

    Raises:
        FileNotFoundError: The folder does not exist.
        OSError: The disk is full, or the folder may not be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        # Without this a power cut may leave the new name with nothing behind it.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file in one move; errors as `whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 file in one move; errors as `whole_file`."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write a readable JSON file in one move; NaN is written as NaN. Errors as `whole_file`."""
    write_text(path, json.dumps(data, indent=2) + "\n")
