"""The one engine that trains: epochs of batches, evaluation, callbacks, best weights, resume.

Every random number of an epoch comes from (seed, purpose, epoch), so an epoch does not depend on how the training got
there: a training that was killed and resumed gives the same bytes as one that was not.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.splits import evenly_spaced
from headstart.data.transfer import to_device
from headstart.errors import HeadstartError
from headstart.models.backbones import seeded_torch
from headstart.models.looks import seen_once
from headstart.models.network import freeze_batch_norm, parameter_groups
from headstart.randomness import derive_seed, generator
from headstart.records import EpochRecord, Indices, Labels, Logits, Recipe
from headstart.training.arithmetic import Arithmetic, arithmetic_of, full_precision
from headstart.training.averaging import WeightAverage
from headstart.training.batches import Batches
from headstart.training.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
    restore_states,
    states_of,
)
from headstart.training.checkpoint import load_checkpoint, save_checkpoint
from headstart.training.criterion import Criterion, classification_loss
from headstart.training.muon import Muon, muon_groups
from headstart.training.schedules import SCHEDULES
from headstart.training.steps import Mixture, Step, make_step
from headstart.training.tally import Tally

_EVALUATED_NUMBERS = {"cpu": 1 << 20, "gpu": 1 << 23}
_EVALUATED_IMAGES = {"cpu": (32, 256), "gpu": (256, 1 << 23)}
"""How many numbers a batch has that is evaluated, and at least and at most so many images; chosen. On a CPU 256 images of 64 to 128 px at
once took 1.1 to 1.7 times as long, each seen once; with close answers looked at again between 0.9 and 1.2 times (docs/log.md). On a GPU
calls should be few where each costs more than the pixels do (32 MB: 2,730 images of 32 px)."""
_CURVE_IMAGES = 1000, 5000
"""Chosen: the train accuracy of a curve is read from as many images as the val accuracy is, but from at least and at most so many (+-3 and
+-1.4 points): with more than val has, and seen in both directions, it was two fifths of an epoch on 4,500 images (docs/log.md)."""


class DivergedError(HeadstartError):
    """The loss became infinite or not a number; a lower learning rate is the usual repair."""


@dataclass(frozen=True)
class Fitted:
    """What a training gave: its curve, the epoch whose weights the network now has, how it ended, seconds of work.

    `earlier_seconds` is the part of them that was spent before the training was resumed.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    stopped_early: bool
    seconds: float
    images_per_second: float
    earlier_seconds: float = 0.0


@dataclass
class Running:
    """Averages of the current epoch in training mode, as of the last reading (`Arithmetic.read_every`)."""

    loss: float = 0.0
    accuracy: float = 0.0
    images_per_second: float = 0.0


