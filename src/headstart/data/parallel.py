"""Many files at once on all cores, results in order, memory bounded."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 32  # chosen: small files cost 0.25 ms each, so that a chunk is long against the cost of handing it over
_CHUNKS_AHEAD = 2  # per thread: keeps every thread busy while the results before are taken


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    chunk: int = _CHUNK,
) -> Generator[Result, None, None]:
    """Apply a function to items on several threads.

    Threads, not processes: Pillow's decoders release the interpreter's lock, and a script that calls headstart needs no
    `if __name__ == "__main__"`. Measured on 2 cores with 32 x 32 WebP files: 0.18 ms a file, 0.25 ms on one thread.

    Args:
        function: must be safe to run in several threads.
        items: what to apply it to.
        progress: called in the caller's thread with (done, total).
        workers: number of threads; `None` takes as many as there are cores.
        chunk: items handed to a thread at once.

    Yields:
        One result per item, in the order of the items. At most a few chunks of results are held at once.
    """
    workers = workers or os.cpu_count() or 1
    total = len(items)

    def run(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + chunk]]

    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="headstart") as pool:
        try:
            starts = iter(range(0, total, chunk))
            for start in starts:
                waiting.append(pool.submit(run, start))
                if len(waiting) >= workers * _CHUNKS_AHEAD:
                    break
            done = 0
            while waiting:
                results = waiting.popleft().result()
                if (start_next := next(starts, None)) is not None:
                    waiting.append(pool.submit(run, start_next))
                yield from results
                done += len(results)
                if progress is not None:
                    progress(done, total)
        finally:
            for future in waiting:
                future.cancel()
