"""Many files at once on all cores, results in order, memory bounded."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import TypeVar

import loky

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 32  # chosen: small files cost 0.25 ms each, so that a chunk is long against the cost of handing it over
_CHUNKS_AHEAD = 2  # per worker: keeps every one busy while the results before are taken
_MOST_PROCESSES = 16  # chosen: each holds some 60 MB, and the process that takes their results is busy by then
_ORPHANED_SECONDS = 60  # chosen: after so long without work a process ends by itself, such as when this one was killed
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_log = logging.getLogger(__name__)


def cores() -> int:
    """How many cores this process may use: fewer than the machine has where its affinity or its container says so."""
    return int(loky.cpu_count())


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
        processes: instead of threads. Where they cannot start, or one is ended from outside (no memory), threads do the rest.

    Yields:
        One result per item, in the order of the items. At most a few chunks of results are held at once.
    """
    workers = workers or cores()
    done = 0

    def handed_on(results: list[Result]) -> Generator[Result, None, None]:
        nonlocal done
        yield from results
        done += len(results)
        if progress is not None:
            progress(done, len(items))

    if processes:
        few = min(workers, _MOST_PROCESSES)
        try:
            apart = loky.ProcessPoolExecutor(few, timeout=_ORPHANED_SECONDS, env=_ONE_THREAD)
            for results in _chunks(apart, few, function, items, chunk):
                yield from handed_on(results)
            return
        except _PoolError as error:
            _log.warning("Processes that were to share the work broke down (%s); threads do the rest.", error)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="headstart")
    for results in _chunks(pool, workers, function, items[done:], chunk):
        yield from handed_on(results)


class _PoolError(Exception):
    """The workers could not start, or one of them is no more; what the work itself raises is passed on as it is."""


def _chunks(
    executor: Executor, workers: int, function: Callable[[Item], Result], items: Sequence[Item], chunk: int
) -> Generator[list[Result], None, None]:
    """The results, chunk by chunk; the workers are sent home at the end."""
    waiting: deque[Future[list[Result]]] = deque()
    starts = iter(range(0, len(items), chunk))

    def submit() -> bool:
        if (start := next(starts, None)) is None:
            return False
        try:
            waiting.append(executor.submit(_applied, function, items[start : start + chunk]))
        except Exception as error:
            raise _PoolError(type(error).__name__) from error
        return True

    with executor:
        try:
            while len(waiting) < workers * _CHUNKS_AHEAD and submit():
                pass
            while waiting:
                try:
                    results = waiting.popleft().result()
                except BrokenExecutor as error:
                    raise _PoolError(type(error).__name__) from error
                submit()
                yield results
        finally:
            for future in waiting:
                future.cancel()


def _applied(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
