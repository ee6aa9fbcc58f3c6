"""Looking at the opponent from scratch, where the finished run that a recipe comes from has one (causes 20 and 23)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.analysis.diagnosis import DOMAIN_GAP, Finding
from headstart.analysis.statistics import bootstrap_accuracy, paired_difference
from headstart.diagnosis.arrival import LEAST_STRIDE, last_map, stride_of
from headstart.diagnosis.examination import Control, Examination
from headstart.diagnosis.judging import right_on_test
from headstart.files import read_json
from headstart.models.backbones import untrained_backbone
from headstart.models.network import build_network, classifier_spec
from headstart.records import Recipe, TrialResult
from headstart.study.ledger import Ledger

_FEWEST_POSITIONS = 2  # as in look_pixels: a last map of 2 x 2 or less has pooled nothing


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


def with_scratch(
    examination: Examination, trials: list[TrialResult], transfer: TrialResult, classes: int
) -> Examination:
    """Compare a run's network from scratch with the transfer recipe, repaired where it was, on the same test images.

    Args:
        examination: of the transfer recipe.
        trials: from scratch, one recipe with its seeds.
        transfer: the trial to compare with.
        classes: number of classes.
    """
    fair = [trial for trial in trials if np.array_equal(trial.test_indices, transfer.test_indices)]
    if not fair:
        return examination
    scratch, ours = np.concatenate([right_on_test(trial) for trial in fair]), right_on_test(transfer)
    better = paired_difference(scratch, ours)
    says = "scratch-better" if better.low > 0 else "scratch-worse" if better.high < 0 else "scratch-alike"
    changed = [look_at_stem(fair[0].recipe, classes)]
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


def _val_accuracy(trials: list[TrialResult]) -> float:
    return float(np.mean([(trial.val_logits.argmax(1) == trial.val_labels).mean() for trial in trials]))
