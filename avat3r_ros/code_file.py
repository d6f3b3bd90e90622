"""Expression codes of a recording as JSON lines: one header, then one line per frame.

    {"format": "avat3r-codes", "version": 1, "code_space": "arkit_52", "names": [...]}
    {"time_s": 0.0, "detected": true, "confidence": 0.98, "code": [...], "gaze": [...],
     "camera_from_head": [[...], ...]}

Text, so that a recording can be read, cut and plotted with anything.
"""

import json
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from avat3r_ros.expression import ARKIT_52, validate_code
from avat3r_ros.files import whole_file
from avat3r_ros.types import FaceState

FORMAT, VERSION = "avat3r-codes", 1


def write_codes(states: Iterable[FaceState], path: str | os.PathLike) -> int:
    """Write tracked frames to `path`, in one move, and return how many."""
    count = 0
    header = {
        "format": FORMAT,
        "version": VERSION,
        "code_space": "arkit_52",
        "names": list(ARKIT_52),
    }
    with whole_file(path) as partial, partial.open("w") as file:
        file.write(json.dumps(header) + "\n")
        for state in states:
            line = {
                "time_s": round(float(state.stamp_s), 6),
                "detected": bool(state.detected),
                "confidence": round(float(state.confidence), 4),
                "code": [round(float(v), 5) for v in state.code],
                "gaze": [round(float(v), 5) for v in state.gaze],
                "camera_from_head": np.round(state.camera_from_head, 6).tolist(),
            }
            file.write(json.dumps(line) + "\n")
            count += 1
    return count


def read_codes(path: str | os.PathLike) -> list[FaceState]:
    """Read a file that `write_codes` wrote.

    Raises:
        ValueError: Not such a file, an unknown version or code space, or a bad line (named).
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_text().splitlines()
        header = json.loads(lines[0])
        known = header.get("format") == FORMAT
    except (UnicodeDecodeError, json.JSONDecodeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: not an avat3r code file (from `avat3r track`)") from error
    if not known:
        raise ValueError(f"{path}: not an avat3r code file (from `avat3r track`)")
    if header.get("version") != VERSION:
        raise ValueError(f"{path}: expected version {VERSION}, got {header.get('version')}")
    states = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            frame = json.loads(line)
            states.append(
                FaceState(
                    stamp_s=float(frame["time_s"]),
                    detected=bool(frame["detected"]),
                    confidence=float(frame["confidence"]),
                    code=validate_code(header["code_space"], frame["code"]),
                    gaze=np.asarray(frame["gaze"], np.float32).reshape(2),
                    camera_from_head=np.asarray(frame["camera_from_head"], float).reshape(4, 4),
                    landmarks_px=np.zeros((0, 2), np.float32),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return states
