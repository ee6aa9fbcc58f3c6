"""Pretraining: a backbone for small images, trained on any labelled source, written as a weight file with its model card.

small32_m.safetensors   the weights; the metadata says how they were made (docs/weights.md)
small32_m.md            the model card
small32_m.pretraining/  plan, learning curve and resume file while it trains
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from headstart.environment import command_line
from headstart.errors import RunError
from headstart.files import write_text
from headstart.models.backbones import Backbone, find_backbone, seeded_torch
from headstart.models.network import BackboneClassifier, build_network
from headstart.models.weights import WeightsFile, read_weights_file, write_weights_file
from headstart.randomness import derive_seed
from headstart.records import Recipe
from headstart.study.judge import judge_backbone
from headstart.study.model_card import is_model_card, model_card
from headstart.study.observer import Observer
from headstart.study.pretraining_plan import (
    CHECKPOINT,
    classifier_structure,
    epochs_in_words,
    note_machine,
    plan_pretraining,
    pretraining_identity,
)
from headstart.study.pretraining_request import (
    Material,
    PretrainRequest,
    gather_material,
    teacher_key,
    teacher_network,
    teacher_preprocessing,
)
from headstart.study.weights_metadata import trained_on, weights_metadata, written_budget
from headstart.training.batches import ImageBatches
from headstart.training.callbacks import HistoryLogger
from headstart.training.checkpoint import epochs_done
from headstart.training.criterion import Criterion
from headstart.training.distillation import (
    TEACHER_WEIGHT,
    DistillationCriterion,
    StudentClassifier,
    distillation_targets,
)
from headstart.training.engine import DivergedError, Fitted, train_network
from headstart.training.features import Features, extract_features
from headstart.training.progress import ProgressBar

_DRAFT = "unjudged.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining: its weight file, its model card, and whether it had been finished before."""

    file: WeightsFile
    card: Path
    was_done: bool


@dataclass(frozen=True)
class _Trained:
    """A trained network, how that went, and the seconds that its teacher's features took (`None` without a teacher)."""

    network: BackboneClassifier
    fitted: Fitted
    teacher_seconds: float | None


def run_pretraining(request: PretrainRequest, device: torch.device, observer: Observer, command: str) -> Pretrained:
    """Train a backbone, judge it, write its file and its card; continue where an earlier run of the same request ended.

    Args:
        request: what is asked for.
        device: where the network trains.
        observer: told of every step.
        command: how to make it again; goes into the card.

    Raises:
        UsageError: the request cannot be meant.
        DataError: too few images, or a data set to judge on that cannot be split.
        RunError: the file is there already and was made otherwise, its card would replace another text, its folder cannot be
            made, holds an unfinished training of another request, or another process is at it.
    """
    if request.path.is_dir():
        raise RunError(
            f"--out {request.path} is a folder. Name a file in it, such as {request.path / 'backbone.safetensors'}."
        )
    if not request.path.exists():  # before minutes go into decoding
        _require_free_card(request)
    material = gather_material(request, device, observer)
    if request.path.exists():
        return Pretrained(_finished(material), request.card, was_done=True)
    with _alone(request):
        if request.path.exists():  # another process has finished it meanwhile
            return Pretrained(_finished(material), request.card, was_done=True)
        plan = plan_pretraining(material)
        observer.pretraining_planned(plan)
        try:
            _make(material, material.recipe.with_changes(epochs=plan.epochs), observer, command)
        except OSError as error:
            raise RunError(
                f"{request.path} and what belongs to it cannot be written ({error}). Free some space there, or let it be written, and run "
                "the same command again: it goes on after the last epoch that was kept."
            ) from error
    return Pretrained(read_weights_file(request.path), request.card, was_done=False)


def _require_free_card(request: PretrainRequest) -> None:
    """The card of an interrupted training may be there already; any other text of that name must not be lost."""
    if request.card.is_dir():
        raise RunError(
            f"The model card goes to {request.card}, which is a folder. Name another --out than {request.path}."
        )
    if request.card.exists() and not is_model_card(request.card.read_text(encoding="utf-8", errors="replace")):
        raise RunError(
            f"The model card would replace {request.card}, which is no card of a backbone. Name another --out than {request.path}."
        )


@contextmanager
def _alone(request: PretrainRequest) -> Iterator[None]:
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{request.folder} cannot be made ({error.strerror}). Name another --out.") from error
    lock = FileLock(request.folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"Another process is training {request.path}. Wait for it, or name another --out.") from error
    try:
        yield
    finally:
        lock.release()


def _finished(material: Material) -> WeightsFile:
    """The file that is there already, if this request made it, and its card says and judges all that is asked for now."""
    path = material.request.path
    done = read_weights_file(path)
    if not _was_made_by(material, done):
        raise RunError(
            f"{path} is there already, and it was not made by this request. Remove it, or name another file with --out."
        )
    _require_same_words(material, done)
    _require_same_judges(material, done)
    return done


def _was_made_by(material: Material, done: WeightsFile) -> bool:
    recipe = material.recipe
    if done.metadata.get("budget_seconds") != (budget := written_budget(material)):
        return False
    if budget is not None:
        # What the budget allowed was timed once, and another time would give other epochs.
        recipe = recipe.with_changes(epochs=json.loads(done.metadata["recipe"])["epochs"])
    return done.metadata.get("identity") == pretraining_identity(material, recipe)


