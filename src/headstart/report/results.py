"""`results.json`: every number of a run, made from the study's outcome. Its fields are described in `docs/results.md`."""

import datetime
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.analysis import metrics
from headstart.analysis.comparison import Comparison, Competitor, compare
from headstart.analysis.overfitting import FitJudgement, judge_fit
from headstart.analysis.statistics import Estimate, bootstrap_accuracy, gap_estimate
from headstart.data.audit import sample_indices
from headstart.environment import describe_environment
from headstart.files import write_json, written_atomically
from headstart.records import RESULTS_SCHEMA_VERSION, Booleans, Cost, ImageSet, Indices, Labels, TrialResult
from headstart.report.language import Texts
from headstart.report.statement import verdict_statement
from headstart.study.run import RecipeOutcome, StudyOutcome
from headstart.version import __version__

_MISTAKES = 12
_BINS = 15
_RESAMPLES = 2000  # chosen: the ends of a 95% interval then move by about a tenth of its width


def write_results(outcome: StudyOutcome, language: str, command: str) -> Path:
    """Judge the trials, and write `results.json` and the images it names into the run's folder.

    Args:
        outcome: of the study.
        language: of the verdict's sentence.
        command: that made the run, for the report's last section.

    Returns:
        The path of `results.json`.
    """
    folder = outcome.ledger.folder
    results = build_results(outcome, language, command)
    results["data"]["samples"] = _write_samples(outcome, folder)
    for entry, recipe in zip(results["recipes"], outcome.recipes, strict=True):
        entry["mistakes"] = _write_mistakes(outcome.images, recipe.results[0], entry["name"], folder)
    write_json(folder / "results.json", results)
    return folder / "results.json"


def build_results(outcome: StudyOutcome, language: str, command: str) -> dict[str, Any]:
    """Make the content of `results.json`, without the images."""
    request = outcome.request
    competitors = [_competitor(recipe) for recipe in outcome.recipes]
    comparison = compare(
        competitors,
        margin=request.margin,
        confidence=request.confidence,
        resamples=_RESAMPLES,
        seed=request.split_seed,
    )
    verdict = _verdict(comparison)
    verdict["statement"] = verdict_statement(verdict, Texts(language))
    return {
        "schema_version": RESULTS_SCHEMA_VERSION,
        "headstart_version": __version__,
        "name": outcome.ledger.folder.name,
        "language": language,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "study": {
            "preset": None if request.recipes else request.preset,
            "seeds": list(outcome.plan.seeds),
            "margin": request.margin,
            "confidence": request.confidence,
            "budget_seconds": request.budget_seconds,
            "limit": request.limit,
            "split_seed": request.split_seed,
            "predicted_seconds": outcome.plan.predicted_seconds,
            "actual_seconds": sum(result.cost.wall_seconds for recipe in outcome.recipes for result in recipe.results),
            "device": str(outcome.device),
        },
        "environment": describe_environment(outcome.device),
        "data": dict(outcome.facts),
        "recipes": [_recipe_entry(recipe, outcome) for recipe in outcome.recipes],
        "not_run": [asdict(missing) for missing in outcome.not_run],
        "comparisons": [asdict(pair) for pair in comparison.pairs],
        "verdict": verdict,
    }


def _competitor(outcome: RecipeOutcome) -> Competitor:
    recipe = outcome.planned.recipe
    return Competitor(
        name=recipe.name,
        kind=recipe.kind,
        control=recipe.is_control,
        correct=_correct(outcome.results),
        train_seconds=statistics.median(result.cost.train_seconds for result in outcome.results),
        deterministic=recipe.is_deterministic,
        backbone=recipe.backbone,
    )


