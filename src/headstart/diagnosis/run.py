"""A diagnosis from the request to its record: examine, run the failing and the repaired pipeline on all data, write it down.

runs/<name>/
  request.json      what was asked for; the same request finds its diagnosis done
  trials/           the failing and the repaired recipe, as in any run
  repaired.toml     the repaired recipe, for `headstart compare --recipe`
  diagnosis.json    the findings (docs/diagnosis.md); written last
"""

import datetime
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headstart.analysis.diagnosis import CATALOGUE, Finding, Status, waterfall
from headstart.analysis.statistics import Estimate, bootstrap_accuracy, paired_difference
from headstart.data.sources import load_images
from headstart.data.splits import draw_stratified, make_split
from headstart.diagnosis.examine import HEAD_BEHIND, Control, Examination, examine
from headstart.diagnosis.look_training import gap_finding
from headstart.diagnosis.prove import cell_features, held_out, network_with
from headstart.diagnosis.repair import code_lines, list_changes, repaired_recipe, to_toml
from headstart.diagnosis.subject import Subject, subject_of_recipe
from headstart.errors import UsageError
from headstart.files import canonical_json, read_json, sha256_of_text, write_json, write_text
from headstart.models.backbones import find_backbone
from headstart.randomness import generator
from headstart.records import Booleans, DuplicateReport, ImageSet, Indices, Recipe, Split, TrialResult
from headstart.study.ledger import Ledger, open_run, recipe_from_json
from headstart.study.observer import Observer, decoding_progress
from headstart.study.planning import Overrides, resolve_recipe
from headstart.study.presets import DEFAULT_BACKBONE, classroom_recipes, default_backbones, named_recipe
from headstart.study.run import finished_trial, recipe_to_json
from headstart.study.trial import Bench
from headstart.training.engine import DivergedError
from headstart.version import __version__

DIAGNOSIS_SCHEMA_VERSION = 1
_MOST_LABELS, _MOST_VAL, _MOST_JUDGED = (
    5000,
    1000,
    5000,
)  # chosen: somebody's own network runs in PyTorch, image by image
_SEED = 0


@dataclass(frozen=True)
class DiagnosisRequest:
    """What is asked of a diagnosis; see the command line's help for each option."""

    data: str
    recipe: str | Recipe | None = None
    backbone: str | None = None
    weights_dir: Path | None = None
    limit: int | None = None
    split_seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    remove_duplicates: bool = True
    name: str | None = None
    runs: Path = Path("runs")


@dataclass(frozen=True)
class Judged:
    """A pipeline on all data: its accuracy, which images it got right `(S, n)`, and how many labels it learned from."""

    accuracy: Estimate
    correct: Booleans
    labels: int


def diagnose_recipe(request: DiagnosisRequest, device: torch.device, observer: Observer, command: str) -> Path:
    """Diagnose one of our recipes.

    Args:
        request: what is asked for.
        device: where networks run.
        observer: told of every step.
        command: recorded as the way to reproduce it.

    Returns:
        The folder with `diagnosis.json`; found done where the same request was diagnosed before.

    Raises:
        HeadstartError: recipe, data or weights cannot be used; the message says what to do.
    """
    started = time.perf_counter()
    images, split, duplicates = load_data(request, observer)
    recipe = _requested_recipe(request, images)
    if recipe.kind not in ("probe", "finetune") or recipe.backbone is None:
        raise UsageError(
            f"Recipe {recipe.name!r} ({recipe.kind}) does not reuse a pretrained network; there is no transfer to diagnose. "
            "Name a probe or a finetune recipe with --recipe."
        )
    backbone = find_backbone(recipe.backbone, request.weights_dir)
    failing = resolve_recipe(recipe, images, split, backbone, Overrides())
    asked = {
        "diagnosis": DIAGNOSIS_SCHEMA_VERSION,
        "data": images.fingerprint,
        "recipe": recipe_to_json(failing),
        "split_seed": request.split_seed,
        "val_fraction": request.val_fraction,
        "test_fraction": request.test_fraction,
        "remove_duplicates": request.remove_duplicates,
    }
    identity = sha256_of_text(canonical_json(asked))
    ledger = open_run(request.runs, request.name, f"{images.name}-diagnosis", asked)
    done = ledger.folder / "diagnosis.json"
    if done.exists() and read_json(done).get("identity") == identity:
        return ledger.folder
    with ledger.locked():
        bench = Bench(images, split, device, observer)
        observer.stage("training", 1)
        first, _ = finished_trial(failing, backbone, bench, ledger, _SEED)
        subject = subject_of_recipe(failing, backbone)
        examination = examine(subject, images, split, duplicates, observer)
        examination = _with_training(examination, failing, first, bench, backbone, ledger)
        proved = [finding for finding in examination.findings if finding.status == "proved"]
        repairing = time.perf_counter()
        repaired: Recipe | None = None
        second: TrialResult | None = None
        if proved:
            cured = repaired_recipe(failing, examination.repairs.preprocessing, [f.cause for f in proved])
            repaired = resolve_recipe(cured, images, split, backbone, Overrides())
            second, _ = finished_trial(repaired, backbone, bench, ledger, _SEED)
            write_text(ledger.folder / "repaired.toml", to_toml(repaired))
        record = _record(
            subject,
            images,
            split,
            examination,
            failing=_of_trial(first, split),
            repaired=_of_trial(second, split) if second is not None else None,
            repaired_recipe=repaired,
            name=ledger.folder.name,
            command=command,
            part="test",
            seconds={
                "repair": time.perf_counter() - repairing,
                "total": time.perf_counter() - started,
            },
        )
        write_json(done, record | {"identity": identity})
    return ledger.folder


