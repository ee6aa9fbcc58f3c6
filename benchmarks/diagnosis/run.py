"""How well `headstart.diagnose` finds what was planted: every case of cases.py.

    python benchmarks/diagnosis/run.py --cifar10 DIR --tiny-imagenet DIR --weights DIR [--part tune|report|all]
        [--only TEXT] [--out DIR] [--limit-cases N] [--jobs N] [--retry] [--changed] [--list]

DIR of CIFAR-10 has train/<class>/ (or <class>/), that of Tiny ImageNet <class>/ folders, that of weights
mobilenetv2_100.safetensors and mobilenetv2_035.safetensors. Results are written after each case, into the file of its part:
diagnosis_tune.json or diagnosis_report.json in benchmarks/results/, or in the folder that --out names; a case that is there
is not run again. A case that fails is kept with its error, counted as nothing found, and run again by `--retry`; `--changed`
runs those again that were run with other code of headstart's or of this benchmark, the longest ago first. At the end the
tables and figures of docs/ are written from all results, as table.py, costs.py, examples.py and figures.py do by themselves;
with --out, which is for trials, the docs stay as they are.

With `--jobs 2` two cases run at a time, each on its share of the machine's cores; a file that another process is writing is
refused.

For each case: what was planted; what the diagnosis proved and suspected, in its order; what the planted faults cost, in
points, measured by this benchmark's own probe (measuring.py) on the correct pipeline and on each faulty one; the accuracy
after the repair, measured the same way; seconds. The repair is the record's recipe; of a network that headstart does not know
it is the lines of code that it gives, run as they are.
"""

import argparse
import datetime
import hashlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from cases import PARTS, Case, Folders, all_cases
from costs import write_costs
from examining import examined
from examples import write_examples
from figures import write_figures
from filelock import FileLock, Timeout
from rows import DOCS, RESULTS, Row, files_of, measured_files, part_file
from table import write_tables
from weight_files import MissingWeightsError

import headstart
from headstart.environment import describe_environment
from headstart.files import read_json, sha256_of_text, write_json

_DECIDING = ("analysis", "data", "diagnosis", "models", "study", "training", "weights")
"""Folders of headstart whose code and weights can change a diagnosis."""

_COUNTED = (".py", ".safetensors")

_OF_A_CASE = ("cases", "examining", "faults", "measuring", "setups", "unknown", "weight_files")
"""Files of this benchmark that decide what a case is and what is measured of it."""


def main() -> None:
    """Run the cases that were asked for and have not been run, then write down in docs/ what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--tiny-imagenet", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument(
        "--out", type=Path, help="folder of the results, instead of benchmarks/results; docs/ stays as it is"
    )
    parser.add_argument("--limit-cases", type=int, help="stop after so many")
    parser.add_argument("--jobs", type=int, default=1, help="cases that run at a time")
    parser.add_argument("--retry", action="store_true", help="run cases again that failed")
    parser.add_argument(
        "--changed", action="store_true", help="run cases again that were run with other code of headstart's"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and run nothing")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error("--jobs must be at least 1.")
    if arguments.out is not None and (arguments.out.suffix == ".json" or arguments.out.is_file()):
        parser.error(f"--out is a folder, in which every part has its file, not {arguments.out}.")
    folders = Folders(arguments.cifar10, arguments.tiny_imagenet, arguments.weights)
    chosen = [case for case in all_cases() if arguments.part in (case.part, "all")]
    chosen = [case for case in chosen if arguments.only is None or arguments.only in case.name]
    if arguments.list:
        print("\n".join(f"{case.kind} {case.part} {case.name}" for case in chosen))
        return
    folder = arguments.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    files = {part: part_file(part, folder) for part in PARTS if arguments.part in (part, "all")}
    with ExitStack() as alone:
        for path in files.values():
            alone.enter_context(_no_other_writing(path))
        code = code_version()
        results = {part: read_json(path) if path.exists() else {"cases": {}} for part, path in files.items()}
        done = {
            name
            for some in results.values()
            for name, row in some["cases"].items()
            if not (arguments.retry and "error" in row) and not (arguments.changed and row.get("code") != code)
        }
        ages = [name for some in results.values() for name in some["cases"]]
        waiting = oldest_first([case for case in chosen if case.name not in done], ages)[: arguments.limit_cases]
        for number, (case, row) in enumerate(_rows(waiting, folders, arguments.jobs), start=1):
            print(f"[{number}/{len(waiting)}] {case.name}: {_said(row)} ({row['case_seconds']} s)", flush=True)
            if "left" not in row:
                of_part = results[case.part]
                date = datetime.date.today().isoformat()
                of_part["cases"].pop(case.name, None)  # a file has its rows in the order in which they were measured
                of_part["cases"][case.name] = {**row, "code": code, "date": date}
                of_part["environment"] = describe_environment(torch.device("cpu"))
                of_part["jobs"] = arguments.jobs
                write_json(files[case.part], of_part)
        if arguments.out is None:
            write_docs()


def oldest_first(cases: Sequence[Case], measured: Sequence[str]) -> list[Case]:
    """Cases that were measured before, the longest ago first, then the others.

    Args:
        cases: in their own order.
        measured: names of cases, the longest ago first.
    """
    age = {name: place for place, name in enumerate(measured)}
    return sorted(cases, key=lambda case: age.get(case.name, len(age)))


@contextmanager
def _no_other_writing(path: Path) -> Iterator[None]:
    """Keep a file of results to this process; one that another is writing is refused."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"headstart-{sha256_of_text(str(path.resolve()))[:16]}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SystemExit(f"Another process is writing {path}. Wait for it, or give this one another --out.") from error
    try:
        yield
    finally:
        lock.release()


