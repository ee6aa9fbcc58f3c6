"""Proof by counterfactual: the same images through the same network, one fault taken away at a time.

A pipeline is made again from what was measured of it (size, frame, range, channel order, batch norm's mode, weights), so that
each fault can be present or repaired on its own. Every cell of the design gives features, and a convex probe on them says
what they are worth.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from headstart.analysis.diagnosis import Cell
from headstart.data.preprocessing import apply_preprocessing
from headstart.data.splits import draw_stratified
from headstart.diagnosis.arrival import Arrival
from headstart.diagnosis.subject import (
    Subject,
    copied,
    fed_at_first_convolution,
    in_mode,
    norm_layers,
    pooled,
    published_state,
)
from headstart.models.backbones import seeded_torch
from headstart.randomness import generator
from headstart.records import Booleans, Images, ImageSet, Indices, Labels, Preprocessing, Split
from headstart.training.probe import fit_probe
from headstart.training.progress import Reporter

Array = npt.NDArray[np.float32]

PROVABLE = (1, 2, 3, 4, 5, 7, 8, 9, 10, 13)
"""Causes that a pipeline can be made again without."""

_SEEDS, _FOLDS = 3, 3
_BATCH = 64
_SAMPLED = 2400
"""Images of a proof. Every one is judged by a probe that was fitted on the other two thirds, in three partitions: shares are
then known to about two points (chosen)."""

_VAL_SHARE = 1 / 6  # of the images that a probe is fitted on, for its L2

_RE_ESTIMATED_BATCHES = 10


@dataclass(frozen=True)
class MeasuredCell:
    """Which images each seed's probe got right, `(S, n) bool`, and the seconds it took."""

    correct: Booleans
    seconds: float


@dataclass(frozen=True)
class Repairs:
    """What the repaired pipeline looks like: its pixels, for causes 1 to 5 and 7; the rest follows from the subject."""

    preprocessing: Preprocessing


def draw_sample(images: ImageSet, split: Split) -> Indices:
    """A stratified part of train: test stays closed. `(n,) int64` indices into the set."""
    classes = len(images.class_names)
    if len(split.train) <= _SAMPLED:
        return split.train
    labels = images.labels[split.train]
    return split.train[draw_stratified(labels, classes, _SAMPLED, generator(0, "diagnosis", "sample"))]


def measure_cells(
    subject: Subject,
    arrival: Arrival,
    repairs: Repairs,
    factors: Iterable[int],
    cells: Iterable[Cell],
    images: ImageSet,
    sample: Indices,
    reporter: Reporter,
) -> dict[Cell, MeasuredCell]:
    """Measure the pipeline with each of these sets of faults present.

    Args:
        subject, arrival: the pipeline as it is.
        repairs: how it should be.
        factors: all suspected causes that the cells are made of.
        cells: sets of faults.
        images, sample: what is measured on.
        reporter: told how far it is.
    """
    wanted, measured = list(cells), {}
    reporter.stage("proof", len(wanted))
    networks: dict[tuple[bool, ...], nn.Module] = {}
    for number, cell in enumerate(wanted, start=1):
        started = time.perf_counter()
        key = tuple(cause in cell for cause in (9, 13))
        if key not in networks:
            networks[key] = network_with(subject, cell, factors)
        features = cell_features(subject, networks[key], arrival, repairs, cell, set(factors), images, sample)
        correct = cross_fitted(features, images.labels[sample], len(images.class_names))
        measured[cell] = MeasuredCell(correct, time.perf_counter() - started)
        reporter.advance(number)
    return measured


def cell_features(
    subject: Subject,
    network: nn.Module,
    arrival: Arrival,
    repairs: Repairs,
    cell: Cell,
    factors: set[int],
    images: ImageSet,
    part: Indices,
    own_images: Indices | None = None,
) -> Array:
    """Features of a part's images, `(n, D) float32`, with the faults of a cell present.

    `own_images` are those that batch statistics are re-estimated on, where a repair asks for it; `None` takes the part.
    """
    module = copied(network) if 10 in factors and 10 not in cell else network
    module.eval()
    own = part if own_images is None else own_images
    if 10 in factors and 10 not in cell:
        re_estimate(module, lambda some: pixels_with(arrival, repairs, cell, images.images[some]), own)
    training = 8 in cell or (subject.train_mode and 8 not in factors)
    batch = subject.batch if training else _BATCH
    # In training mode a batch norm's output depends on its neighbours: they are drawn, not sorted by class.
    shuffled = generator(0, "diagnosis", "order").permutation(len(part))
    rows: Array | None = None
    with in_mode(module, training=training), torch.inference_mode(), fed_at_first_convolution(module) as run:
        for first in range(0, len(shuffled), batch):
            places = shuffled[first : first + batch]
            inputs = pixels_with(arrival, repairs, cell, images.images[part[places]])
            found = pooled(features_of(run, subject, module, inputs)).float().numpy()
            if rows is None:
                rows = np.empty((len(part), found.shape[1]), np.float32)
            rows[places] = found
    assert rows is not None
    return np.nan_to_num(rows, posinf=0.0, neginf=0.0)


