"""Work on many threads: order kept, memory bounded, errors passed on."""

import threading
import time

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
    monkeypatch.setattr("os.cpu_count", lambda: 2)
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
