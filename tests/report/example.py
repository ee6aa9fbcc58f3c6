"""Results as a study would write them: a full one, a minimal one, and the PNG files that they name."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def full_results(names: tuple[str, ...] = CIFAR_NAMES, *, epochs: int = 12) -> dict[str, Any]:
    """Three recipes and two controls, three seeds, every field of docs/results.md filled in."""
    recipes = [
        _recipe("cnn", "scratch", names, (0.7104, 0.7188, 0.8841), (0, 1, 2), "overfits", epochs=epochs),
        _recipe("mobilenetv2_100-probe", "probe", names, (0.8613, 0.8654, 0.8902), (0,), "sound"),
        _recipe("mobilenetv2_100-finetune", "finetune", names, (0.9032, 0.9071, 0.9418), (0, 1, 2), "sound", epochs=5),
        _recipe("random-features", "random-features", names, (0.4127, 0.4151, 0.4533), (0, 1, 2), "underfits"),
        _recipe("majority", "majority", names, (0.1, 0.1, 0.1), (0,), "underfits"),
    ]
    return {
        "schema_version": 1,
        "headstart_version": "0.1.0",
        "name": "cifar-week",
        "language": "en",
        "created": "2026-03-02T09:41:07+00:00",
        "command": "headstart compare cifar10 --seeds 3 --budget 1h",
        "study": {
            "preset": "default",
            "seeds": [0, 1, 2],
            "margin": 0.01,
            "confidence": 0.95,
            "budget_seconds": 3600,
            "limit": 5000,
            "split_seed": 7,
            "predicted_seconds": 2431.0,
            "actual_seconds": 2688.4,
            "device": "cpu",
        },
        "environment": {
            "headstart": "0.1.0",
            "python": "3.11.9",
            "torch": "2.15.0",
            "torchvision": "0.29.2",
            "timm": "1.0.31",
            "onnxruntime": "1.32.0",
            "numpy": "2.4.6",
            "platform": "Linux-6.8-x86_64",
            "processor": "x86_64",
            "device": "cpu",
            "threads": 2,
        },
        "data": {
            "name": "cifar10",
            "source": "cifar10",
            "fingerprint": _hash("data"),
            "images": 15_000,
            "classes": [
                {"name": name, "train": 450 - 7 * (index % 9), "val": 50, "test": 1000}
                for index, name in enumerate(names)
            ],
            "canvas": 32,
            "original_sizes": [
                {"width": 32, "height": 32, "count": 14_321},
                {"width": 640, "height": 480, "count": 679},
            ],
            "original_size_kinds": 2,
            "channel_mean": [125.31, 122.95, 113.87],
            "channel_std": [62.99, 62.09, 66.7],
            "grayscale": False,
            "imbalance": 1.142,
            "split": {"train": 4493, "val": 497, "test": 10_000, "seed": 7, "origin": "official"},
            "duplicates": {
                "groups": 14,
                "across_splits": 10,
                "conflicting_labels": 3,
                "removed": True,
                "examples": [["test/cat/0001.png", "train/cat/4711.png"], ["test/dog/0002.png", "train/cat/0815.png"]],
            },
            "left_out": [
                {"path": "train/cat/zero.png", "reason": "empty", "detail": ""},
                {"path": "train/dog/notes.txt", "reason": "not-an-image", "detail": "cannot identify image file"},
                {
                    "path": "train/frog/half.jpg",
                    "reason": "truncated",
                    "detail": "image file is truncated (31 bytes left)",
                },
            ],
            "converted": [
                {"conversion": "grayscale", "count": 12, "examples": ["train/cat/grey.png"]},
                {"conversion": "dark-16-bit", "count": 4, "examples": ["train/dog/microscope.tif"]},
                {"conversion": "cmyk", "count": 2, "examples": ["train/ship/print.jpg", "train/ship/print2.jpg"]},
            ],
            "mirror_safe": True,
            "samples": [
                {"class": name, "image": f"images/sample-{index}-{number}.png"}
                for index, name in enumerate(names)
                for number in range(3)
            ],
        },
        "recipes": recipes,
        "not_run": [
            {"name": "resnet50-probe", "reason": "no-weights", "detail": "resnet50.a1_in1k"},
            {"name": "resnet50-finetune", "reason": "budget", "detail": "5412"},
            {"name": "vit-probe", "reason": "failed", "detail": "seed 0: MemoryError: out of memory"},
        ],
        "comparisons": [
            _pair("cnn", "mobilenetv2_100-probe", (-0.1509, -0.1617, -0.1402), 0.00005, "worse", count=3),
            _pair("cnn", "mobilenetv2_100-finetune", (-0.1928, -0.2035, -0.1821), 0.00005, "worse", count=3),
            _pair(
                "mobilenetv2_100-probe",
                "mobilenetv2_100-finetune",
                (-0.0419, -0.0481, -0.0357),
                0.0004,
                "worse",
                count=3,
            ),
            _pair(
                "mobilenetv2_100-probe", "random-features", (0.4486, 0.4371, 0.4601), 0.00005, "better", "control", 3
            ),
            _pair(
                "mobilenetv2_100-finetune", "random-features", (0.4905, 0.479, 0.502), 0.00005, "better", "control", 3
            ),
            _pair("cnn", "majority", (0.6104, 0.599, 0.6218), 0.00005, "better", "control", 3),
        ],
        "verdict": {
            "best": "mobilenetv2_100-finetune",
            "code": "transfer-better",
            "statement": "A sentence that reports must not copy.",
            "runner_up": "mobilenetv2_100-probe",
            "difference": _estimate(0.0419, 0.0357, 0.0481),
            "p_holm": 0.0004,
            "decided_by": "accuracy",
            "best_scratch": "cnn",
            "best_transfer": "mobilenetv2_100-finetune",
            "scratch_against_transfer": "worse",
            "scratch_transfer_difference": _estimate(0.1928, 0.1821, 0.2035),
            "cost_ratio": 0.05,
            "controls": [
                _control("mobilenetv2_100-finetune", "random-features", 0.4905, beats=True),
                _control("mobilenetv2_100-probe", "random-features", 0.4486, beats=True),
                _control("cnn", "majority", 0.6104, beats=True),
            ],
        },
    }


def failing_results() -> dict[str, Any]:
    """The full results, but the transfer recipes do no better than random features, and cost decides."""
    results = full_results()
    for control in results["verdict"]["controls"][:2]:
        control.update(beats=False, difference=_estimate(0.004, -0.006, 0.014))
    for pair in results["comparisons"][3:5]:
        pair.update(difference=_estimate(0.004, -0.006, 0.014), p=0.41, p_holm=0.82, verdict="not_distinguishable")
    results["verdict"].update(
        best="mobilenetv2_100-probe",
        code="not-distinguishable",
        runner_up="cnn",
        difference=_estimate(0.0021, -0.0068, 0.011),
        p_holm=0.64,
        decided_by="cost",
        best_transfer="mobilenetv2_100-probe",
        scratch_against_transfer="not_distinguishable",
        cost_ratio=11.1,
    )
    results["comparisons"][0].update(
        difference=_estimate(0.0021, -0.0068, 0.0095),
        p=0.64,
        p_holm=0.64,
        verdict="not_distinguishable",
        within_margin=True,
    )
    return results


def minimal_results() -> dict[str, Any]:
    """One recipe, one seed, two classes, no history, no images."""
    results = full_results(("no", "yes"))
    probe = results["recipes"][1]
    probe.update(mistakes=[], top_confusions=[], fit_advice=[])
    probe["confusion"] = [[10, 0], [0, 1]]
    probe["per_class"][1]["support"] = 1
    results.update(recipes=[probe], not_run=[], comparisons=[])
    results["study"].update(preset=None, seeds=[0], budget_seconds=None, limit=None)
    results["data"].update(
        left_out=[],
        converted=[],
        samples=[],
        original_sizes=[{"width": 8, "height": 8, "count": 11}],
        original_size_kinds=1,
        mirror_safe=None,
        grayscale=True,
        duplicates={"groups": 0, "across_splits": 0, "conflicting_labels": 0, "removed": True, "examples": []},
    )
    results["verdict"].update(
        best=probe["name"],
        code="only-transfer",
        runner_up=None,
        difference=None,
        p_holm=None,
        decided_by="alone",
        best_scratch=None,
        best_transfer=probe["name"],
        scratch_against_transfer=None,
        cost_ratio=None,
        controls=[],
    )
    return results


def write_images(results: dict[str, Any], folder: Path) -> None:
    """Write the PNG files that results name: plain colours, different for each."""
    paths = [sample["image"] for sample in results["data"]["samples"]]
    paths += [mistake["image"] for recipe in results["recipes"] for mistake in recipe["mistakes"]]
    for number, path in enumerate(dict.fromkeys(paths)):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[0:32, 0:32]
        pixels = np.stack([rows * 7 + number * 31, columns * 7 + number * 57, rows * columns // 4 + number], axis=-1)
        Image.fromarray((pixels % 256).astype(np.uint8)).save(file)


def renamed(results: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Copy results with a recipe under another name wherever it is named."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [walk(entry) for entry in value]
        return new if value == old else copy.copy(value)

    changed: dict[str, Any] = walk(results)
    return changed


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _estimate(mean: float, low: float, high: float, method: str = "bootstrap") -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "method": method}


def _control(recipe: str, control: str, mean: float, *, beats: bool) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "control": control,
        "beats": beats,
        "difference": _estimate(mean, mean - 0.0115, mean + 0.0115),
    }


def _pair(
    a: str, b: str, ends: tuple[float, float, float], p: float, verdict: str, purpose: str = "contest", count: int = 1
) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "difference": _estimate(*ends),
        "mcnemar": [
            {"seed_a": seed, "seed_b": 0, "only_a": 411 + 3 * seed, "only_b": 1920 - 11 * seed, "p": p}
            for seed in range(count)
        ],
        "p": p,
        "p_holm": min(1.0, 3 * p),
        "verdict": verdict,
        "within_margin": False,
        "purpose": purpose,
        "images": 10_000,
        "seeds": count,
    }


def _recipe(
    name: str,
    kind: str,
    names: tuple[str, ...],
    accuracies: tuple[float, float, float],
    seeds: tuple[int, ...],
    fit: str,
    *,
    epochs: int = 0,
) -> dict[str, Any]:
    test, val, train = accuracies
    count = len(names)
    rng = np.random.default_rng(len(name))
    each = 1000 * len(seeds)
    recall = np.clip(test + rng.normal(0, 0.06, count), 0.02, 0.99)
    confusion = np.zeros((count, count), dtype=int)
    for index in range(count):
        right = round(each * recall[index])
        others = rng.multinomial(each - right, np.full(max(1, count - 1), 1 / max(1, count - 1)))
        confusion[index] = np.insert(others, index, right)
    off = [(int(confusion[t, p]), t, p) for t in range(count) for p in range(count) if t != p]
    codes = {"overfits": "gap-over-threshold", "underfits": "train-below-reference", "sound": "gap-and-train-fine"}
    advice = {
        "overfits": ["augment", "regularize", "more-data"],
        "underfits": ["larger-input", "train-longer"],
        "sound": [],
    }
    control = kind in ("majority", "random-features")
    backbone = None if kind in ("scratch", "majority") else "mobilenetv2_100"
    scale = {"scratch": 1.0, "probe": 0.09, "finetune": 1.8, "random-features": 0.11, "majority": 0.0}[kind]
    return {
        "name": name,
        "kind": kind,
        "control": control,
        "settings": {
            "name": name,
            "kind": kind,
            "backbone": backbone,
            "epochs": epochs,
            "learning_rate": 0.001,
            "width": 16 if kind == "scratch" else 32,
        },
        "backbone": backbone,
        "weights": {
            "source": "timm/mobilenetv2_100.ra_in1k",
            "sha256": _hash("weights"),
            "licence": "Apache-2.0",
            "pretraining": "ImageNet-1k",
            "native_size": 224,
        }
        if kind in ("probe", "finetune")
        else None,
        "seeds": list(seeds),
        "deterministic": kind in ("probe", "majority"),
        "trials": [_hash(f"{name} {seed}") for seed in seeds],
        "test_accuracy": _estimate(test, test - 0.0072, test + 0.0069),
        "val_accuracy": _estimate(val, val - 0.03, val + 0.03),
        "train_accuracy": _estimate(train, train - 0.005, train + 0.005),
        "train_val_gap": _estimate(train - val, train - val - 0.031, train - val + 0.03),
        "balanced_accuracy": test - 0.0003,
        "macro_f1": test - 0.0021,
        "log_loss": 2.3 * (1 - test),
        "ece": 0.021 + 0.1 * (1 - test),
        "per_class": [
            {"name": label, "precision": r - 0.011, "recall": r, "f1": r - 0.0055, "support": 1000}
            for label, r in zip(names, recall.tolist(), strict=True)
        ],
        "averages": {
            "macro": {"precision": test - 0.0017, "recall": test - 0.0003, "f1": test - 0.0021},
            "weighted": {"precision": test - 0.0013, "recall": test, "f1": test - 0.0019},
        },
        "confusion": confusion.tolist(),
        "top_confusions": [
            {"true": names[t], "predicted": names[p], "count": n, "share": n / each}
            for n, t, p in sorted(off, reverse=True)[:10]
        ],
        "reliability": [
            {
                "low": index / 15,
                "high": (index + 1) / 15,
                "count": 0 if index == 0 else 40 * index**2,
                "confidence": None if index == 0 else (index + 0.5) / 15,
                "accuracy": None if index == 0 else max(0.0, (index + 0.5) / 15 - 0.06 + 0.01 * (index % 3)),
            }
            for index in range(15)
        ],
        "fit_verdict": fit,
        "fit_reason": {
            "code": codes[fit],
            "train_accuracy": train,
            "val_accuracy": val,
            "gap": train - val,
            "reference_accuracy": 0.9071,
            "reference": "mobilenetv2_100-finetune",
        },
        "fit_advice": advice[fit],
        "history": [_history(seed, epochs, train, val) for seed in seeds],
        "chosen": [
            {"seed": seed, "l2": 0.01} if kind in ("probe", "random-features") else {"seed": seed} for seed in seeds
        ],
        "mistakes": []
        if control
        else [
            {
                "path": f"test/{names[0]}/{index:04d}.png",
                "true": names[index % count],
                "predicted": names[(index + 1) % count],
                "confidence": 0.9991 - 0.011 * index,
                "image": f"images/mistake-{name[:3]}-{index}.png",
            }
            for index in range(8)
        ],
        # The budget left the network from scratch fewer epochs and half its width.
        "planned": {
            "seconds": 388.2 * scale,
            "actual_seconds": 401.9 * scale,
            "asked_epochs": epochs + 8 if kind == "scratch" else epochs,
            "asked_width": 32,
        },
        "cost": {
            "parameters": 0 if kind == "majority" else 2_236_682 if backbone else 1_147_466,
            "parameters_trained": 0 if kind == "majority" else 12_810,
            "macs": 0 if kind == "majority" else 96_123_456,
            "macs_uncounted": ["aten::hardtanh_"] if backbone else [],
            "train_seconds": 412.6 * scale,
            "data_seconds": 4.2 * scale,
            "features_seconds": 31.5 if kind in ("probe", "random-features") else 0.0,
            "head_seconds": 5.4 if kind in ("probe", "random-features") else 0.0,
            "network_seconds": 402.1 * scale if epochs else 0.0,
            "train_images_per_second": 0.0 if kind == "majority" else 438.7,
            "peak_bytes": 912_345_678,
            "latency_ms": 0.04 if kind == "majority" else 5.62,
            "throughput_images_per_second": 0.0 if kind == "majority" else 412.9,
            "wall_seconds": 430.9 * scale + 1.5,
        },
    }


def _history(seed: int, epochs: int, train: float, val: float) -> dict[str, Any]:
    rows = []
    for epoch in range(1, epochs + 1):
        grown = 1 - 0.75 ** (epoch + 0.2 * seed)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": 2.3 * (1 - train * grown),
                "train_accuracy": train * grown,
                "val_loss": 2.3 * (1 - val * grown) + 0.02 * max(0, epoch - 8),
                "val_accuracy": val * grown - 0.002 * max(0, epoch - 8),
                "learning_rate": 0.003 * (1 - epoch / (epochs + 1)),
                "seconds": 33.1,
            }
        )
    return {"seed": seed, "best_epoch": min(8, epochs), "stopped_early": epochs > 8, "epochs": rows}