def _recipe_entry(outcome: RecipeOutcome, study: StudyOutcome) -> dict[str, Any]:
    recipe, results = outcome.planned.recipe, outcome.results
    confidence, names = study.request.confidence, study.images.class_names
    labels = results[0].test_labels
    gap = _gap(results, confidence)
    judgement = _judge(outcome, study, gap)
    reports = [
        metrics.class_report(labels, metrics.predicted_classes(result.test_logits), len(names)) for result in results
    ]
    confusion = sum(
        metrics.confusion_matrix(labels, metrics.predicted_classes(result.test_logits), len(names))
        for result in results
    )
    all_labels = np.tile(labels, len(results))
    all_logits = np.concatenate([result.test_logits for result in results])
    backbone = outcome.planned.backbone
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "control": recipe.is_control,
        "settings": asdict(recipe),
        "backbone": recipe.backbone,
        "weights": None
        if backbone is None or not recipe.uses_pretrained_weights
        else {
            "source": backbone.source,
            "sha256": backbone.weights_sha256,
            "licence": backbone.licence,
            "pretraining": backbone.pretraining,
            "native_size": backbone.native_size,
        },
        "seeds": [result.seed for result in results],
        "deterministic": recipe.is_deterministic,
        "trials": [result.identity for result in results],
        "test_accuracy": asdict(bootstrap_accuracy(_correct(results), confidence=confidence)),
        "val_accuracy": asdict(bootstrap_accuracy(_val_correct(results), confidence=confidence)),
        "train_accuracy": asdict(
            bootstrap_accuracy(np.stack([result.train_correct for result in results]), confidence=confidence)
        ),
        "train_val_gap": asdict(gap),
        "balanced_accuracy": _mean(report.balanced_accuracy for report in reports),
        "macro_f1": _mean(report.macro.f1 for report in reports),
        "log_loss": _mean(metrics.log_loss(labels, result.test_logits) for result in results),
        "ece": _mean(metrics.expected_calibration_error(labels, result.test_logits, _BINS) for result in results),
        "per_class": [
            {
                "name": name,
                "precision": _mean(report.precision[index] for report in reports),
                "recall": _mean(report.recall[index] for report in reports),
                "f1": _mean(report.f1[index] for report in reports),
                "support": int(reports[0].support[index]),
            }
            for index, name in enumerate(names)
        ],
        "averages": {
            which: {
                measure: _mean(getattr(getattr(report, which), measure) for report in reports)
                for measure in ("precision", "recall", "f1")
            }
            for which in ("macro", "weighted")
        },
        "confusion": np.asarray(confusion).tolist(),
        "top_confusions": [
            {
                "true": names[item.true],
                "predicted": names[item.predicted],
                "count": item.count,
                "share": item.share,
            }
            for item in metrics.top_confusions(np.asarray(confusion))
        ],
        "reliability": [asdict(item) for item in metrics.reliability(all_labels, all_logits, _BINS)],
        "fit_verdict": judgement.verdict,
        "fit_reason": {
            "code": judgement.code,
            "train_accuracy": judgement.train_accuracy,
            "val_accuracy": judgement.val_accuracy,
            "gap": judgement.gap.mean,
            "reference_accuracy": judgement.reference_accuracy,
            "reference": judgement.reference,
        },
        "fit_advice": list(judgement.advice),
        "history": [
            {
                "seed": result.seed,
                "best_epoch": result.best_epoch,
                "stopped_early": result.stopped_early,
                "epochs": [asdict(epoch) for epoch in result.history],
            }
            for result in results
        ],
        "chosen": [{"seed": result.seed} | result.chosen for result in results],
        "mistakes": [],
        "planned": {
            "seconds": outcome.planned.first_seconds,
            "actual_seconds": results[0].cost.wall_seconds,
            "asked_epochs": outcome.planned.asked_epochs,
            "asked_width": outcome.planned.asked_width,
        },
        "cost": _cost([result.cost for result in results]),
    }


