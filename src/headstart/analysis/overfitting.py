"""Overfits, underfits or sound: a verdict per recipe, with its reason and what to try."""

from dataclasses import dataclass

from headstart.analysis.statistics import Estimate
from headstart.records import Augmentation, FitVerdict, Kind

GAP_THRESHOLD = 0.05
"""Chosen: a gap whose interval reaches below five points is what regularised networks usually show."""

SHORTFALL_THRESHOLD = 0.05
"""Chosen: train accuracy may stay this far below what another recipe reaches on unseen images."""

HALF_WAY = 0.5
"""Chosen: without anything to compare with, a network that is not half way from the majority rate to 1 has not learned its data."""

_OVERFITTING_ADVICE: dict[Kind, tuple[str, ...]] = {
    "scratch": ("augment", "regularize", "more-data", "stop-earlier"),
    "probe": ("regularize", "more-data"),
    "random-features": ("regularize", "more-data"),
    "finetune": ("fewer-trained-layers", "augment", "regularize", "more-data"),
    "majority": (),
}
_UNDERFITTING_ADVICE: dict[Kind, tuple[str, ...]] = {
    "scratch": ("train-longer", "higher-learning-rate", "larger-network"),
    "probe": ("larger-input", "other-preprocessing", "unfreeze-more"),
    "random-features": (),
    "finetune": ("larger-input", "unfreeze-more", "train-longer"),
    "majority": (),
}


@dataclass(frozen=True)
class FitJudgement:
    """How a recipe fits its data.

    Attributes:
        verdict: `overfits`, `underfits` or `sound`.
        code: the reason (docs/results.md, `fit_reason`).
        train_accuracy, val_accuracy: means over trials.
        gap: train minus val.
        reference_accuracy, reference: the best val accuracy of any other recipe and its name, where there is one.
        advice: what to try, most useful first.
    """

    verdict: FitVerdict
    code: str
    train_accuracy: float
    val_accuracy: float
    gap: Estimate
    reference_accuracy: float | None
    reference: str | None
    advice: tuple[str, ...]


def judge_fit(
    *,
    kind: Kind,
    gap: Estimate,
    train_accuracy: float,
    val_accuracy: float,
    majority_rate: float,
    reference_accuracy: float | None = None,
    reference: str | None = None,
    still_improving: bool = False,
    augmentation: Augmentation = "none",
    at_native_size: bool = False,
    trains_all: bool = False,
) -> FitJudgement:
    """Judge one recipe.

    Two parts of the error are weighed against each other: the gap (what is lost between train and val) and the shortfall
    (what train itself lacks, measured against what another recipe reaches on val). The larger one names the verdict.

    Args:
        kind: of the recipe.
        gap: train minus val accuracy with its interval.
        train_accuracy, val_accuracy: means over trials.
        majority_rate: share of the most frequent class in train.
        reference_accuracy, reference: best val accuracy of any other recipe of the study.
        still_improving: val loss was still falling when the epochs ended.
        augmentation: that the recipe used.
        at_native_size: its backbone sees images at least as large as it was pretrained on.
        trains_all: no layer of its network is frozen.
    """
    overfit_part = gap.mean if gap.low > GAP_THRESHOLD else 0.0
    shortfall, short_code = _shortfall(train_accuracy, majority_rate, reference_accuracy)
    verdict: FitVerdict
    if overfit_part > shortfall:
        verdict, code = "overfits", "gap-over-threshold"
        advice = tuple(a for a in _OVERFITTING_ADVICE[kind] if a != "augment" or augmentation == "none")
    elif shortfall > 0:
        verdict, code = "underfits", short_code
        pointless = {"larger-input"} if at_native_size else set[str]()
        pointless |= {"unfreeze-more"} if trains_all else set()
        advice = tuple(a for a in _UNDERFITTING_ADVICE[kind] if a not in pointless)
        if still_improving and "train-longer" in advice:
            advice = ("train-longer", *(a for a in advice if a != "train-longer"))
    else:
        verdict, code = "sound", "gap-and-train-fine"
        advice = ("train-longer",) if still_improving else ()
    return FitJudgement(verdict, code, train_accuracy, val_accuracy, gap, reference_accuracy, reference, advice)


def _shortfall(train_accuracy: float, majority_rate: float, reference_accuracy: float | None) -> tuple[float, str]:
    """What train accuracy lacks, and the code of the reason; 0 where it lacks nothing."""
    if reference_accuracy is not None and reference_accuracy - train_accuracy > SHORTFALL_THRESHOLD:
        return reference_accuracy - train_accuracy, "train-below-reference"
    half_way = majority_rate + HALF_WAY * (1 - majority_rate)
    if train_accuracy < half_way:
        return half_way - train_accuracy, "train-near-chance"
    return 0.0, ""
