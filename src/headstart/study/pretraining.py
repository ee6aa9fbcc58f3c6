"""Pretraining: a backbone for small images, trained on any labelled source, written as a weight file with its model card.

small32_m.safetensors   the weights; the metadata says how they were made (docs/weights.md)
small32_m.md            the model card
small32_m.pretraining/  request, learning curve and resume file while it trains
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from headstart.data.sources import load_images
from headstart.data.splits import TEST, VAL, draw_stratified
from headstart.environment import describe_environment
from headstart.errors import DataError, RunError
from headstart.files import canonical_json, read_json, sha256_of_text, write_json, write_text
from headstart.models.backbones import Backbone, build_backbone, find_backbone, seeded_torch, untrained_backbone
from headstart.models.cost import complexity
from headstart.models.network import BackboneClassifier, NetworkSpec, build_network, classifier_spec
from headstart.models.small32 import FAMILY, LARGEST_IMAGE, NATIVE_SIZE
from headstart.models.weights import WeightsFile, hash_of_state, read_weights_file, write_weights_file
from headstart.randomness import derive_seed, generator
from headstart.records import Augmentation, ImageSet, Indices, Preprocessing, Recipe
from headstart.study.checks import require, training_checks
from headstart.study.judge import judge_backbone
from headstart.study.model_card import model_card
from headstart.study.observer import Observer, decoding_progress
from headstart.study.planning import backbone_preprocessing, channel_contract
from headstart.study.prediction import augmented, extraction_seconds, time_steps
from headstart.training.batches import ImageBatches
from headstart.training.callbacks import Callback, HistoryLogger
from headstart.training.distillation import DistillationCriterion, StudentClassifier, distillation_targets
from headstart.training.engine import CURVE_IMAGES, Criterion, Fitted, predict_logits, train_network
from headstart.training.features import are_extracted, extract_features
from headstart.training.progress import ProgressBar

DEFAULT_EPOCHS = 16
_VAL_FRACTION = 0.02  # chosen: enough to watch the training (2,000 of Tiny ImageNet's images: +-1 point)
_TEACHER_WEIGHT = 20.0  # measured (docs/log.md) after three epochs, probe with 5,000 labels: 0: 58.5%, 5: 60.7%, 20: 62.8%, alone: 62.2%
_RECIPE_VERSION = 2  # raise it when the same request would train other weights


@dataclass(frozen=True)
class PretrainRequest:
    """What a user asks of a pretraining; see the command line's help for each option."""

    data: str
    out: Path | None = None
    architecture: str = "small32_m"
    teacher: str | None = None
    weights_dir: Path | None = None
    input_size: int = NATIVE_SIZE
    epochs: int | None = None
    budget_seconds: float | None = None
    batch_size: int = 128
    learning_rate: float = 0.03
    mixup: float = 0.0
    augmentation: Augmentation | None = None
    title: str = ""
    licence: str = ""
    judges: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0

    @property
    def path(self) -> Path:
        """Where the weight file goes."""
        return self.out or Path(f"{self.architecture}.safetensors")


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining: its weight file, its model card, and whether it had been finished before."""

    file: WeightsFile
    card: Path
    was_done: bool


@dataclass(frozen=True)
class _Material:
    """What a pretraining works on and with."""

    request: PretrainRequest
    images: ImageSet
    train: Indices
    val: Indices
    teacher: Backbone | None
    device: torch.device
    folder: Path


def run_pretraining(request: PretrainRequest, device: torch.device, observer: Observer, command: str) -> Pretrained:
    """Train a backbone, judge it, write its file and its card; continue where an earlier run of the same request ended.

    Args:
        request: what is asked for.
        device: where the network trains.
        observer: told of every step.
        command: how to make it again; goes into the card.

    Raises:
        UsageError: the request cannot be meant.
        DataError: too few images.
        RunError: the file is there already and was made otherwise, or another process is at it.
    """
    _validate(request)
    images = load_images(request.data, limit=request.limit, seed=request.seed, progress=decoding_progress(observer))
    train, val = _train_and_val(images, request.seed)
    # Loaded before hours of training: what cannot be judged on must not be found out after them.
    judges = [load_images(source, progress=decoding_progress(observer)) for source in request.judges]
    teacher = find_backbone(request.teacher, request.weights_dir) if request.teacher else None
    recipe = _recipe(request, images, train, teacher)
    folder = request.path.with_suffix(".pretraining")
    folder.mkdir(parents=True, exist_ok=True)
    material = _Material(request, images, train, val, teacher, device, folder)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"Another process is training {request.path}. Wait for it, or name another --out.") from error
    try:
        recipe, predicted = _planned(material, recipe)
        identity = _identity(material, recipe)
        if request.path.exists():
            done = read_weights_file(request.path)
            if done.metadata.get("identity") != identity:
                raise RunError(
                    f"{request.path} is there already, and it was not made by this request. Remove it, or name another "
                    "file with --out."
                )
            _require_same_judges(request, judges, done)
            return Pretrained(done, _card_path(request), was_done=True)
        observer.pretraining_planned(recipe.epochs, predicted)
        network, fitted = _train(material, recipe, observer)
        backbone_state = {name: value.cpu() for name, value in network.backbone.state_dict().items()}
        metadata = _metadata(material, recipe, network, fitted, identity)
        assert recipe.preprocessing is not None
        # Judged as it will be used: from the file, with the precision that it has there.
        draft = folder / "unjudged.safetensors"
        write_weights_file(draft, request.architecture, backbone_state, recipe.preprocessing, metadata)
        judged = [judge_backbone(judge, draft, images, train, device, observer) for judge in judges]
        metadata["judged"] = json.dumps(judged, ensure_ascii=False)
        card = model_card(metadata, recipe, fitted, describe_environment(device), command)
        write_text(_card_path(request), card)
        write_weights_file(request.path, request.architecture, backbone_state, recipe.preprocessing, metadata)
        for leftover in ("unjudged.safetensors", "checkpoint.safetensors"):
            (folder / leftover).unlink(missing_ok=True)
    finally:
        lock.release()
    return Pretrained(read_weights_file(request.path), _card_path(request), was_done=False)


def _require_same_judges(request: PretrainRequest, judges: list[ImageSet], done: WeightsFile) -> None:
    """A finished file keeps what was measured and said of it; what a repeated request adds must not be passed over."""
    judged = {entry["fingerprint"] for entry in json.loads(done.metadata["judged"])}
    missing = [judge.name for judge in judges if judge.fingerprint not in judged]
    if missing:
        raise RunError(
            f"{request.path} is finished, and it was not judged on {', '.join(missing)}. `headstart compare DATA --backbone "
            f"{request.path}` measures it there; to have it in the model card, name another --out."
        )


def _validate(request: PretrainRequest) -> None:
    checks = (
        (
            request.architecture in FAMILY,
            f"--architecture takes {', '.join(FAMILY)}, not {request.architecture!r}.",
        ),
        (
            8 <= request.input_size <= 2 * LARGEST_IMAGE,
            f"--input-size lies between 8 and {2 * LARGEST_IMAGE} pixels, not {request.input_size}.",
        ),
        (0 < request.learning_rate < 10, f"--learning-rate lies between 0 and 10, not {request.learning_rate}."),
        (0 <= request.mixup <= 10, f"--mixup lies between 0 and 10, not {request.mixup}."),
        *training_checks(request.epochs, request.budget_seconds, request.batch_size, request.augmentation),
        (request.path.suffix == ".safetensors", f"--out ends in .safetensors, not {request.path.name!r}."),
    )
    require(checks)


def _train_and_val(images: ImageSet, seed: int) -> tuple[Indices, Indices]:
    """The source's own test part is left alone; val is its own, or drawn, and shares no pixels with train."""
    parts = images.official_part if images.official_part is not None else np.zeros(len(images.labels), np.int8)
    pool = np.flatnonzero((parts != TEST) & (parts != VAL))
    val = np.flatnonzero(parts == VAL)
    if not len(val):
        wanted = max(round(_VAL_FRACTION * len(pool)), len(images.class_names))
        chosen = draw_stratified(
            images.labels[pool], len(images.class_names), wanted, generator(seed, "pretraining", "val"), leave=1
        )
        val = pool[chosen]
        pool = np.setdiff1d(pool, val)
    train = pool[~np.isin(images.image_hashes[pool], images.image_hashes[val])]
    if len(train) < 2 or not len(val):
        raise DataError(f"{images.source} has {len(train)} images to train on and {len(val)} to watch it; add images.")
    return train.astype(np.int64), val.astype(np.int64)