def cross_fitted(features: Array, labels: Labels, classes: int) -> Booleans:
    """Which images a probe gets right that was fitted without them: `(S, n) bool`, a row for each of three partitions.

    Args:
        features: `(n, D) float32`.
        labels: `(n,) int64`.
        classes: number of classes.
    """
    correct = np.zeros((_SEEDS, len(labels)), bool)
    for seed in range(_SEEDS):
        for fold in np.array_split(generator(seed, "diagnosis", "folds").permutation(len(labels)), _FOLDS):
            others = np.setdiff1d(np.arange(len(labels)), fold)
            correct[seed, fold] = held_out(
                features[others], labels[others], features[fold], labels[fold], classes, seed
            )
    return correct


def held_out(
    features: Array, labels: Labels, judged: Array, judged_labels: Labels, classes: int, seed: int = 0
) -> Booleans:
    """Fit a probe on some images, a sixth of them to choose its L2 on, and say which of the judged ones it gets right."""
    drawn = generator(seed, "diagnosis", "val").permutation(len(labels))
    val_count = max(round(len(labels) * _VAL_SHARE), 1)
    val, train = drawn[:val_count], drawn[val_count:]
    head = fit_probe(features[train], labels[train], features[val], labels[val], classes)
    right: Booleans = head.logits(judged).argmax(1) == judged_labels
    return right


def pixels_with(arrival: Arrival, repairs: Repairs, cell: Cell, images: Images) -> torch.Tensor:
    """What the first convolution gets when exactly these faults are present: `(B, 3, S, S) float32`."""
    ours, right = arrival.preprocessing(), repairs.preprocessing
    faulty = replace(right)
    if 1 in cell:
        faulty = replace(faulty, input_size=arrival.size)
    if 7 in cell:
        faulty = replace(faulty, interpolation=ours.interpolation)
    if 3 in cell or 4 in cell:
        faulty = replace(faulty, mean=ours.mean, std=ours.std)
    if 5 in cell:
        faulty = replace(faulty, channel_order=ours.channel_order)
    size = faulty.input_size
    content = max(round(size * arrival.content / arrival.size), 1) if 2 in cell else size
    if 7 in cell and arrival.interpolation == "bilinear-aliased" and content < images.shape[1]:
        images = _aliased(images, content)
    inner = apply_preprocessing(images, replace(faulty, input_size=content))
    if content == size:
        return inner
    before = (size - content) // 2
    after = size - content - before
    # The frame's value was seen in the pipeline's own range; as a pixel it means the same in another one.
    pixel = arrival.border * ours.std[0] + ours.mean[0]
    border = (pixel - faulty.mean[0]) / faulty.std[0]
    return nn.functional.pad(inner, (before, after, before, after), value=border).contiguous(
        memory_format=torch.channels_last
    )


def network_with(subject: Subject, cell: Cell, factors: Iterable[int]) -> nn.Module:
    """The subject's network, its weights or statistics restored unless the cell keeps them as they are."""
    module = copied(subject.module).to(memory_format=torch.channels_last)
    published = published_state(subject)
    state = module.state_dict()
    for name, value in published.items():
        statistic = name.endswith(("running_mean", "running_var"))
        if (13 in factors and 13 not in cell) or (9 in factors and 9 not in cell and statistic):
            state[name].copy_(value)
    return module.eval()


def random_network(subject: Subject, seed: int, inputs: torch.Tensor) -> nn.Module:
    """The control: the same structure with weights drawn anew and its batch statistics from these inputs."""
    module = copied(subject.module)
    with seeded_torch(seed):
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()  # type: ignore[operator]
    re_estimate(module.eval(), lambda part: inputs, np.arange(len(inputs)))
    return module


def re_estimate(module: nn.Module, prepared: Callable[[Indices], torch.Tensor], pool: Indices) -> None:
    """Give batch norm the statistics of these images (Li et al. 2017, AdaBN)."""
    layers = norm_layers(module)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    with torch.inference_mode(), fed_at_first_convolution(module) as run:
        for first in range(0, min(len(pool), _RE_ESTIMATED_BATCHES * _BATCH), _BATCH):
            run(prepared(pool[first : first + _BATCH]))
    module.eval()


def features_of(
    run: Callable[[torch.Tensor], torch.Tensor], subject: Subject, module: nn.Module, inputs: torch.Tensor
) -> torch.Tensor:
    """What a module says before its own classifier, if it has one."""
    if subject.classifier is None:
        return run(inputs)
    seen: list[torch.Tensor] = []
    layer = module.get_submodule(subject.classifier)
    handle = layer.register_forward_pre_hook(lambda linear, given: seen.append(given[0]))
    try:
        run(inputs)
    finally:
        handle.remove()
    return seen[0]


def _aliased(images: Images, side: int) -> Images:
    """Shrunk without smoothing first, as some libraries do."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    small = functional.resize(pixels, [side, side], interpolation=InterpolationMode.BILINEAR, antialias=False)
    result: Images = small.permute(0, 2, 3, 1).numpy()
    return result
