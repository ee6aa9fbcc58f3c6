"""Diagnoses as `headstart diagnose` would write them: the class exercise, a healthy one, many causes, a user's module."""

import copy
import hashlib
from typing import Any

CATALOGUE = (
    *("input-size", "padding", "pixel-range", "double-scaling", "channel-order", "train-serve-mismatch"),
    *("interpolation", "batch-norm-training", "batch-norm-overwritten", "batch-norm-domain", "learning-rate"),
    *("optimizer-misses-parameters", "weights-not-loaded", "loss-activation", "label-order", "duplicates"),
    *("test-used-for-selection", "pretraining-overlap", "cached-augmentation", "domain-gap", "underfit-head"),
    *("overfit", "unfair-scratch"),
)
"""Names of the causes by number, from 1."""

_TRIED = {
    "contract": "ImageNet RGB",
    "probe": {"mean": 0.71, "low": 0.68, "high": 0.74},
    "own": {"mean": 0.6, "low": 0.57, "high": 0.63},
    "tried": 10,
}

EVIDENCE: dict[str, dict[str, Any]] = {
    "small-input-by-map": {"size": 32, "native": 224, "wanted": 128, "map": 1},
    "small-input": {"size": 32, "native": 224, "wanted": 128, "map": 1, "field": 32},
    "enough-input": {"size": 128, "map": 4},
    "fixed-input-size": {"size": 64},
    "constant-borders": {"share": 0.8163},
    "no-borders": {},
    "other-range": {"low": 0.0, "high": 1.0, "expected_low": -2.1179, "expected_high": 2.64},
    "right-range": {"low": -1.0, "high": 1.0},
    "range-by-scaling": {},
    "standardised-alone": {},
    "not-standardised": {},
    "standardised-as-expected": {},
    "other-contract-better": _TRIED,
    "own-contract-best": _TRIED,
    "not-in-better-contract": _TRIED,
    "scaled-twice": {"low": -1.0, "high": -0.99216, "expected_low": -1.0, "expected_high": 1.0},
    "scaled-once": {},
    "channels-swapped": {"order": "BGR"},
    "channels-in-order": {},
    "colour-thrown-away": {},
    "paths-differ": {"difference": 0.0412},
    "paths-differ-in-shape": {"first": "(3, 128, 128)", "second": "(3, 96, 96)"},
    "paths-equal": {},
    "paths-compared": {"difference": 0.0412, "accuracy": 0.861, "serving": 0.647},
    "shapes-compared": {"first": "(3, 128, 128)", "second": "(3, 96, 96)", "accuracy": 0.861, "serving": 0.647},
    "serving-fails": {"error": "RuntimeError: mat1 and mat2 shapes cannot be multiplied"},
    "one-path": {},
    "training-range-differs": {"low": -2.118, "high": 2.64, "train_low": 0.0, "train_high": 1.0},
    "training-order-differs": {"order": "BGR", "train_order": "RGB"},
    "training-compared": {"accuracy": 0.31, "train": 0.852},
    "training-alike": {"low": -2.118, "high": 2.64},
    "training-not-compared": {},
    "other-interpolation": {"found": "nearest", "expected": "bicubic"},
    "not-resized": {"size": 32},
    "same-interpolation": {"found": "bicubic"},
    "batch-norm-moves": {"layers": 52},
    "batch-norm-still": {"layers": 52},
    "no-batch-norm": {},
    "buffers-differ": {"tensors": 104, "total": 156},
    "buffers-as-published": {"total": 156},
    "statistics-far": {"distance": 2.413, "spread": 1.872},
    "statistics-near": {"distance": 0.12, "spread": 0.954},
    "statistics-unusable": {},
    "below-probe": {"accuracy": 0.712, "probe": 0.861},
    "loss-jump": {"before": 0.61, "after": 14.2},
    "loss-diverged": {},
    "repaired-diverged": {},
    "training-calm": {},
    "not-below-probe": {"accuracy": 0.871, "probe": 0.865},
    "no-history": {},
    "not-in-optimizer": {"parameters": 156, "total": 158},
    "head-not-in-optimizer": {"parameters": 2, "total": 158, "head": 0.104, "probe": 0.861},
    "head-alone-trained": {},
    "no-gradient": {"parameters": 156, "total": 158, "layer": "features.0.0.weight"},
    "gradient-not-computed": {"total": 158},
    "optimizer-complete": {"total": 158},
    "no-optimizer": {},
    "weights-differ": {"tensors": 262, "total": 314},
    "statistics-untouched": {"total": 52},
    "weights-as-published": {"total": 314},
    "no-published-weights": {},
    "outputs-are-probabilities": {},
    "first-loss-off": {"loss": 1.4612, "expected": 0.0},
    "perfect-loss-not-finite": {},
    "loss-below-zero": {"loss": -50.0},
    "loss-fits": {},
    "cannot-fit-few": {"count": 50, "head": 0.12, "probe": 1.0},
    "fits-few": {"count": 50},
    "no-outputs": {},
    "permutation-recovers": {"accuracy": 0.11, "permuted": 0.86},
    "permutation-or-untrained": {"accuracy": 0.08, "permuted": 0.31},
    "permutation-by-chance": {"accuracy": 0.41, "permuted": 0.38},
    "labels-in-order": {},
    "evaluations-disagree": {"accuracy": 0.104, "own": 0.861},
    "far-below-curve": {"accuracy": 0.104, "val": 0.853},
    "no-predictions": {},
    "copies-add-little": {"count": 306, "share": 0.0306, "learned": 17},
    "copies-across": {"count": 306, "share": 0.0306},
    "copies-flatter": {"count": 306, "share": 0.0306, "accuracy": 0.871, "without": 0.868},
    "no-copies": {"count": 7, "share": 0.0007},
    "duplicates-across": {"count": 325, "share": 0.0325},
    "duplicates-flatter": {"count": 325, "share": 0.0325, "accuracy": 0.871, "without": 0.862},
    "no-duplicates": {"count": 3, "share": 0.0003},
    "three-way-split": {},
    "no-split": {},
    "knows-test-images": {"count": 12},
    "pretraining-not-known": {},
    "pretraining-apart": {"count": 10_000},
    "epochs-identical": {},
    "epochs-differ": {},
    "no-augmentation": {},
    "training-path-differs": {},
    "augmentation-not-used": {"augmentation": "shift-flip"},
    "no-training-path": {},
    "no-better-than-random": {"probe": 0.41, "random": 0.405},
    "features-at-chance": {"probe": 0.101, "random": 0.098},
    "too-few-images": {"images": 60},
    "better-than-random": {"probe": 0.865, "random": 0.413},
    "features-trained-further": {},
    "statistics-trained-further": {},
    "pixels-trained-further": {},
    "images-are-easy": {"probe": 0.983, "random": 0.964},
    "scratch-better": {"probe": 0.61, "scratch": 0.72},
    "head-below-probe": {"head": 0.286, "probe": 0.326, "labels": 2400.0},
    "head-at-probe": {"head": 0.861, "probe": 0.8615, "labels": 45_000.0},
    "head-unclear": {"head": 0.81, "probe": 0.84, "labels": 2400.0},
    "no-head": {},
    "convex-head": {},
    "may-know-test": {},
    "gap-large": {"train": 0.884, "val": 0.709},
    "gap-of-best-l2": {"train": 0.95, "val": 0.82},
    "gap-small": {"train": 0.331, "val": 0.326},
    "gap-unclear": {"train": 0.9, "val": 0.75},
    "regularised-head-better": {"train": 1.0, "val": 0.71, "head": 0.71, "probe": 0.79, "labels": 2400.0},
    "head-knows-train": {"train": 1.0, "probe": 0.79},
    "fine-tuning-unclear": {"accuracy": 0.81, "probe": 0.83},
    "head-of-fine-tuning": {},
    "no-running-statistics": {"layers": 20},
    "input-not-square": {},
    "draws-are-kept": {},
    "scratch-stem": {"size": 32, "map": 1},
    "scratch-compared": {"size": 32, "map": 1, "scratch": 0.71, "fair": 0.84},
    "scratch-fair": {"size": 32, "map": 4},
    "no-scratch": {},
    "input-not-understood": {"fit": 0.31},
    "input-is-random": {"fit": 0.42},
    "no-contract": {},
    "no-network": {},
    "no-other-contract": {},
    "squares-alone": {},
    "by-construction": {},
    "val-is-test": {"accuracy": 0.7134, "epoch": 12},
    "learns-little": {"train": 0.281, "val": 0.286},
    "loss-still-falls": {"before": 1.204, "after": 1.101},
    "train-is-fitted": {"train": 0.96, "loss": 0.121},
    "loss-at-floor": {"train": 0.93, "loss": 1.522, "floor": 1.461},
}
"""Every evidence code with values."""