def _recipe(request: PretrainRequest, images: ImageSet, train: Indices, teacher: Backbone | None) -> Recipe:
    mean, std = channel_contract(images, train)
    return Recipe(
        name=request.architecture,
        kind="scratch",
        backbone=request.architecture,
        # The network starts from nothing; the only pretrained weights that it sees are its teacher's.
        weights_sha256=teacher.weights_sha256 if teacher else None,
        preprocessing=Preprocessing(request.input_size, "bilinear", mean, std),
        input_size=request.input_size,
        augmentation=request.augmentation or ("crop-flip" if images.mirror_safe else "crop"),
        epochs=request.epochs or DEFAULT_EPOCHS,
        batch_size=request.batch_size,
        optimizer="muon",
        learning_rate=request.learning_rate,
        weight_decay=0.02,
        schedule="one-cycle",
        label_smoothing=0.1,
        mixup=request.mixup,
        weight_averaging=0.998,
    )


def _planned(material: _Material, recipe: Recipe) -> tuple[Recipe, float]:
    """The recipe with its epochs, fitted to a budget once, and the seconds predicted; a resumed training keeps both."""
    request, images, train, device = material.request, material.images, material.train, material.device
    path = material.folder / "plan.json"
    asked = {
        "version": _RECIPE_VERSION,
        "recipe": sha256_of_text(canonical_json(asdict(recipe))),
        "budget_seconds": request.budget_seconds,
    }
    if path.exists() and {key: read_json(path).get(key) for key in asked} == asked:
        plan = read_json(path)
        return recipe.with_changes(epochs=int(plan["epochs"])), float(plan["predicted_seconds"])
    batch = train[: recipe.batch_size]
    network = (
        build_network(_spec(request, recipe, len(images.class_names))).to(device).to(memory_format=torch.channels_last)
    )
    labels = torch.from_numpy(images.labels[batch]).to(device)
    step, forward = time_steps(network, recipe, augmented(images, batch, recipe, device), labels)
    watched = min(len(train), CURVE_IMAGES) + len(material.val)
    per_epoch = (len(train) / recipe.batch_size) * step + watched / len(batch) * forward
    fixed = 0.0
    if (teacher := material.teacher) is not None:
        seen = backbone_preprocessing(teacher, images.canvas)
        if not are_extracted(images, f"{teacher.weights_sha256}", seen, device=device):
            fixed = extraction_seconds(build_backbone(teacher), images, seen, device)
    epochs = recipe.epochs
    if request.budget_seconds is not None:
        epochs = max(1, int((request.budget_seconds - fixed) / per_epoch))
    predicted = fixed + epochs * per_epoch
    write_json(path, {**asked, "epochs": epochs, "seconds_per_step": step, "predicted_seconds": predicted})
    return recipe.with_changes(epochs=epochs), predicted


