"""One measured thing, one fresh process: its seconds from start to end, what it reports and, on request, its peak memory.

A process of its own keeps TensorFlow's threads away from PyTorch's, and its seconds include the start and the imports.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from headstart.environment import share_cores
from headstart.files import read_json

Word = str | int | float | Path
"""Of a command line."""

ROOT = Path(__file__).parent.parent.parent
_LAST_LINES = 30  # of a failed process' output


@dataclass(frozen=True)
class Finished:
    """A process that ended well.

    Attributes:
        seconds: from its start to its end.
        facts: what it reported.
        peak_rss_bytes: highest resident memory, summed over the process and its children; mapped files count while resident.
        peak_uss_bytes: the same of what no other process shares.
        peak_anonymous_bytes: the same without mapped files (Linux; 0 elsewhere).
    """

    seconds: float
    facts: dict[str, Any]
    peak_rss_bytes: int = 0
    peak_uss_bytes: int = 0
    peak_anonymous_bytes: int = 0


class FailedProcessError(Exception):
    """A measured process ended with an error; the message has the end of its output."""


def script(module: str, *arguments: Word, cache: Path | None = None, watch: float = 0.0) -> Finished:
    """Run a script of this package that writes its facts to `--out`.

    Args:
        module: its name in this package.
        arguments: of its command line.
        cache: headstart's cache folder for this process.
        watch: seconds from one look at its memory to the next; 0 never looks.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "facts.json"
        command = [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments), "--out", str(out)]
        seconds, peaks = _run(command, cache, watch, ours=module == "ours")
        return Finished(seconds, read_json(out), *peaks)


def compare(data: Path, weights: Path, *arguments: Word, cache: Path, runs: Path, watch: float = 0.0) -> Finished:
    """Run `headstart compare` as its user does, from files to report.

    Args:
        data: folder of images.
        weights: folder of weight files.
        arguments: more of the command line.
        cache: headstart's cache folder for this process; an empty one makes the run a cold one.
        runs: a folder in which this run finds nothing to go on from.
        watch: seconds from one look at its memory to the next; 0 never looks.

    Returns:
        Its facts are those of `results.json`.
    """
    with tempfile.TemporaryDirectory(dir=runs) as folder:
        options = ["--weights-dir", str(weights), "--runs", folder, "--name", "measured", "--lang", "en"]
        command = [sys.executable, "-m", "headstart", "compare", str(data), *options, *map(str, arguments)]
        seconds, peaks = _run(command, cache, watch)
        return Finished(seconds, read_json(Path(folder) / "measured" / "results.json"), *peaks)


@contextmanager
def empty_cache(work: Path) -> Iterator[Path]:
    """An empty cache folder of headstart's, removed at the end of the block."""
    with tempfile.TemporaryDirectory(dir=work, prefix="cache-") as folder:
        yield Path(folder)


def in_turns(rounds: int, *runners: Callable[[], Finished]) -> list[list[Finished]]:
    """Run each once, then each once more, and so on; one list of `rounds` results per runner."""
    turns = [[runner() for runner in runners] for _ in range(rounds)]
    return [list(column) for column in zip(*turns, strict=True)]


def seconds_of(runs: list[Finished]) -> list[float]:
    """The seconds of each, to a hundredth."""
    return [round(run.seconds, 2) for run in runs]


def medians(runs: list[Finished], fact: str) -> float:
    """The median of a number that each run reported."""
    return float(statistics.median(run.facts[fact] for run in runs))


def _run(
    command: list[str], cache: Path | None, watch: float, ours: bool = False
) -> tuple[float, tuple[int, int, int]]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}  # fewer lines on the terminal, nothing else
    if ours:
        share_cores(environment)  # as headstart's command line does for itself
    if cache is not None:
        environment["HEADSTART_CACHE"] = str(cache)
    peaks = (0, 0, 0)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        started = time.perf_counter()
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while watch and process.poll() is None:
                rss, uss, anonymous = _memory(process)
                peaks = max(peaks[0], rss), max(peaks[1], uss), max(peaks[2], anonymous)
                with suppress(psutil.TimeoutExpired):
                    process.wait(watch)
            code = process.wait()
        finally:
            seconds = time.perf_counter() - started
            _end(process)
        if code:
            output.seek(0)
            last = "".join(output.readlines()[-_LAST_LINES:])
            raise FailedProcessError(f"{' '.join(command)} ended with code {code}:\n{last}")
    return seconds, peaks


def _memory(process: psutil.Process) -> tuple[int, int, int]:
    """Resident, unshared and anonymous bytes of a process and its children, now."""
    rss = uss = anonymous = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:  # it has just ended
        return 0, 0, 0
    for one in family:
        try:
            memory = one.memory_full_info()
        except psutil.Error:
            continue
        rss += memory.rss
        uss += memory.uss
        anonymous += memory.rss - memory.shared if hasattr(memory, "shared") else 0
    return rss, uss, anonymous


def _end(process: psutil.Popen) -> None:
    """End a process that an interruption left running, and its children."""
    if process.poll() is not None:
        return
    for one in [*process.children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    process.wait()