REPAIRS: dict[str, dict[str, Any]] = {
    "resize": {"size": 128, "interpolation": "bicubic"},
    "no-padding": {},
    "range": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "standardise": {},
    "scale-once": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "channel-order": {},
    "one-preprocessing": {},
    "interpolation": {"interpolation": "bicubic"},
    "eval-mode": {},
    "restore-buffers": {},
    "re-estimate-batch-norm": {},
    "lower-rate": {},
    "freeze": {},
    "start-again": {},
    "rebuild-optimizer": {},
    "load-weights": {},
    "logits": {},
    "fix-order": {},
    "group-split": {},
    "three-way-split": {},
    "other-backbone": {},
    "augment-after-cache": {},
    "unfreeze": {},
    "longer-head": {},
    "regularize": {},
    "small-stem": {},
}
"""Every repair code with values."""

CONTROLS = ("random-features", "convex-head", "scratch")

CONTROL_SAYS = (
    *("better-than-random", "no-better-than-random", "head-below-probe", "head-at-probe", "head-unclear"),
    *("scratch-better", "scratch-worse", "scratch-alike", "training-diverged"),
)
"""What a control can say."""

_NOTHING_RUN: dict[str, Any] = {
    "labels": 0,
    "images": 0,
    "seeds": 0,
    "design": "none",
    "factors": [],
    "cells": [],
    "sample_sha256": None,
}

