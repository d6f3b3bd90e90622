"""Shared test set-up: run-time shape checks of the package's annotations, and few threads."""

import os
import pathlib
import resource
import signal
import sys
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the nodes
# Threads that wait for one another spin otherwise, and take the processor from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from beartype import BeartypeConf, beartype  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Annotated shapes are checked in tests only: live code and torch.compile pay nothing. An int is
# welcome where a float is asked for, as everywhere in Python.
sys.modules["avat3r_typechecker"] = SimpleNamespace(
    check=beartype(conf=BeartypeConf(is_pep484_tower=True))
)
install_import_hook("avat3r_ros", "avat3r_typechecker.check").__enter__()

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(2)


def pytest_collection_modifyitems(config, items):
    """Try real-time tests again, and keep the graph's tests out of each other's way.

    Machines in a cloud stand still at times, which fails tests whose subject is elapsed time. Of
    two processes (`make test`) one runs all tests of the graph, the other whole modules of others.
    """
    plugins = config.pluginmanager
    nodes = pathlib.Path(__file__).parent / "nodes"
    items.sort(key=lambda item: nodes not in item.path.parents)  # they take longest
    for item in items:
        if plugins.hasplugin("rerunfailures") and item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.flaky(reruns=4, reruns_delay=2))
        if plugins.hasplugin("xdist"):
            group = "nodes" if nodes in item.path.parents else str(item.path)
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_small_tensors(request):
    """In rooms whose tensors are small a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    if request.path.parent.name in ("animation", "dust3r", "model", "training"):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def full_disk():
    """Files of this process cannot grow beyond 100 kB, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