def _judge(outcome: RecipeOutcome, study: StudyOutcome, gap: Estimate) -> FitJudgement:
    recipe, results = outcome.planned.recipe, outcome.results
    counts = np.bincount(study.images.labels[study.split.train])
    others = {
        other.planned.recipe.name: float(_val_correct(other.results).mean())
        for other in study.recipes
        if other is not outcome
    }
    best_other = max(others, key=lambda name: others[name]) if others else None
    backbone = outcome.planned.backbone
    return judge_fit(
        kind=recipe.kind,
        gap=gap,
        train_accuracy=float(np.mean([result.train_correct.mean() for result in results])),
        val_accuracy=float(_val_correct(results).mean()),
        majority_rate=float(counts.max() / counts.sum()),
        reference_accuracy=others[best_other] if best_other else None,
        reference=best_other,
        still_improving=_still_improving(results),
        augmentation=recipe.augmentation,
        at_native_size=backbone is not None and (recipe.input_size or 0) >= backbone.native_size,
        trains_all=recipe.kind == "finetune" and recipe.unfreeze == "all",
    )


def _still_improving(results: Sequence[TrialResult]) -> bool:
    """Whether the last epoch of every trial was its best by val loss, although nothing had stopped it."""
    return all(
        len(result.history) > 1
        and not result.stopped_early
        and result.history[-1].val_loss <= min(epoch.val_loss for epoch in result.history)
        for result in results
    )


def _gap(results: Sequence[TrialResult], confidence: float) -> Estimate:
    return gap_estimate(
        [result.train_correct for result in results],
        [result.val_logits.argmax(1) == result.val_labels for result in results],
        confidence=confidence,
    )


def _correct(results: Sequence[TrialResult]) -> Booleans:
    return np.stack([result.test_logits.argmax(1) == result.test_labels for result in results])


def _val_correct(results: Sequence[TrialResult]) -> Booleans:
    return np.stack([result.val_logits.argmax(1) == result.val_labels for result in results])


def _verdict(comparison: Comparison) -> dict[str, Any]:
    entry = asdict(comparison)
    del entry["pairs"]
    return entry


def _cost(costs: list[Cost]) -> dict[str, Any]:
    """Medians over trials; names are those of the first."""
    entry: dict[str, Any] = asdict(costs[0])
    for name, value in entry.items():
        if isinstance(value, int | float):
            median = statistics.median(getattr(cost, name) for cost in costs)
            entry[name] = int(median) if isinstance(value, int) else median
    entry["macs_uncounted"] = list(costs[0].macs_uncounted)
    return entry


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _write_samples(outcome: StudyOutcome, folder: Path) -> list[dict[str, str]]:
    samples = []
    for label, indices in sample_indices(outcome.images, outcome.split).items():
        for number, index in enumerate(indices):
            name = f"images/sample-{label}-{number}.png"
            _write_png(folder / name, outcome.images.images[index])
            samples.append({"class": outcome.images.class_names[label], "image": name})
    return samples


def _write_mistakes(images: ImageSet, result: TrialResult, recipe: str, folder: Path) -> list[dict[str, Any]]:
    chosen: Indices = metrics.most_confident_mistakes(result.test_labels, result.test_logits, _MISTAKES)
    probabilities = metrics.softmax(result.test_logits[chosen])
    labels: Labels = result.test_labels[chosen]
    entries = []
    for position, (true, row) in enumerate(zip(labels, probabilities, strict=True)):
        index = int(result.test_indices[chosen[position]])
        name = f"images/mistake-{result.identity[:16]}-{position}.png"
        _write_png(folder / name, images.images[index])
        predicted = int(row.argmax())
        entries.append(
            {
                "path": images.paths[index] if images.paths else f"#{index}",
                "true": images.class_names[int(true)],
                "predicted": images.class_names[predicted],
                "confidence": float(row[predicted]),
                "image": name,
            }
        )
    return entries


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    with written_atomically(path) as temporary:
        Image.fromarray(np.asarray(pixels)).save(temporary, format="PNG")
