"""Looking at a training's curve, as its owner kept it (causes 11, 14, 17, 21, 22)."""

import csv
import itertools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from headstart.analysis.diagnosis import LEAST_POINTS, Finding
from headstart.analysis.statistics import gap_estimate
from headstart.errors import UsageError
from headstart.records import Booleans, Labels

History = Mapping[str, list[float]]
"""For each curve its values, one an epoch."""

_JUMP = 1.5  # chosen: a training loss that rises by half is no noise of batches
_RISE = 0.05  # chosen: of the first loss; below that a converged loss trembles
_LARGEST_SHARE = 1.5  # an accuracy above it is in percent
_GAP = 0.10  # chosen: train minus val accuracy
_NO_GAP = 0.05  # chosen: below it train and val are alike
_FITTED = 0.9  # chosen: a network that is right on so many of its training images has a loss that it can learn from
_FALLING = 0.02  # chosen: of the loss; a last epoch that takes more off it was not the last that was worth while
_EPOCHS_OF_A_TREND = 4
_SAME_LOSS = 1e-3  # relative: what float arithmetic in another order explains
_ENOUGH_TO_COINCIDE = 5000
"""Test images from which two accuracies that agree to the image are no accident: between independent parts of this size one epoch
does in 0.9% of all cases, and up to three are compared."""
_SUMMED_TO_ONE = 1e-3
_ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
_TRAINED, _VALIDATED = ("", "train_", "training_"), ("val_", "valid_", "validation_", "eval_")
_TRAIN = tuple(f"{part}{name}{end}" for name in _ACCURACIES for part in _TRAINED for end in ("", "_epoch"))
_VAL = tuple(f"{part}{name}{end}" for name in _ACCURACIES for part in _VALIDATED for end in ("", "_epoch"))
_LOSS = tuple(f"{part}loss{end}" for part in _TRAINED for end in ("", "_epoch"))
_VAL_LOSS = tuple(f"{part}loss{end}" for part in _VALIDATED for end in ("", "_epoch"))
_FASTAI, _FASTAI_ERROR = {"train_loss", "valid_loss"}, "error_rate"


def first_seen(finding: Finding, of_curve: Finding) -> Finding:
    """A finding; where it could not look, what the training's curve shows of the same cause, if it shows anything."""
    unseen = finding.status == "could-not-look" and of_curve.status != "could-not-look"
    return of_curve if unseen else finding


def look_at_history(history: History) -> list[Finding]:
    """Causes 11 and 22 from a training's curve: a loss that jumps, a gap that opens."""
    losses = _curve(history, *_LOSS)
    if not losses:
        jump = Finding(11, "could-not-look", "no-history", {})
    elif not np.all(np.isfinite(losses)):
        jump = Finding(11, "suspected", "loss-diverged", {})
    else:
        lowest = np.minimum.accumulate(losses)
        rises = [
            (before, after)
            for before, after in zip(lowest[:-1], losses[1:], strict=True)
            if after > _JUMP * before and after - before > _RISE * abs(losses[0])
        ]
        if rises:
            before, after = max(rises, key=lambda pair: pair[1])
            jump = Finding(11, "suspected", "loss-jump", {"before": round(before, 3), "after": round(after, 3)})
        else:
            jump = Finding(11, "cleared", "training-calm", {})
    train, val = _shares(history, *_TRAIN), val_shares(history)
    if not train or not val:
        return [jump, Finding(22, "could-not-look", "no-history", {})]
    return [jump, gap_finding(train[-1], val[-1])]


def look_at_loss_curve(history: History, classes: int) -> Finding:
    """Cause 14: whether the training loss stays where only a softmax applied twice keeps it.

    Cross-entropy on softmax of values within 0..1 lies between `ln(e + C - 1) - 1` (all certain and right) and `ln(e + C - 1)`
    (all certain and wrong), for `C` classes, however good the network becomes.
    """
    losses, train = _curve(history, *_LOSS), _shares(history, *_TRAIN)
    highest = math.log(math.e + classes - 1)
    floor = highest - 1
    if not losses or not train or not np.all(np.isfinite(losses)):
        return Finding(14, "could-not-look", "no-outputs", {})
    right = train[-1]
    if min(losses) < floor and right >= _FITTED:
        return Finding(14, "cleared", "train-is-fitted", {"loss": round(losses[-1], 3), "train": round(right, 4)})
    if (
        right > (1 + 1 / classes) / 2
        and floor <= min(losses)
        and max(losses) <= highest
        and losses[-1] > 2 * _honest_loss(right, classes)
    ):
        values = {"loss": round(losses[-1], 3), "floor": round(floor, 3), "train": round(right, 4)}
        return Finding(14, "suspected", "loss-at-floor", values)
    return Finding(14, "could-not-look", "no-outputs", {})


