"""How well `headstart.diagnose` finds what was planted: every case of cases.py, one process, one after another.

    python benchmarks/diagnosis/run.py --cifar10 DIR --tiny-imagenet DIR --weights DIR [--part tune|report|all]
        [--only TEXT] [--out FILE] [--limit-cases N] [--list]

DIR of CIFAR-10 has train/<class>/ (or <class>/), that of Tiny ImageNet <class>/ folders, that of weights
mobilenetv2_100.safetensors and mobilenetv2_035.safetensors. Results are written after each case; a case that is there is not
run again. A case that fails is kept with its error, counted as nothing found, and run again by `--retry`. The table of
docs/diagnosis.md is written from the results by benchmarks/diagnosis/table.py.

For each case: what was planted; what the diagnosis proved and suspected, in its order; what the planted faults cost, in
points, measured by this benchmark's own probe (measuring.py) on the correct pipeline and on each faulty one; the accuracy
after the repair, measured the same way; seconds.
"""

import argparse
import datetime
import tempfile
import time
import traceback
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from cases import Case, Folders, MissingWeightsError, all_cases, correct_setup, planted
from faults import IN_PIPELINE, Place, drawn_anew
from measuring import (
    Correct,
    Features,
    Probe,
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
from setups import Pixels, Setup, own_copy, written_out
from torch import nn

import headstart
from headstart.analysis.statistics import paired_difference
from headstart.environment import describe_environment
from headstart.files import read_json, write_json

RESULTS = Path(__file__).parent.parent / "results" / "diagnosis.json"
FOUND = ("proved", "suspected")


def main() -> None:
    """Run the cases that were asked for and have not been run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--tiny-imagenet", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--part", choices=("tune", "report", "all"), default="all")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--limit-cases", type=int, help="stop after so many")
    parser.add_argument("--retry", action="store_true", help="run cases again that failed")
    parser.add_argument("--list", action="store_true", help="name the cases and run nothing")
    arguments = parser.parse_args()
    folders = Folders(arguments.cifar10, arguments.tiny_imagenet, arguments.weights)
    chosen = [case for case in all_cases() if arguments.part in (case.part, "all")]
    chosen = [case for case in chosen if arguments.only is None or arguments.only in case.name]
    if arguments.list:
        print("\n".join(f"{case.kind} {case.part} {case.name}" for case in chosen))
        return
    results: dict[str, Any] = read_json(arguments.out) if arguments.out.exists() else {"cases": {}}
    done = {name for name, row in results["cases"].items() if not (arguments.retry and "error" in row)}
    waiting = [case for case in chosen if case.name not in done][: arguments.limit_cases]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(waiting, start=1):
        started = time.perf_counter()
        try:
            row = examined(case, folders)
        except MissingWeightsError as error:
            print(f"[{number}/{len(waiting)}] {case.name}: left for later, {error}", flush=True)
            continue
        except Exception as error:  # noqa: BLE001 - one case that fails is a result, and no reason to stop the others
            traceback.print_exc()
            row = {"error": f"{type(error).__name__}: {error}"}
        row = {"kind": case.kind, "part": case.part, "planted": list(case.planted), **_where(case), **row}
        row["case_seconds"] = round(time.perf_counter() - started, 1)
        results["cases"][case.name] = row
        results["environment"] = describe_environment(torch.device("cpu"))
        results["date"] = datetime.date.today().isoformat()
        write_json(arguments.out, results)
        print(f"[{number}/{len(waiting)}] {case.name}: {_said(row)} ({row['case_seconds']} s)", flush=True)


def examined(case: Case, folders: Folders) -> dict[str, Any]:
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
    row: dict[str, Any] = {
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
        order = other_order(features.classes) if setup.permuted == "predictions" else None
        arguments["predictions"] = outputs[:, order] if order is not None else outputs
    if setup.history != "none":
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
    if proved & {1, 2, 3, 4, 5, 7} and record["repaired_recipe"] is not None:
        contract = record["repaired_recipe"]["preprocessing"]
        norm = (tuple(contract["mean"]), tuple(contract["std"]))
        reversed_channels = contract["channel_order"] == "BGR"
        pixels = Pixels(contract["input_size"], contract["interpolation"], (norm,), reversed_channels=reversed_channels)
        setup = replace(setup, pixels=pixels, style="torchvision")
    if 8 in proved:
        setup = replace(setup, training=False)
    if proved & {9, 13}:
        restored = own_copy(correct.backbone)
        restored.load_state_dict(dict(correct.published))
        setup = replace(setup, backbone=restored.eval())
    if 10 in proved:
        setup = re_estimated(setup)
    repaired = probe if setup is faulty else fit(features_of(setup))
    # Without a head among its causes, the author's own head would stay as bad as it was.
    return failing if on_test and 21 not in proved else repaired.accuracy(on_test=on_test)


def _said(row: dict[str, Any]) -> str:
    return row["error"] if "error" in row else f"planted {row['planted']}, found {row['found']}"


if __name__ == "__main__":
    main()