def diagnose_subject(
    subject: Subject,
    images: ImageSet,
    split: Split,
    duplicates: DuplicateReport,
    *,
    observer: Observer,
    runs: Path,
    name: str | None,
    command: str,
) -> Path:
    """Diagnose somebody's own network, from the tensors that really arrive.

    Args:
        subject: from `subject_of_module`.
        images, split, duplicates: its data.
        observer: told of every step.
        runs, name: of the folder; its files are replaced.
        command: recorded as the way to reproduce it.

    Returns:
        The folder with `diagnosis.json`.
    """
    started = time.perf_counter()
    examination = examine(subject, images, split, duplicates, observer)
    proved = [finding for finding in examination.findings if finding.status == "proved"]
    repairing = time.perf_counter()
    whole = _whole(images, split)
    failing = _judge_failing(subject, examination, images, split, whole)
    repaired = None
    in_pipeline = {finding.cause for finding in proved} & set(examination.factors)
    if in_pipeline or any(finding.cause == 21 for finding in proved):
        repaired = _judge_cell(subject, examination, images, whole, set(examination.factors) - in_pipeline)
    record = _record(
        subject,
        images,
        split,
        examination,
        failing=failing,
        repaired=repaired,
        repaired_recipe=_recipe_of(subject, examination) if in_pipeline else None,
        name=name or f"{images.name}-diagnosis",
        command=command,
        part="test",
        seconds={"repair": time.perf_counter() - repairing, "total": time.perf_counter() - started},
    )
    folder = runs / str(record["name"])
    folder.mkdir(parents=True, exist_ok=True)
    if record["repaired_recipe"] is not None:
        write_text(folder / "repaired.toml", to_toml(recipe_from_json(record["repaired_recipe"])))
    write_json(folder / "diagnosis.json", record)
    return folder


def load_data(request: DiagnosisRequest, observer: Observer) -> tuple[ImageSet, Split, DuplicateReport]:
    """Load and split the data of a request."""
    images = load_images(
        request.data, limit=request.limit, seed=request.split_seed, progress=decoding_progress(observer)
    )
    split, duplicates = make_split(
        images,
        seed=request.split_seed,
        val_fraction=request.val_fraction,
        test_fraction=request.test_fraction,
        remove_duplicates=request.remove_duplicates,
    )
    observer.data_ready(images, split, duplicates)
    return images, split, duplicates


def _requested_recipe(request: DiagnosisRequest, images: ImageSet) -> Recipe:
    if isinstance(request.recipe, Recipe):
        return request.recipe
    backbone = request.backbone or DEFAULT_BACKBONE
    if request.recipe is None:
        return next(recipe for recipe in classroom_recipes(backbone) if recipe.uses_pretrained_weights)
    known = [request.backbone] if request.backbone else default_backbones(images)
    return named_recipe(request.recipe, images, known)


