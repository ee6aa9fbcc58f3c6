"""Verdicts per recipe: the exercise's two cases, alone and side by side, and the cases around them."""

import numpy as np
import pytest

from headstart.analysis.overfitting import FitJudgement, judge_fit
from headstart.analysis.statistics import gap_estimate


def _judge(train: float, val: float, kind: str = "scratch", **facts: object) -> FitJudgement:
    """Judge accuracies that 45,000 training and 5,000 validation images showed."""
    gap = gap_estimate([np.arange(45_000) < train * 45_000], [np.arange(5_000) < val * 5_000])
    settings: dict[str, object] = {"majority_rate": 0.1} | facts
    return judge_fit(kind=kind, gap=gap, train_accuracy=train, val_accuracy=val, **settings)  # type: ignore[arg-type]


def test_the_exercises_cnn_overfits() -> None:
    for judged in (_judge(0.885, 0.71), _judge(0.885, 0.71, reference_accuracy=0.28, reference="mobilenetv2")):
        assert (judged.verdict, judged.code) == ("overfits", "gap-over-threshold")
        assert judged.advice[0] == "augment"


def test_the_exercises_transfer_underfits_alone_and_beside_the_cnn() -> None:
    alone = _judge(0.29, 0.285, "probe")
    assert (alone.verdict, alone.code) == ("underfits", "train-near-chance")
    beside = _judge(0.29, 0.285, "probe", reference_accuracy=0.71, reference="cnn")
    assert (beside.verdict, beside.code, beside.reference) == ("underfits", "train-below-reference", "cnn")
    assert beside.advice[0] == "larger-input"


def test_high_accuracy_with_a_small_gap_is_sound() -> None:
    assert _judge(1.0, 0.98).verdict == "sound"


def test_the_larger_part_of_the_error_names_the_verdict() -> None:
    assert _judge(0.60, 0.50, reference_accuracy=0.95, reference="x").verdict == "underfits"
    assert _judge(0.90, 0.60, reference_accuracy=0.97, reference="x").verdict == "overfits"


def test_a_wide_interval_is_no_proof_of_overfitting() -> None:
    gap = gap_estimate([np.arange(20) < 20], [np.arange(10) < 9])
    judged = judge_fit(kind="scratch", gap=gap, train_accuracy=1.0, val_accuracy=0.9, majority_rate=0.5)
    assert judged.verdict == "sound"


def test_augmentation_that_is_there_already_is_not_advised() -> None:
    assert "augment" not in _judge(0.95, 0.7, augmentation="shift").advice


def test_a_larger_input_is_not_advised_where_the_backbone_sees_its_own() -> None:
    assert "larger-input" in _judge(0.29, 0.285, "probe").advice
    at_its_own = _judge(0.29, 0.285, "probe", at_native_size=True)
    assert at_its_own.verdict == "underfits"
    assert at_its_own.advice == ("other-preprocessing", "unfreeze-more")


def test_more_layers_are_not_advised_where_all_are_trained() -> None:
    assert _judge(0.29, 0.285, "finetune", trains_all=True).advice == ("larger-input", "train-longer")
    assert _judge(0.29, 0.285, "finetune", trains_all=True, at_native_size=True).advice == ("train-longer",)
    # They say nothing of overfitting.
    assert (
        _judge(0.95, 0.7, "finetune", trains_all=True, at_native_size=True).advice
        == _judge(0.95, 0.7, "finetune").advice
    )


def test_a_loss_that_still_falls_asks_for_more_epochs() -> None:
    assert _judge(0.4, 0.4, still_improving=True).advice[0] == "train-longer"


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_the_majority_class_underfits(rate: float) -> None:
    assert _judge(rate, rate, "majority", majority_rate=rate).verdict == "underfits"
