"""Several photos at once: like `map`, on as many threads as torch may use."""

import threading
import time

import pytest
import torch

from avat3r_ros.parallel import in_threads, meanwhile


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_torch_keeps_its_threads(threads):
    assert in_threads(lambda a, b: a - b, range(5), [1] * 5) == [-1, 0, 1, 2, 3]
    assert torch.get_num_threads() == threads
    assert in_threads(len, []) == []


def test_calls_run_beside_each_other_only_where_torch_may(threads):
    if threads == 1:
        assert set(in_threads(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}
        with meanwhile(threading.get_ident) as future:
            assert future.result() == threading.get_ident()
    else:
        both = threading.Barrier(2, timeout=20)
        in_threads(lambda _: both.wait(), range(2))  # stands still if one waits for the other
        with meanwhile(both.wait) as future:
            both.wait()
            future.result()


def test_errors_are_those_of_the_calls(threads):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda a: 1 / a, [1, 0])
    with pytest.raises(ZeroDivisionError), meanwhile(lambda: 1 / 0) as future:
        future.result()


def test_a_block_that_fails_leaves_no_call_running(threads):
    done = threading.Event()

    def call():
        time.sleep(0.2)
        done.set()

    with pytest.raises(KeyError), meanwhile(call):
        raise KeyError
    assert done.is_set()