def _with_training(
    examination: Examination, recipe: Recipe, result: TrialResult, bench: Bench, backbone: Any, ledger: Ledger
) -> Examination:
    """What the failing trial itself says: its gap (22), its head (21), and whether fine-tuning made it worse (11)."""
    train, val = float(result.train_correct.mean()), float((result.val_logits.argmax(1) == result.val_labels).mean())
    changed = [gap_finding(train, val)]
    controls = list(examination.controls)
    if recipe.kind == "finetune" or recipe.head == "gradient":
        probe = recipe.with_changes(name=f"{recipe.name}-convex", kind="probe", head="convex", epochs=0)
        try:
            other, _ = finished_trial(probe, backbone, bench, ledger, _SEED)
        except DivergedError:  # a probe has no rate to diverge with; were it to, there is nothing to compare
            return examination.with_findings(changed)
        ours, theirs = _correct(result), _correct(other)
        better = paired_difference(theirs, ours)
        values = {"head": round(float(ours.mean()), 4), "probe": round(float(theirs.mean()), 4)}
        points = Estimate(100 * better.mean, 100 * better.low, 100 * better.high, better.method)
        proved = better.low > 0 and better.mean > HEAD_BEHIND
        status: Status = "proved" if proved else "cleared"
        if recipe.kind == "finetune":
            code = "below-probe" if proved else "training-calm"
            seen = {"accuracy": values["head"], "probe": values["probe"]} if proved else {}
            changed.append(Finding(11, status, code, seen, points if proved else None))
        else:
            code = "head-below-probe" if proved else "head-at-probe"
            changed.append(Finding(21, status, code, values, points))
            controls.append(Control("convex-head", bootstrap_accuracy(theirs), bootstrap_accuracy(ours), code))
    return replace(examination.with_findings(changed), controls=tuple(controls))


@dataclass(frozen=True)
class _Whole:
    """As many labels and test images as somebody's own network can be run on in seconds, stratified."""

    train: Indices
    test: Indices


def _whole(images: ImageSet, split: Split) -> _Whole:
    classes = len(images.class_names)

    def fewer(part: Indices, most: int, purpose: str) -> Indices:
        if len(part) <= most:
            return part
        return part[draw_stratified(images.labels[part], classes, most, generator(0, "diagnosis", purpose))]

    return _Whole(fewer(split.train, _MOST_LABELS, "all labels"), fewer(split.test, _MOST_JUDGED, "all judged"))


def _judge_failing(subject: Subject, examination: Examination, images: ImageSet, split: Split, whole: _Whole) -> Judged:
    """The network's own predictions on test, where it has a head; otherwise the probe on its features."""
    if examination.predictions is not None:
        correct = (examination.predictions.argmax(1) == images.labels[split.test])[None]
        return Judged(bootstrap_accuracy(correct), correct, 0)
    return _judge_cell(subject, examination, images, whole, set(examination.factors))


def _judge_cell(
    subject: Subject, examination: Examination, images: ImageSet, whole: _Whole, faults: set[int]
) -> Judged:
    cell, factors = frozenset(faults), set(examination.factors)
    network = network_with(subject, cell, factors)
    train, test = (
        cell_features(
            subject, network, examination.arrival, examination.repairs, cell, factors, images, part, whole.train
        )
        for part in (whole.train, whole.test)
    )
    labels = images.labels
    correct = held_out(train, labels[whole.train], test, labels[whole.test], len(images.class_names))[None]
    return Judged(bootstrap_accuracy(correct), correct, len(whole.train))


def _recipe_of(subject: Subject, examination: Examination) -> Recipe | None:
    """The repaired pipeline of somebody's own network as a recipe of ours, where its backbone is known."""
    if subject.published is None:
        return None
    return Recipe(
        name=f"{subject.published.architecture}-repaired",
        kind="probe",
        backbone=subject.published.architecture,
        preprocessing=examination.repairs.preprocessing,
        input_size=examination.repairs.preprocessing.input_size,
    )


def _of_trial(result: TrialResult, split: Split) -> Judged:
    correct = _correct(result)
    return Judged(bootstrap_accuracy(correct), correct, len(split.train))


def _correct(result: TrialResult) -> Booleans:
    right: Booleans = (result.test_logits.argmax(1) == result.test_labels)[None]
    return right


