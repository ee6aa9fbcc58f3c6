"""The plan of a pretraining: its identity, its epochs fitted to a budget once, and the seconds predicted for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.environment import describe_environment
from headstart.errors import RunError
from headstart.files import canonical_json, read_json, sha256_of_text, write_json
from headstart.models.backbones import default_input_size, untrained_backbone
from headstart.models.network import BackboneClassifier, NetworkSpec, build_network, classifier_spec
from headstart.records import Recipe, changed_fields
from headstart.study.planning import PretrainingPlan
from headstart.study.prediction import augmented, epoch_seconds, extraction_seconds, time_steps
from headstart.study.pretraining_request import (
    Material,
    PretrainRequest,
    teacher_key,
    teacher_network,
    teacher_preprocessing,
)
from headstart.training.checkpoint import epochs_done
from headstart.training.features import are_extracted

CHECKPOINT = "checkpoint.safetensors"
"""The resume file in a pretraining's folder."""

MOST_EPOCHS = 200
"""That a budget plans for, at most (chosen: the backbones that come with the package had 60 to 90): few images would be gone through
thousands of times."""

_PLAN = "plan.json"
_PAIR_SECONDS = 2e-8  # measured in a slow hour of two cores: near duplicates among 5,000 x 50,000 images in 6 s
_OF_A_MACHINE = ("gpu", "processor", "threads", "torch", "headstart")
_RECIPE_VERSION = 5  # raise it when the same request would train other weights, a recipe's changed default included


def pretraining_identity(material: Material, recipe: Recipe) -> str:
    """A hash of everything that decides the weights: recipe, data, split, seed, and the version of how it is done.

    Of the recipe counts what is not a recipe's default, so that a setting that recipes get later leaves alone what is finished.
    """
    return sha256_of_text(
        canonical_json(
            {
                "version": _RECIPE_VERSION,
                "recipe": changed_fields(recipe),
                "data": material.images.fingerprint,
                "split": [material.split.train.tolist(), material.split.val.tolist()],
                "seed": material.request.seed,
            }
        )
    )


def plan_pretraining(material: Material) -> PretrainingPlan:
    """Predict the seconds and fit the epochs to the budget; a resumed training keeps the plan that it began with.

    Raises:
        RunError: the folder holds an unfinished training of another request.
    """
    request = material.request
    path = request.folder / _PLAN
    asked = {
        "request": pretraining_identity(material, material.recipe),
        "budget_seconds": request.budget_seconds,
    }
    kept = read_json(path) if path.exists() else {}
    if any(kept.get(name) != value for name, value in asked.items()):
        _require_nothing_unfinished(request.folder)
        kept = asked | _predicted(material)
        write_json(path, kept)
    return PretrainingPlan(
        epochs=int(kept["epochs"]),
        predicted_seconds=float(kept["predicted_seconds"]),
        budget_seconds=request.budget_seconds,
        input_size=request.input_size,
        canvas=material.images.canvas,
        train_images=len(material.split.train),
        epochs_done=epochs_done(request.folder / CHECKPOINT),
    )


def note_machine(request: PretrainRequest, epochs: int, device: torch.device) -> list[dict[str, Any]]:
    """Note in the plan where the training goes on, and return all machines that it has been on, in their order: what a card says of each.

    A training may be resumed on another machine than it began on, or only be judged there. What is not in the resume file is trained here.
    """
    path = request.folder / _PLAN
    kept = read_json(path)
    done = epochs_done(request.folder / CHECKPOINT)
    machines: list[dict[str, Any]] = kept.get("machines", []) if done else []
    here = {name: fact for name, fact in describe_environment(device).items() if name in _OF_A_MACHINE}
    if done < epochs and here not in machines:
        machines = [*machines, here]
    write_json(path, kept | {"machines": machines})
    return machines


def classifier_structure(material: Material) -> NetworkSpec:
    """The classifier that is trained; it is judged on the images as they are, since a backbone's features will be theirs."""
    request, classes = material.request, len(material.images.class_names)
    backbone = untrained_backbone(request.architecture)
    return replace(
        classifier_spec(request.input_size, classes, backbone, material.recipe), mirrored=False, shifted=False
    )


def epochs_in_words(epochs: int) -> str:
    """The count with its noun.

    >>> epochs_in_words(1), epochs_in_words(16)
    ('1 epoch', '16 epochs')
    """
    return f"{epochs:,} epoch" if epochs == 1 else f"{epochs:,} epochs"


def _require_nothing_unfinished(folder: Path) -> None:
    if not (folder / CHECKPOINT).exists():
        return
    done = epochs_in_words(epochs_done(folder / CHECKPOINT, usable=False))
    raise RunError(
        f"{folder} holds an unfinished training of another request, {done} long. Continue it with the command that began it, and that "
        "version of headstart; or remove the folder, or name another --out."
    )


def _predicted(material: Material) -> dict[str, Any]:
    """Epochs and seconds, from a few timed steps."""
    request, images, recipe, device = material.request, material.images, material.recipe, material.device
    batch = material.split.train[: recipe.batch_size]
    network = build_network(classifier_structure(material)).to(device)
    labels = torch.from_numpy(images.labels[batch]).to(device)
    pace = time_steps(network, recipe, augmented(images, batch, recipe, device), labels)
    per_epoch = epoch_seconds(pace, material.split, recipe.batch_size)
    assert isinstance(network, BackboneClassifier)
    beside = _teaching_seconds(material) + _judging_seconds(material, network.backbone.eval())
    epochs = recipe.epochs
    if request.budget_seconds is not None:
        epochs = min(max(1, int((request.budget_seconds - beside) / per_epoch)), MOST_EPOCHS)
    return {"epochs": epochs, "seconds_per_step": pace.step, "predicted_seconds": beside + epochs * per_epoch}


def _judging_seconds(material: Material, backbone: nn.Module) -> float:
    """How long it takes to judge what was trained on other data: their features, which nobody can have yet, and near duplicates."""
    assert material.recipe.preprocessing is not None
    seconds = 0.0
    for judge in material.judges:
        side = default_input_size(judge.images.canvas, material.request.input_size)
        seen = replace(material.recipe.preprocessing, input_size=side)
        pairs = len(judge.split.test) * len(material.split.train)
        seconds += extraction_seconds(backbone, judge.images, seen, material.device) + pairs * _PAIR_SECONDS
    return seconds


def _teaching_seconds(material: Material) -> float:
    """How long the teacher's features take: none of it where they are in the cache."""
    teacher, images, device = material.teacher, material.images, material.device
    if teacher is None:
        return 0.0
    seen = teacher_preprocessing(teacher, images)
    key = teacher_key(teacher, material.recipe)
    if are_extracted(images, key, seen, device=device):
        return 0.0
    return extraction_seconds(teacher_network(teacher, material.recipe), images, seen, device, key)
