"""The project's nouns as frozen records, and the identity of a trial.

Arrays are NumPy: this module, like everything that only reads results, does not import torch.
"""

from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from headstart.files import canonical_json, sha256_of_text

RESULTS_SCHEMA_VERSION = 1
"""Version of `results.json` and of a trial's `result.json`."""

_TRIAL_VERSION = 5
"""Raised where what a trial keeps or a network that has no weights' hash changes, so that none of before is taken for one of now: 2 judges
a part of train, 3 has another width of `small32_m`, 4 reads a learning curve from each image once, 5 looks again where an answer is
close and keeps the latest of epochs that val does not tell apart."""

Kind = Literal["scratch", "probe", "finetune", "majority", "random-features"]
Augmentation = Literal["none", "shift", "shift-flip", "shift-alternate", "crop", "crop-flip"]
USUAL_SHIFT = 1 / 8
"""Of the side: 4 pixels at 32, as in He et al. 2016, "Deep residual learning", section 4.2 (zero padding there)."""
_LATER_SETTINGS = {"max_shift": USUAL_SHIFT, "micro_batch": 0}
"""Settings that recipes did not have at version 2 of trials, each with its default."""

MIRRORING: tuple[Augmentation, ...] = ("shift-flip", "shift-alternate", "crop-flip")
"""The augmentations that show an image in both directions."""

SHIFTING: tuple[Augmentation, ...] = ("shift", "shift-flip", "shift-alternate")
"""The augmentations that move an image by some pixels."""

