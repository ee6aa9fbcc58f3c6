"""Many files at once on all cores, results in order, memory bounded."""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from loky import ProcessPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 32  # chosen: small files cost 0.25 ms each, so that a chunk is long against the cost of handing it over
_CHUNKS_AHEAD = 2  # per worker: keeps every one busy while the results before are taken
_MOST_PROCESSES = 16  # chosen: each holds some 60 MB, and the process that takes their results is busy by then

_log = logging.getLogger(__name__)


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    chunk: int = _CHUNK,
    processes: bool = False,
) -> Generator[Result, None, None]:
    """Apply a function to items on several threads, or in several processes.

    Threads start at once and copy nothing, but much of the work on a small image is Python's, which one thread at a time can do:
    two needed longer than one for files of 32 x 32 pixels (docs/log.md). Processes take most of a second to start, and every
    result has to be copied. They are loky's, so that a script that calls headstart needs no `if __name__ == "__main__"`.

    Args:
        function: must be safe to run in several threads; for processes it can be pickled, and so can items and results.
        items: what to apply it to.
        progress: called in the caller's thread with (done, total).
        workers: their number; `None` takes as many as there are cores (of processes 16 at most).
        chunk: items handed to a worker at once.
        processes: instead of threads. Where they break down (no memory, a decoder that crashes), threads do the rest.

    Yields:
        One result per item, in the order of the items. At most a few chunks of results are held at once.
    """
    workers = workers or os.cpu_count() or 1
    total, done = len(items), 0
    if processes:
        workers = min(workers, _MOST_PROCESSES)
        try:
            for results in _chunks(ProcessPoolExecutor(workers), workers, function, items, chunk):
                yield from results
                done += len(results)
                if progress is not None:
                    progress(done, total)
            return
        except (BrokenExecutor, OSError) as error:
            _log.warning("Processes that shared the work broke down (%s); threads do the rest.", type(error).__name__)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="headstart")
    for results in _chunks(pool, workers, function, items[done:], chunk):
        yield from results
        done += len(results)
        if progress is not None:
            progress(done, total)


def _chunks(
    executor: Executor, workers: int, function: Callable[[Item], Result], items: Sequence[Item], chunk: int
) -> Generator[list[Result], None, None]:
    """The results, chunk by chunk; the executor is shut down at the end."""
    waiting: deque[Future[list[Result]]] = deque()
    with executor as pool:
        try:
            for start in range(0, len(items), chunk):
                waiting.append(pool.submit(_applied, function, items[start : start + chunk]))
                if len(waiting) >= workers * _CHUNKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _applied(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
