"""What the terminal shows while a comparison runs, and at its end."""

import json
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headstart.environment import command_line
from headstart.records import DuplicateReport, ImageSet, NotRun, Recipe, Split, TrialResult
from headstart.report.language import Texts
from headstart.report.sections.cost import written_cut
from headstart.report.terminal import comparison_table
from headstart.study.ledger import Ledger
from headstart.study.planning import Plan, PretrainingPlan

if TYPE_CHECKING:
    from headstart.api import Comparison
    from headstart.diagnosing import Diagnosis
    from headstart.study.pretraining import Pretrained

_FEW_TO_PRETRAIN = 5000  # chosen: the bundled backbones learned from twenty times as many
_LISTED_FILES = 20  # chosen: a screen's worth; the report lists all


class TerminalObserver:
    """Draws one progress bar per stage and prints what the study found out on its way."""

    def __init__(self, console: Console, texts: Texts) -> None:
        self._console = console
        self._texts = texts
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Replace the bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(self._texts.get(f"cli.stage_{name}"), total=total, detail="")

    def advance(self, done: int, loss: float | None = None, accuracy: float | None = None, rate: float = 0.0) -> None:
        """Move the bar; beside it loss, accuracy and images per second, where there are any."""
        if self._task is None:
            return
        parts = []
        if loss is not None:
            parts.append(self._texts.get("cli.loss", value=self._texts.decimal(loss, 3)))
        if accuracy is not None:
            parts.append(self._texts.get("cli.accuracy", value=self._texts.percent(accuracy)))
        if rate:
            parts.append(self._texts.get("cli.rate", value=self._texts.count(round(rate))))
        self._progress.update(self._task, completed=done, detail="  ".join(parts))

    def data_ready(self, images: ImageSet, split: Split, duplicates: DuplicateReport) -> None:
        """Say how many images there are, and list the files that were left out."""
        texts = self._texts
        self._say(
            "cli.data" if len(split.test) else "cli.data_untested",
            name=images.name,
            images=texts.count(len(images.images)),
            classes=texts.count(len(images.class_names)),
            train=texts.count(len(split.train)),
            val=texts.count(len(split.val)),
            test=texts.count(len(split.test)),
        )
        used = len(split.train) + len(split.val) + len(split.removed_duplicates)
        if not len(split.test) and used < len(images.labels):
            self._say("cli.test_left_alone", count=texts.count(len(images.labels) - used))
        if duplicates.across_splits:
            key = "cli.duplicates_removed" if duplicates.removed else "cli.duplicates_kept"
            self._say(key, count=texts.count(duplicates.across_splits))
        if images.left_out:
            self._say("cli.left_out", count=texts.count(len(images.left_out)))
            for file in images.left_out[:_LISTED_FILES]:
                reason = texts.get(f"left_out.{file.reason}")
                said = texts.quoted(file.detail)
                detail = f" ({said})" if said else ""
                self._console.print(f"  {file.path}: {reason}{detail}", markup=False, highlight=False)
            if len(images.left_out) > _LISTED_FILES:
                key = "cli.left_out_more" if len(split.test) else "cli.left_out_many"  # a pretraining has no report
                self._say(key, count=texts.count(len(images.left_out) - _LISTED_FILES))

    def plan_ready(self, plan: Plan, ledger: Ledger, done: int) -> None:
        """Say what will run, for how long, and what will not run and why."""
        texts = self._texts
        total = sum(len(planned.seeds) for planned in plan.recipes)
        self._say(
            "cli.plan",
            recipes=texts.count(len(plan.recipes)),
            trials=texts.count(total),
            seeds=texts.count(len(plan.seeds)),
            duration=texts.duration(plan.predicted_seconds),
        )
        for planned in plan.recipes:
            if planned.seconds:
                cut = written_cut(asdict(planned.recipe), planned.asked_epochs, planned.asked_width, texts)
                line = texts.get(
                    "cli.plan_recipe",
                    name=planned.recipe.name,
                    seeds=texts.many("units.seeds", len(planned.seeds)),
                    duration=texts.duration(planned.seconds),
                    cut=f" ({cut})" if cut else "",
                )
                self._console.print(f"  {line}", markup=False, highlight=False)
        if plan.budget_seconds is not None and plan.is_over_budget:
            least, budget = texts.duration(plan.predicted_seconds), texts.duration(plan.budget_seconds)
            self._say("cli.over_budget", duration=least, budget=budget)
        if done:
            self._say("cli.already_done", done=texts.count(done), total=texts.count(total), folder=str(ledger.folder))
        for missing in plan.not_run:
            self._say(f"cli.not_run_{missing.reason.replace('-', '_')}", name=missing.name, detail=missing.detail)

    def pretraining_planned(self, plan: PretrainingPlan) -> None:
        """Say how long it will train, whether that fits the budget, and whether images change their size."""
        texts = self._texts
        epochs = texts.many("units.epochs", plan.epochs)
        self._say("cli.pretrain_plan", epochs=epochs, duration=texts.duration(plan.predicted_seconds))
        if plan.epochs_done:
            left = plan.predicted_seconds * (1 - plan.epochs_done / plan.epochs)
            done = texts.many("units.epochs", plan.epochs_done)
            self._say("cli.pretrain_goes_on", done=done, duration=texts.duration(left))
        if plan.train_images < _FEW_TO_PRETRAIN:
            self._say("cli.pretrain_few", images=texts.count(plan.train_images))
        if plan.is_over_budget and plan.budget_seconds is not None:
            self._say("cli.pretrain_over_budget", budget=texts.duration(plan.budget_seconds))
        if plan.canvas != plan.input_size:
            key = "cli.pretrain_shrunk" if plan.canvas > plan.input_size else "cli.pretrain_enlarged"
            self._say(key, canvas=str(plan.canvas), size=str(plan.input_size))

    def trial_begins(self, recipe: Recipe, seed: int, number: int, total: int) -> None:
        """Nothing: the stages that follow say it."""

    def trial_ends(self, result: TrialResult, was_done: bool) -> None:
        """One line per trial."""
        texts = self._texts
        accuracy = float((result.val_logits.argmax(1) == result.val_labels).mean())
        self._say(
            "cli.trial_was_done" if was_done else "cli.trial_done",
            name=result.recipe.name,
            seed=str(result.seed),
            accuracy=texts.percent(accuracy),
            duration=texts.duration(result.cost.wall_seconds),
        )

    def trial_failed(self, missing: NotRun) -> None:
        """Say so; the other trials go on."""
        self._say("cli.trial_failed", name=missing.name, detail=missing.detail)

    def _say(self, key: str, **values: str) -> None:
        self._console.print(self._texts.get(key, **values), markup=False, highlight=False)


