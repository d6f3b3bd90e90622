"""Several photos at once, in threads: most of the work is done outside Python's lock.

As many threads as torch may use. A process that has set torch to one thread, because something live
runs beside it, stays on one.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def in_threads(function: Callable[..., T], *sequences: Sequence[Any]) -> list[T]:
    """`map` over sequences of equal length; the first error is raised as there."""
    before = torch.get_num_threads()
    threads = min(before, len(sequences[0]))
    if threads < 2:
        return [function(*values) for values in zip(*sequences, strict=True)]
    try:
        # Threads of torch within these would wait for each other.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, *sequences))
    finally:
        torch.set_num_threads(before)


@contextmanager
def meanwhile(function: Callable[..., T], *args: Any) -> "Iterator[Future[T]]":
    """Make a call in another thread during a `with` block, or at once where there is only one.

    The block ends when the call has, errors or not: networks must not outlive their closing at the
    interpreter's exit.
    """
    if torch.get_num_threads() > 1:
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(function, *args)
        return
    future = Future()
    try:
        future.set_result(function(*args))
    except Exception as error:
        future.set_exception(error)
    yield future