def _spec(request: PretrainRequest, recipe: Recipe, classes: int) -> NetworkSpec:
    """The classifier that is trained; it is judged on the images as they are, since a backbone's features will be theirs."""
    spec = classifier_spec(request.input_size, classes, untrained_backbone(request.architecture), recipe)
    return replace(spec, mirrored=False)


def _identity(material: _Material, recipe: Recipe) -> str:
    settings = asdict(recipe)
    return sha256_of_text(
        canonical_json(
            {
                "version": _RECIPE_VERSION,
                "recipe": settings,
                "data": material.images.fingerprint,
                "split": [material.train.tolist(), material.val.tolist()],
                "seed": material.request.seed,
            }
        )
    )


def _train(material: _Material, recipe: Recipe, observer: Observer) -> tuple[BackboneClassifier, Fitted]:
    assert recipe.preprocessing is not None
    request, images, train, device, folder = (
        material.request,
        material.images,
        material.train,
        material.device,
        material.folder,
    )
    classes = len(images.class_names)
    initial_seed = derive_seed(request.seed, "initialisation")
    spec = _spec(request, recipe, classes)
    plain = build_network(spec, initial_seed)
    assert isinstance(plain, BackboneClassifier)
    network = plain
    criterion: Criterion | None = None
    if material.teacher is not None:
        targets = _targets(material.teacher, images, train, device, observer)
        with seeded_torch(derive_seed(request.seed, "initialisation", "teacher")):
            network = StudentClassifier(plain.backbone, plain.head.in_features, classes, targets.shape[1])
        labels = images.labels[train]
        criterion = DistillationCriterion(labels, recipe.label_smoothing, device, targets, classes, _TEACHER_WEIGHT)
    network = network.to(device).to(memory_format=torch.channels_last)
    watchers: list[Callback] = [ProgressBar(observer), HistoryLogger(folder)]
    request_path = folder / "request.json"
    wanted = {"identity": _identity(material, recipe)}
    if not request_path.exists() or read_json(request_path) != wanted:
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # of another request
        write_json(request_path, wanted)
    fitted = train_network(
        network,
        ImageBatches(images.images, images.labels, train, recipe.preprocessing, recipe.augmentation, device),
        ImageBatches(images.images, images.labels, material.val, recipe.preprocessing, device=device),
        recipe,
        request.seed,
        device=device,
        checkpoint=folder / "checkpoint.safetensors",
        callbacks=watchers,
        criterion=criterion,
    )
    return network, fitted