class Training:
    """One training under way; what callbacks see."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, seed: int) -> None:
        self.network = network
        self.optimizer = optimizer
        self.recipe = recipe
        self.seed = seed
        self.epoch = 0
        self.epochs = recipe.epochs
        self.batch = 0
        self.batches = 0
        self.rate_factor = 1.0
        self.learning_rate = 0.0
        self.running = Running()
        self.history: list[EpochRecord] = []
        self.stop_reason: str | None = None
        self.best: dict[str, torch.Tensor] = {}

    def stop(self, reason: str) -> None:
        """End the training after this epoch."""
        self.stop_reason = reason

    def keep_weights(self) -> None:
        """Copy the current weights: they are those to keep, so far."""
        self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def train_network(
    network: nn.Module,
    train: Batches,
    val: Batches,
    recipe: Recipe,
    seed: int,
    *,
    device: torch.device,
    checkpoint: Path,
    callbacks: Sequence[Callback] = (),
    criterion: Criterion | None = None,
    frozen_batch_norm: bool = False,
    evaluate_untrained: bool = False,
    keep_last: bool = False,
) -> Fitted:
    """Train a network's trainable parameters and leave the best epoch's weights in it (`ModelCheckpoint` says which that is).

    Args:
        network: already on `device`; parameters with `requires_grad=False` stay as they are.
        train, val: the two parts; test never comes here.
        recipe: epochs, batch size, optimizer, rate, schedule, patience.
        seed: of order, augmentation and dropout.
        device: where the batches go; it decides the arithmetic (`arithmetic_of`).
        checkpoint: the resume file; removed by the caller once the trial is done.
        callbacks: run after the recipe's own. A resumed training gives each the state that one of its class had kept.
        criterion: what to lower; `None` is the cross-entropy with train's labels.
        frozen_batch_norm: keep batch-norm layers in evaluation mode throughout.
        keep_last: leave the last epoch's weights in it instead; val then only watches.
        evaluate_untrained: let the weights as given compete as epoch 0, so that fine-tuning cannot end below its start, as
            far as the curve can tell.

    Returns:
        The curve, the kept epoch and the seconds of work, those before a resume included.

    Raises:
        DivergedError: the loss is not finite.
    """
    arithmetic = arithmetic_of(device)
    optimizer = make_optimizer(network, recipe, arithmetic.fused)
    criterion = criterion or Criterion(train.labels, recipe.label_smoothing, device)
    training = Training(network, optimizer, recipe, seed)
    # Where the rate stays up, or a patience ends the training, the latest epoch is nothing better.
    patient = recipe.early_stopping_patience or any(isinstance(one, EarlyStopping) for one in callbacks)
    anneals = recipe.schedule != "constant" and not patient
    tolerance = len(val.labels) if anneals else None
    best_keeper = ModelCheckpoint("epoch") if keep_last else ModelCheckpoint("val_accuracy", tolerance)
    watchers = [best_keeper, *_recipe_callbacks(recipe), *callbacks]
    schedule = SCHEDULES[recipe.schedule]
    training.batches = len(_parts(len(train.labels), recipe.batch_size))
    curve_part = evenly_spaced(train.labels, curve_images(len(val.labels)))
    average = WeightAverage(network, recipe.weight_averaging) if recipe.weight_averaging else None
    resumed = load_checkpoint(checkpoint, network, optimizer)
    if resumed is not None:
        training.best, averaged, progress = resumed
        _restore(training, watchers, progress)
        if average is not None:
            average.restore(averaged, steps=training.epoch * training.batches)
    step = make_step(recipe, network, criterion, optimizer, arithmetic, average)
    earlier_seconds = sum(record.seconds for record in training.history)
    for watcher in watchers:
        watcher.on_train_begin(training)
    if resumed is None and evaluate_untrained:
        record = _evaluate(
            training, train, val, curve_part, device, arithmetic, train_loss=None, started=time.perf_counter()
        )
        training.history.append(record)
        for watcher in watchers:
            watcher.on_epoch_end(training, record)
    saved = time.perf_counter()
    while training.epoch < recipe.epochs and training.stop_reason is None:
        training.epoch += 1
        started = time.perf_counter()
        for watcher in watchers:
            watcher.on_epoch_begin(training)
        # On a GPU the fastest convolution differs from run to run unless this forbids it.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            train_loss = _train_epoch(training, train, step, schedule, watchers, device, arithmetic, frozen_batch_norm)
        # What is evaluated, and what may be kept, are the averaged weights; training goes on from its own.
        with average.inside(network) if average is not None else nullcontext():
            record = _evaluate(training, train, val, curve_part, device, arithmetic, train_loss, started)
            training.history.append(record)
            for watcher in watchers:
                watcher.on_epoch_end(training, record)
        is_over = training.epoch == recipe.epochs or training.stop_reason is not None
        if is_over or time.perf_counter() - saved >= arithmetic.save_every:
            averaged = average.state if average is not None else {}
            save_checkpoint(checkpoint, network, training.best, averaged, optimizer, _progress(training, watchers))
            saved = time.perf_counter()
    if training.best:
        network.load_state_dict(training.best)
    network.eval()
    for watcher in watchers:
        watcher.on_train_end(training)
    seconds = sum(record.seconds for record in training.history)
    images = len(train.labels) * training.epoch
    return Fitted(
        tuple(training.history),
        best_keeper.best_epoch,
        training.stop_reason is not None,
        seconds,
        images / seconds if seconds else 0.0,
        earlier_seconds,
    )


def predict_logits(
    network: nn.Module,
    batches: Batches,
    device: torch.device,
    positions: Any = None,
    arithmetic: Arithmetic | None = None,
) -> Logits:
    """Run a network over a part in evaluation mode, without augmentation.

    Args:
        network, batches, device: as in training.
        positions: of the part; `None` is all of it.
        arithmetic: of the training whose curve is drawn; `None` computes in float32 on every device.

    Returns:
        `(n, C) float32` logits in the order of the part (or of `positions`).
    """
    network.eval()
    order = np.arange(len(batches.labels)) if positions is None else positions
    outputs = []
    mixed = arithmetic.mixed if arithmetic is not None else nullcontext
    done, size = 0, _EVALUATED_IMAGES[_memory_of(device.type)][0]  # until it is known how many numbers an input has
    with torch.inference_mode(), full_precision(), mixed():
        while done < len(order):
            inputs = batches.inputs(order[done : done + size], None).to(device)
            outputs.append(network(inputs).float())
            done += len(inputs)
            size = evaluation_batch(device.type, inputs[0].numel())
    logits: Logits = torch.cat(outputs).cpu().numpy()
    return logits


def curve_images(val_images: int) -> int:
    """From how many train images a curve is read, where train has so many, beside so many of val.

    >>> curve_images(500), curve_images(2000), curve_images(10_000)
    (1000, 2000, 5000)
    """
    fewest, most = _CURVE_IMAGES
    return min(max(val_images, fewest), most)


def evaluation_batch(device_type: str, numbers: int) -> int:
    """How many inputs of so many numbers are evaluated at once: more where they are small, and on a GPU.

    >>> evaluation_batch("cpu", 3 * 32 * 32), evaluation_batch("cpu", 3 * 96 * 96)
    (256, 37)
    >>> evaluation_batch("cuda", 3 * 32 * 32), evaluation_batch("mps", 3 * 224 * 224)
    (2730, 256)
    """
    kind = _memory_of(device_type)
    fewest, most = _EVALUATED_IMAGES[kind]
    return min(max(_EVALUATED_NUMBERS[kind] // numbers, fewest), most)


def _memory_of(device_type: str) -> Literal["cpu", "gpu"]:
    return "cpu" if device_type == "cpu" else "gpu"


def make_optimizer(network: nn.Module, recipe: Recipe, fused: bool | None) -> torch.optim.Optimizer:
    """The recipe's optimizer over a network's trainable parameters; `fused` as in `Arithmetic`, Muon has no such kernel."""
    groups = parameter_groups(network, recipe.learning_rate, recipe.layer_decay)
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(
            groups, momentum=recipe.momentum, nesterov=nesterov, weight_decay=recipe.weight_decay, fused=fused
        )
    if recipe.optimizer == "muon":
        return Muon(
            muon_groups(network, groups),
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            pretrained=recipe.kind == "finetune",
        )
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=fused)
    return torch.optim.Adam(groups, weight_decay=recipe.weight_decay, fused=fused)


def _recipe_callbacks(recipe: Recipe) -> list[Callback]:
    watchers: list[Callback] = []
    if recipe.early_stopping_patience:
        watchers.append(EarlyStopping(recipe.early_stopping_patience))
    if recipe.reduce_on_plateau_patience:
        watchers.append(ReduceLROnPlateau(recipe.reduce_on_plateau_patience))
    return watchers


def _train_epoch(
    training: Training,
    train: Batches,
    step: Step,
    schedule: Any,
    watchers: Sequence[Callback],
    device: torch.device,
    arithmetic: Arithmetic,
    frozen_batch_norm: bool,
) -> float:
    """Go through train once in a new order; return the mean loss in training mode."""
    recipe, epoch, seed = training.recipe, training.epoch, training.seed
    training.network.train()
    if frozen_batch_norm:
        freeze_batch_norm(training.network)
    augmentation = generator(seed, "augmentation", epoch)
    train.begin_epoch(epoch, seed)
    mixing = generator(seed, "mixup", epoch)
    tally, parts, started = Tally(), _shuffled(training, len(train.labels)), time.perf_counter()
    with seeded_torch(derive_seed(seed, "dropout", epoch)):
        for batch, positions in enumerate(parts, start=1):
            training.batch = batch
            number = (epoch - 1) * training.batches + training.batch - 1
            factor = schedule(number / max(recipe.epochs * training.batches, 1)) * training.rate_factor
            step.set_rates(factor)
            training.learning_rate = training.optimizer.param_groups[0]["initial_lr"] * factor
            inputs, mixture = train.inputs(positions, augmentation).to(device), None
            if recipe.mixup:
                share, partners = _draw_mixture(len(positions), recipe.mixup, mixing)
                mixture = Mixture(share, to_device(partners, device))
                inputs = inputs.lerp(inputs[mixture.partners], 1 - share)
            loss, hits = step(inputs, to_device(positions, device), mixture)
            tally.add(loss, hits, len(positions))
            if (batch - 1) % arithmetic.read_every == 0 or batch == len(parts):
                tally.read()
                _refuse_divergence(tally, training)
                pace = tally.seen / (time.perf_counter() - started)
                training.running = Running(tally.loss / tally.seen, tally.hits / tally.seen, pace)
            for watcher in watchers:
                watcher.on_batch_end(training)
    return tally.loss / tally.seen


def _refuse_divergence(tally: Tally, training: Training) -> None:
    if tally.diverged is not None:
        batch, loss = tally.diverged
        raise DivergedError(
            f"{training.recipe.name}: the loss became {loss} in epoch {training.epoch}, batch {batch}. "
            f"Lower the learning rate (it is {training.recipe.learning_rate:g})."
        )


def _shuffled(training: Training, count: int) -> list[Indices]:
    """An epoch's batches, as positions in a new order."""
    order = generator(training.seed, "order", training.epoch).permutation(count)
    return [order[part] for part in _parts(count, training.recipe.batch_size)]