_CLEARED = {
    2: "no-borders",
    4: "scaled-once",
    5: "channels-in-order",
    6: "one-path",
    7: "same-interpolation",
    8: "batch-norm-still",
    9: "buffers-as-published",
    12: "optimizer-complete",
    13: "weights-as-published",
    14: "loss-fits",
    15: "labels-in-order",
    16: "no-duplicates",
    17: "three-way-split",
    19: "no-augmentation",
    20: "better-than-random",
    22: "gap-small",
}
_UNSEEN = {10: "no-contract", 11: "no-history", 18: "pretraining-not-known", 23: "no-scratch"}


def classroom_diagnosis() -> dict[str, Any]:
    """The class exercise: three proved causes, one suspected, an interaction, a repaired recipe."""
    proved = {
        1: ("small-input", (52.0, 50.1, 53.9)),
        3: ("other-range", (4.1, 3.0, 5.2)),
        21: ("head-below-probe", (1.3, 0.4, 2.2)),
    }
    record = {
        "schema_version": 2,
        "headstart_version": "0.1.0",
        "created": "2026-03-02T09:41:07+00:00",
        "language": "en",
        "command": "headstart diagnose cifar10 --preset classroom",
        "name": "cifar10-diagnosis",
        "subject": {
            "kind": "recipe",
            "name": "classroom-mobilenetv2_100",
            "architecture": "mobilenetv2_100",
            "weights": _hash("weights"),
            "preprocessing": {"input_size": 32, "low": 0.0, "high": 1.0, "channel_order": "RGB"},
        },
        "recipe": {"name": "classroom-mobilenetv2_100", "kind": "probe", "input_size": 32, "learning_rate": 0.001},
        "study": {
            "limit": None,
            "split_seed": 0,
            "val_fraction": 0.1,
            "test_fraction": 0.2,
            "keep_duplicates": False,
            "weights_dir": None,
            "trial_seed": 0,
            "trials": [_hash("failing"), _hash("repaired")],
            "environment": {"headstart": "0.1.0", "torch": "2.14.1", "device": "cpu", "threads": 2},
        },
        "data": {
            "name": "cifar10",
            "source": "cifar10",
            "fingerprint": _hash("data"),
            "classes": 10,
            "train": 45_000,
            "val": 5000,
            "test": 10_000,
            "test_drawn": False,
            "canvas": 32,
        },
        "accuracy": {
            "failing": 0.286,
            "repaired": 0.865,
            "failing_interval": _interval(0.286, 0.277, 0.295),
            "repaired_interval": _interval(0.865, 0.858, 0.871),
            "images": 10_000,
            "labels": 45_000,
            "part": "test",
        },
        "verdict": {"code": "proved", "statement": "A sentence that reports must not copy.", "values": {}},
        "causes": [
            *(_cause(number, "proved", code, points) for number, (code, points) in proved.items()),
            *(_cause(number, "could-not-look", code) for number, code in _UNSEEN.items()),
            *(_cause(number, "cleared", code) for number, code in _CLEARED.items()),
        ],
        "interactions": [
            {"causes": [3, 1], "points_with": 0.4, "points_without": 11.2, "difference": _interval(-10.8, -12.4, -9.2)}
        ],
        "experiment": {
            "labels": 2000,
            "images": 2000,
            "seeds": 3,
            "design": "full-factorial",
            "factors": [1, 3, 21],
            "cells": [
                {
                    "faults": faults,
                    "accuracy": _interval(mean, mean - 0.01, mean + 0.01),
                    "seconds": 1.2,
                    "settings": {"input_size": 32 if 1 in faults else 128, "weights": "own", "training_mode": False},
                }
                for faults, mean in (
                    ([1, 3, 21], 0.27),
                    ([1, 3], 0.29),
                    ([1, 21], 0.275),
                    ([3, 21], 0.71),
                    ([1], 0.294),
                    ([3], 0.723),
                    ([21], 0.81),
                    ([], 0.844),
                )
            ],
            "sizes": [
                {"size": size, "accuracy": _interval(mean, mean - 0.03, mean + 0.03), "images": 500}
                for size, mean in ((32, 0.31), (64, 0.58), (128, 0.81), (224, 0.83))
            ],
            "sample_sha256": _hash("sample"),
        },
        "waterfall": [
            {"cause": 1, "points": 52.0},
            {"cause": 3, "points": 4.1},
            {"cause": 21, "points": 1.3},
            {"cause": None, "points": 0.5},
        ],
        "controls": [
            _control("random-features", 0.413, 0.865, "better-than-random"),
            _control("convex-head", 0.326, 0.286, "head-below-probe"),
            _control("scratch", 0.712, 0.865, "scratch-worse"),
        ],
        "repaired_recipe": {
            "name": "classroom-mobilenetv2_100-repaired",
            "kind": "probe",
            "backbone": "mobilenetv2_100",
            "input_size": 128,
            "head": "convex",
        },
        "repair": {
            "toml": "repaired.toml",
            "copies": "copies.csv",
            "changes": [
                {"cause": 1, "code": "resize", "values": REPAIRS["resize"]},
                {"cause": 3, "code": "range", "values": REPAIRS["range"]},
                {"cause": 21, "code": "longer-head", "values": {}},
            ],
            "code": "images = resize(images, (128, 128), interpolation=BICUBIC)\nimages = (images / 255 - mean) / std\n",
            "keras": "x = keras.layers.Resizing(128, 128)(inputs)",
        },
        "seconds": {"look": 1.0, "prove": 20.0, "repair": 90.0, "total": 111.0},
    }
    record["verdict"]["values"] = {"causes": [1, 3, 21], "failing": 0.286, "repaired": 0.865}  # type: ignore[index]
    return record


