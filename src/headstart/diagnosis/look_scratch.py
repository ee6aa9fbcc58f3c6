"""Looking at the opponent from scratch: of the finished run that a recipe comes from, and headstart's own (causes 20 and 23)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.analysis.diagnosis import DOMAIN_GAP, Finding, judged
from headstart.analysis.statistics import bootstrap_accuracy, paired_difference
from headstart.diagnosis.arrival import LEAST_STRIDE, last_map, stride_of
from headstart.diagnosis.examination import Control, Examination
from headstart.diagnosis.judging import Judged, accuracy_on_val, right_on_test
from headstart.diagnosis.prove_predictions import in_points
from headstart.files import read_json
from headstart.models.backbones import untrained_backbone
from headstart.models.network import build_network, classifier_spec
from headstart.records import Booleans, ImageSet, Indices, Recipe, Split, TrialResult
from headstart.study.ledger import Ledger
from headstart.study.presets import fast_recipe
from headstart.study.resolving import Overrides, resolve_recipe

_FEWEST_POSITIONS = 2  # a last map of 2 x 2 or less has pooled nothing


def scratch_trials(run: Path | None) -> list[TrialResult]:
    """The finished trials from scratch of a run, of the recipe that val likes best; empty where there are none.

    Raises:
        RunError: a trial is damaged, or of another version.
    """
    if run is None:
        return []
    found: dict[str, list[TrialResult]] = {}
    for path in sorted((run / "trials").glob("*/result.json")):
        record = read_json(path)
        if record["recipe"]["kind"] == "scratch":
            trial = Ledger(run).load(record["identity"])
            found.setdefault(trial.recipe.name, []).append(trial)
    return max(found.values(), key=_val_accuracy, default=[])


def opponent_recipe(images: ImageSet, split: Split) -> Recipe:
    """headstart's own network from scratch, the recipe `fast`: what transfer has to beat, resolved for the split that both learn from."""
    return resolve_recipe(fast_recipe(images), images, split, None, Overrides())


def same_labels(split: Split, transfer: Judged) -> Split:
    """The split with those training images alone that the transfer pipeline learned from, so that an opponent learns from as many.

    Where they are not known, or all of them, it is the split itself.
    """
    known = np.intersect1d(transfer.trained, split.train)
    return replace(split, train=known) if 0 < len(known) < len(split.train) else split


def with_scratch(
    examination: Examination, trials: list[TrialResult], transfer: Judged, classes: int, opponent: TrialResult | None
) -> Examination:
    """Compare networks from scratch with the transfer pipeline, repaired where it was, on the same test images.

    The control is the network that val likes better. Where the run's own has shrunk its images to nothing (23), the difference to
    headstart's own, whose stem suits small images, is the proof.

    Args:
        examination: of the transfer pipeline.
        trials: of the run that was asked about, from scratch, one recipe with its seeds.
        transfer: what to compare with.
        classes: number of classes.
        opponent: headstart's own network from scratch, where it was asked for.
    """
    runs = [trial for trial in trials if np.isin(transfer.part, trial.test_indices).all()]
    groups = [group for group in (runs, [opponent] if opponent is not None else []) if group]
    if not groups or not len(transfer.part):
        return examination
    scratch, ours = _right_on(max(groups, key=_val_accuracy), transfer.part), transfer.correct
    better = paired_difference(scratch, ours)
    says = "scratch-better" if better.low > 0 else "scratch-worse" if better.high < 0 else "scratch-alike"
    stem = look_at_stem(groups[0][0].recipe, classes)
    if runs and opponent is not None and stem.status == "suspected":
        stem = _prove_stem(stem, _right_on(runs, transfer.part), _right_on([opponent], transfer.part))
    changed = [stem]
    if says == "scratch-better":
        values = {"scratch": round(float(scratch.mean()), 4), "probe": round(float(ours.mean()), 4)}
        changed.append(Finding(DOMAIN_GAP, "suspected", "scratch-better", values))
    control = Control("scratch", bootstrap_accuracy(scratch), bootstrap_accuracy(ours), says)
    return replace(examination.with_findings(changed), controls=(*examination.controls, control))


def look_at_stem(recipe: Recipe, classes: int) -> Finding:
    """Cause 23: whether the network from scratch still has a map to recognise anything on."""
    assert recipe.preprocessing is not None
    size = recipe.preprocessing.input_size
    backbone = untrained_backbone(recipe.backbone) if recipe.backbone is not None else None
    network = build_network(classifier_spec(size, classes, backbone, recipe)).eval()
    map_side = last_map(network, size)
    assert map_side is not None
    values = {"size": size, "map": map_side}
    # Images of a dozen pixels leave every network a small map: what counts is a stride that small images never need.
    if map_side <= _FEWEST_POSITIONS and stride_of(network, size, map_side) >= LEAST_STRIDE:
        return Finding(23, "suspected", "scratch-stem", values)
    return Finding(23, "cleared", "scratch-fair", values)


def _prove_stem(stem: Finding, unfair: Booleans, fair: Booleans) -> Finding:
    """Cause 23 beside a network from scratch that is made for small images, `(S, n) bool` each, on the same test images.

    Its points are the opponent's, no part of what transfer lost.
    """
    values = {**stem.values, "scratch": round(float(unfair.mean()), 4), "fair": round(float(fair.mean()), 4)}
    found = judged(stem, in_points(paired_difference(fair, unfair)))
    return replace(found, code="scratch-compared", values=values, apart=True)


def _right_on(trials: list[TrialResult], part: Indices) -> Booleans:
    """Which images of a part of test each trial got right, `(S, n) bool`."""
    return np.concatenate([right_on_test(trial)[:, np.searchsorted(trial.test_indices, part)] for trial in trials])


def _val_accuracy(trials: list[TrialResult]) -> float:
    return float(np.mean([accuracy_on_val(trial) for trial in trials]))
