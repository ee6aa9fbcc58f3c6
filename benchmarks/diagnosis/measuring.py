"""The benchmark's own measure of what a fault costs, apart from headstart's: features, probe, heads and training curves.

The probe is scikit-learn's logistic regression on standardised features, its C chosen on val. The heads are trained in plain
PyTorch on the same features, as their author would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from setups import Floats, Setup, own_copy, written_out
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from headstart.analysis.statistics import paired_difference
from headstart.data.splits import make_split
from headstart.records import ImageSet, Split

Correct = npt.NDArray[np.bool_]

_C = (0.002, 0.01, 0.05)  # chosen: around 1 / (n * l2) for two thousand images and the L2 that such features like
_ITERATIONS = 300
_FOLDS = 3
_BATCH = 64
_LEAST_DEVIATION = 1e-6
_SOFTMAX_EPOCHS, _CURVE_EPOCHS, _GAP_EPOCHS = 20, 12, 40
_JUMP_AFTER, _JUMP_RATE = 5, 100.0
# A healthy head does not know its images by heart: the weakest of these decays (chosen) that brings train and val so near to each other.
# Where none does, the last one's curve is shown, and its gap is there to be seen.
_CALM_EPOCHS, _CALM_GAP, _CALM_DECAYS = 20, 0.05, (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_GAP_IMAGES = 300
_TUNED_EPOCHS, _GENTLE_RATE, _ROUGH_RATE = 8, 1e-4, 1e-3


@dataclass(frozen=True)
class Features:
    """Features of all images of a set with its labels and split."""

    values: Floats
    labels: npt.NDArray[np.int64]
    split: Split
    classes: int

    def part(self, indices: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Features and labels of some images."""
        return self.values[indices], self.labels[indices]


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        correct: which of all images were right, each judged by a probe that was fitted without it: what a fault costs is
            the smaller the more images say so.
        test: which test images the probe on train got right.
        head: that probe's weights, on the features as they are.
    """

    correct: Correct
    test: Correct
    head: nn.Linear

    def accuracy(self, *, on_test: bool) -> float:
        """Share of the test images, to be compared with a head's, or of all images."""
        return float((self.test if on_test else self.correct).mean())


def split_of(data: ImageSet, *, keep_duplicates: bool = False) -> Split:
    """The split that `diagnose` draws with its default seed, so that nobody trains on its test images."""
    return make_split(data, seed=0, remove_duplicates=not keep_duplicates)[0]


def features_of(setup: Setup) -> Features:
    """Run a setup over its images, in the mode and batch size that its author runs it in."""
    script = written_out(setup)
    module = own_copy(script.body).train(setup.training).to(memory_format=torch.channels_last)  # quicker on a CPU
    images = setup.data.images
    # With batch norm in training mode the neighbours matter: they are drawn, not sorted by class.
    order = np.random.default_rng(0).permutation(len(images))
    batch = setup.batch if setup.training else _BATCH
    values: Floats | None = None
    with torch.no_grad():
        for first in range(0, len(order), batch):
            part = order[first : first + batch]
            found = module(script.prepare(images[part])).flatten(1).numpy()
            if values is None:
                values = np.empty((len(order), found.shape[1]), np.float32)
            values[part] = found
    assert values is not None
    split = split_of(setup.data, keep_duplicates=setup.keep_duplicates)
    return Features(np.nan_to_num(values), setup.data.labels, split, len(setup.data.class_names))


def fit(features: Features) -> Probe:
    """The probe on train, its C chosen on val, judged on test; with this C, all images in turns of a third."""
    split = features.split
    val, val_labels = features.part(split.val)
    fitted = []
    for strength in _C:
        model = _fitted(*features.part(split.train), strength)
        loss = log_loss(val_labels, model.predict_proba(val), labels=range(features.classes))
        fitted.append((loss, strength, model))
    _, strength, model = min(fitted, key=lambda one: one[:2])
    scaler, regression = model[0], model[1]
    head = _folded(regression.coef_, regression.intercept_, scaler.mean_, scaler.scale_)
    correct = np.zeros(len(features.labels), np.bool_)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    for rest, judged in folds.split(features.values, features.labels):
        values, labels = features.part(judged)
        correct[judged] = _fitted(*features.part(rest), strength).predict(values) == labels
    return Probe(correct, head_correct(head, features), head)