def _targets(
    teacher: Backbone, images: ImageSet, train: Indices, device: torch.device, observer: Observer
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The teacher sees each whole image once, at the size that suits it."""
    features = extract_features(
        images,
        build_backbone(teacher),
        f"{teacher.weights_sha256}",
        backbone_preprocessing(teacher, images.canvas),
        device=device,
        reporter=observer,
    )
    return distillation_targets(features.values, train)


def _metadata(
    material: _Material, recipe: Recipe, network: BackboneClassifier, fitted: Fitted, identity: str
) -> dict[str, str]:
    """Everything about the weights that does not change from one run to the next: no times, no paths, no versions."""
    assert recipe.preprocessing is not None
    request, images, train, val, teacher = (
        material.request,
        material.images,
        material.train,
        material.val,
        material.teacher,
    )
    watched = ImageBatches(images.images, images.labels, val, recipe.preprocessing, device=material.device)
    logits = predict_logits(network, watched, material.device)
    five_best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    labels = images.labels[val]
    size = complexity(network.backbone, request.input_size)
    settings = {name: value for name, value in asdict(recipe).items() if name not in ("name", "kind", "callbacks")}
    title = request.title or images.name
    taught = f", taught by {teacher.name} ({teacher.licence}; {teacher.pretraining})" if teacher else ""
    return {
        "license": request.licence or f"that of its training images ({title})",
        "pretraining": f"{title}, {len(train):,} images of {len(images.class_names)} classes at "
        f"{request.input_size}x{request.input_size}, {recipe.epochs} epochs{taught}",
        "classes": json.dumps(list(images.class_names), ensure_ascii=False),
        "recipe": json.dumps(settings),
        "seed": str(request.seed),
        "identity": identity,
        "data_fingerprint": images.fingerprint,
        "weights_sha256": hash_of_state({k: v.cpu() for k, v in network.backbone.state_dict().items()}),
        "results": json.dumps(
            {
                "train_images": len(train),
                "val_images": len(val),
                "best_epoch": fitted.best_epoch,
                "val_accuracy": round(float((five_best[:, 0] == labels).mean()), 4),
                "val_accuracy_top5": round(float((five_best == labels[:, None]).any(axis=1).mean()), 4),
                "parameters": size.parameters,
                "multiply_adds": size.macs,
            }
        ),
    }


def _card_path(request: PretrainRequest) -> Path:
    return request.path.with_suffix(".md")
