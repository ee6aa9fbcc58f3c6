"""Callbacks with the names people know, and the small class that your own one extends."""

import csv
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.errors import EnvironmentProblem
from headstart.records import EpochRecord

if TYPE_CHECKING:
    from headstart.training.engine import Training

_log = logging.getLogger(__name__)

Monitor = Literal["val_loss", "val_accuracy", "train_loss", "train_accuracy"]


class Callback:
    """Something that watches a training, and may change it.

    Override what you need. `training` shows the network, the optimizer, the recipe, the history and the progress;
    `training.stop(reason)` ends it after this epoch, `training.rate_factor` scales the learning rate. A callback that keeps
    state between epochs returns it (JSON values) from `state` and takes it back in `restore`, so that a training that was
    killed goes on as if it had not been.
    """

    def on_train_begin(self, training: "Training") -> None:
        """Before the first epoch, or before the first epoch after a resume."""

    def on_epoch_begin(self, training: "Training") -> None:
        """Before each epoch; `training.epoch` counts from 1."""

    def on_batch_end(self, training: "Training") -> None:
        """After each step; `training.batch` and `training.batches` are current.

        So is `training.running` (loss, accuracy, rate) on the CPU; on a GPU it is as of the last reading, at most 50 batches ago.
        """

    def on_epoch_end(self, training: "Training", record: EpochRecord) -> None:
        """After each epoch and its evaluation."""

    def on_train_end(self, training: "Training") -> None:
        """After the last epoch, with the best weights in the network."""

    def state(self) -> dict[str, Any]:
        """What must survive a resume, as JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""


def states_of(callbacks: Iterable[Callback]) -> list[dict[str, Any]]:
    """What must survive a resume of each callback, by the name of its class; JSON values."""
    return [{"name": _name(callback), "state": callback.state()} for callback in callbacks]


def restore_states(callbacks: Iterable[Callback], kept: Iterable[dict[str, Any]]) -> None:
    """Give each callback the state that one of its class had kept: one that only watches may have been added since, or left out."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    for one in kept:
        waiting.setdefault(one["name"], []).append(one["state"])
    for callback in callbacks:
        if states := waiting.get(_name(callback)):
            callback.restore(states.pop(0))


def _name(callback: Callback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


class _Patience(Callback):
    """Counts epochs without improvement."""

    def __init__(self, monitor: Monitor, patience: int, min_delta: float) -> None:
        if patience < 1:
            raise ValueError(f"patience counts epochs, at least 1; it is {patience}.")
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self._best: float | None = None
        self._waited = 0

    def _ran_out(self, record: EpochRecord) -> bool:
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        value = sign * float(getattr(record, self.monitor))
        if self._best is None or value > self._best + self.min_delta:
            self._best, self._waited = value, 0
            return False
        self._waited += 1
        return self._waited >= self.patience

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        self._best, self._waited = state["best"], state["waited"]


class EarlyStopping(_Patience):
    """Stops when `monitor` has not improved by `min_delta` for `patience` epochs. The engine then restores the best weights."""

    def __init__(self, patience: int, monitor: Monitor = "val_loss", min_delta: float = 0.0) -> None:
        super().__init__(monitor, patience, min_delta)

    def on_epoch_end(self, training: "Training", record: EpochRecord) -> None:
        if self._ran_out(record):
            training.stop(f"{self.monitor} has not improved for {self.patience} epochs")


class ReduceLROnPlateau(_Patience):
    """Multiplies the learning rate by `factor` when `monitor` has not improved for `patience` epochs, down to `min_factor`."""

    def __init__(
        self,
        patience: int,
        factor: float = 0.5,
        monitor: Monitor = "val_loss",
        min_delta: float = 0.0,
        min_factor: float = 1e-3,
    ) -> None:
        super().__init__(monitor, patience, min_delta)
        self.factor = factor
        self.min_factor = min_factor

    def on_epoch_end(self, training: "Training", record: EpochRecord) -> None:
        if self._ran_out(record):
            training.rate_factor = max(training.rate_factor * self.factor, self.min_factor)
            self._waited = 0


class ModelCheckpoint(Callback):
    """Keeps a copy of the weights of the best epoch by `monitor`; equal values are decided by the lower val loss, unless `images` is given.

    The engine adds one to every training and restores its weights at the end. Its copy travels inside the
    training's resume file, so that a kill does not lose it.

    Args:
        monitor: what is compared; `epoch` makes the last one the best.
        images: that an accuracy is measured on, where the learning rate falls to nothing by a schedule: of the epochs whose accuracy
            lies within one standard error of the best, the latest is then kept, since so few images do not tell them apart and the
            later one had the smaller rate (the one-standard-error rule, Breiman et al. 1984, section 3.4.3). None is kept that lies
            below the weights as given, epoch 0, where these were measured.
    """

    def __init__(self, monitor: Monitor | Literal["epoch"] = "val_accuracy", images: int | None = None) -> None:
        if images is not None and not monitor.endswith("accuracy"):
            raise ValueError(f"images are counted for an accuracy; monitor is {monitor!r}.")
        self.monitor = monitor
        self.images = images
        self.best_epoch = 0
        self._best: tuple[float, float] | None = None
        self._start = 0.0

    def on_epoch_end(self, training: "Training", record: EpochRecord) -> None:
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        value = (sign * float(getattr(record, self.monitor)), -record.val_loss)
        is_best = self._best is None or value > self._best
        if is_best:
            self._best = value
        if record.epoch == 0:
            self._start = value[0]
        if is_best or self._is_as_good(value[0]):
            self.best_epoch = record.epoch
            training.keep_weights()

    def _is_as_good(self, accuracy: float) -> bool:
        if self.images is None or self._best is None:
            return False
        best = self._best[0]
        return accuracy >= max(best - math.sqrt(best * (1 - best) / self.images), self._start)

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "best_epoch": self.best_epoch, "start": self._start}

    def restore(self, state: dict[str, Any]) -> None:
        self._start = state.get("start", 0.0)  # a pretraining's resume file of before has none
        self._best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self.best_epoch = state["best_epoch"]


class HistoryLogger(Callback):
    """Writes the learning curve after every epoch: `history.csv` for spreadsheets, `history.jsonl` for programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch_end(self, training: "Training", record: EpochRecord) -> None:
        # Written whole every time: a resumed training must not leave rows of the epochs that were lost.
        rows = [vars(row) for row in training.history]
        try:
            with (self.folder / "history.csv").open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (self.folder / "history.jsonl").write_text(lines, encoding="utf-8")
        except OSError as error:  # such as a spreadsheet that holds the file
            _log.warning(
                "The learning curve cannot be written (%s); the training goes on, the next epoch tries again.", error
            )


class TensorBoard(Callback):
    """Writes scalars for TensorBoard into `folder` (extra `headstart[tensorboard]`).

    Raises:
        EnvironmentProblem: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise EnvironmentProblem(
                "--tensorboard needs the package tensorboard: pip install 'headstart[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder))

    def on_epoch_end(self, training: "Training", record: EpochRecord) -> None:
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"):
            self._writer.add_scalar(name, getattr(record, name), record.epoch)

    def on_train_end(self, training: "Training") -> None:
        self._writer.close()
