"""Work that threads do ahead of its use: audio is read and decoded while the models compute.

The results come in the order of what was asked for, and only a few of them wait at a time, however fast the threads
are. Whoever stops early, or is interrupted, leaves no thread behind.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(items: Iterable[Item], read: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
    """Call `read` in threads, a few items before they are wanted, and yield each item with its result, in order.

    What `read` raises is raised where the result of its item would be yielded.
    """
    with reading_threads() as pool:
        for item, job in submit_ahead(pool, items, read):
            yield item, job.result()


@contextmanager
def reading_threads() -> Iterator[ThreadPoolExecutor]:
    """Open threads that read audio; what they have not begun at the end of the block is not begun any more."""
    # The name tells these threads from those of libraries.
    pool = ThreadPoolExecutor(read_threads(), thread_name_prefix="mint-read")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def submit_ahead(
    pool: ThreadPoolExecutor, items: Iterable[Item], read: Callable[[Item], Result]
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield each item with its job, in order, where as many further jobs as there are threads are on their way.

    Two more wait, so that no thread is idle while the consumer takes the next one.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(read, item)))
        # Decoded clips are large. The oldest is waited for, however many later ones are ready: the order stays.
        if len(waiting) > read_threads() + 2:
            yield waiting.popleft()

    # No item is left to be taken; the jobs that are on their way come to their end.
    while waiting:
        yield waiting.popleft()


def read_threads() -> int:
    """Return the number of threads that read audio: the cores of this process, shared by the ranks on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