def _record(
    subject: Subject,
    images: ImageSet,
    split: Split,
    examination: Examination,
    *,
    failing: Judged,
    repaired: Judged | None,
    repaired_recipe: Recipe | None,
    name: str,
    command: str,
    part: str,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Everything that the report shows, as docs/diagnosis.md describes it."""
    findings = examination.findings
    proved = [finding for finding in findings if finding.status == "proved"]
    causes = [finding.cause for finding in proved]
    preprocessing = examination.repairs.preprocessing
    arrival = examination.arrival
    steps = waterfall(failing.accuracy.mean, repaired.accuracy.mean, proved) if repaired is not None else []
    return {
        "schema_version": DIAGNOSIS_SCHEMA_VERSION,
        "headstart_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "name": name,
        "subject": {
            "kind": "recipe" if subject.recipe is not None else "module",
            "name": subject.name,
            "architecture": subject.published.architecture if subject.published is not None else None,
            "weights": subject.published.weights_sha256 if subject.published is not None else None,
            "preprocessing": {
                **{key: value for key, value in asdict(arrival).items() if key != "repeats"},
                "input_size": arrival.size,
                "low": round(arrival.low, 4),
                "high": round(arrival.high, 4),
            },
        },
        "recipe": recipe_to_json(subject.recipe) if subject.recipe is not None else None,
        "data": {
            "name": images.name,
            "source": images.source,
            "fingerprint": images.fingerprint,
            "classes": len(images.class_names),
            "train": len(split.train),
            "val": len(split.val),
            "test": len(split.test),
            "canvas": images.canvas,
        },
        "accuracy": {
            "failing": failing.accuracy.mean,
            "repaired": repaired.accuracy.mean if repaired is not None else None,
            "failing_interval": asdict(failing.accuracy),
            "repaired_interval": asdict(repaired.accuracy) if repaired is not None else None,
            "images": int(failing.correct.shape[1]),
            "labels": (repaired or failing).labels,
            "part": part,
        },
        "verdict": {
            "code": _verdict(findings, examination),
            "statement": "",
            "values": {
                "causes": causes,
                "failing": failing.accuracy.mean,
                "repaired": repaired.accuracy.mean if repaired is not None else None,
            },
        },
        "causes": [
            {
                "id": finding.cause,
                "name": CATALOGUE[finding.cause],
                "status": finding.status,
                "points": asdict(finding.points) if finding.points is not None else None,
                "points_alone": asdict(finding.alone) if finding.alone is not None else None,
                "evidence": {"code": finding.code, "values": dict(finding.values)},
                "indistinguishable_from": list(finding.like),
            }
            for finding in findings
        ],
        "interactions": [
            {
                "causes": [pair.cause, pair.other],
                "points_with": round(pair.points_with, 2),
                "points_without": round(pair.points_without, 2),
            }
            for pair in examination.found_interactions
        ],
        "experiment": {
            "labels": len(examination.sample) * 2 // 3,
            "images": len(examination.sample),
            "seeds": len(next(iter(examination.cells.values())).correct) if examination.cells else 0,
            "design": _design(examination),
            "factors": list(examination.factors),
            "cells": [
                {
                    "faults": sorted(cell),
                    "accuracy": asdict(bootstrap_accuracy(measured.correct)),
                    "seconds": round(measured.seconds, 2),
                }
                for cell, measured in examination.cells.items()
            ],
        },
        "waterfall": [{"cause": cause, "points": points} for cause, points in steps],
        "controls": [
            {
                "name": control.name,
                "accuracy": asdict(control.accuracy) if control.accuracy is not None else None,
                "against": asdict(control.against) if control.against is not None else None,
                "says": control.says,
            }
            for control in examination.controls
        ],
        "repaired_recipe": recipe_to_json(repaired_recipe) if repaired_recipe is not None else None,
        "repair": {
            "toml": "repaired.toml" if repaired_recipe is not None else None,
            "changes": [
                {"cause": change.cause, "code": change.code, "values": dict(change.values)}
                for change in list_changes(proved, preprocessing)
            ],
            "code": code_lines(causes, preprocessing, subject.published),
        },
        "seconds": {
            "look": round(examination.look_seconds, 2),
            "prove": round(examination.prove_seconds, 2),
            **{key: round(value, 2) for key, value in seconds.items()},
        },
    }


def _verdict(findings: tuple[Finding, ...], examination: Examination) -> str:
    status = {finding.cause: finding.status for finding in findings}
    if "proved" in status.values():
        return "proved"
    if status.get(20) == "suspected":
        return "domain-gap"
    if "suspected" in status.values():
        return "suspected-only"
    return "healthy" if examination.cells else "unexplained"


def _design(examination: Examination) -> str:
    factors = len(examination.factors)
    if not factors:
        return "none"
    return "full-factorial" if len(examination.cells) == 2**factors else "sampled-orders"


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """Read a folder's `diagnosis.json`."""
    record: dict[str, Any] = read_json(folder / "diagnosis.json")
    return record