def _fitted(values: Floats, labels: npt.NDArray[np.int64], strength: float) -> Any:
    regression = LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3)
    return make_pipeline(StandardScaler(), regression).fit(values, labels)


def head_correct(head: nn.Module, features: Features) -> Correct:
    """Which test images a head gets right."""
    test, labels = features.part(features.split.test)
    right: Correct = outputs_of(head, test).argmax(1) == labels
    return right


def outputs_of(head: nn.Module, values: Floats) -> Floats:
    """What a head says of features."""
    with torch.no_grad():
        rows: Floats = head(torch.from_numpy(values)).numpy()
    return rows


def one_step_head(features: Features) -> nn.Linear:
    """A head from zero after one step on one batch."""
    train, labels = features.part(features.split.train)
    chosen = np.random.default_rng(0).choice(len(train), 32, replace=False)
    head = nn.Linear(train.shape[1], features.classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    nn.functional.cross_entropy(head(torch.from_numpy(train[chosen])), torch.from_numpy(labels[chosen])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return head


def head_through_softmax(features: Features) -> nn.Linear:
    """A head that learned through a Softmax before a cross-entropy that expects logits."""
    train, labels = features.part(features.split.train)
    mean, deviation = _moments(train)
    head = _new_head(train.shape[1], features.classes)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    inputs, targets = torch.from_numpy((train - mean) / deviation), torch.from_numpy(labels)
    order = torch.Generator().manual_seed(0)
    for _ in range(_SOFTMAX_EPOCHS):
        for part in torch.randperm(len(inputs), generator=order).split(_BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(inputs[part]).softmax(1), targets[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return _folded(head.weight.detach().numpy(), head.bias.detach().numpy(), mean, deviation)


def permuted_head(head: nn.Linear) -> nn.Linear:
    """The same head with its classes in another order."""
    order = torch.from_numpy(other_order(head.out_features))
    other = nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        other.weight.copy_(head.weight[order])
        other.bias.copy_(head.bias[order])
    return other


def other_order(count: int) -> npt.NDArray[np.int64]:
    """An order of classes or images in which hardly one stands where it was."""
    return np.random.default_rng(0).permutation(count)


def training_curve(features: Features, kind: str) -> dict[str, list[float]]:
    """The curve of a head's training: `calm` and ended, with a rate that becomes far too high (`jump`), or overfitted (`gap`)."""
    if kind == "calm":
        for decay in _CALM_DECAYS:
            curve = _trained_head(features, kind, decay)
            if curve["accuracy"][-1] - curve["val_accuracy"][-1] <= _CALM_GAP:
                break
        return curve
    curve = _trained_head(features, kind)
    # A user who watches the loss for a jump has often kept nothing else.
    return {name: values for name, values in curve.items() if kind != "jump" or "accuracy" not in name}


def ended_by_test(features: Features, head: nn.Linear) -> dict[str, list[float]]:
    """A calm curve whose val part was the test part: its last line is this head's, the others another's."""
    curve = training_curve(features, "calm")
    test, labels = features.part(features.split.test)
    for name, value in _scores(head, torch.from_numpy(test), torch.from_numpy(labels), "val_").items():
        curve[name][-1] = value
    return curve


def _trained_head(features: Features, kind: str, decay: float = 0.0) -> dict[str, list[float]]:
    split = features.split
    train, labels = features.part(split.train[:_GAP_IMAGES] if kind == "gap" else split.train)
    val, val_labels = features.part(split.val)
    mean, deviation = _moments(train)
    inputs, targets = torch.from_numpy((train - mean) / deviation), torch.from_numpy(labels)
    judged, judged_targets = torch.from_numpy((val - mean) / deviation), torch.from_numpy(val_labels)
    head = _new_head(train.shape[1], features.classes)
    rate, epochs = {"calm": (1e-2, _CALM_EPOCHS), "jump": (1e-3, _CURVE_EPOCHS), "gap": (1e-2, _GAP_EPOCHS)}[kind]
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    order = torch.Generator().manual_seed(0)
    curve: dict[str, list[float]] = {"loss": [], "val_loss": [], "accuracy": [], "val_accuracy": []}
    for epoch in range(epochs):
        if kind == "jump" and epoch == _JUMP_AFTER:
            optimizer.param_groups[0]["lr"] = _JUMP_RATE
        if kind == "calm":  # the rate goes down to nothing, so that the training has an end
            optimizer.param_groups[0]["lr"] = rate * (1 - epoch / epochs)
        for part in torch.randperm(len(inputs), generator=order).split(_BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(inputs[part]), targets[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for name, value in (_scores(head, inputs, targets, "") | _scores(head, judged, judged_targets, "val_")).items():
            curve[name].append(value)
    return curve


def _scores(head: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, prefix: str) -> dict[str, float]:
    with torch.no_grad():
        outputs = head(inputs)
        loss = float(nn.functional.cross_entropy(outputs, targets))
    return {f"{prefix}loss": loss, f"{prefix}accuracy": float((outputs.argmax(1) == targets).float().mean())}


def shares_of(cells: Mapping[frozenset[int], Correct], faults: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What each fault really costs, in points: its share (Shapley) of what all cost, and its cost alone.

    Args:
        cells: for each set of faults present, which images were right.
        faults: the planted ones; there may be none.
    """
    count = len(next(iter(cells.values())))
    orders = list(permutations(faults))
    found: dict[int, dict[str, Any]] = {}
    for cause in faults:
        total = np.zeros(count)
        for order in orders:
            before = frozenset(order[order.index(cause) :])
            total += cells[before - {cause}].astype(float) - cells[before]
        alone = paired_difference(cells[frozenset()][None], cells[frozenset({cause})][None])
        found[cause] = {
            "points": round(100 * float(total.mean()) / len(orders), 3),
            "alone": round(100 * alone.mean, 3),
            "alone_low": round(100 * alone.low, 3),
            "alone_high": round(100 * alone.high, 3),
        }
    return found


def re_estimated(setup: Setup) -> Setup:
    """The same with batch-norm statistics taken from its own training images."""
    script = written_out(setup)
    train = split_of(setup.data, keep_duplicates=setup.keep_duplicates).train[: 10 * _BATCH]
    network = own_copy(setup.backbone)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    # The body of a setup with this network, so that inner normalizations and resizes are passed through.
    body = written_out(replace(setup, backbone=network)).body
    body.train()
    with torch.no_grad():
        for first in range(0, len(train), _BATCH):
            body(script.prepare(setup.data.images[train[first : first + _BATCH]]))
    return replace(setup, backbone=network.eval())


def fine_tuned(setup: Setup, fitted: nn.Linear) -> Setup:
    """The same after its author has trained backbone and head together on train, with `own_head`.

    Args:
        setup: tuned `gently`, from a head that was fitted first (and is to be fitted again) and with a small rate, or `roughly`, from
            a new head and with a rate ten times as high.
        fitted: the head that was fitted on the features as they are.
    """
    gently = setup.tuned == "gently"
    network, part = own_copy(setup.backbone), split_of(setup.data, keep_duplicates=setup.keep_duplicates).train
    script = written_out(replace(setup, backbone=network))
    body = script.body.train()
    pictures = setup.data.images[part]
    inputs = torch.cat([script.prepare(pictures[first : first + _BATCH]) for first in range(0, len(part), _BATCH)])
    targets = torch.from_numpy(setup.data.labels[part])
    head = own_copy(fitted) if gently else _new_head(fitted.in_features, len(setup.data.class_names))
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=_GENTLE_RATE if gently else _ROUGH_RATE)
    order = torch.Generator().manual_seed(0)
    body.train()
    for _ in range(_TUNED_EPOCHS):
        for chosen in torch.randperm(len(inputs), generator=order).split(_BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(body(inputs[chosen]).flatten(1)), targets[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return replace(setup, backbone=network.eval(), own_head=cast(nn.Linear, head))


def _moments(values: Floats) -> tuple[Floats, Floats]:
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation > _LEAST_DEVIATION, deviation, 1).astype(np.float32)


def _folded(
    weight: npt.NDArray[Any], bias: npt.NDArray[Any], mean: npt.NDArray[Any], deviation: npt.NDArray[Any]
) -> nn.Linear:
    """A head on standardised features as one on the features themselves."""
    inner = (weight / deviation).astype(np.float32)
    head = nn.Linear(inner.shape[1], inner.shape[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(inner))
        head.bias.copy_(torch.from_numpy((bias - inner @ mean).astype(np.float32)))
    return head


def _new_head(width: int, classes: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(width, classes)
