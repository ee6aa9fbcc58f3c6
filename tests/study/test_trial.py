"""One trial: its seconds, when it was interrupted, are those of all its sessions; TensorBoard does not stand in the way."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headstart.records import EpochRecord
from headstart.study.observer import SilentObserver
from headstart.study.run import StudyRequest, run_study
from headstart.training.callbacks import Callback
from headstart.training.engine import Training

CPU = torch.device("cpu")


class KilledError(Exception):
    """Stands for the end of the process."""


class Interrupting(Callback):
    """Ends the training after an epoch, as often as it is told to; tells of slow epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_epoch_begin(self, training: Training) -> None:
        if training.epoch == self.after + 1:
            raise KilledError

    def on_epoch_end(self, training: Training, record: EpochRecord) -> None:
        training.history[-1] = replace(record, seconds=1000.0)


@pytest.mark.parametrize("tensorboard", [(False, False), (False, True), (True, False)])
def test_seconds_before_an_interruption_count(tmp_path: Path, tensorboard: tuple[bool, bool]) -> None:
    if any(tensorboard):
        pytest.importorskip("tensorboard")
    request = StudyRequest(recipes=("cnn",), seeds=1, epochs=3, limit=100, runs=tmp_path, tensorboard=tensorboard[0])
    with pytest.raises(KilledError):
        run_study(request, CPU, SilentObserver(), [Interrupting(2)])
    again = replace(request, tensorboard=tensorboard[1])
    outcome = run_study(again, CPU, SilentObserver(), [Interrupting(9)])
    cost = outcome.recipes[0].results[0].cost
    assert 2000 < cost.wall_seconds < 3000  # two epochs before, and what this process took for the third
    assert len(list(tmp_path.glob("digits*"))) == 1