def _parts(count: int, size: int) -> list[slice]:
    """Where an epoch's batches begin and end; a single image left over is passed over, batch norm has no statistics of it."""
    parts = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    if len(parts) > 1 and count - parts[-1].start < 2:
        parts.pop()
    return parts


def _draw_mixture(count: int, strength: float, rng: np.random.Generator) -> tuple[float, Indices]:
    """Mixup (Zhang et al. 2018): one share per batch from Beta(strength, strength), and each image's partner."""
    return float(rng.beta(strength, strength)), rng.permutation(count)


def _evaluate(
    training: Training,
    train: Batches,
    val: Batches,
    curve_part: npt.NDArray[np.int64],
    device: torch.device,
    arithmetic: Arithmetic,
    train_loss: float | None,
    started: float,
) -> EpochRecord:
    with seen_once(training.network):
        train_logits = predict_logits(training.network, train, device, curve_part, arithmetic)
        val_logits = predict_logits(training.network, val, device, arithmetic=arithmetic)
    own_loss = train_loss if train_loss is not None else _mean_loss(train_logits, train.labels[curve_part])
    return EpochRecord(
        epoch=training.epoch,
        train_loss=own_loss,
        train_accuracy=float((train_logits.argmax(1) == train.labels[curve_part]).mean()),
        val_loss=_mean_loss(val_logits, val.labels),
        val_accuracy=float((val_logits.argmax(1) == val.labels).mean()),
        learning_rate=training.learning_rate,
        seconds=time.perf_counter() - started,
    )


def _mean_loss(logits: Logits, labels: Labels) -> float:
    return float(classification_loss(torch.from_numpy(logits), torch.from_numpy(labels)))


def _progress(training: Training, watchers: Sequence[Callback]) -> dict[str, Any]:
    return {
        "epoch": training.epoch,
        "rate_factor": training.rate_factor,
        "stop_reason": training.stop_reason,
        "history": [asdict(record) for record in training.history],
        "callbacks": states_of(watchers),
    }


def _restore(training: Training, watchers: Sequence[Callback], progress: dict[str, Any]) -> None:
    training.epoch = progress["epoch"]
    training.rate_factor = progress["rate_factor"]
    training.stop_reason = progress["stop_reason"]
    training.history = [EpochRecord(**record) for record in progress["history"]]
    restore_states(watchers, progress["callbacks"])
