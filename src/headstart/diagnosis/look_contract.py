"""Looking for the contract of a network that nobody knows: the usual ones are tried where nothing speaks for its pixels.

What a network expects cannot be seen in its weights alone. Two signs need no labels: pixels in an unusual range, order or
scaling, and a first batch norm whose stored statistics are nearer to another contract's. Where one of them speaks against the
pixels, or there are no statistics to ask, every usual contract is put in place of the one in use, and a convex probe says which
suits the network; what it is worth is measured afterwards, on other images where there are enough.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from headstart.analysis.statistics import Estimate, bootstrap_accuracy, paired_difference
from headstart.diagnosis.arrival import Arrival, Standardised
from headstart.diagnosis.look_pixels import is_usual
from headstart.diagnosis.modules import copied, fed_at_first_convolution, norm_layers
from headstart.diagnosis.pipeline import Pipeline, Repairs
from headstart.diagnosis.probing import cross_fitted
from headstart.diagnosis.prove import stratified
from headstart.diagnosis.subject import Subject
from headstart.models.backbones import default_input_size
from headstart.records import Booleans, ImageSet, Indices, Preprocessing, Split

_TRIED = 600  # images that the choice is made on; chosen: an accuracy is then known to four points
_TRIED_AGAIN = 1800  # chosen: further images, for the best and the own one alone, where the first leave it open
_LEAST_APART = 300  # fewer images outside the proof's sample than that, and the choice is made on the sample's own
_FAR = 0.5  # chosen: of a first batch norm, in its own deviations; a right contract stays below 0.3
_NEARER = 0.5  # chosen: another contract must halve the distance
_LOOKED_AT = 64


@dataclass(frozen=True)
class Contract:
    """One way in which networks expect their pixels."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: Literal["RGB", "BGR"] = "RGB"
    standardised: Standardised = "none"