def _require_same_words(material: Material, done: WeightsFile) -> None:
    """A finished file keeps what was said of it; other words that a repeated request gives must not be passed over."""
    request = material.request
    other = []
    if request.title and not done.pretraining.startswith(f"{trained_on(material)} at "):
        other.append("--title")
    if request.licence and done.licence != request.licence:
        other.append("--licence")
    if other:
        raise RunError(
            f"{request.path} is finished, and was made with another {' and '.join(other)} than now: it says "
            f"{done.pretraining!r}, licence {done.licence!r}. Leave {' and '.join(other)} out, or name another --out."
        )


def _require_same_judges(material: Material, done: WeightsFile) -> None:
    """A finished file keeps what was measured of it; what a repeated request adds must not be passed over."""
    path = material.request.path
    judged = {entry["fingerprint"] for entry in json.loads(done.metadata["judged"])}
    missing = [judge.images.name for judge in material.judges if judge.images.fingerprint not in judged]
    if missing:
        raise RunError(
            f"{path} is finished, and it was not judged on {', '.join(missing)}. `headstart compare DATA --backbone "
            f"{command_line(str(path))}` measures it there; to have it in the model card, name another --out."
        )


def _make(material: Material, recipe: Recipe, observer: Observer, command: str) -> None:
    """Train, judge, and write card and file; the file comes last, since it says that all is done."""
    request, device = material.request, material.device
    _require_readable_checkpoint(request)
    machines = note_machine(request, recipe.epochs, device)
    trained = _train(material, recipe, observer)
    metadata = weights_metadata(material, recipe, trained.network, trained.fitted)
    # Hashed and judged as it will be used: from the file, with the precision that it has there.
    draft = request.folder / _DRAFT
    _write(draft, recipe, trained.network, metadata)
    metadata["weights_sha256"] = str(find_backbone(str(draft)).weights_sha256)
    judged = [
        judge_backbone(judge, draft, material.images, material.split.train, device, observer)
        for judge in material.judges
    ]
    metadata["judged"] = json.dumps(judged, ensure_ascii=False, allow_nan=False)
    card = model_card(metadata, recipe, trained.fitted, machines, command, trained.teacher_seconds)
    write_text(request.card, card)
    _write(request.path, recipe, trained.network, metadata)
    for leftover in (_DRAFT, CHECKPOINT):
        (request.folder / leftover).unlink(missing_ok=True)


def _require_readable_checkpoint(request: PretrainRequest) -> None:
    """Hours of work are not thrown away because another version wrote them, or because they cannot be read just now."""
    path = request.folder / CHECKPOINT
    done = epochs_done(path, usable=False)
    if path.exists() and not done:
        raise RunError(
            f"{path} should hold the state of this training, and it is damaged or cannot be read. Make it readable; or remove "
            f"{request.folder} to begin again, or name another --out."
        )
    if done and not epochs_done(path):
        raise RunError(
            f"{path} holds {epochs_in_words(done)} of this training, made by another version of headstart, which this one cannot go on "
            f"from. Finish it with that version; or remove {request.folder} to begin again, or name another --out."
        )


def _write(path: Path, recipe: Recipe, network: BackboneClassifier, metadata: dict[str, str]) -> None:
    assert recipe.preprocessing is not None
    state = {name: value.cpu() for name, value in network.backbone.state_dict().items()}
    write_weights_file(path, recipe.name, state, recipe.preprocessing, metadata)


def _train(material: Material, recipe: Recipe, observer: Observer) -> _Trained:
    assert recipe.preprocessing is not None
    request, images, split, device = material.request, material.images, material.split, material.device
    network = build_network(classifier_structure(material), derive_seed(request.seed, "initialisation"))
    assert isinstance(network, BackboneClassifier)
    criterion: Criterion | None = None
    teacher_seconds = None
    if material.teacher is not None:
        features = _teacher_features(material, material.teacher, observer)
        network, criterion = _taught(material, recipe, network, features)
        teacher_seconds = features.seconds
    network = network.to(device)
    pixels, labels, preprocessing = images.images, images.labels, recipe.preprocessing
    train = ImageBatches(pixels, labels, split.train, preprocessing, recipe.augmentation, device, recipe.max_shift)
    val = ImageBatches(pixels, labels, split.val, preprocessing, device=device)
    try:
        fitted = train_network(
            network,
            train,
            val,
            recipe,
            request.seed,
            device=device,
            checkpoint=request.folder / CHECKPOINT,
            callbacks=[ProgressBar(observer), HistoryLogger(request.folder)],
            criterion=criterion,
            # The epoch that knows the training's own classes best is not the one whose features serve others best (docs/log.md).
            keep_last=True,
        )
    except DivergedError as error:
        raise DivergedError(
            f"{error} {request.folder} holds the training that diverged: remove it before you begin again with other settings."
        ) from error
    return _Trained(network, fitted, teacher_seconds)


def _taught(
    material: Material, recipe: Recipe, plain: BackboneClassifier, features: Features
) -> tuple[BackboneClassifier, Criterion]:
    """The network with a projection head for the teacher's features, and the loss that asks for them."""
    train, classes = material.split.train, len(material.images.class_names)
    targets = distillation_targets(features.values, train)
    with seeded_torch(derive_seed(material.request.seed, "initialisation", "teacher")):
        student = StudentClassifier(plain.backbone, plain.head.in_features, classes, targets.shape[1])
    labels = material.images.labels[train]
    smoothing = recipe.label_smoothing
    return student, DistillationCriterion(labels, smoothing, material.device, targets, classes, TEACHER_WEIGHT)


def _teacher_features(material: Material, teacher: Backbone, observer: Observer) -> Features:
    return extract_features(
        material.images,
        teacher_network(teacher, material.recipe),
        teacher_key(teacher, material.recipe),
        teacher_preprocessing(teacher, material.images),
        device=material.device,
        reporter=observer,
    )
