"""Both trials of a recipe of ours on the whole data: as it is, and without its proved faults."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.examination import Examination
from headstart.diagnosis.judging import (
    RATE,
    SEED,
    Judged,
    accuracy_on_val,
    as_probe,
    judge_trial,
    with_divergence,
    with_duplicates,
    with_training,
    without_twins,
)
from headstart.diagnosis.look_scratch import opponent_recipe, with_scratch
from headstart.diagnosis.own_recipe import findable_name
from headstart.diagnosis.repair import repaired_recipe
from headstart.models.backbones import Backbone
from headstart.records import Recipe, TrialResult, trial_identity
from headstart.study.kinds import Bench
from headstart.study.ledger import Ledger
from headstart.study.resolving import Overrides, resolve_recipe
from headstart.study.run import finished_trial
from headstart.training.engine import DivergedError


@dataclass(frozen=True)
class Training:
    """What the trials of a diagnosis share.

    Attributes:
        bench, backbone, ledger: of the trials.
        of_run: the folder of the run that was asked about; a trial that it has is read from there.
        weights_dir: where the backbone was looked for first.
        against_scratch: whether headstart's own network from scratch is trained beside it.
        done: every trial that was asked for, by the name of its recipe.
    """

    bench: Bench
    backbone: Backbone
    ledger: Ledger
    of_run: Path | None = None
    weights_dir: Path | None = None
    against_scratch: bool = False
    done: dict[str, TrialResult] = field(default_factory=dict)

    def trial(self, recipe: Recipe) -> TrialResult:
        """A resolved recipe's trial, run if it was not."""
        if self.of_run is not None:
            identity = trial_identity(recipe, self.bench.images.fingerprint, self.bench.split, SEED)
            run = Ledger(self.of_run)
            if run.is_done(identity):
                return self.done.setdefault(recipe.name, run.load(identity))
        backbone = self.backbone if recipe.backbone is not None else None
        result, _ = finished_trial(recipe, backbone, self.bench, self.ledger, SEED)
        return self.done.setdefault(recipe.name, result)


@dataclass(frozen=True)
class BothTrials:
    """A recipe as it is and repaired, on the whole data.

    Attributes:
        trained: what was trained: the recipe, or its head alone where its training diverges.
        examination: with what the trials say.
        failing, repaired: `repaired` and its recipe are `None` where it would be the failing one.
        recipe: the repaired one, as `headstart compare --recipe` finds its weights.
        repair_seconds: of the second trial.
    """

    trained: Recipe
    examination: Examination
    failing: Judged
    repaired: Judged | None
    recipe: Recipe | None
    repair_seconds: float


def train_both(training: Training, failing: Recipe, seen: Examination, scratch: list[TrialResult]) -> BothTrials:
    """Train a resolved recipe as it is and without its proved faults; where its training diverges, its head alone.

    A network whose training diverged is worth chance, which says nothing of its other faults. A head that is fitted to convergence on
    the frozen features has no rate to diverge with.

    Args:
        training: what the trials share.
        failing: the recipe.
        seen: what was seen and measured before.
        scratch: the trials from scratch of the run that was asked about.
    """
    try:
        first = training.trial(failing)
    except DivergedError:
        head = as_probe(failing)
        found = _repaired_beside(training.trial(head), training, head, seen, scratch)
        return replace(found, examination=with_divergence(found.examination, failing, training.backbone, found.failing))
    return _repaired_beside(first, training, failing, seen, scratch)


def _repaired_beside(
    first: TrialResult, training: Training, failing: Recipe, seen: Examination, scratch: list[TrialResult]
) -> BothTrials:
    """The recipe without its proved faults beside its trial as it is; where only the repaired training diverges, 11 is suspected."""
    images, split = training.bench.images, training.bench.split
    examination = with_training(seen, failing, first, training.bench, training.backbone, training.trial)
    judged = judge_trial(first, split)
    examination = _apart_from_recipes(with_duplicates(examination, judged))
    assert examination.remade is not None
    proved = [finding.cause for finding in examination.findings if finding.status == "proved"]
    started = time.perf_counter()
    recipe: Recipe | None = None
    second: TrialResult | None = None
    cured = repaired_recipe(failing, examination.remade.repaired.preprocessing, proved)
    cured = resolve_recipe(cured, images, split, training.backbone, Overrides())
    if cured.with_changes(name=failing.name) != failing:  # not every proved cause is a setting of the recipe
        try:
            second = training.trial(cured)
        except DivergedError:
            if RATE not in proved:
                examination = examination.with_findings(
                    [Finding(RATE, "suspected", "repaired-diverged", {}, apart=True)]
                )
    if RATE in proved:
        cured, second = _tuned_or_frozen(training, cured, second)
    if second is not None:
        recipe = cured.with_changes(backbone=findable_name(training.backbone, training.weights_dir))
    better = judge_trial(second, split) if second is not None else judged
    if 16 in proved:
        better = without_twins(better, examination, judged.trained)
    opponent = training.trial(opponent_recipe(images, split)) if training.against_scratch else None
    transfer = judge_trial(second or first, split)
    examination = with_scratch(examination, scratch, transfer, len(images.class_names), opponent)
    changed = second is not None or 16 in proved
    return BothTrials(failing, examination, judged, better if changed else None, recipe, time.perf_counter() - started)


def _tuned_or_frozen(training: Training, cured: Recipe, tuned: TrialResult | None) -> tuple[Recipe, TrialResult]:
    """A fine-tuning with a smaller rate, or its head alone on the frozen network where that is right on more of the val images.

    Args:
        training: what the trials share.
        cured: the fine-tuning.
        tuned: its trial, unless it diverged.
    """
    frozen = as_probe(cured)
    probe = training.trial(frozen)
    if tuned is not None and accuracy_on_val(tuned) >= accuracy_on_val(probe):
        return cured, tuned
    return frozen, probe


def _apart_from_recipes(examination: Examination) -> Examination:
    """Statistics of batch norm that suit other images (10): no recipe estimates them anew, so their points are no step of its way."""
    domain = [finding for finding in examination.findings if finding.cause == 10 and finding.status == "proved"]
    return examination.with_findings([replace(finding, apart=True) for finding in domain])