_HALF, _UNIT, _BYTE = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (1 / 255, 1 / 255, 1 / 255)
_NONE = (0.0, 0.0, 0.0)
_RGB = (
    Contract("0..1 RGB", _NONE, _UNIT),
    Contract("-1..1 RGB", _HALF, _HALF),
    Contract("ImageNet RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Contract("0..255 RGB", _NONE, _BYTE),
)
USUAL: tuple[Contract, ...] = (
    *_RGB,
    *(Contract(one.name.replace("RGB", "BGR"), one.mean[::-1], one.std[::-1], "BGR") for one in _RGB),
    Contract("0..255 BGR - mean", (0.406, 0.456, 0.485), _BYTE, "BGR"),
    Contract("image by image RGB", _NONE, _UNIT, "RGB", "image"),
)
"""What public networks were pretrained with: torchvision and timm (ImageNet), Keras ("tf", "torch" and "caffe" mode), TensorFlow."""


@dataclass(frozen=True)
class Guess:
    """The contract that suits a network best, out of the usual ones and its own.

    Attributes:
        contract: the best; `None` if the pixels as they come are as good as any.
        standardised: whether it standardises each image.
        values: for the evidence: `contract`, its accuracy `probe`, the `own` one, how many were `tried`.
    """

    contract: Preprocessing | None
    standardised: Standardised
    values: Mapping[str, Any]


def guess_contract(
    subject: Subject, arrival: Arrival, images: ImageSet, split: Split, sample: Indices, native: int
) -> Guess | None:
    """Try the usual contracts on a network whose own is not known.

    Args:
        subject, arrival: as it is run.
        images, split: its data.
        sample: images of the proof, which are left out where others are there.
        native: side that the backbone was pretrained at.

    Returns:
        What was found, or `None` where nothing about the pixels is suspicious and the network's statistics agree with them.
    """
    base = arrival.preprocessing()
    size = max(arrival.size, default_input_size(images.canvas, native))  # at a size where pixels count
    base = replace(base, input_size=size)
    if is_usual(arrival) and _statistics_agree(subject, arrival, base, images, split):
        return None
    apart = np.setdiff1d(split.train, sample)
    pool = apart if len(apart) >= _LEAST_APART else split.train
    part = np.sort(stratified(images, pool, _TRIED, "contracts"))
    pipeline = Pipeline(subject, arrival, Repairs(base), (), images)
    pipeline.expect([frozenset()], len(part) * (len(USUAL) + 1) + 2 * min(len(pool) - len(part), _TRIED_AGAIN))

    def right(contract: Contract | None, chosen: Indices) -> Booleans:
        repairs = Repairs(base, arrival.standardised) if contract is None else _repairs(contract, base)
        features = pipeline.with_repairs(repairs).features(frozenset(), chosen)
        return cross_fitted(features, images.labels[chosen], len(images.class_names))

    own = right(None, part)
    tried = {one: right(one, part) for one in USUAL}
    best = max(tried, key=lambda one: float(tried[one].mean()))
    with_best = tried[best]

    def values() -> dict[str, Any]:
        probe, as_it_is = (_ends(bootstrap_accuracy(one)) for one in (with_best, own))
        return {"contract": best.name, "probe": probe, "own": as_it_is, "tried": len(USUAL)}

    better = paired_difference(with_best, own)
    if _is_own(best, arrival) or better.mean <= 0:
        return Guess(None, arrival.standardised, values())
    # The best of ten looks better than it is: it must be so clearly, or prove it on images that it was not chosen on. What it is
    # worth, the proof measures.
    fresh = np.setdiff1d(pool, part)
    if better.low <= 0 and len(fresh) >= _LEAST_APART:
        fresh = np.sort(stratified(images, fresh, _TRIED_AGAIN, "contracts again"))
        with_best, own = right(best, fresh), right(None, fresh)
        better = paired_difference(with_best, own)
    if better.low <= 0:
        return Guess(None, arrival.standardised, values())
    return Guess(as_preprocessing(best, base), best.standardised, values())


def as_preprocessing(contract: Contract, base: Preprocessing) -> Preprocessing:
    """A contract with another's size and interpolation."""
    return replace(base, mean=contract.mean, std=contract.std, channel_order=contract.order)


def _repairs(contract: Contract, base: Preprocessing) -> Repairs:
    return Repairs(as_preprocessing(contract, base), contract.standardised, ordered=True)


def _statistics_agree(subject: Subject, arrival: Arrival, base: Preprocessing, images: ImageSet, split: Split) -> bool:
    """Whether the first batch norm's stored statistics speak for these pixels: near, or no nearer to another contract's.

    Without such a layer, or with its statistics folded into the convolution, nothing speaks for them.
    """
    module = copied(subject.module).eval()
    layers = norm_layers(module)
    if not layers or not bool(layers[0].running_mean.any()):  # type: ignore[union-attr]
        return False
    chosen = images.images[split.train[:: max(len(split.train) // _LOOKED_AT, 1)][:_LOOKED_AT]]
    pipelines = [
        Repairs(base, arrival.standardised),
        *(_repairs(one, base) for one in USUAL),
    ]
    own, *others = (
        _distance(module, layers[0], Pipeline(subject, arrival, repairs, (), images).pixels(frozenset(), chosen))
        for repairs in pipelines
    )
    return own <= _FAR or min(others) >= _NEARER * own


def _distance(module: nn.Module, layer: nn.modules.batchnorm._BatchNorm, inputs: torch.Tensor) -> float:
    """Between a batch's statistics at a layer and the stored ones: shift and log ratio of deviations, medians over channels."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        with torch.inference_mode(), fed_at_first_convolution(module) as run:
            run(inputs)
    finally:
        handle.remove()
    assert layer.running_mean is not None
    assert layer.running_var is not None
    axes = [axis for axis in range(seen[0].ndim) if axis != 1]
    stored = (layer.running_var + layer.eps).sqrt()
    shift = (seen[0].mean(axes) - layer.running_mean).abs() / stored
    ratio = ((seen[0].std(axes) + layer.eps) / stored).log().abs()
    return float(shift.median() + ratio.median())


def _is_own(contract: Contract, arrival: Arrival) -> bool:
    """Whether a contract is what arrives already."""
    order = "RGB" if arrival.order == "gray" else arrival.order
    if (contract.standardised, contract.order) != (arrival.standardised, order):
        return False
    expected = Preprocessing(arrival.size, mean=contract.mean, std=contract.std)
    scale = 1 / np.asarray(expected.std)
    found = 1 / np.asarray(arrival.std)
    offset = np.asarray(expected.mean) * scale - np.asarray(arrival.mean) * found
    return bool(np.abs(offset).max() < 0.1 * scale.max() and np.abs(scale / found - 1).max() < 0.1)


def _ends(estimate: Estimate) -> dict[str, float]:
    return {end: value for end, value in asdict(estimate).items() if end in ("mean", "low", "high")}
