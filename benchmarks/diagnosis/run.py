"""How well `headstart.diagnose` finds what was planted: every case of cases.py.

    python benchmarks/diagnosis/run.py --cifar10 DIR --tiny-imagenet DIR --weights DIR [--part tune|report|all]
        [--only TEXT] [--out DIR] [--limit-cases N] [--jobs N] [--retry] [--changed] [--list]

DIR of CIFAR-10 has train/<class>/ (or <class>/), that of Tiny ImageNet <class>/ folders, that of weights
mobilenetv2_100.safetensors and mobilenetv2_035.safetensors. Results are written after each case, into the file of its part:
diagnosis_tune.json or diagnosis_report.json in benchmarks/results/, or in the folder that --out names; a case that is there is
not run again. A case that fails is kept with its error, counted as nothing found, and run again by `--retry`; `--changed` runs
those again that were run with other code of headstart's. At the end the tables and figures of docs/ are written from all results,
as table.py, costs.py and figures.py do by themselves; with --out, which is for trials, the docs stay as they are.

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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from cases import PARTS, Case, Folders, MissingWeightsError, all_cases, correct_setup, planted
from costs import write_costs
from faults import IN_PIPELINE, Place, drawn_anew
from figures import write_figures
from filelock import FileLock, Timeout
from measuring import (
    Correct,
    Features,
    Probe,
    ended_by_test,
    features_of,
    fit,
    head_correct,
    head_through_softmax,
    one_step_head,
    other_order,
    outputs_of,
    permuted_head,
    re_estimated,
    shares_of,
    training_curve,
)
from rows import DOCS, RESULTS, Row, files_of, measured_files, part_file
from setups import Pixels, Setup, own_copy, written_out
from table import write_tables
from torch import nn

import headstart
from headstart.analysis.statistics import paired_difference
from headstart.environment import describe_environment
from headstart.files import read_json, sha256_of_text, write_json

FOUND = ("proved", "suspected")
_OF_PIXELS = frozenset({1, 2, 3, 4, 5, 7})  # causes that another preprocessing repairs
_DECIDING = (
    "analysis",
    "data",
    "diagnosis",
    "models",
    "training",
)  # folders of headstart whose code can change a diagnosis


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
        waiting = [case for case in chosen if case.name not in done][: arguments.limit_cases]
        for number, (case, row) in enumerate(_rows(waiting, folders, arguments.jobs), start=1):
            print(f"[{number}/{len(waiting)}] {case.name}: {_said(row)} ({row['case_seconds']} s)", flush=True)
            if "left" not in row:
                of_part = results[case.part]
                date = datetime.date.today().isoformat()
                of_part["cases"][case.name] = {**row, "code": code, "date": date}
                of_part["environment"] = describe_environment(torch.device("cpu"))
                of_part["jobs"] = arguments.jobs
                write_json(files[case.part], of_part)
    if arguments.out is None:
        write_docs()


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


def code_version() -> str:
    """A hash of headstart's code that a diagnosis is made with: rows of two versions are no one measurement."""
    package = Path(headstart.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for folder in _DECIDING for path in (package / folder).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def examined(case: Case, folders: Folders) -> Row:
    """One case: measure what was planted, have it diagnosed, measure what the repair gives back."""
    correct = correct_setup(case.place, folders, case.evidence)
    faulty = planted(correct, case.faults)
    features = features_of(faulty)
    probe = fit(features)
    head, head_right = _headed(faulty, features, probe)
    record, seconds = _diagnosed(faulty, features, head, probe, folders.weights)
    causes = record["causes"]
    found = [cause["id"] for cause in causes if cause["status"] in FOUND]
    cells = _cells(correct, case, probe, folders)
    in_pipeline = [cause for cause in case.planted if cause in IN_PIPELINE]
    measured = shares_of({present: one.correct for present, one in cells.items()}, in_pipeline)
    # A head that fails for its own reasons is judged on test, and so is what it is compared with.
    on_test = not IN_PIPELINE.issuperset(case.planted)
    healthy = cells[frozenset()].accuracy(on_test=on_test)
    failing = float(head_right.mean()) if on_test else probe.accuracy(on_test=False)
    if 21 in case.planted:
        measured[21] = {"points": round(100 * (probe.accuracy(on_test=True) - failing), 3)}
    proved = {cause["id"] for cause in causes if cause["status"] == "proved"}
    row: Row = {
        "verdict": record["verdict"]["code"],
        "top": found[0] if found else None,
        "found": found,
        "checks": sum(cause["status"] != "could-not-look" for cause in causes),
        "causes": {
            str(cause["id"]): {
                "status": cause["status"],
                "points": cause["points"],
                "points_alone": cause.get("points_alone"),
                "code": cause["evidence"]["code"],
                "values": cause["evidence"]["values"],
                "like": cause["indistinguishable_from"],
            }
            for cause in causes
        },
        "measured": {str(cause): values for cause, values in measured.items()},
        "accuracy": {"healthy": healthy, "failing": failing, "said": record["accuracy"]},
        "seconds": round(seconds, 2),
        "parts_of_seconds": record["seconds"],
    }
    if case.faults and set(case.planted) <= IN_PIPELINE | {21}:
        row["accuracy"]["after_repair"] = _after_repair(correct, faulty, proved, record, probe, failing, on_test)
    row["unplanted"] = {
        str(cause): _of_the_data(cause, case.place, folders)
        for cause in (10, 20)
        if cause in found and cause not in case.planted
    }
    return row


@lru_cache(maxsize=64)
def _healthy(place: Place, folders: Folders) -> Probe:
    """The probe on a place's correct pipeline."""
    return fit(features_of(correct_setup(place, folders)))


@lru_cache(maxsize=64)
def _of_the_data(cause: int, place: Place, folders: Folders) -> dict[str, float]:
    """Whether a cause that was named and not planted is true of data and backbone: the points of the counterfactual.

    New batch-norm statistics may really help on pictures unlike the pretraining's (10), and pretrained features may really
    be worth no more than those of a random network (20).
    """
    correct, as_it_is = correct_setup(place, folders), _healthy(place, folders)
    if cause == 10:
        better, worse = fit(features_of(re_estimated(correct))), as_it_is
    else:
        random = replace(correct, backbone=drawn_anew(correct.backbone))
        better, worse = as_it_is, fit(features_of(re_estimated(random)))
    difference = paired_difference(better.correct[None], worse.correct[None])
    return {"points": 100 * difference.mean, "low": 100 * difference.low, "high": 100 * difference.high}


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


def _headed(setup: Setup, features: Features, probe: Probe) -> tuple[nn.Linear | None, Correct]:
    """The head that the author trained on this pipeline, and which test images the author's classifier gets right."""
    if setup.ending == "features":
        return None, probe.test
    head = {"fitted": lambda _: probe.head, "one-step": one_step_head, "through-softmax": head_through_softmax}[
        setup.head
    ](features)
    if setup.permuted == "head":
        head = permuted_head(head)
    return head, head_correct(head, features)


def _diagnosed(
    setup: Setup, features: Features, head: nn.Linear | None, probe: Probe, weights: Path
) -> tuple[dict[str, Any], float]:
    """What headstart says of the author's script."""
    script = written_out(setup, head)
    arguments = dict(script.arguments)
    if setup.predictions:
        outputs = outputs_of(probe.head if head is None else head, features.part(features.split.test)[0])
        if setup.permuted == "predictions":
            outputs = outputs[:, other_order(features.classes)]
        elif setup.permuted == "images":
            outputs = outputs[other_order(len(outputs))]
        arguments["predictions"] = outputs
    if setup.history == "test":
        arguments["history"] = ended_by_test(features, probe.head if head is None else head)
    elif setup.history != "none":
        arguments["history"] = training_curve(features, setup.history)
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        diagnosis = headstart.diagnose(
            script.model,
            setup.data,
            keep_duplicates=setup.keep_duplicates,
            weights_dir=weights,
            device="cpu",
            runs=runs,
            language="en",
            **arguments,
        )
        return diagnosis.record, time.perf_counter() - started


def _cells(correct: Setup, case: Case, probe: Probe, folders: Folders) -> dict[frozenset[int], Probe]:
    """The pipeline with every set of the planted faults that can be left out; `probe` is the one with all of them."""
    faults = {fault.cause: fault for fault in case.faults if fault.cause in IN_PIPELINE}
    # A fault outside the pipeline may have changed the data: the cells are then measured on the data as it was.
    changed = bool(faults) and not {16, 20}.isdisjoint(case.planted)
    cells: dict[frozenset[int], Probe] = {}
    for size in range(len(faults) + 1):
        for present in combinations(faults, size):
            if faults and not present:
                cells[frozenset()] = _healthy(case.place, folders)
            elif len(present) < len(faults) or changed:
                cells[frozenset(present)] = fit(features_of(planted(correct, tuple(faults[one] for one in present))))
            else:
                cells[frozenset(present)] = probe
    return cells


def _after_repair(
    correct: Setup,
    faulty: Setup,
    proved: set[int],
    record: dict[str, Any],
    probe: Probe,
    failing: float,
    on_test: bool,
) -> float:
    """Accuracy once what was proved is changed as the diagnosis says, by this benchmark's probe."""
    if not proved & (IN_PIPELINE | {21}):
        return failing
    setup = faulty
    if proved & _OF_PIXELS and record["repaired_recipe"] is not None:
        contract = record["repaired_recipe"]["preprocessing"]
        norm = (tuple(contract["mean"]), tuple(contract["std"]))
        reversed_channels = contract["channel_order"] == "BGR"
        pixels = Pixels(contract["input_size"], contract["interpolation"], (norm,), reversed_channels=reversed_channels)
        setup = replace(setup, pixels=pixels, style="torchvision")
    elif proved & _OF_PIXELS:  # no recipe says all of the repair: its lines of code do
        pixels = replace(setup.pixels, inner=(), frame=None)
        setup = replace(
            setup, pixels=pixels, style="torchvision", preprocess=_given_preprocess(record["repair"]["code"])
        )
    if 8 in proved:
        setup = replace(setup, training=False)
    if proved & {9, 13} and correct.published:
        restored = own_copy(correct.backbone)
        restored.load_state_dict(dict(correct.published))
        setup = replace(setup, backbone=restored.eval())
    if 10 in proved:
        setup = re_estimated(setup)
    repaired = probe if setup is faulty else fit(features_of(setup))
    # Without a head among its causes, the author's own head would stay as bad as it was.
    return failing if on_test and 21 not in proved else repaired.accuracy(on_test=on_test)


def _given_preprocess(code: str) -> Callable[[Any], Any]:
    """The preprocessing that a diagnosis writes out for its reader, as it stands there."""
    before, closing, _ = code.partition("\n])")
    names: dict[str, Any] = {}
    exec(before + closing, names)
    preprocess: Callable[[Any], Any] = names["preprocess"]
    return preprocess


def _said(row: Row) -> str:
    if "left" in row:
        return f"left for later, {row['left']}"
    return row["error"] if "error" in row else f"planted {row['planted']}, found {row['found']}"


if __name__ == "__main__":
    main()