def print_summary(console: Console, texts: Texts, comparison: "Comparison") -> None:
    """End with the comparison table, the verdict in one sentence, and the report's path."""
    console.print()
    console.print(comparison_table(comparison.results, texts))
    console.print()
    console.print(texts.get("cli.verdict", statement=comparison.verdict), style="bold", markup=False, highlight=False)
    console.print(texts.get("cli.report_at", path=str(comparison.paths.html)), markup=False, soft_wrap=True)


def print_diagnosis(console: Console, texts: Texts, found: "Diagnosis") -> None:
    """End with the ranked causes, the verdict in one sentence, the report's path, and how to use the repaired recipe."""
    # Here, so that the other commands do not wait for them.
    from headstart.report.diagnosis_terminal import diagnosis_table, diagnosis_text
    from headstart.report.sections.diagnosis_runs import compare_command

    console.print()
    console.print(diagnosis_table(found.record, texts))
    console.print()
    console.print(diagnosis_text(found.record, texts), highlight=False)
    console.print(texts.get("cli.report_at", path=str(found.paths.html)), markup=False, soft_wrap=True)
    if copies := found.record["repair"].get("copies"):
        console.print(texts.get("cli.copies_at", path=str(found.folder / copies)), markup=False, soft_wrap=True)
    toml = found.record["repair"]["toml"]
    command = compare_command(found.record, str(found.folder / toml)) if toml is not None else ""
    if command:
        console.print(texts.get("cli.repaired_recipe", command=command), markup=False, soft_wrap=True)


def print_pretrained(console: Console, texts: Texts, made: "Pretrained") -> None:
    """Say where the weight file and its card are, how good it is, and how to use it."""
    results = json.loads(made.file.metadata["results"])
    key = "cli.pretrain_was_done" if made.was_done else "cli.pretrain_done"
    if made.was_done and not made.card.is_file():  # of a finished file, the card may have been moved away since
        key += "_without_card"
    lines = [
        texts.get(key, path=str(made.file.path), card=str(made.card)),
        texts.get("cli.pretrain_accuracy", accuracy=texts.percent(results["val_accuracy"])),
    ]
    for judged in json.loads(made.file.metadata["judged"]):
        lines += _judged(judged, texts)
    lines.append(texts.get("cli.pretrain_use", path=command_line(str(made.file.path))))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _judged(judged: dict[str, Any], texts: Texts) -> list[str]:
    """What a probe found on another data set, and a warning if the backbone was trained on some of its test images."""
    lines = [
        texts.get(
            "cli.pretrain_judged",
            name=judged["data"],
            labels=texts.count(judged["labels"]),
            accuracy=texts.percent(judged["probe_accuracy"]),
            near=texts.count(judged["near_duplicates"]),
        )
    ]
    if judged["exact_duplicates"]:
        lines.append(texts.get("cli.pretrain_judged_seen", exact=texts.count(judged["exact_duplicates"])))
    return lines