def write_docs(folder: Path = RESULTS, docs: Path = DOCS) -> None:
    """Write what both parts gave into docs/: the tables, what each mistake costs, and the figures.

    Args:
        folder: of the results. Where one part has none yet, nothing is written: the pages show both.
        docs: folder of the pages.
    """
    files = files_of(measured_files(folder))
    if missing := [part for part in PARTS if part_file(part, folder) not in files]:
        print(f"{docs} stays as it is: nothing of the part {' and '.join(missing)} has been measured.")
        return
    write_tables(files, docs)
    write_costs(files, docs)
    write_examples(files, docs)
    write_figures(files, docs)
    print(f"The tables and figures in {docs} are those of {', '.join(map(str, files))}.")


def _rows(cases: list[Case], folders: Folders, jobs: int) -> Iterator[tuple[Case, Row]]:
    """What each case gave, as soon as it is there."""
    if jobs == 1:
        for case in cases:
            yield case, _row(case.name, folders)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the processes that start below, before torch is there
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawned, torch.set_num_threads, (threads,)) as pool:
        running = {pool.submit(_row, case.name, folders): case for case in cases}
        try:
            for one in as_completed(running):
                yield running[one], one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _row(name: str, folders: Folders) -> Row:
    """One case's row; one that fails is a result, and no reason to stop the others."""
    started = time.perf_counter()
    case = next(case for case in all_cases() if case.name == name)  # by name: cases cannot go from process to process
    try:
        row = examined(case, folders)
    except MissingWeightsError as error:
        row = {"left": str(error)}
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        row = {"error": f"{type(error).__name__}: {error}"}
    row = {"kind": case.kind, "part": case.part, "planted": list(case.planted), **_where(case), **row}
    return {**row, "case_seconds": round(time.perf_counter() - started, 1)}


def _where(case: Case) -> dict[str, str]:
    return {
        "data": case.place.data,
        "backbone": case.place.backbone,
        "style": case.place.style,
        "network": case.place.network,
        "wanted": case.place.wanted,
        "evidence": case.evidence,
        "faults": "+".join(fault.name for fault in case.faults),
    }


def code_version() -> str:
    """A hash of what a row is measured with, headstart's and the benchmark's: rows of two versions are no one measurement."""
    package, here = Path(headstart.__file__).parent, Path(__file__).parent
    files = [path for folder in _DECIDING for path in (package / folder).rglob("*") if path.suffix in _COUNTED]
    digest = hashlib.sha256()
    for path in [*sorted(files), *(here / f"{name}.py" for name in _OF_A_CASE)]:
        root = package if path.is_relative_to(package) else here
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _said(row: Row) -> str:
    if "left" in row:
        return f"left for later, {row['left']}"
    return row["error"] if "error" in row else f"planted {row['planted']}, found {row['found']}"


if __name__ == "__main__":
    main()