def healthy_diagnosis() -> dict[str, Any]:
    """Nothing is wrong: one suspicion was tried and cleared, nothing was repaired, nothing had to be measured."""
    record = classroom_diagnosis()
    causes = [_cause(number, "cleared", code) for number, code in _CLEARED.items()]
    causes += [_cause(1, "cleared", "enough-input"), _cause(3, "cleared", "right-range")]
    causes.append(_cause(21, "cleared", "head-below-probe", (0.2, -0.3, 0.7)))
    unseen = [_cause(number, "could-not-look", code) for number, code in _UNSEEN.items()]
    record["accuracy"].update(failing=0.865, failing_interval=_interval(0.865, 0.858, 0.871))
    record["accuracy"].update(repaired=None, repaired_interval=None)
    record["subject"].update(name="mobilenetv2_100-probe", weights=None)
    record["verdict"].update(code="healthy", values={"causes": [], "failing": 0.865, "repaired": None})
    record.update(causes=[*unseen, *causes], interactions=[], waterfall=[], controls=[], repaired_recipe=None)
    record["experiment"] = copy.deepcopy(_NOTHING_RUN)
    record["repair"] = {"toml": None, "changes": [], "code": ""}
    return record


def many_causes_diagnosis() -> dict[str, Any]:
    """Six proved causes, one of which had flattered the score, two suspicions that cannot be told apart, one without points."""
    record = classroom_diagnosis()
    proved = {
        6: ("paths-differ", (21.4, 19.9, 22.9)),
        8: ("batch-norm-moves", (14.2, 12.8, 15.6)),
        5: ("channels-swapped", (9.9, 8.1, 11.7)),
        7: ("other-interpolation", (2.2, 0.9, 3.5)),
        12: ("not-in-optimizer", (1.4, 0.3, 2.5)),
        16: ("duplicates-across", (-6.3, -7.0, -5.6)),
    }
    causes = [_cause(number, "proved", code, points) for number, (code, points) in proved.items()]
    causes.append(_cause(14, "proved", "cannot-fit-few"))
    causes += [
        _cause(10, "suspected", "statistics-far", like=[13]),
        _cause(13, "suspected", "weights-differ", like=[10]),
    ]
    known = {cause["id"] for cause in causes}
    causes += [_cause(number, "could-not-look", code) for number, code in _UNSEEN.items() if number not in known]
    causes += [_cause(number, "cleared", code) for number, code in _CLEARED.items() if number not in known]
    causes += [
        _cause(1, "cleared", "enough-input"),
        _cause(3, "cleared", "right-range"),
        _cause(21, "cleared", "no-head"),
    ]
    record["causes"] = causes
    steps = [(number, points[0]) for number, (_, points) in proved.items()]
    rest = round(57.9 - sum(points for _, points in steps), 1)
    record["waterfall"] = [{"cause": n, "points": p} for n, p in steps] + [{"cause": None, "points": rest}]
    record["interactions"] = [
        {"causes": [8, 6], "points_with": -1.1, "points_without": 17.3, "difference": _interval(-18.4, -20.9, -15.9)},
        {"causes": [5, 8], "points_with": 12.4, "points_without": 7.0, "difference": _interval(5.4, 3.1, 7.7)},
    ]
    record["experiment"].update(design="sampled-orders", factors=list(proved), seeds=1)
    record["experiment"]["cells"] = [
        {
            "faults": list(proved)[place:],
            "accuracy": _interval(0.3 + place / 12, 0.27, 0.9),
            "seconds": 75.0,
            "settings": {"input_size": 128, "weights": "own", "training_mode": True},
        }
        for place in range(7)
    ]
    record["verdict"]["values"]["causes"] = list(proved)
    return record