def look_at_selection(
    history: History, outputs: npt.NDArray[Any] | None, right: npt.NDArray[np.bool_] | None, labels: Labels
) -> Finding:
    """Cause 17: whether the val part of a training's curve is the test part.

    Args:
        history: of the training.
        outputs: `(n, C)` of the network on test, if they are kept; their loss is then compared, too.
        right: `(n,) bool`, which test images it got right.
        labels: `(n,) int64`, of the test images.
    """
    val = val_shares(history)
    if not val or right is None:
        return Finding(17, "could-not-look", "no-split", {})
    accuracy = float(right.mean())
    losses = _curve(history, *_VAL_LOSS)
    loss = _cross_entropy(outputs, labels)
    usual = {len(val) - 1, int(np.argmax(val))}  # whose weights people keep
    if len(losses) == len(val) and np.all(np.isfinite(losses)):
        usual.add(int(np.argmin(losses)))
    for epoch in sorted(usual):
        if abs(val[epoch] - accuracy) >= 0.5 / len(right):
            continue
        values = {"accuracy": round(accuracy, 4), "epoch": epoch + 1}
        if loss is not None and len(losses) == len(val):
            if abs(losses[epoch] - loss) <= _SAME_LOSS * abs(loss):  # two numbers that agree are no accident
                return Finding(17, "proved", "val-is-test", values)
        elif len(right) >= _ENOUGH_TO_COINCIDE:
            return Finding(17, "suspected", "val-is-test", values)
    return Finding(17, "could-not-look", "no-split", {})


