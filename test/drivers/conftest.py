"""Test folders are no packages; this makes datagrams.py importable from the files beside it."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