def module_diagnosis() -> dict[str, Any]:
    """A user's own network: no recipe, no repaired accuracy, so no waterfall; the repair is code."""
    record = classroom_diagnosis()
    record.update(recipe=None, repaired_recipe=None, waterfall=[], controls=[])
    record["subject"].update(kind="module", name="MyNet", architecture=None, weights=None, preprocessing=None)
    record["data"].update(source="my images/photos", val=None, test_drawn=True)
    record["accuracy"].update(repaired=None, repaired_interval=None, part="held-out", images=1, labels=None)
    record["repair"].update(toml=None, keras="")
    record["verdict"]["values"].update(repaired=None)
    return record


def predictions_diagnosis() -> dict[str, Any]:
    """Predictions without their network: one cause proved and repaired, one suspected from the curve, most of them out of sight."""
    record = module_diagnosis()
    points = (74.9, 74.0, 75.8)
    seen = [
        _cause(15, "proved", "permutation-recovers", points),
        _cause(17, "suspected", "val-is-test"),
        _cause(14, "cleared", "train-is-fitted"),
        _cause(22, "cleared", "gap-small"),
    ]
    known = {cause["id"] for cause in seen}
    unseen = [_cause(number, "could-not-look", "no-network") for number in range(1, 24) if number not in known]
    record.update(causes=[*seen, *unseen], interactions=[], waterfall=[{"cause": 15, "points": 74.9}])
    record["subject"].update(kind="predictions", name="outputs.csv")
    record["experiment"] = copy.deepcopy(_NOTHING_RUN)
    record["accuracy"].update(failing=0.11, repaired=0.859, part="test", images=10_000)
    record["accuracy"].update(
        failing_interval=_interval(0.11, 0.104, 0.116), repaired_interval=_interval(0.859, 0.852, 0.866)
    )
    change = {"cause": 15, "code": "fix-order", "values": {}}
    record["repair"] = {"toml": None, "changes": [change], "code": "", "keras": ""}
    return record


