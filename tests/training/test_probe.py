"""The convex probe against scikit-learn, and what it must not depend on."""

from pathlib import Path

import numpy as np
import pytest
import scipy.special
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from headstart.training import softmax_regression
from headstart.training.probe import L2_PATH, LinearHead, fit_probe, predict_probe_seconds

TRAIN, VAL = np.arange(1200), np.arange(1200, 1797)
Digits = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = load_digits()
    return data.data.astype(np.float32), data.target.astype(np.int64)


@pytest.fixture(scope="module")
def head(digits: Digits) -> LinearHead:
    return fit_probe(*digits, TRAIN, VAL, classes=10)


def test_equals_scikit_learn_at_the_chosen_penalty(digits: Digits, head: LinearHead) -> None:
    features, labels = digits
    train, val = features[TRAIN], features[VAL]
    deviation = np.where(train.std(0) > 1e-6, train.std(0), 1)
    standardised, val_standardised = (train - train.mean(0)) / deviation, (val - train.mean(0)) / deviation
    # Its penalty is summed, not averaged, over images: C = 1 / (n * l2).
    witness = LogisticRegression(C=1 / (len(train) * head.l2), max_iter=5000, tol=1e-8).fit(standardised, labels[TRAIN])
    logits = head.logits(val)
    ours = np.exp(logits - logits.max(1, keepdims=True))
    ours /= ours.sum(1, keepdims=True)
    assert np.abs(ours - witness.predict_proba(val_standardised)).max() < 0.01


def test_a_path_of_ones_own_is_fitted_whole_if_asked(digits: Digits) -> None:
    path = (1.0, 0.1, 1e-3, 1e-5, 1e-6, 1e-7)
    whole = fit_probe(*digits, TRAIN, VAL, classes=10, l2_path=path, whole_path=True)
    assert tuple(l2 for l2, _ in whole.val_losses) == path
    short = fit_probe(*digits, TRAIN, VAL, classes=10, l2_path=path)
    assert len(short.val_losses) < len(path)
    assert short.l2 == whole.l2
    first, second = (scipy.special.softmax(head.logits(digits[0][VAL]), axis=1) for head in (short, whole))
    assert np.abs(first - second).max() < 0.01


def test_the_penalty_is_the_best_of_the_path_on_val(head: LinearHead) -> None:
    assert head.l2 in L2_PATH
    assert min(loss for _, loss in head.val_losses) == dict(head.val_losses)[head.l2]


def test_same_arguments_same_bytes(digits: Digits, head: LinearHead) -> None:
    again = fit_probe(*digits, TRAIN, VAL, classes=10)
    assert again.weight.tobytes() == head.weight.tobytes()
    assert again.bias.tobytes() == head.bias.tobytes()


def test_features_are_left_as_they_are(digits: Digits) -> None:
    features, labels = digits
    before = features.copy()
    fit_probe(features, labels, TRAIN, VAL, 10)
    assert np.array_equal(features, before)


def test_rows_from_a_file_fit_the_same_head(
    digits: Digits, head: LinearHead, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr("headstart.training.standardised._IN_MEMORY", 0)
    found = fit_probe(*digits, TRAIN, VAL, classes=10)
    assert np.allclose(found.weight, head.weight, atol=1e-4)
    assert found.l2 == head.l2
    assert list(tmp_path.iterdir()) == []


def test_scale_and_offset_of_features_do_not_matter(digits: Digits, head: LinearHead) -> None:
    features, labels = digits
    moved = fit_probe(features * 1000 + 5, labels, TRAIN, VAL, classes=10)
    agreement = (moved.logits(features[VAL] * 1000 + 5).argmax(1) == head.logits(features[VAL]).argmax(1)).mean()
    assert agreement > 0.99


def test_relabelling_classes_relabels_predictions(digits: Digits, head: LinearHead) -> None:
    features, labels = digits
    order = np.roll(np.arange(10), 3)
    other = fit_probe(features, order[labels], TRAIN, VAL, classes=10)
    agreement = (other.logits(features[VAL]).argmax(1) == order[head.logits(features[VAL]).argmax(1)]).mean()
    assert agreement > 0.99


def test_a_constant_feature_is_harmless(digits: Digits) -> None:
    features, labels = digits
    with_constant = np.hstack([features, np.full((len(features), 1), 7, np.float32)])
    fitted = fit_probe(with_constant, labels, TRAIN, VAL, classes=10)
    assert np.isfinite(fitted.weight).all()


def test_the_prediction_counts_passes_sums_and_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = iter([0.05, 0.004, 0.00001] * 2)  # products for the axes, a block's gradient, a sum over the parameters
    monkeypatch.setattr(softmax_regression, "_median_seconds", lambda _: next(timed))
    assert predict_probe_seconds(45_000, 1280, 10) == pytest.approx(
        0.05 * (45 + 0.017 * 1280) + 100 * (0.004 * 45 + 0.002)
    )
    assert predict_probe_seconds(50, 1280, 10) == pytest.approx(
        0.05 * (0.05 + 0.017 * 1280) + 100 * (0.004 * 0.05 + 0.002)
    )
