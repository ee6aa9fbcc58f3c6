"""The convex probe against scikit-learn, and what it must not depend on."""

import numpy as np
import pytest
import scipy.special
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from headstart.training.probe import L2_PATH, LinearHead, fit_probe

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits() -> Parts:
    data = load_digits()
    features, labels = data.data.astype(np.float32), data.target.astype(np.int64)
    return features[:1200], labels[:1200], features[1200:], labels[1200:]


@pytest.fixture(scope="module")
def head(digits: Parts) -> LinearHead:
    return fit_probe(*digits, classes=10)


def test_equals_scikit_learn_at_the_chosen_penalty(digits: Parts, head: LinearHead) -> None:
    train, labels, val, _ = digits
    deviation = np.where(train.std(0) > 1e-6, train.std(0), 1)
    standardised, val_standardised = (train - train.mean(0)) / deviation, (val - train.mean(0)) / deviation
    # Its penalty is summed, not averaged, over images: C = 1 / (n * l2).
    witness = LogisticRegression(C=1 / (len(train) * head.l2), max_iter=5000, tol=1e-8).fit(standardised, labels)
    logits = head.logits(val)
    ours = np.exp(logits - logits.max(1, keepdims=True))
    ours /= ours.sum(1, keepdims=True)
    assert np.abs(ours - witness.predict_proba(val_standardised)).max() < 0.01


def test_a_path_of_ones_own_is_fitted_whole_if_asked(digits: Parts) -> None:
    path = (1.0, 0.1, 1e-3, 1e-5, 1e-6, 1e-7)
    whole = fit_probe(*digits, classes=10, l2_path=path, whole_path=True)
    assert tuple(l2 for l2, _ in whole.val_losses) == path
    short = fit_probe(*digits, classes=10, l2_path=path)
    assert len(short.val_losses) < len(path)
    assert short.l2 == whole.l2
    first, second = (scipy.special.softmax(head.logits(digits[2]), axis=1) for head in (short, whole))
    assert np.abs(first - second).max() < 0.01


def test_the_penalty_is_the_best_of_the_path_on_val(head: LinearHead) -> None:
    assert head.l2 in L2_PATH
    assert min(loss for _, loss in head.val_losses) == dict(head.val_losses)[head.l2]


def test_same_arguments_same_bytes(digits: Parts, head: LinearHead) -> None:
    again = fit_probe(*digits, classes=10)
    assert again.weight.tobytes() == head.weight.tobytes()
    assert again.bias.tobytes() == head.bias.tobytes()


def test_training_features_are_used_up_only_if_allowed(digits: Parts, head: LinearHead) -> None:
    train, labels, val, val_labels = digits
    before = train.copy()
    fit_probe(train, labels, val, val_labels, 10)
    assert np.array_equal(train, before)
    spent = before.copy()
    again = fit_probe(spent, labels, val, val_labels, 10, overwrite_train=True)
    assert not np.array_equal(spent, before)
    assert again.weight.tobytes() == head.weight.tobytes()


def test_scale_and_offset_of_features_do_not_matter(digits: Parts, head: LinearHead) -> None:
    train, labels, val, val_labels = digits
    moved = fit_probe(train * 1000 + 5, labels, val * 1000 + 5, val_labels, classes=10)
    agreement = (moved.logits(val * 1000 + 5).argmax(1) == head.logits(val).argmax(1)).mean()
    assert agreement > 0.99


def test_relabelling_classes_relabels_predictions(digits: Parts, head: LinearHead) -> None:
    train, labels, val, val_labels = digits
    order = np.roll(np.arange(10), 3)
    other = fit_probe(train, order[labels], val, order[val_labels], classes=10)
    agreement = (other.logits(val).argmax(1) == order[head.logits(val).argmax(1)]).mean()
    assert agreement > 0.99


def test_a_constant_feature_is_harmless(digits: Parts) -> None:
    train, labels, val, val_labels = digits
    with_constant = np.hstack([train, np.full((len(train), 1), 7, np.float32)])
    val_constant = np.hstack([val, np.full((len(val), 1), 7, np.float32)])
    fitted = fit_probe(with_constant, labels, val_constant, val_labels, classes=10)
    assert np.isfinite(fitted.weight).all()