def with_verdict(code: str) -> dict[str, Any]:
    """The class exercise under another verdict, its causes changed to fit."""
    record = classroom_diagnosis()
    record["verdict"]["code"] = code
    for cause in record["causes"]:
        if cause["status"] == "proved" and code != "proved":
            cause.update(status="suspected" if code == "suspected-only" else "cleared", points=None)
    if code != "proved":
        record["waterfall"] = []
    if code == "domain-gap":
        gap, code = next(cause for cause in record["causes"] if cause["id"] == 20), "no-better-than-random"
        gap.update(
            status="suspected",
            evidence={"code": code, "values": EVIDENCE[code] | {"difference": _interval(0.005, -0.012, 0.022)}},
        )
    return record


def changed(record: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Copy a record with one text replaced wherever it stands alone."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [walk(entry) for entry in value]
        return new if value == old else copy.copy(value)

    copied: dict[str, Any] = walk(record)
    return copied


def _cause(
    number: int,
    status: str,
    code: str,
    points: tuple[float, float, float] | None = None,
    like: list[int] | None = None,
) -> dict[str, Any]:
    return {
        "id": number,
        "name": CATALOGUE[number - 1],
        "status": status,
        "points": None if points is None else _interval(*points),
        "evidence": {"code": code, "values": EVIDENCE[code]},
        "indistinguishable_from": like or [],
    }


def _control(name: str, accuracy: float, against: float, says: str) -> dict[str, Any]:
    return {
        "name": name,
        "accuracy": _interval(accuracy, accuracy - 0.009, accuracy + 0.009),
        "against": _interval(against, against - 0.009, against + 0.009),
        "says": says,
    }


def _interval(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
