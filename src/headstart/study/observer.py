"""How a study tells what it does: the command line draws it, a script may ignore it."""

from collections.abc import Callable
from typing import Protocol

from headstart.records import DuplicateReport, ImageSet, NotRun, Recipe, Split, TrialResult
from headstart.study.ledger import Ledger
from headstart.study.planning import Plan, PretrainingPlan
from headstart.training.progress import Reporter


class Observer(Reporter, Protocol):
    """A reporter that is also told what the study as a whole does."""

    def data_ready(self, images: ImageSet, split: Split, duplicates: DuplicateReport) -> None:
        """The data is decoded and split; a pretraining has no test part."""
        ...

    def plan_ready(self, plan: Plan, ledger: Ledger, done: int) -> None:
        """The plan is made; `done` of its trials were done before."""
        ...

    def pretraining_planned(self, plan: PretrainingPlan) -> None:
        """The plan of a pretraining is made."""
        ...

    def trial_begins(self, recipe: Recipe, seed: int, number: int, total: int) -> None:
        """Trial `number` of `total` begins."""
        ...

    def trial_ends(self, result: TrialResult, was_done: bool) -> None:
        """A trial's result is there; `was_done` if it was read back."""
        ...

    def trial_failed(self, missing: NotRun) -> None:
        """A trial failed; the others go on."""
        ...


class SilentObserver:
    """An observer that says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore it."""

    def advance(self, done: int, loss: float | None = None, accuracy: float | None = None, rate: float = 0.0) -> None:
        """Ignore it."""

    def data_ready(self, images: ImageSet, split: Split, duplicates: DuplicateReport) -> None:
        """Ignore it."""

    def plan_ready(self, plan: Plan, ledger: Ledger, done: int) -> None:
        """Ignore it."""

    def pretraining_planned(self, plan: PretrainingPlan) -> None:
        """Ignore it."""

    def trial_begins(self, recipe: Recipe, seed: int, number: int, total: int) -> None:
        """Ignore it."""

    def trial_ends(self, result: TrialResult, was_done: bool) -> None:
        """Ignore it."""

    def trial_failed(self, missing: NotRun) -> None:
        """Ignore it."""


def decoding_progress(observer: Observer) -> Callable[[int, int], None]:
    """A callback for `load_images` that announces the stage once there is something to decode."""
    announced = False

    def progress(done: int, total: int) -> None:
        nonlocal announced
        if not announced:
            observer.stage("decoding", total)
            announced = True
        observer.advance(done)

    return progress
