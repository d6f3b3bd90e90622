"""Shared test set-up: run-time shape checks of the package's annotations, and few threads."""

import os
import sys
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the nodes

from beartype import BeartypeConf, beartype  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Annotated shapes are checked in tests only: live code and torch.compile pay nothing. An int is
# welcome where a float is asked for, as everywhere in Python.
sys.modules["avat3r_typechecker"] = SimpleNamespace(
    check=beartype(conf=BeartypeConf(is_pep484_tower=True))
)
install_import_hook("avat3r_ros", "avat3r_typechecker.check").__enter__()

import torch  # noqa: E402

torch.set_num_threads(2)
