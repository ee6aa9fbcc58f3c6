"""Metrics against scikit-learn, and what must not change them."""

import numpy as np
import pytest
from sklearn import metrics as witness

from headstart.analysis import metrics

RNG = np.random.default_rng(0)
LABELS = np.sort(RNG.integers(0, 7, 500))
LOGITS = (RNG.normal(size=(500, 8)) * 3 + 2 * np.eye(8)[LABELS]).astype(np.float32)  # class 7 never occurs
PREDICTED = metrics.predicted_classes(LOGITS)


def test_class_report_equals_scikit_learns() -> None:
    ours = metrics.class_report(LABELS, PREDICTED, 8)
    theirs = witness.classification_report(LABELS, PREDICTED, output_dict=True, zero_division=0)
    for index in range(8):
        row = theirs[str(index)]
        values = (ours.precision[index], ours.recall[index], ours.f1[index], ours.support[index])
        assert values == pytest.approx((row["precision"], row["recall"], row["f1-score"], row["support"]))
    for name, averages in (("macro avg", ours.macro), ("weighted avg", ours.weighted)):
        row = theirs[name]
        assert (averages.precision, averages.recall, averages.f1) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"])
        )


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_single_numbers_equal_scikit_learns() -> None:
    report = metrics.class_report(LABELS, PREDICTED, 8)
    assert metrics.accuracy(LABELS, LOGITS) == pytest.approx(witness.accuracy_score(LABELS, PREDICTED))
    assert report.balanced_accuracy == pytest.approx(witness.balanced_accuracy_score(LABELS, PREDICTED))
    probabilities = metrics.softmax(LOGITS)
    assert metrics.log_loss(LABELS, LOGITS) == pytest.approx(
        witness.log_loss(LABELS, probabilities, labels=np.arange(8))
    )
    assert (
        metrics.confusion_matrix(LABELS, PREDICTED, 8) == witness.confusion_matrix(LABELS, PREDICTED, labels=range(8))
    ).all()


def test_softmax_does_not_overflow() -> None:
    assert metrics.softmax(np.array([[1e4, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_calibration_by_hand() -> None:
    # Four predictions of confidence 0.75, three of them right: perfectly calibrated. Then one right: off by 0.5.
    logits = np.tile(np.log([[0.75, 0.25]]), (4, 1)).astype(np.float32)
    assert metrics.expected_calibration_error(np.array([0, 0, 0, 1]), logits, 10) == pytest.approx(0.0, abs=1e-6)
    assert metrics.expected_calibration_error(np.array([0, 1, 1, 1]), logits, 10) == pytest.approx(0.5, abs=1e-6)
    bins = metrics.reliability(np.array([0, 0, 0, 1]), logits, 10)
    assert [item.count for item in bins] == [0, 0, 0, 0, 0, 0, 0, 4, 0, 0]


def test_confusions_are_sorted_and_leave_out_the_diagonal() -> None:
    matrix = np.array([[5, 3, 0], [1, 9, 0], [4, 0, 6]])
    found = metrics.top_confusions(matrix)
    assert [(item.true, item.predicted, item.count, item.share) for item in found] == [
        (2, 0, 4, 0.4),
        (0, 1, 3, 0.375),
        (1, 0, 1, 0.1),
    ]


def test_mistakes_come_most_confident_first() -> None:
    positions = metrics.most_confident_mistakes(LABELS, LOGITS, 12)
    confidence = metrics.softmax(LOGITS).max(1)[positions]
    assert (PREDICTED[positions] != LABELS[positions]).all()
    assert (np.diff(confidence) <= 0).all()


def test_relabelling_classes_changes_no_average() -> None:
    order = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    relabelled = np.empty_like(LOGITS)
    relabelled[:, order] = LOGITS
    ours = metrics.class_report(LABELS, PREDICTED, 8)
    theirs = metrics.class_report(order[LABELS], metrics.predicted_classes(relabelled), 8)
    assert theirs.macro.f1 == pytest.approx(ours.macro.f1)
    assert metrics.log_loss(order[LABELS], relabelled) == pytest.approx(metrics.log_loss(LABELS, LOGITS))


@pytest.mark.parametrize(
    ("labels", "logits", "named"),
    [
        (np.zeros(3, np.int64), np.zeros((2, 2), np.float32), "expected labels"),
        (np.array([2]), np.zeros((1, 2), np.float32), r"0\.\.1"),
    ],
)
def test_what_does_not_fit_is_refused(labels: np.ndarray, logits: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        metrics.log_loss(labels, logits)
