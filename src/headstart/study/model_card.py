"""The model card of a pretrained backbone: what it is, what it was made from and how, how good it is, what it is not for."""

import json
from collections.abc import Mapping
from typing import Any

from headstart.records import Recipe
from headstart.training.engine import Fitted


def model_card(
    metadata: Mapping[str, str], recipe: Recipe, fitted: Fitted, environment: Mapping[str, Any], command: str
) -> str:
    """Write the card (Mitchell et al. 2019) as Markdown.

    Args:
        metadata: of the weight file (docs/weights.md).
        recipe, fitted: how it was trained, and how that went.
        environment: of the training, from `describe_environment`.
        command: that makes it again.
    """
    results = json.loads(metadata["results"])
    judged = json.loads(metadata["judged"])
    classes = json.loads(metadata["classes"])
    hours = fitted.seconds / 3600
    machine = environment.get("gpu", f"{environment['processor']}, {environment['threads']} threads")
    lines = [
        f"# {recipe.name}",
        "",
        f"A backbone for small images: it expects {recipe.input_size} x {recipe.input_size} px as they are, without "
        f"enlarging them. Use it with `headstart compare DATA --backbone FILE`.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {results['parameters']:,} |",
        f"| multiply-adds at {recipe.input_size} px | {results['multiply_adds'] / 1e6:.1f} million |",
        f"| pretrained on | {metadata['pretraining']} |",
        f"| licence | {metadata['license']} |",
        f"| accuracy on its own validation part | {_percent(results['val_accuracy'])} (top 5: "
        f"{_percent(results['val_accuracy_top5'])}) of {results['val_images']:,} images, {len(classes)} classes |",
        f"| trained for | {recipe.epochs} epochs, {hours:.2f} hours ({fitted.images_per_second:,.0f} images/s), "
        f"weights of epoch {fitted.best_epoch} kept |",
        f"| trained on | {machine}; torch {environment['torch']}, headstart {environment['headstart']} |",
        f"| seed | {metadata['seed']} |",
        f"| SHA-256 of the float32 weights | `{metadata['weights_sha256']}` |",
        "",
        "## Made by",
        "",
        "```",
        command,
        "```",
        "",
        "On the same machine, with the same versions and number of threads, it gives the same bytes (a teacher's features too, while "
        "they are in the cache: computed anew in another of the ways between which headstart chooses by speed, they differ by "
        "rounding).",
        "",
        "Recipe: " + ", ".join(f"{name} {value}" for name, value in _shown(recipe).items()) + ".",
        "",
        "## Judged on",
        "",
    ]
    if judged:
        lines += [
            "A linear probe on frozen features, its L2 chosen on val; test images that resemble a training image of the "
            "backbone (correlation of at least 0.95 at 16 x 16 px, mirrored or not) are counted, and left out in the last column. "
            "A dash: no image size is in both sets, so that there can be no exact duplicates.",
            "",
            "| data | size | labels | test images | accuracy | exact duplicates | near duplicates | accuracy without them |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {one['data']} | {one['input_size']} px | {one['labels']:,} | {one['test_images']:,} | "
            f"{_percent(one['probe_accuracy'])} | {_count(one['exact_duplicates'])} | {one['near_duplicates']:,} | "
            f"{_percent(one['probe_accuracy_without_near_duplicates'])} |"
            for one in judged
        ]
    else:
        lines.append("Nothing: no data set was named with `--judge`.")
    lines += [
        "",
        "## Not for",
        "",
        "Images much larger than it was made for (a network pretrained at 224 px sees more in them), faces and other "
        "personal data, and any decision about people. It carries the choices and gaps of its training images: what they "
        "do not show, it has never seen.",
        "",
    ]
    return "\n".join(lines)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _shown(recipe: Recipe) -> dict[str, Any]:
    names = ("optimizer", "learning_rate", "schedule", "weight_decay", "batch_size", "label_smoothing")
    return {
        name.replace("_", " "): getattr(recipe, name) for name in (*names, "augmentation", "mixup", "weight_averaging")
    }