def look_at_learning(history: History, classes: int) -> Finding:
    """Cause 21 from the curve alone: little learned and no gap, or a training that ended while loss and val still got better."""
    train, val = _shares(history, *_TRAIN), val_shares(history)
    losses = _curve(history, *_LOSS)
    if not train or not val or train[-1] - val[-1] > _GAP:
        return Finding(21, "could-not-look", "no-head", {})
    values = {"train": round(train[-1], 4), "val": round(val[-1], 4)}
    if train[-1] < (1 + 1 / classes) / 2 and train[-1] - val[-1] < _NO_GAP:
        return Finding(21, "suspected", "learns-little", values)
    if len(val) == len(losses) >= _EPOCHS_OF_A_TREND and np.all(np.isfinite(losses)) and val[-1] == max(val):
        quarter = max(len(losses) // 4, 2)
        fell, usual = losses[-2] - losses[-1], (losses[-1 - quarter] - losses[-1]) / quarter
        # A loss goes on falling long after the accuracy has stopped to rise.
        rose = 100 * (val[-1] - val[-1 - quarter])
        if fell > _FALLING * losses[-1] > 0 and fell >= usual / 2 and rose >= LEAST_POINTS:
            ends = {"before": round(losses[-2], 3), "after": round(losses[-1], 3)}
            return Finding(21, "suspected", "loss-still-falls", ends)
    return Finding(21, "could-not-look", "no-head", {})


def val_shares(history: History) -> list[float]:
    """Accuracy on val, 0..1, after each epoch; empty if the curve has none."""
    return _shares(history, *_VAL)


def _shares(history: History, *names: str) -> list[float]:
    """An accuracy's curve as shares of one; some people print percent."""
    curve = _curve(history, *names)
    highest = max((max(_curve(history, *both), default=0.0) for both in (_TRAIN, _VAL)), default=0.0)
    return [value / 100 for value in curve] if highest > _LARGEST_SHARE else curve


def _honest_loss(right: float, classes: int) -> float:
    """The largest cross-entropy of a network that is right so often and as sure as it may be (Fano's inequality), in nats."""
    wrong = 1 - right
    entropy = -sum(share * math.log(share) for share in (right, wrong) if share > 0)
    return entropy + wrong * math.log(max(classes - 1, 1))


def _cross_entropy(outputs: npt.NDArray[Any] | None, labels: Labels) -> float | None:
    """Of probabilities or of raw scores `(n, C)`; `None` where there are none."""
    if outputs is None or outputs.ndim != 2 or outputs.shape[1] < 2 or len(outputs) != len(labels):
        return None
    rows = np.arange(len(labels))
    if outputs.min() >= 0 and np.abs(outputs.sum(1) - 1).max() < _SUMMED_TO_ONE:
        return float(-np.log(np.clip(outputs[rows, labels], 1e-7, 1)).mean())
    return float((logsumexp(outputs, axis=1) - outputs[rows, labels]).mean())


def _curve(history: History, *names: str) -> list[float]:
    """The first of these curves that is there; empty if none is."""
    return next((history[name] for name in names if history.get(name)), [])


def gap_finding(train: float, val: float) -> Finding:
    """Cause 22: accuracy on train against val, 0..1."""
    values = {"train": round(train, 4), "val": round(val, 4)}
    if train - val > _GAP:
        return Finding(22, "suspected", "gap-large", values)
    return Finding(22, "cleared", "gap-small", values)


def measured_gap(train: Booleans, unseen: Booleans) -> Finding:
    """Cause 22 from answers, `(n,) bool` and `(m,) bool`, to images that were learned from and to others; a gap by chance is none."""
    found = gap_finding(float(train.mean()), float(unseen.mean()))
    if found.status == "suspected" and gap_estimate([train], [unseen]).low <= 0:
        return Finding(22, "could-not-look", "gap-unclear", found.values)
    return found


def read_history(given: Any) -> dict[str, list[float]]:
    """Accept a training's curve as people have it: a dictionary of lists (Keras' `History.history`), a list of dictionaries, or the
    path of a `.json` file with one of them or of a `.csv` file with a line for each epoch.

    Returns:
        For each curve its values, under the usual names (`_usual_names`).

    Raises:
        UsageError: it is none of these.
    """
    if given is None:
        return {}
    if isinstance(given, str | Path):
        given = _read_curve(Path(given))
    if hasattr(given, "history"):
        given = given.history
    try:
        if isinstance(given, Mapping):
            return _usual_names({str(name): [float(value) for value in values] for name, values in given.items()})
        if isinstance(given, list) and all(isinstance(epoch, Mapping) for epoch in given):
            names = dict.fromkeys(name for epoch in given for name in epoch)
            return _usual_names({str(name): [float(epoch[name]) for epoch in given if name in epoch] for name in names})
    except (TypeError, ValueError) as error:
        raise UsageError(f"`history` has lists of numbers, one for each epoch; in this one {error}.") from error
    raise UsageError(
        "`history` is a dictionary of lists, such as {'loss': [...], 'val_loss': [...]}, or a list of dictionaries."
    )


def _usual_names(curves: dict[str, list[float]]) -> dict[str, list[float]]:
    """Curves under the names that are looked for here: `Train Loss` and `val/acc` are `train_loss` and `val_acc`.

    Of train fastai's recorder writes the loss alone: an accuracy or an error rate that names no part, beside `train_loss` and
    `valid_loss`, is of val.
    """
    named = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): values for name, values in curves.items()}
    if not named.keys() >= _FASTAI or any(name in named for name in (*_TRAIN, *_VAL) if name not in _ACCURACIES):
        return named
    if _FASTAI_ERROR in named:
        named["valid_accuracy"] = [1 - value for value in named.pop(_FASTAI_ERROR)]
    bare = next((name for name in _ACCURACIES if name in named), None)
    if bare is not None:
        named["valid_accuracy"] = named.pop(bare)
    return named


def _read_curve(path: Path) -> Any:
    """What a history's file holds; of a CSV's columns those whose filled cells are numbers.

    Some loggers write a line for train and another one for val, each with the other's columns empty, or many lines an epoch: with a
    column `epoch`, a column has the mean of an epoch's cells for each epoch.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return json.loads(text)
        lines = list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError) as error:
        raise UsageError(f"The history {path} cannot be read: {error}.") from error
    columns = {name: _filled(lines, name) for name in (lines[0] if lines else ()) if name}
    return {
        name: _per_epoch(cells)
        for name, cells in columns.items()
        if cells and all(_is_number(value) for _, value in cells)
    }


def _filled(lines: list[dict[str, str]], name: str) -> list[tuple[str, str]]:
    """A column's filled cells, each behind its line's epoch, or the line's number where no column says that."""
    cells = [(line.get("epoch") or f"line {number}", line[name] or "") for number, line in enumerate(lines)]
    return [(epoch, value) for epoch, value in cells if value.strip()]


def _per_epoch(cells: list[tuple[str, str]]) -> list[float]:
    """The mean of neighbouring cells of one epoch; a file with two trainings one after the other counts its epochs twice."""
    together = itertools.groupby(cells, key=lambda cell: cell[0])
    values = [[float(value) for _, value in group] for _, group in together]
    return [sum(one) / len(one) for one in values]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
