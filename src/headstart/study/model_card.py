"""The model card of a pretrained backbone: what it is, what it was made from and how, how good it is, what it is not for."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.records import Recipe
from headstart.study.pretraining_plan import epochs_in_words
from headstart.training.engine import Fitted

_SUBJECT = "A backbone for small images"
_TOP = 5
"""Classes among which the right one is looked for; with no more classes than these it always is."""

_REPEATED = (
    "On the same machine, with the same versions and number of threads, it gives the same bytes (a teacher's features too, while "
    "they are in the cache: computed anew in another of the ways between which headstart chooses by speed, they differ by rounding)."
)
_REPEATED_WITH_EPOCHS = (
    "What fits into a budget is timed anew each time. On the same machine, with the same versions and number of threads, this command "
    "gives the same bytes with `--epochs {epochs}` in place of its budget."
)
_REPEATED_ELSEWHERE = (
    "It was trained on more than one machine, so that no one machine gives the same bytes; the accuracies can be expected within their "
    "intervals."
)


def model_card(
    metadata: Mapping[str, str],
    recipe: Recipe,
    fitted: Fitted,
    machines: Sequence[Mapping[str, Any]],
    command: str,
    teacher_seconds: float | None,
) -> str:
    """Write the card (Mitchell et al. 2019) as Markdown.

    Args:
        metadata: of the weight file (docs/weights.md).
        recipe, fitted: how it was trained, and how that went.
        machines: that it was trained on, from `note_machine`.
        command: that makes it again.
        teacher_seconds: that the teacher's features took; `None` if there was no teacher, or it is not known.
    """
    lines = [
        f"# {recipe.name}",
        "",
        f"{_SUBJECT}: it expects {recipe.input_size} x {recipe.input_size} px as they are, without "
        f"enlarging them. Use it with `headstart compare DATA --backbone FILE`.",
        "",
        "| | |",
        "|---|---|",
        *_facts(metadata, recipe, fitted, machines, teacher_seconds),
        "",
        "## Made by",
        "",
        "```",
        command,
        "```",
        "",
        _repeated(metadata, recipe, machines),
        "",
        "Recipe: " + ", ".join(f"{name} {value}" for name, value in _shown(recipe).items()) + ".",
        "",
        "## Judged on",
        "",
        *_judged(json.loads(metadata["judged"])),
        "",
        "## Not for",
        "",
        "Images much larger than it was made for (a network pretrained at 224 px sees more in them), faces and other "
        "personal data, and any decision about people. It carries the choices and gaps of its training images: what they "
        "do not show, it has never seen.",
        "",
    ]
    return "\n".join(lines)


def _repeated(metadata: Mapping[str, str], recipe: Recipe, machines: Sequence[Mapping[str, Any]]) -> str:
    """What the command gives when it is run again."""
    if len(machines) != 1:
        return _REPEATED_ELSEWHERE
    if "budget_seconds" in metadata:
        return _REPEATED_WITH_EPOCHS.format(epochs=recipe.epochs)
    return _REPEATED


def is_model_card(text: str) -> bool:
    """Whether a text begins as a card does."""
    lines = text.splitlines()
    return len(lines) > 2 and lines[0].startswith("# ") and lines[2].startswith(_SUBJECT)


def _facts(
    metadata: Mapping[str, str],
    recipe: Recipe,
    fitted: Fitted,
    machines: Sequence[Mapping[str, Any]],
    teacher_seconds: float | None,
) -> list[str]:
    """The rows of the table at the top."""
    results = json.loads(metadata["results"])
    return [
        f"| parameters | {results['parameters']:,} |",
        f"| multiply-adds at {recipe.input_size} px | {results['multiply_adds'] / 1e6:.1f} million |",
        f"| pretrained on | {_in_a_cell(metadata['pretraining'])} |",
        f"| left out | files that could not be used: {results['left_out_files']:,}; training or validation images with the "
        f"exact pixels of a validation or test image: {results['removed_duplicates']:,} |",
        f"| licence | {_in_a_cell(metadata['license'])} |",
        f"| accuracy on its own validation part | {_own_accuracy(results, len(json.loads(metadata['classes'])))} |",
        f"| trained for | {epochs_in_words(recipe.epochs)}, {fitted.seconds / 3600:.2f} hours "
        f"({fitted.images_per_second:,.0f} images/s), weights of epoch {fitted.best_epoch} kept |",
        *_teacher(json.loads(metadata.get("teacher", "null")), teacher_seconds),
        f"| trained on | {', then '.join(_machine(machine) for machine in machines)} |",
        f"| seed | {metadata['seed']} |",
        f"| SHA-256 of the weights | `{metadata['weights_sha256']}` |",
        f"| SHA-256 of the same in float32, before they were rounded | `{metadata['float32_sha256']}` |",
    ]


def _in_a_cell(text: str) -> str:
    """A user's words as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _machine(environment: Mapping[str, Any]) -> str:
    device = environment.get("gpu", f"{environment['processor']}, {environment['threads']} threads")
    return f"{device}; torch {environment['torch']}, headstart {environment['headstart']}"


def _own_accuracy(results: Mapping[str, Any], classes: int) -> str:
    top = f" (top {_TOP}: {_percent(results['val_accuracy_top5'])})" if classes > _TOP else ""
    return f"{_percent(results['val_accuracy'])}{top} of {results['val_images']:,} images, {classes} classes"


def _teacher(teacher: Mapping[str, Any] | None, seconds: float | None) -> list[str]:
    if teacher is None:
        return []
    seen, mirrored = teacher["preprocessing"], ", in both directions" if teacher.get("both_directions") else ""
    took = (
        f"; its features took {seconds / 3600:.2f} hours, which the hours above do not hold"
        if seconds is not None
        else ""
    )
    return [
        f"| teacher | {teacher['name']}, each image at {seen['input_size']} px ({seen['interpolation']}){mirrored}, weight of its "
        f"part of the loss {teacher['weight']:g}{took} |",
        *([f"| the teacher's file says | {_in_a_cell(teacher['note'])} |"] if teacher.get("note") else []),
        f"| SHA-256 of the teacher's weights | `{teacher['weights_sha256']}` |",
    ]


def _judged(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    if not judged:
        return ["Nothing: no data set was named with `--judge`."]
    return [
        "A linear probe on frozen features, its L2 chosen on val; test images that resemble a training image of the "
        "backbone (correlation of at least 0.95 at 16 x 16 px, mirrored or not) are counted, and left out in the last column. "
        "A dash among the exact duplicates: no image size is in both sets, so that there can be none; in the last column: no "
        "image is left. The threshold was chosen on photographs: digits, X-rays and other images that resemble one another anyway "
        "correlate as strongly without being copies.",
        "",
        "| data | size | labels | test images | accuracy | exact duplicates | near duplicates | accuracy without them |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {one['data']} | {one['input_size']} px | {one['labels']:,} | {one['test_images']:,} | "
            f"{_percent(one['probe_accuracy'])} | {_count(one['exact_duplicates'])} | {one['near_duplicates']:,} | "
            f"{_percent(one['probe_accuracy_without_near_duplicates'])} |"
            for one in judged
        ),
    ]


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _shown(recipe: Recipe) -> dict[str, Any]:
    names = ("optimizer", "momentum", "learning_rate", "schedule", "weight_decay", "batch_size", "label_smoothing")
    return {
        name.replace("_", " "): getattr(recipe, name) for name in (*names, "augmentation", "mixup", "weight_averaging")
    }