Head = Literal["convex", "gradient"]
NetworkName = Literal["simple", "fast"]
Unfreeze = Literal["last", "all"]
OptimizerName = Literal["adam", "adamw", "sgd", "muon"]
ScheduleName = Literal["constant", "cosine", "one-cycle", "triangular"]
FitVerdict = Literal["overfits", "underfits", "sound"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LeftOut:
    """A file that was not used, and why. `reason` is a key of the report's texts, `detail` is what the decoder said."""

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Converted:
    """Files that were used after a conversion (such as `cmyk`, `16-bit`, `exif-rotated`): how many, and a few paths."""

    conversion: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class SizeCount:
    """How many originals had this width and height, in pixels."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, decoded once.

    Attributes:
        name: short name, used for run folders.
        source: what the user asked for, such as `digits` or a folder's path.
        images: `(N, S, S, 3) uint8`, RGB, usually memory-mapped; `S` is the canvas, the size at which images are kept.
        labels: `(N,) int64`, indices into `class_names`.
        class_names: one name per class, any Unicode.
        official_part: `(N,) int8`: 0 train, 1 val, 2 test, 3 not assigned; `None` if the source has no parts of its own.
        fingerprint: SHA-256 over pixels, labels, class names and parts.
        image_hashes: `(N,) <U32` hexadecimal, of each image's decoded pixels (original size included): equal means duplicate.
        paths: where each image came from, relative to the source, `/`-separated; empty if the source has no files.
        left_out: files that were not used, with reasons.
        converted: files used after a conversion.
        original_sizes: sizes before the canvas, most frequent first.
        mirror_safe: whether a mirrored image keeps its class; `None` if unknown.
    """

    name: str
    source: str
    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    official_part: npt.NDArray[np.int8] | None
    fingerprint: str
    image_hashes: npt.NDArray[np.str_]
    paths: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    converted: tuple[Converted, ...] = ()
    original_sizes: tuple[SizeCount, ...] = ()
    mirror_safe: bool | None = None

    @property
    def canvas(self) -> int:
        """Side of the kept images, in pixels."""
        return int(self.images.shape[1])


@dataclass(frozen=True)
class Split:
    """Train, val and test as `(n,) int64` indices into an `ImageSet`, each sorted. `val` comes out of the training part.

    `origin` says where test came from (`official` or `drawn`), `seed` drew what was drawn, `removed_duplicates` are
    the images taken out of train (or val) because the same pixels are in test (or val).
    """

    train: Indices
    val: Indices
    test: Indices
    seed: int
    origin: Literal["official", "drawn"]
    removed_duplicates: Indices


@dataclass(frozen=True)
class DuplicateReport:
    """Exact duplicates: groups of images with the same decoded pixels.

    `groups` counts groups of two or more; `across_splits` counts images of train or val whose pixels are also in a part
    nearer to test; `conflicting_labels` counts groups whose members have different labels; `removed` says whether the
    images across splits were taken out; `examples` are up to ten pairs of (kept, duplicate) paths or indices.
    """

    groups: int
    across_splits: int
    conflicting_labels: int
    removed: bool
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Preprocessing:
    """The contract between pixels and a network; one object serves training, validation, test, export and predict.

    Attributes:
        input_size: side of the square input, in pixels.
        interpolation: how a canvas is resized to it (antialiased when it shrinks).
        mean, std: per channel, applied to pixels scaled to 0..1.
        channel_order: order of the channels that the network sees.
    """

    input_size: int
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channel_order: Literal["RGB", "BGR"] = "RGB"


@dataclass(frozen=True)
class Recipe:
    """How one competitor is made. A resolved recipe has no `None` that a default could fill.

    Attributes:
        name: unique in a study, such as `cnn` or `mobilenetv2_100-probe`.
        kind: what is trained; `majority` and `random-features` are controls.
        backbone: timm architecture name, for every kind but `majority`; for `scratch` the architecture whose weights are
            drawn anew, `None` for one of the project's own networks.
        network: which of them: the class's `SimpleCNN`, or `FastCNN`.
        weights_sha256: hash of the pretrained weights, once resolved.
        preprocessing: filled in when the recipe is resolved against the data and the backbone.
        input_size: the user's choice; `None` lets the data and the backbone decide.
        augmentation: drawn anew for every image in every epoch; one that mirrors makes the network answer for both mirror images,
            one that shifts lets it look again where the answer is close (not `SimpleCNN`, nor heads on kept features; `NetworkSpec`).
        max_shift: of `shift`, `shift-flip` and `shift-alternate`: by which share of its side an image moves at most.
        head: `convex` fits a linear head to convergence (L-BFGS, L2 chosen on val), `gradient` trains it by the engine.
        unfreeze: which part of the backbone fine-tuning trains.
        epochs, batch_size, optimizer, learning_rate, weight_decay, schedule, label_smoothing: of the engine.
        micro_batch: a larger batch goes through the network in even parts of at most so many images, their gradients added up for the one
            step of the optimizer; batch norm sees a part at a time. 0 sends every batch at once.
        momentum: of `sgd` and `muon`.
        layer_decay: factor on the learning rate for each block further from the head (fine-tuning).
        mixup: strength of mixing pairs of images and their labels (Zhang et al. 2018, alpha); 0 mixes nothing.
        weight_averaging: decay of the running average of the weights that is evaluated and kept; 0 keeps none.
        early_stopping_patience: epochs without a better val loss before training stops; 0 never stops early.
        reduce_on_plateau_patience: epochs without a better val loss before the rate is divided; 0 never divides it.
        width: channels of the scratch network's first block.
        dropout: rate before the scratch network's last layer.
        callbacks: qualified names of callbacks that the user added, since they can change training.
    """

    name: str
    kind: Kind
    backbone: str | None = None
    network: NetworkName = "simple"
    weights_sha256: str | None = None
    preprocessing: Preprocessing | None = None
    input_size: int | None = None
    augmentation: Augmentation = "none"
    max_shift: float = USUAL_SHIFT
    head: Head = "convex"
    unfreeze: Unfreeze = "last"
    epochs: int = 0
    batch_size: int = 64
    micro_batch: int = 0
    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: ScheduleName = "constant"
    label_smoothing: float = 0.0
    momentum: float = 0.9
    layer_decay: float = 1.0
    mixup: float = 0.0
    weight_averaging: float = 0.0
    early_stopping_patience: int = 0
    reduce_on_plateau_patience: int = 0
    width: int = 32
    dropout: float = 0.0
    callbacks: tuple[str, ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether this recipe is there to be beaten, not to win."""
        return self.kind in ("majority", "random-features")

    @property
    def is_deterministic(self) -> bool:
        """Whether another seed would give the same result, so that one trial is enough."""
        return self.kind == "majority" or (self.kind == "probe" and self.head == "convex")

    @property
    def images_at_once(self) -> int:
        """How many images of a whole batch go through the network together."""
        return min(self.batch_size, self.micro_batch or self.batch_size)

    @property
    def uses_pretrained_weights(self) -> bool:
        """Whether the recipe starts from pretrained weights."""
        return self.kind in ("probe", "finetune")

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def changed_fields(record: Recipe | Preprocessing) -> dict[str, Any]:
    """What differs from the record's defaults, in the order of its fields; a record within it is a dictionary of all of its fields.

    >>> changed_fields(Preprocessing(32, std=(0.5, 0.5, 0.5)))
    {'input_size': 32, 'std': (0.5, 0.5, 0.5)}
    """
    given = asdict(record)
    return {
        one.name: given[one.name]
        for one in fields(record)
        if one.default is MISSING or getattr(record, one.name) != one.default
    }


def lasting_settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe but those that recipes got after version 2 of trials and that it leaves at their default.

    What is hashed or compared is this, so that such a setting leaves alone what was finished before.
    """
    settings = asdict(recipe)
    for name, default in _LATER_SETTINGS.items():
        if settings[name] == default:
            del settings[name]
    return settings


@dataclass(frozen=True)
class EpochRecord:
    """One row of a learning curve. Accuracies are in evaluation mode, without augmentation, each image seen once (no mirror image, no
    shifted copy); `train_accuracy` is over a fixed stratified part of train. `epoch` counts from 1; 0 is the state before training."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What a trial cost.

    Attributes:
        parameters, parameters_trained: of the whole network; those that training moved.
        macs: multiply-accumulates of one image's forward pass (2 FLOPs each), without the second looks that a close answer takes; so are
            latency and throughput.
        macs_uncounted: operators that the counter did not know.
        train_seconds: everything from the decoded images to the trained network, test excluded.
        data_seconds, features_seconds, head_seconds, network_seconds: its parts: preparing pixels, extracting frozen
            features, fitting the head, training the network's own layers (from scratch or fine-tuning). A part that
            the cache answered counts the seconds it took when it was made.
        train_images_per_second: images that training or extraction went through, per second of it.
        peak_bytes: highest resident memory of the process (or allocated on the GPU) during the trial.
        latency_ms: median seconds of one forward pass with one image, in milliseconds.
        throughput_images_per_second: forward passes in large batches.
        wall_seconds: of the whole trial as it ran, evaluation and measuring included, cached parts as quick as they were.
    """

    parameters: int = 0
    parameters_trained: int = 0
    macs: int = 0
    macs_uncounted: tuple[str, ...] = ()
    train_seconds: float = 0.0
    data_seconds: float = 0.0
    features_seconds: float = 0.0
    head_seconds: float = 0.0
    network_seconds: float = 0.0
    train_images_per_second: float = 0.0
    peak_bytes: int = 0
    latency_ms: float = 0.0
    throughput_images_per_second: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class TrialResult:
    """What one recipe with one seed gave.

    Attributes:
        identity: see `trial_identity`.
        recipe: resolved.
        seed: of the training; the split does not depend on it.
        test_indices, test_labels, test_logits: `(n,) int64`, `(n,) int64`, `(n, C) float32`, in the same order for every trial
            of a study.
        val_labels, val_logits: likewise.
        train_correct: `(n,) bool`, of the part of train that is judged (`study/trial.py`): evaluation mode, no augmentation.
        history: learning curve; empty where nothing is trained by epochs.
        best_epoch: the epoch whose weights were kept; 0 where there is none.
        stopped_early: whether early stopping ended it.
        chosen: what the trial chose on val, such as `{"l2": 0.01}`.
        cost: see `Cost`.
        environment: versions, device, threads.
    """

    identity: str
    recipe: Recipe
    seed: int
    test_indices: Indices
    test_labels: Labels
    test_logits: Logits
    val_labels: Labels
    val_logits: Logits
    train_correct: Booleans
    history: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0
    stopped_early: bool = False
    chosen: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NotRun:
    """A recipe that a study planned and could not run: its name, a key of the report's texts, and the facts behind it."""

    name: str
    reason: str
    detail: str = ""


def trial_identity(recipe: Recipe, data_fingerprint: str, split: Split, seed: int) -> str:
    """Hash everything that decides a trial's result.

    Args:
        recipe: resolved, every default filled in, with the hash of its weights.
        data_fingerprint: of the `ImageSet`, after any limit.
        split: its indices are hashed, so that another split is another trial.
        seed: of the training.

    Returns:
        64 hexadecimal digits. Device, workers and paths are left out: they must not decide a result. So is the
        recipe's name: the same record under another name is the same trial.
    """
    settings = lasting_settings(recipe)
    del settings["name"]
    return sha256_of_text(
        canonical_json(
            {
                "trial_version": _TRIAL_VERSION,
                "recipe": settings,
                "data": data_fingerprint,
                "split": [part.tolist() for part in (split.train, split.val, split.test)],
                "seed": 0 if recipe.is_deterministic else seed,
            }
        )
    )
