"""Work on many threads and in processes: order kept, memory bounded, errors passed on."""

import logging
import os
import threading
import time
from functools import partial

import pytest

from headstart.data.parallel import map_in_order


def test_order_and_progress() -> None:
    seen: list[tuple[int, int]] = []

    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    results = list(map_in_order(slow_first, range(1000), progress=lambda done, total: seen.append((done, total))))
    assert results == [item * item for item in range(1000)]
    assert seen[-1] == (1000, 1000)
    assert seen == sorted(seen)


def test_no_items() -> None:
    assert list(map_in_order(abs, [])) == []


def test_only_a_few_results_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.data.parallel.cores", lambda: 2)
    lock, started = threading.Lock(), [0]

    def count(item: int) -> int:
        with lock:
            started[0] += 1
        return item

    for taken, _ in enumerate(map_in_order(count, range(5000))):
        assert started[0] <= taken + 6 * 32


def test_an_error_is_passed_on_and_stops_the_rest() -> None:
    done = []

    def fail(item: int) -> int:
        done.append(item)
        if item == 10:
            raise KeyError("ten")
        return item

    with pytest.raises(KeyError, match="ten"):
        list(map_in_order(fail, range(100_000)))
    assert len(done) < 2000


def test_processes_give_the_same_and_are_others_than_this_one() -> None:
    seen: list[tuple[int, int]] = []
    told = partial(map_in_order, progress=lambda done, total: seen.append((done, total)), workers=2, chunk=7)
    results = list(told(_with_process, range(50), processes=True))
    assert [item for item, _ in results] == list(range(50))
    assert os.getpid() not in {process for _, process in results}
    assert seen == [(done, 50) for done in [*range(7, 50, 7), 50]]


def test_an_error_in_a_process_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(_reciprocal, [2, 1, 0], workers=2, chunk=1, processes=True))


def test_an_error_of_the_progress_display_is_no_breakdown() -> None:
    def closed(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        list(map_in_order(_with_process, range(9), progress=closed, workers=2, processes=True))


def test_threads_do_everything_where_no_process_can_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("daemonic processes are not allowed to have children")

    monkeypatch.setattr("loky.ProcessPoolExecutor.submit", refused)
    with caplog.at_level(logging.WARNING):
        results = list(map_in_order(_with_process, range(9), workers=2, processes=True))
    assert results == [(item, os.getpid()) for item in range(9)]
    assert "AssertionError" in caplog.text


def test_threads_do_the_rest_where_a_process_dies(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ended = partial(_ends_any_other_process, here=os.getpid())
        results = list(map_in_order(ended, range(40), workers=2, chunk=4, processes=True))
    assert results == list(range(40))
    assert "threads do the rest" in caplog.text


def _with_process(item: int) -> tuple[int, int]:
    return item, os.getpid()


def _reciprocal(item: int) -> float:
    return 1 / item


def _ends_any_other_process(item: int, here: int) -> int:
    if item == 21 and os.getpid() != here:
        os._exit(1)  # as one that the system ends for its memory
    return item
