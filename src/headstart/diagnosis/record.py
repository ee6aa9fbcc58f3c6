"""The content of `diagnosis.json`: everything that the report shows, as docs/diagnosis.md describes it."""

import datetime
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headstart.analysis.diagnosis import CATALOGUE, DOMAIN_GAP, Finding, waterfall
from headstart.analysis.statistics import bootstrap_accuracy
from headstart.diagnosis.copies import COPIES
from headstart.diagnosis.examination import Examination
from headstart.diagnosis.judging import Judged
from headstart.diagnosis.probing import FOLDS
from headstart.diagnosis.repair import list_changes
from headstart.diagnosis.repair_lines import Own, code_lines, gray_channels, keras_lines
from headstart.diagnosis.subject import Kept, Subject
from headstart.files import canonical_json, sha256_of_text
from headstart.records import ImageSet, Recipe, Split
from headstart.study.run import recipe_to_json
from headstart.version import __version__

DIAGNOSIS_SCHEMA_VERSION = 2

RULES_VERSION = 7
"""Raised where causes are judged by other rules, or our own trials are made otherwise, so that a diagnosis of before is
not taken for one of now."""


def make_record(
    subject: Subject | Kept,
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
    study: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Make the record of a diagnosis, without the verdict's sentence.

    Args:
        subject, images, split: what was diagnosed, on what.
        examination: what was found.
        failing, repaired: the pipeline as it is and repaired, on the whole data.
        repaired_recipe: where there is one.
        name: of the diagnosis' folder.
        command: the way to reproduce it.
        part: of the data that the accuracies are on.
        study: how the data were drawn, the trials, the machine.
        seconds: of the repair and in total.
    """
    findings = examination.findings
    proved = [finding for finding in findings if finding.status == "proved"]
    causes = [finding.cause for finding in proved]
    recipe = subject.recipe if isinstance(subject, Subject) else None
    seeds, judged_images = next(iter(examination.cells.values())).correct.shape if examination.cells else (0, 0)
    steps = waterfall(failing.accuracy.mean, repaired.accuracy.mean, proved) if repaired is not None else []
    return {
        "schema_version": DIAGNOSIS_SCHEMA_VERSION,
        "headstart_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "name": name,
        "subject": _described(subject, examination),
        "recipe": recipe_to_json(recipe) if recipe is not None else None,
        "study": dict(study),
        "data": {
            "name": images.name,
            "source": images.source,
            "fingerprint": images.fingerprint,
            "classes": len(images.class_names),
            "train": len(split.train),
            "val": len(split.val),
            "test": len(split.test),
            "test_drawn": split.origin == "drawn",
            "canvas": images.canvas,
        },
        "accuracy": {
            "failing": failing.accuracy.mean,
            "repaired": repaired.accuracy.mean if repaired is not None else None,
            "failing_interval": asdict(failing.accuracy),
            "repaired_interval": asdict(repaired.accuracy) if repaired is not None else None,
            "images": failing.images,
            "repaired_images": repaired.images if repaired is not None else None,
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
                "apart": finding.apart,
            }
            for finding in findings
        ],
        "interactions": [
            {
                "causes": [pair.cause, pair.other],
                "points_with": round(pair.points_with, 2),
                "points_without": round(pair.points_without, 2),
                "difference": asdict(pair.difference),
            }
            for pair in examination.found_interactions
        ],
        "experiment": {
            "labels": judged_images * (FOLDS - 1) // FOLDS,
            "images": judged_images,
            "seeds": seeds,
            "design": _design(examination),
            "factors": list(examination.factors),
            "cells": [
                {
                    "faults": sorted(cell),
                    "accuracy": asdict(bootstrap_accuracy(measured.correct)),
                    "seconds": round(measured.seconds, 2),
                    "settings": examination.remade.pipeline.settings(cell),
                }
                for cell, measured in examination.cells.items()
                if examination.remade is not None
            ],
            "sizes": [
                {"size": one.size, "accuracy": asdict(bootstrap_accuracy(one.correct)), "images": one.correct.shape[1]}
                for one in examination.sizes
            ],
            "sample_sha256": None
            if examination.remade is None
            else sha256_of_text(canonical_json(examination.remade.sample.tolist())),
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
            "copies": COPIES if examination.copies is not None and examination.copies.pairs else None,
            **_repair(subject, examination, proved, repaired_recipe),
        },
        "seconds": {
            "look": round(examination.look_seconds, 2),
            "prove": round(examination.prove_seconds, 2),
            **{key: round(value, 2) for key, value in seconds.items()},
        },
    }


def _described(subject: Subject | Kept, examination: Examination) -> dict[str, Any]:
    """What was diagnosed, and what arrived at its first layer."""
    if isinstance(subject, Kept) or examination.remade is None:
        return {
            "kind": subject.kind if isinstance(subject, Kept) else "predictions",
            "name": subject.name,
            "architecture": None,
            "weights": None,
            "trained_further": False,
            "preprocessing": None,
        }
    arrival, published = examination.remade.arrival, subject.published
    return {
        "kind": "recipe" if subject.recipe is not None else "module",
        "name": subject.name,
        "architecture": published.architecture if published is not None else None,
        "weights": published.weights_sha256 if published is not None else None,
        "trained_further": examination.tuned,
        "preprocessing": {
            **{key: value for key, value in asdict(arrival).items() if key not in ("repeats", "oblong")},
            "input_size": arrival.size,
            "low": round(arrival.low, 4),
            "high": round(arrival.high, 4),
        },
    }


def _repair(
    subject: Subject | Kept, examination: Examination, proved: list[Finding], repaired: Recipe | None
) -> dict[str, Any]:
    """What to change for the proved causes, and its lines of code."""
    causes = [finding.cause for finding in proved]
    meant = None if examination.meant is None else examination.meant.tolist()
    if isinstance(subject, Kept) or examination.remade is None:
        changes, lines, keras = list_changes(proved, None), code_lines(causes, None, meant=meant), ""
    else:
        ours = subject.recipe is not None
        preprocessing, standardised = (
            examination.remade.repaired.preprocessing,
            examination.remade.repaired.standardised,
        )
        frozen = ours and repaired is not None and repaired.kind == "probe"
        changes = list_changes(proved, preprocessing, standardised, ours=ours, frozen=frozen)
        order = next((finding for finding in proved if finding.cause == 15), None)
        own = Own(subject.head is not None, kept_order=order is not None and order.apart)
        lines = code_lines(
            causes,
            preprocessing,
            subject.published,
            standardised,
            own=None if ours else own,
            gray=gray_channels(examination.remade.arrival),
            crop=1.0 if ours else examination.remade.arrival.crop,
            meant=meant,
            frozen=frozen,
        )
        keras = keras_lines(causes, preprocessing, standardised, frozen=frozen) if ours else ""
    return {
        "changes": [{"cause": change.cause, "code": change.code, "values": dict(change.values)} for change in changes],
        "code": lines,
        "keras": keras,
    }


def _verdict(findings: tuple[Finding, ...], examination: Examination) -> str:
    status = {finding.cause: finding.status for finding in findings}
    if "proved" in status.values():
        return "proved"
    suspected = {cause for cause, known in status.items() if known == "suspected"}
    if suspected:
        return "domain-gap" if suspected == {DOMAIN_GAP} else "suspected-only"
    if examination.remade is None:
        return "nothing-seen"
    return "healthy" if examination.remade.arrival.is_understood else "unexplained"


def _design(examination: Examination) -> str:
    factors = len(examination.factors)
    if not factors:
        return "none"
    return "full-factorial" if len(examination.cells) == 2**factors else "sampled-orders"
