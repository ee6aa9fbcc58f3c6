"""One case of the benchmark: plant, measure, have it diagnosed, repair as the diagnosis says, measure again."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from cases import Case, Folders, correct_setup, planted
from faults import IN_PIPELINE, Place, drawn_anew
from measuring import (
    Correct,
    Features,
    Probe,
    ended_by_test,
    features_of,
    fine_tuned,
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
from rows import Row
from setups import Pixels, Setup, own_copy, written_out
from torch import nn
from weight_files import saved

import headstart
from headstart.analysis.diagnosis import OF_PIXELS
from headstart.analysis.statistics import paired_difference
from headstart.records import Preprocessing, Recipe

FOUND = ("proved", "suspected")
_SCRATCH_EPOCHS, _SCRATCH_WIDTH = 5, 16
_LARGE_STEM = "mobilenetv2_035"


def examined(case: Case, folders: Folders) -> Row:
    """One case: measure what was planted, have it diagnosed, measure what the repair gives back."""
    correct = correct_setup(case.place, folders, case.evidence)
    faulty = planted(correct, case.faults)
    features = features_of(faulty)
    probe = fit(features)
    # What a fault costs is measured with the network as it was published, also where its author goes on training it.
    tuned = faulty.tuned != "no"
    handed = fine_tuned(faulty, probe.head) if tuned else faulty
    given = features_of(handed) if tuned else features
    if faulty.tuned == "gently":  # its author fits the head once more at the end: it has no fault of its own
        handed = replace(handed, own_head=fit(given).head)
    head, head_right = _headed(handed, given, probe)
    if faulty.scratch == "none":
        record, seconds = _diagnosed(handed, given, head, probe, folders.weights)
    else:
        record, seconds = _diagnosed_run(faulty, case.place.backbone, folders.weights)
    causes = record["causes"]
    found = [cause["id"] for cause in causes if cause["status"] in FOUND]
    cells = _cells(correct, case, probe, folders)
    in_pipeline = [cause for cause in case.planted if cause in IN_PIPELINE]
    measured = shares_of({present: one.correct for present, one in cells.items()}, in_pipeline)
    # A head that fails for its own reasons is judged on test, and so is what it is compared with.
    on_test = not IN_PIPELINE.issuperset(case.planted)
    healthy = cells[frozenset()].accuracy(on_test=on_test)
    failing = float(head_right.mean()) if on_test else probe.accuracy(on_test=False)
    if 21 in case.planted or (tuned and 11 in case.planted):
        cause = 21 if 21 in case.planted else 11
        measured[cause] = {"points": round(100 * (probe.accuracy(on_test=True) - failing), 3)}
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
    if case.faults and set(case.planted) <= IN_PIPELINE | {21} and not tuned:
        row["accuracy"]["after_repair"] = _after_repair(correct, faulty, proved, record, probe, failing, on_test)
    if tuned and case.planted == (11,):  # its repair is the head alone, on the published network
        after = _published_with(record, correct) if 11 in proved else None
        row["accuracy"]["after_repair"] = failing if after is None else after
    if case.planted == (15,) and faulty.permuted == "head" and head is not None:
        row["accuracy"]["after_repair"] = _renamed(record, head, features) if 15 in proved else failing
    row["unplanted"] = {
        str(cause): _of_the_data(cause, case.place, folders)
        for cause in (10, 20)
        if cause in found and cause not in case.planted
    }
    if 21 in found and 21 not in case.planted:
        behind = paired_difference(fit(given).test[None], head_right[None])
        row["unplanted"]["21"] = {"points": 100 * behind.mean, "low": 100 * behind.low, "high": 100 * behind.high}
    if tuned and 11 in found and 11 not in case.planted:
        behind = paired_difference(probe.test[None], head_right[None])
        row["unplanted"]["11"] = {"points": 100 * behind.mean, "low": 100 * behind.low, "high": 100 * behind.high}
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


def _headed(setup: Setup, features: Features, probe: Probe) -> tuple[nn.Linear | None, Correct]:
    """The head that the author trained on this pipeline, and which test images the author's classifier gets right."""
    if setup.ending == "features":
        return None, probe.test
    if setup.own_head is not None:
        return setup.own_head, head_correct(setup.own_head, features)
    head = {"fitted": lambda _: probe.head, "one-step": one_step_head, "through-softmax": head_through_softmax}[
        setup.head
    ](features)
    if setup.permuted == "head":
        head = permuted_head(head)
    return head, head_correct(head, features)


def _diagnosed_run(setup: Setup, backbone: str, weights: Path) -> tuple[dict[str, Any], float]:
    """What headstart says of the transfer recipe of a run, in which it met a network from scratch."""
    pixels: Any = setup.pixels  # correct ones, which have a size
    contract = Preprocessing(pixels.size, pixels.interpolation, *setup.norm)
    transfer = Recipe("transfer", "probe", backbone=backbone, preprocessing=contract)
    scratch = Recipe("scratch", "scratch", epochs=_SCRATCH_EPOCHS, batch_size=64, width=_SCRATCH_WIDTH)
    if setup.scratch == "made-for-large-images":
        scratch = scratch.with_changes(backbone=_LARGE_STEM, input_size=setup.data.canvas)
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Any] = {
            "runs": Path(folder) / "runs",
            "weights_dir": weights,
            "device": "cpu",
            "language": "en",
        }
        run = headstart.compare(saved(setup.data, Path(folder)), [transfer, scratch], 1, **runs)
        started = time.perf_counter()
        diagnosis = headstart.diagnose(run.folder, recipe="transfer", **runs)
        return diagnosis.record, time.perf_counter() - started


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
            weights_dir=setup.weights or weights,
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
    if proved & OF_PIXELS and record["repaired_recipe"] is not None:
        pixels = _pixels_of(record["repaired_recipe"]["preprocessing"])
        setup = replace(setup, pixels=pixels, style="torchvision")
    elif proved & OF_PIXELS:  # no recipe says all of the repair: its lines of code do
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


def _renamed(record: dict[str, Any], head: nn.Linear, features: Features) -> float:
    """Accuracy on test of a head whose answers are renamed by the lines that a diagnosis writes out for its reader."""
    values, labels = features.part(features.split.test)
    names: dict[str, Any] = {"torch": torch, "predicted": torch.from_numpy(outputs_of(head, values).argmax(1))}
    exec("\n".join(line for line in record["repair"]["code"].splitlines() if "meant" in line), names)
    return float((names["named"].numpy() == labels).mean())


def _published_with(record: dict[str, Any], correct: Setup) -> float | None:
    """Accuracy on test of a probe on the published network with the pixels of the repaired recipe; `None` where there is none."""
    if record["repaired_recipe"] is None:
        return None
    repaired = replace(correct, pixels=_pixels_of(record["repaired_recipe"]["preprocessing"]), style="torchvision")
    return fit(features_of(repaired)).accuracy(on_test=True)


def _pixels_of(contract: dict[str, Any]) -> Pixels:
    """A contract of headstart's in an author's preprocessing."""
    norm = (tuple(contract["mean"]), tuple(contract["std"]))
    reversed_channels = contract["channel_order"] == "BGR"
    return Pixels(contract["input_size"], contract["interpolation"], (norm,), reversed_channels=reversed_channels)


def _given_preprocess(code: str) -> Callable[[Any], Any]:
    """The preprocessing that a diagnosis writes out for its reader, as it stands there."""
    before, closing, _ = code.partition("\n])")
    names: dict[str, Any] = {}
    exec(before + closing, names)
    preprocess: Callable[[Any], Any] = names["preprocess"]
    return preprocess
