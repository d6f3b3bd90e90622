"""Shared test set-up: run-time shape checks of the package's annotations, and few threads."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from jaxtyping import install_import_hook  # noqa: E402

# Every annotated shape of ours is checked in tests only, so live code and torch.compile pay nothing.
_hook = install_import_hook("avat3r_ros", "beartype.beartype")
_hook.__enter__()

import torch  # noqa: E402

torch.set_num_threads(2)
