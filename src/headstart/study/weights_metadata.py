"""The metadata of a pretrained weight file (docs/weights.md): how the weights were made, and from what.

Nothing in it changes from one run to the next: no times, no paths, no versions.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from headstart.models.backbones import Backbone
from headstart.models.cost import complexity
from headstart.models.network import BackboneClassifier
from headstart.models.weights import hash_of_state, read_weights_file
from headstart.records import ImageSet, Recipe, lasting_settings
from headstart.study.pretraining_plan import epochs_in_words, pretraining_identity
from headstart.study.pretraining_request import Material, sees_both_directions, teacher_preprocessing
from headstart.training.batches import ImageBatches
from headstart.training.distillation import TEACHER_WEIGHT
from headstart.training.engine import Fitted, predict_logits

_NOT_SETTINGS = ("name", "kind", "callbacks", "weights_sha256")  # the last is the teacher's, which `teacher` has


def weights_metadata(material: Material, recipe: Recipe, network: BackboneClassifier, fitted: Fitted) -> dict[str, str]:
    """Everything that can be said before the file is written; `weights_sha256` and `judged` are read from the file.

    Args:
        material: of the pretraining.
        recipe: with its epochs.
        network: trained.
        fitted: how that went.
    """
    request, images, teacher = material.request, material.images, material.teacher
    taught = f", taught by {teacher.name} ({teacher.licence}; {teacher.pretraining})" if teacher else ""
    settings = {name: value for name, value in lasting_settings(recipe).items() if name not in _NOT_SETTINGS}
    metadata = {
        "license": request.licence or f"that of its training images ({request.title or images.name})",
        "pretraining": f"{trained_on(material)} at {request.input_size}x{request.input_size}, "
        f"{epochs_in_words(recipe.epochs)}{taught}",
        "classes": json.dumps(list(images.class_names), ensure_ascii=False),
        "recipe": json.dumps(settings),
        "seed": str(request.seed),
        "identity": pretraining_identity(material, recipe),
        "data_fingerprint": images.fingerprint,
        "float32_sha256": hash_of_state({name: value.cpu() for name, value in network.backbone.state_dict().items()}),
        "results": json.dumps(_results(material, recipe, network, fitted), allow_nan=False),
    }
    if teacher is not None:
        metadata["teacher"] = json.dumps(_said_of_teacher(teacher, images, recipe))
    if (budget := written_budget(material)) is not None:
        metadata["budget_seconds"] = budget
    return metadata


def trained_on(material: Material) -> str:
    """The training images in words: their title, how many, of how many classes."""
    images = material.images
    title = material.request.title or images.name
    return f"{title}, {len(material.split.train):,} images of {len(images.class_names)} classes"


def written_budget(material: Material) -> str | None:
    """The budget as the metadata has it; `None` if there is none."""
    seconds = material.request.budget_seconds
    return None if seconds is None else str(float(seconds))


def _said_of_teacher(teacher: Backbone, images: ImageSet, recipe: Recipe) -> dict[str, Any]:
    note = read_weights_file(teacher.path).metadata.get("note") if teacher.path is not None else None
    return {
        "name": teacher.name,
        "weights_sha256": teacher.weights_sha256,
        "licence": teacher.licence,
        "pretraining": teacher.pretraining,
        "preprocessing": asdict(teacher_preprocessing(teacher, images)),
        "both_directions": sees_both_directions(recipe),
        "weight": TEACHER_WEIGHT,
        **({"note": note} if note else {}),
    }


def _results(material: Material, recipe: Recipe, network: BackboneClassifier, fitted: Fitted) -> dict[str, Any]:
    images, split = material.images, material.split
    assert recipe.preprocessing is not None
    watched = ImageBatches(images.images, images.labels, split.val, recipe.preprocessing, device=material.device)
    logits = predict_logits(network, watched, material.device)
    five_best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    labels = images.labels[split.val]
    size = complexity(network.backbone, material.request.input_size)
    return {
        "train_images": len(split.train),
        "val_images": len(split.val),
        "removed_duplicates": len(split.removed_duplicates),
        "left_out_files": len(images.left_out),
        "best_epoch": fitted.best_epoch,
        "val_accuracy": round(float((five_best[:, 0] == labels).mean()), 4),
        "val_accuracy_top5": round(float((five_best == labels[:, None]).any(axis=1).mean()), 4),
        "parameters": size.parameters,
        "multiply_adds": size.macs,
    }
