"""The engine: it learns, repeats itself byte for byte, survives a kill, and leaves global state alone."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from headstart.errors import EnvironmentProblem, RunError
from headstart.models.looks import seen_once
from headstart.models.network import NetworkSpec, build_network, freeze_batch_norm
from headstart.records import EpochRecord, Preprocessing, Recipe
from headstart.training.arithmetic import Arithmetic
from headstart.training.batches import ArrayBatches, ImageBatches
from headstart.training.callbacks import (
    Callback,
    EarlyStopping,
    HistoryLogger,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
)
from headstart.training.checkpoint import load_checkpoint
from headstart.training.criterion import classification_loss
from headstart.training.engine import (
    DivergedError,
    Fitted,
    Training,
    predict_logits,
    train_network,
)

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="small",
    kind="scratch",
    augmentation="shift",
    epochs=3,
    batch_size=32,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=1e-2,
    schedule="one-cycle",
    width=8,
    dropout=0.2,
)


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


class KillAfter(Callback):
    """Raises in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_batch_end(self, training: Training) -> None:
        if training.epoch == self.epoch and training.batch == 2:
            raise Killed


def _parts(augmentation: Any = "shift") -> tuple[ImageBatches, ImageBatches]:
    data = load_digits()
    images = np.repeat((data.images * 15).astype(np.uint8)[..., None], 3, axis=3)
    labels = data.target.astype(np.int64)
    preprocessing = Preprocessing(8, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    train = ImageBatches(images, labels, np.arange(400), preprocessing, augmentation)
    val = ImageBatches(images, labels, np.arange(1500, 1700), preprocessing)
    return train, val


def _network(seed: int = 0) -> nn.Module:
    return build_network(NetworkSpec("cnn", 10, 8, width=8, dropout=0.2), seed)


def _train(folder: Path, recipe: Recipe = RECIPE, seed: int = 0, **settings: Any) -> tuple[nn.Module, Fitted]:
    network = _network(seed)
    train, val = _parts(recipe.augmentation)
    fitted = train_network(
        network, train, val, recipe, seed, device=CPU, checkpoint=folder / "checkpoint.safetensors", **settings
    )
    return network, fitted


def _bytes(network: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in network.state_dict().values())


def _curve(fitted: Fitted) -> list[tuple[float, ...]]:
    return [(r.epoch, r.train_loss, r.val_loss, r.val_accuracy, r.learning_rate) for r in fitted.history]


def test_it_learns(tmp_path: Path) -> None:
    _, fitted = _train(tmp_path, RECIPE.with_changes(epochs=8))
    assert fitted.history[-1].val_accuracy > 0.8
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss / 2


def test_same_seed_same_bytes_another_seed_differs(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        _bytes(_train(tmp_path / name, seed=seed)[0]) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
@pytest.mark.parametrize("killed_in", [1, 2, 3])
def test_a_killed_training_ends_like_one_that_was_not(tmp_path: Path, optimizer: Any, killed_in: int) -> None:
    recipe = RECIPE.with_changes(optimizer=optimizer, reduce_on_plateau_patience=1, early_stopping_patience=3)
    whole, fitted = _train(tmp_path / "whole", recipe)
    with pytest.raises(Killed):
        _train(tmp_path / "killed", recipe, callbacks=[KillAfter(killed_in)])
    resumed, refitted = _train(tmp_path / "killed", recipe, callbacks=[Callback()])
    assert _bytes(whole) == _bytes(resumed)
    assert _curve(fitted) == _curve(refitted)
    assert fitted.best_epoch == refitted.best_epoch


@pytest.mark.parametrize("augmentation", ["shift-flip", "crop-flip"])
def test_mixing_and_averaging_survive_a_kill(tmp_path: Path, augmentation: Any) -> None:
    recipe = RECIPE.with_changes(mixup=0.4, weight_averaging=0.9, augmentation=augmentation)
    whole, fitted = _train(tmp_path / "whole", recipe)
    with pytest.raises(Killed):
        _train(tmp_path / "killed", recipe, callbacks=[KillAfter(3)])
    resumed, refitted = _train(tmp_path / "killed", recipe, callbacks=[Callback()])
    assert _bytes(whole) == _bytes(resumed)
    assert _curve(fitted) == _curve(refitted)


@pytest.mark.parametrize("batch_size", [21, 57])
def test_a_single_image_left_over_is_passed_over_and_not_counted(tmp_path: Path, batch_size: int) -> None:
    """400 images: 19 batches of 21, or 7 of 57, and one image left over, which batch norm has no statistics of."""
    assert 400 % batch_size == 1

    class Steps(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def on_batch_end(self, training: Training) -> None:
            self.seen.append((training.batch, training.batches))

    recipe = RECIPE.with_changes(batch_size=batch_size, weight_averaging=0.99)
    steps = Steps()
    whole, fitted = _train(tmp_path / "whole", recipe, callbacks=[steps])
    each = 400 // batch_size
    assert steps.seen == 3 * [(batch, each) for batch in range(1, each + 1)]
    for killed_in in (2, 3):
        folder = tmp_path / f"killed in {killed_in}"
        with pytest.raises(Killed):
            _train(folder, recipe, callbacks=[KillAfter(killed_in)])
        resumed, refitted = _train(folder, recipe, callbacks=[Callback()])
        # The average counts the steps that were made: a batch too many would weigh the next ones less.
        assert _bytes(whole) == _bytes(resumed)
        assert _curve(fitted) == _curve(refitted)


def test_what_is_evaluated_and_kept_are_the_averaged_weights(tmp_path: Path) -> None:
    recipe = RECIPE.with_changes(epochs=1, augmentation="none")
    plain, _ = _train(tmp_path / "plain", recipe)
    averaged, fitted = _train(tmp_path / "averaged", recipe.with_changes(weight_averaging=0.99))
    assert _bytes(plain) != _bytes(averaged)
    _, val = _parts()
    accuracy = float((predict_logits(averaged, val, CPU).argmax(1) == val.labels).mean())
    assert accuracy == fitted.history[-1].val_accuracy


def test_mixup_trains_on_mixed_images_and_both_labels(tmp_path: Path) -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 2))
            self.inputs: list[torch.Tensor] = []

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.inputs.append(rows)
            return rows @ self.weight.T

    rows = np.array([[0.0, 1.0], [1.0, 0.0]] * 20, np.float32)
    labels = np.array([0, 1] * 20)
    batches = ArrayBatches(rows, labels, np.arange(40))
    network = Seen()
    recipe = RECIPE.with_changes(epochs=1, batch_size=40, mixup=1.0, learning_rate=0.1, optimizer="sgd", dropout=0.0)
    fitted = train_network(network, batches, batches, recipe, 3, device=CPU, checkpoint=tmp_path / "c")
    (mixed,) = network.inputs
    assert torch.allclose(mixed.sum(1), torch.ones(40))  # both images' shares add up to one
    assert len(torch.unique((mixed[:, 0] * 1e4).round())) == 4  # 0, 1, the share, and one minus it
    # Zero weights: every label costs ln 2, however they are mixed.
    assert fitted.history[0].train_loss == pytest.approx(np.log(2), rel=1e-5)


class Counter(Callback):
    """Counts epochs, across a resume."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_epoch_end(self, training: Training, record: EpochRecord) -> None:
        self.epochs += 1

    def state(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def restore(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


@pytest.mark.parametrize("added", [True, False])
def test_a_training_is_resumed_with_a_watcher_more_or_less(tmp_path: Path, added: bool) -> None:
    recipe = RECIPE.with_changes(early_stopping_patience=3)
    whole, _ = _train(tmp_path / "whole", recipe)
    before: list[Callback] = [Counter(), KillAfter(3)] if added else [HistoryLogger(tmp_path), Counter(), KillAfter(3)]
    with pytest.raises(Killed):
        _train(tmp_path / "killed", recipe, callbacks=before)
    counter = Counter()
    after: list[Callback] = [HistoryLogger(tmp_path), counter] if added else [counter]
    resumed, fitted = _train(tmp_path / "killed", recipe, callbacks=after)
    assert counter.epochs == 3
    assert _bytes(whole) == _bytes(resumed)
    assert fitted.earlier_seconds == sum(record.seconds for record in fitted.history[:2])
    assert 0 < fitted.earlier_seconds < fitted.seconds


def test_a_checkpoint_of_another_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("headstart.training.checkpoint._FORMAT", "1")
        with pytest.raises(Killed):
            _train(tmp_path, callbacks=[KillAfter(3)])
    anew, fitted = _train(tmp_path)
    whole, _ = _train(tmp_path / "whole")
    assert _bytes(anew) == _bytes(whole)
    assert fitted.earlier_seconds == 0


def test_a_device_that_is_quick_writes_the_resume_file_seldom_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seldom = Arithmetic("cpu", torch.float32, None, 1, save_every=3600.0)
    monkeypatch.setattr("headstart.training.engine.arithmetic_of", lambda _: seldom)
    with pytest.raises(Killed):
        _train(tmp_path, RECIPE.with_changes(epochs=3), callbacks=[KillAfter(3)])
    assert not (tmp_path / "checkpoint.safetensors").exists()
    network, fitted = _train(tmp_path, RECIPE.with_changes(epochs=3))
    # What comes after a training may be killed, too: it must not cost the training.
    again, resumed = _train(tmp_path, RECIPE.with_changes(epochs=3))
    assert resumed.earlier_seconds == pytest.approx(fitted.seconds)
    assert _bytes(again) == _bytes(network)


def test_a_damaged_checkpoint_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"torn")
    damaged, _ = _train(tmp_path)
    assert "is damaged" in caplog.text
    assert (tmp_path / "checkpoint.safetensors.damaged").read_bytes() == b"torn"
    whole, _ = _train(tmp_path / "whole")
    assert _bytes(damaged) == _bytes(whole)


def test_a_checkpoint_that_cannot_be_read_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"hours of work")

    def denied(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(RunError, match=r"cannot be read \(Permission denied\)"):
        load_checkpoint(path, torch.nn.Linear(2, 2), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]))
    monkeypatch.undo()
    assert path.read_bytes() == b"hours of work"


def test_the_network_ends_with_the_best_epochs_weights(tmp_path: Path) -> None:
    network, fitted = _train(tmp_path, RECIPE.with_changes(epochs=4, learning_rate=0.02, schedule="constant"))
    _, val = _parts()
    accuracy = (predict_logits(network, val, CPU).argmax(1) == val.labels).mean()
    best = max(record.val_accuracy for record in fitted.history)
    assert accuracy == pytest.approx(best)
    assert fitted.history[fitted.best_epoch - 1].val_accuracy == best


def test_one_hot_and_integer_labels_give_the_same_loss() -> None:
    logits = torch.linspace(-2, 3, 40).view(4, 10)
    labels = torch.tensor([1, 5, 0, 9])
    one_hot = nn.functional.one_hot(labels, 10)
    for smoothing in (0.0, 0.1):
        integers = classification_loss(logits, labels, smoothing)
        assert classification_loss(logits, one_hot, smoothing) == pytest.approx(float(integers), rel=1e-6)
    by_hand = -torch.log_softmax(logits, 1)[torch.arange(4), labels].mean()
    assert float(classification_loss(logits, labels)) == pytest.approx(float(by_hand), rel=1e-6)


def test_the_curve_is_without_augmentation_and_in_evaluation_mode(tmp_path: Path) -> None:
    network, fitted = _train(tmp_path, RECIPE.with_changes(epochs=1))
    train, _ = _parts("none")
    accuracy = (predict_logits(network, train, CPU).argmax(1) == train.labels).mean()
    assert fitted.history[0].train_accuracy == pytest.approx(accuracy)


def test_the_curve_sees_each_image_once_and_the_trained_network_answers_for_both_directions(tmp_path: Path) -> None:
    network = build_network(NetworkSpec("fast", 10, 8, width=8, mirrored=True), 0)
    train, val = _parts("shift-alternate")
    recipe = RECIPE.with_changes(network="fast", optimizer="muon", epochs=1, augmentation="shift-alternate")
    fitted = train_network(network, train, val, recipe, 0, device=CPU, checkpoint=tmp_path / "checkpoint.safetensors")
    both = predict_logits(network, val, CPU)
    with seen_once(network):
        once = predict_logits(network, val, CPU)
    loss = float(classification_loss(torch.from_numpy(once), torch.from_numpy(val.labels)))
    assert fitted.history[0].val_loss == pytest.approx(loss)
    assert not np.allclose(once, both)
    assert np.array_equal(predict_logits(network, val, CPU), both)


def test_untrained_weights_can_win(tmp_path: Path) -> None:
    network = _network()
    train, val = _parts()
    before = _bytes(network)
    recipe = RECIPE.with_changes(learning_rate=0.0, weight_decay=0.0, epochs=2, schedule="constant")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == "head.4.bias")
    fitted = train_network(
        network,
        train,
        val,
        recipe,
        0,
        device=CPU,
        checkpoint=tmp_path / "checkpoint.safetensors",
        frozen_batch_norm=True,
        evaluate_untrained=True,
    )
    assert [record.epoch for record in fitted.history] == [0, 1, 2]
    assert fitted.best_epoch == 0
    assert _bytes(network) == before


def test_frozen_parameters_and_statistics_stay(tmp_path: Path) -> None:
    network = _network()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith("blocks"))
    before = {name: value.clone() for name, value in network.state_dict().items() if name.startswith("blocks")}
    train, val = _parts()
    train_network(
        network, train, val, RECIPE, 0, device=CPU, checkpoint=tmp_path / "c.safetensors", frozen_batch_norm=True
    )
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    freeze_batch_norm(network)


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    recipe = RECIPE.with_changes(optimizer="sgd", learning_rate=1e30, schedule="constant", epochs=5)
    with pytest.raises(DivergedError, match="Lower the learning rate"):
        _train(tmp_path, recipe)


def test_history_files_hold_the_curve(tmp_path: Path) -> None:
    _, fitted = _train(tmp_path, callbacks=[HistoryLogger(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [float(row["val_accuracy"]) for row in rows] == [record.val_accuracy for record in fitted.history]
    assert [EpochRecord(**line) for line in lines] == list(fitted.history)


def test_a_curve_that_cannot_be_written_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "history.csv").mkdir()  # as good as a spreadsheet that holds it
    _, fitted = _train(tmp_path, callbacks=[HistoryLogger(tmp_path)])
    assert len(fitted.history) == RECIPE.epochs
    assert "learning curve cannot be written" in caplog.text


def test_array_batches_give_rows_in_order() -> None:
    values = np.arange(12, dtype=np.float16).reshape(6, 2)
    batches = ArrayBatches(values, np.arange(6), np.array([4, 1, 3]))
    assert batches.labels.tolist() == [4, 1, 3]
    assert batches.inputs(np.array([2, 0]), None).tolist() == [[6, 7], [8, 9]]


class _Stub(Training):
    """A training that only remembers what callbacks ask of it."""

    def __init__(self) -> None:
        network = nn.Linear(1, 1)
        super().__init__(network, torch.optim.SGD(network.parameters(), lr=1.0), RECIPE, 0)


def _epoch(epoch: int, val_loss: float, val_accuracy: float = 0.5) -> EpochRecord:
    return EpochRecord(epoch, 0.0, 0.0, val_loss, val_accuracy, 0.0, 0.0)


def test_early_stopping_waits_its_patience() -> None:
    training, callback = _Stub(), EarlyStopping(patience=2)
    for epoch, loss in enumerate((1.0, 0.5, 0.6), 1):
        callback.on_epoch_end(training, _epoch(epoch, loss))
    assert not training.stop_reason
    callback.on_epoch_end(training, _epoch(4, 0.5))
    assert "val_loss" in str(training.stop_reason)


def test_a_restored_callback_goes_on_counting() -> None:
    first, second, training = EarlyStopping(patience=2), EarlyStopping(patience=2), _Stub()
    first.on_epoch_end(training, _epoch(1, 0.5))
    first.on_epoch_end(training, _epoch(2, 0.6))
    second.restore(json.loads(json.dumps(first.state())))
    second.on_epoch_end(training, _epoch(3, 0.6))
    assert training.stop_reason is not None


def test_reduce_on_plateau_divides_and_starts_to_wait_anew() -> None:
    training, callback = _Stub(), ReduceLROnPlateau(patience=1, factor=0.1, min_factor=0.05)
    factors = []
    for epoch, loss in enumerate((1.0, 1.0, 1.0), 1):
        callback.on_epoch_end(training, _epoch(epoch, loss))
        factors.append(training.rate_factor)
    assert factors == [1.0, 0.1, 0.05]


def test_checkpoint_prefers_accuracy_then_loss() -> None:
    training, callback = _Stub(), ModelCheckpoint()
    for epoch, (loss, accuracy) in enumerate(((0.5, 0.7), (0.4, 0.7), (0.3, 0.6)), 1):
        callback.on_epoch_end(training, _epoch(epoch, loss, accuracy))
    assert callback.best_epoch == 2
    assert training.best


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ((0.80, 0.90, 0.88), 3),  # one standard error of 0.90 on 100 images is 0.03
        ((0.80, 0.90, 0.86), 2),
        ((0.90, 0.88, 0.86), 2),  # as far from the best of all, not from the one before
        ((0.88, 0.86, 0.90), 3),
        ((1.00, 1.00, 0.99), 2),  # nothing lies within an error of nothing
    ],
)
def test_of_epochs_that_val_does_not_tell_apart_the_latest_is_kept(accuracies: tuple[float, ...], kept: int) -> None:
    training, callback = _Stub(), ModelCheckpoint(images=100)
    for epoch, accuracy in enumerate(accuracies, 1):
        callback.on_epoch_end(training, _epoch(epoch, 0.5 + epoch / 10, accuracy))
        again = ModelCheckpoint(images=100)  # a kill after every epoch changes nothing
        again.restore(json.loads(json.dumps(callback.state())))
        callback = again
    assert callback.best_epoch == kept


@pytest.mark.parametrize(("accuracies", "kept"), [((0.89, 0.90, 0.88), 1), ((0.87, 0.90, 0.88), 2), ((0.90, 0.88), 0)])
def test_no_epoch_below_the_weights_as_given_is_kept(accuracies: tuple[float, ...], kept: int) -> None:
    training, callback = _Stub(), ModelCheckpoint(images=100)
    for epoch, accuracy in enumerate(accuracies):
        callback.on_epoch_end(training, _epoch(epoch, 0.5 + epoch / 10, accuracy))
        callback, before = ModelCheckpoint(images=100), callback
        callback.restore(json.loads(json.dumps(before.state())))
    assert callback.best_epoch == kept


@pytest.mark.parametrize(
    ("changes", "tolerant"),
    [
        ({"schedule": "one-cycle"}, True),
        ({"schedule": "one-cycle", "early_stopping_patience": 2}, False),
        ({"schedule": "constant"}, False),
    ],
)
def test_only_a_rate_that_falls_to_the_end_makes_later_epochs_better(
    changes: dict[str, Any], tolerant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int | None] = []

    class Watched(ModelCheckpoint):
        def __init__(self, monitor: Any = "val_accuracy", images: int | None = None) -> None:
            made.append(images)
            super().__init__(monitor, images)

    monkeypatch.setattr("headstart.training.engine.ModelCheckpoint", Watched)
    _train(tmp_path, RECIPE.with_changes(epochs=1, **changes))
    _, val = _parts()
    assert made == [len(val.labels) if tolerant else None]


def test_images_are_counted_for_an_accuracy_only() -> None:
    with pytest.raises(ValueError, match="val_loss"):
        ModelCheckpoint("val_loss", images=100)


def test_patience_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EarlyStopping(patience=0)


def test_tensorboard_writes_its_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    _train(tmp_path, RECIPE.with_changes(epochs=1), callbacks=[TensorBoard(tmp_path / "tensorboard")])
    events = list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert b"val_accuracy" in events[0].read_bytes()


def test_tensorboard_that_is_not_installed_is_an_error_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'headstart\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_larger_inputs_are_evaluated_fewer_at_once_and_keep_their_order() -> None:
    seen: list[int] = []

    class Watched(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(len(inputs))
            return inputs.amax((1, 2))

    values = np.zeros((110, 96, 96, 3), np.float32) + np.arange(110, dtype=np.float32)[:, None, None, None]
    logits = predict_logits(Watched(), ArrayBatches(values, np.zeros(110, np.int64), np.arange(110)), CPU)
    assert np.array_equal(logits[:, 0], np.arange(110))
    assert seen == [32, 37, 37, 4]
