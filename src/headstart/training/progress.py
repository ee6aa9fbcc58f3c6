"""How long work tells how far it is: a small protocol that the command line draws and a script may ignore."""

from typing import Protocol

from headstart.training.callbacks import Callback
from headstart.training.engine import Training


class Reporter(Protocol):
    """Receives the progress of one stage after another."""

    def stage(self, name: str, total: int) -> None:
        """A new stage begins: `name` is a key of the texts (`features`, `training`, ...), `total` its number of steps."""
        ...

    def advance(self, done: int, loss: float | None = None, accuracy: float | None = None, rate: float = 0.0) -> None:
        """`done` of `total` steps are behind; the running loss and accuracy if there are any; images per second."""
        ...


class ProgressBar(Callback):
    """Passes the engine's progress on: loss, accuracy and images per second after every batch."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def on_train_begin(self, training: Training) -> None:
        self._reporter.stage("training", training.epochs * training.batches)

    def on_batch_end(self, training: Training) -> None:
        done = (training.epoch - 1) * training.batches + training.batch
        running = training.running
        self._reporter.advance(done, running.loss, running.accuracy, running.images_per_second)
