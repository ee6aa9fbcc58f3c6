"""Proof by counterfactual: the same images through the same network, one fault taken away at a time.

Every cell of the design gives features (diagnosis/pipeline.py), and a convex probe on them says what they are worth
(diagnosis/probing.py).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import nn

from headstart.analysis.diagnosis import Cell
from headstart.analysis.statistics import paired_difference
from headstart.data.splits import draw_stratified
from headstart.diagnosis.pipeline import Pipeline
from headstart.diagnosis.probing import cross_fitted
from headstart.models.small32 import LARGEST_IMAGE
from headstart.randomness import generator
from headstart.records import Booleans, ImageSet, Indices, Split
from headstart.training.progress import Reporter

Array = npt.NDArray[np.float32]

PROVABLE = (1, 2, 3, 4, 5, 7, 8, 9, 10, 13)
"""Causes that a pipeline can be made again without."""

OF_THE_NETWORK = (8, 9, 13)
"""Those of them that no pixels have to be made again for."""

_SAMPLED = 2400
"""Images of a proof. All but the sixth that decides the L2 are judged by a probe that was fitted on two thirds of them, in three
partitions: shares are then known to about two points (chosen)."""

_FEW = 600
"""Images whose features every cell keeps, and that the control takes first: random features are mostly so much worse that these
say it with 99% (chosen)."""

_SURE = 0.99
_CALIBRATED = 128  # images that a random network's batch statistics are taken from


_SWEPT = (32, 64, 96, 128, 160, 224)
_SWEPT_SMALL = (8, 16, 24, 32, 48, 64)
"""Sides in pixels at which a repaired pipeline is looked at, too, up to the one that its backbone was pretrained at: the catalogue's for
public backbones, and for those made for small images (chosen)."""

_SWEPT_IMAGES = (
    300  # chosen: with 600 a proof took 18 s longer on two cores (docs/log.md), and was known to four points
)


@dataclass(frozen=True)
class SizeProbe:
    """Which images a probe got right, `(S, n) bool`, on the repaired pipeline at another input size, in pixels."""

    size: int
    correct: Booleans


@dataclass(frozen=True)
class MeasuredCell:
    """Which images each seed's probe got right, `(S, n) bool`; features of a few images, `(m, D)`; the seconds it took.

    Cells that are one and the same pipeline are measured once; the others then took no time. The one with all faults keeps the
    features of the whole sample, in its order.
    """

    correct: Booleans
    few: Array
    seconds: float
    features: Array | None = None


def draw_sample(images: ImageSet, split: Split) -> Indices:
    """A stratified part of train: test stays closed. `(n,) int64` indices into the set."""
    return np.sort(stratified(images, split.train, _SAMPLED, "sample"))


def few_of(images: ImageSet, sample: Indices) -> Indices:
    """A stratified part of a sample, sorted as it is."""
    return np.sort(stratified(images, sample, _FEW, "few"))


def stratified(images: ImageSet, part: Indices, most: int, purpose: str) -> Indices:
    """At most so many of a part's images, of each class its share; the purpose decides which."""
    if len(part) <= most:
        return part
    drawn = draw_stratified(images.labels[part], len(images.class_names), most, generator(0, "diagnosis", purpose))
    return part[drawn]


def measure_cells(
    pipeline: Pipeline, cells: Iterable[Cell], sample: Indices, reporter: Reporter
) -> dict[Cell, MeasuredCell]:
    """Measure the pipeline with each of these sets of faults present.

    Args:
        pipeline: with any set of its faults.
        cells: sets of faults.
        sample: images that are measured on.
        reporter: told how far it is.
    """
    wanted, measured = list(cells), dict[Cell, MeasuredCell]()
    reporter.stage("proof", len(wanted))
    pipeline.expect(wanted, len(sample))
    labels, classes = pipeline.images.labels[sample], len(pipeline.images.class_names)
    few = np.searchsorted(sample, few_of(pipeline.images, sample))
    known: dict[object, MeasuredCell] = {}
    for number, cell in enumerate(wanted, start=1):
        started = time.perf_counter()
        variant = pipeline.variant(cell)
        if variant in known:
            measured[cell] = replace(known[variant], seconds=0.0, features=None)
        else:
            features = pipeline.features(cell, sample)
            correct = cross_fitted(features, labels, classes)
            kept = features if cell == pipeline.factors else None
            one = MeasuredCell(correct, features[few].copy(), time.perf_counter() - started, kept)
            known[variant] = measured[cell] = one
        reporter.advance(number)
    return measured


def measure_random(pipeline: Pipeline, clean: MeasuredCell, sample: Indices) -> tuple[Booleans, Booleans]:
    """The repaired pipeline with random weights, and with its own, on the same images.

    A few of the sample first; the whole of it only where they leave open which of the two is better.

    Args:
        pipeline: with any set of its faults.
        clean: the repaired pipeline on the sample.
        sample: images of the proof.

    Returns:
        Which images the probe got right, `(S, m) bool` each: random, own.
    """
    none: Cell = frozenset()
    images, classes = pipeline.images, len(pipeline.images.class_names)
    random = network_of_chance(pipeline, none, sample)
    few = few_of(images, sample)
    if len(few) < len(sample):
        features = pipeline.features_through(random, none, few)
        by_chance, own = (cross_fitted(some, images.labels[few], classes) for some in (features, clean.few))
        if paired_difference(own, by_chance, confidence=_SURE).low > 0:
            return by_chance, own
    features = pipeline.features_through(random, none, sample)
    return cross_fitted(features, images.labels[sample], classes), clean.correct


def sweep_sizes(pipeline: Pipeline, left: Cell, sample: Indices, native: int) -> list[SizeProbe]:
    """What the pipeline is worth at other input sizes, repaired, on a few images: what the size does by itself (1).

    Args:
        pipeline: with any set of its faults.
        left: faults that the repair leaves in.
        sample: images of the proof.
        native: side that its backbone was pretrained at.
    """
    repaired, ours = pipeline.repairs.preprocessing, pipeline.arrival.size
    steps = _SWEPT_SMALL if native <= LARGEST_IMAGE else _SWEPT
    largest = max(native, repaired.input_size)
    sizes = sorted({ours, repaired.input_size, *(side for side in steps if side <= largest)})
    few = np.sort(stratified(pipeline.images, sample, _SWEPT_IMAGES, "sizes"))
    labels, classes = pipeline.images.labels[few], len(pipeline.images.class_names)
    found = []
    for size in sizes:
        other = replace(pipeline.repairs, preprocessing=replace(repaired, input_size=size))
        at_size = pipeline.with_repairs(other)
        at_size.expect([left], len(few))
        found.append(SizeProbe(size, cross_fitted(at_size.features(left, few), labels, classes)))
    return found


def network_of_chance(pipeline: Pipeline, cell: Cell, sample: Indices) -> nn.Module:
    """A pipeline's network with random weights, its batch statistics from a part of the sample as it is with these faults."""
    return pipeline.random_network(cell, sample[:: max(len(sample) // _CALIBRATED, 1)])
