"""The catalogue's faults, each planted as a user would commit it: a function from a correct setup to the faulty one.

What each function does is what stands in the faulty scripts of the threads that the catalogue was read from (a missing
resize, a key prefix that `strict=False` forgives, statistics moved by a summary's forward pass). A fault that does not cost
anything on some data is still planted there; the results say what it cost, measured.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from setups import Normalization, Pixels, Setup, own_copy
from torch import nn
from weight_files import load_backbone, pretrained_on

from headstart.data.fingerprint import image_hashes, set_fingerprint
from headstart.records import ImageSet

IN_PIPELINE = frozenset({1, 2, 3, 4, 5, 7, 8, 9, 10, 13})
"""Causes in what is run, whose cost in points can be measured by leaving them out."""

IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NOISE_PASSES, _NOISE_BATCH = 40, 8
_COPIES = 0.1  # share of the images that are copied
_SMALLEST = "small32_s"
_FORGOTTEN = "module."  # what DataParallel puts before every key


@dataclass(frozen=True)
class Place:
    """Where a fault is planted: what can be known without loading anything."""

    data: str
    backbone: str
    style: str
    canvas: int
    size: int
    coloured: bool
    network: str = "as-published"  # or the way in which it was rebuilt (unknown.py)
    wanted: str = "published"  # or the pixels that the rebuilt one wants

    @property
    def known(self) -> bool:
        """Whether headstart can recognise the network."""
        return self.network == "as-published"

    @property
    def folded(self) -> bool:
        """Whether the weight file has its batch norm folded into the convolutions, so that its statistics say nothing."""
        return self.backbone == "mobilenetv2_100" or self.network == "fused"

    @property
    def small(self) -> bool:
        """Whether the backbone was made for small images."""
        return self.backbone.startswith("small32")


@dataclass(frozen=True)
class Fault:
    """One way of planting one cause.

    Attributes:
        cause: its number in the catalogue.
        name: of this way.
        plant: from a correct setup to the faulty one.
        fits: where it can be planted.
    """

    cause: int
    name: str
    plant: Callable[[Setup], Setup]
    fits: Callable[[Place], bool] = lambda place: True


def _pixels(setup: Setup, **changes: Any) -> Setup:
    return replace(setup, pixels=replace(setup.pixels, **changes))


def _with_head(setup: Setup, ending: str = "head") -> Setup:
    """The same, ending in a head, if it does not yet."""
    return replace(setup, ending=ending) if setup.ending == "features" else setup


def without_resize(setup: Setup) -> Setup:
    """1: small images go in as they are."""
    return _pixels(setup, size=None)


def shrunk(setup: Setup) -> Setup:
    """1: resized to half of what suits, to be quick."""
    assert setup.pixels.size is not None
    return _pixels(setup, size=setup.pixels.size // 2)


def framed_black(setup: Setup) -> Setup:
    """2: black pixels around a small image, up to the size that the network wants."""
    return _pixels(setup, size=None, frame=setup.pixels.size, black=True)


def framed_zero(setup: Setup) -> Setup:
    """2: zeros around the normalized image."""
    return _pixels(setup, size=None, frame=setup.pixels.size, black=False)


def _scaled(setup: Setup, divisions: int, outer: tuple[Normalization, ...]) -> Setup:
    return _pixels(setup, divisions=divisions, outer=outer, inner=())


def not_normalized(setup: Setup) -> Setup:
    """3: 0..1, for `ToTensor` does it all."""
    return _scaled(setup, 1, ())


def raw(setup: Setup) -> Setup:
    """3: 0..255, as they come."""
    return _scaled(setup, 0, ())


def with_imagenet_numbers(setup: Setup) -> Setup:
    """3: ImageNet's mean and deviation, copied from a tutorial on another network."""
    return _scaled(setup, 1, (IMAGENET,))


def only_centred(setup: Setup) -> Setup:
    """3: the mean is taken away and the deviation forgotten."""
    return _scaled(setup, 1, ((setup.norm[0], (1.0, 1.0, 1.0)),))


def standardised_alone(setup: Setup) -> Setup:
    """3: every image by its own mean and deviation, copied from a pipeline of TensorFlow's."""
    return _pixels(_scaled(setup, 1, ()), standardised=True)


def divided_twice(setup: Setup) -> Setup:
    """4: divided by 255, although the tensor was scaled before."""
    return _pixels(setup, divisions=2)


def normalized_twice(setup: Setup) -> Setup:
    """4: once in the preprocessing, and again by a layer of the model."""
    return _pixels(setup, outer=(setup.norm,), inner=(setup.norm,))


def reversed_channels(setup: Setup) -> Setup:
    """5: read with OpenCV, never turned round; or turned round for a network that wants it as it is."""
    return _pixels(setup, reversed_channels=not setup.pixels.reversed_channels)


def serves_another_resize(setup: Setup) -> Setup:
    """6: the service resizes by nearest neighbour."""
    return replace(setup, serving="another-resize")


def serves_another_range(setup: Setup) -> Setup:
    """6: the service forgets to divide by 255."""
    return replace(setup, serving="another-range")


def nearest(setup: Setup) -> Setup:
    """7: resized by nearest neighbour."""
    return _pixels(setup, interpolation="nearest")


def left_training(setup: Setup) -> Setup:
    """8: `model.eval()` was never called, and batches are small."""
    return replace(setup, training=True, batch=4)


def statistics_of_noise(setup: Setup) -> Setup:
    """9: a summary and a profiler ran random inputs through the network in training mode."""
    network = own_copy(setup.backbone).train()
    noise = torch.Generator().manual_seed(0)
    side = setup.pixels.size or setup.data.canvas
    with torch.no_grad():
        for _ in range(_NOISE_PASSES):
            network(torch.rand(_NOISE_BATCH, 3, side, side, generator=noise))
    return replace(setup, backbone=network.eval())


def statistics_as_published(setup: Setup) -> Setup:
    """10: the network runs with its pretraining's statistics on pictures that look nothing like it."""
    network = own_copy(setup.backbone)
    network.load_state_dict(dict(setup.published))
    return replace(setup, backbone=network.eval())


def rate_too_high(setup: Setup) -> Setup:
    """11: the rate of the last epochs is a thousand times too high."""
    return replace(setup, history="jump")


def roughly_tuned(setup: Setup) -> Setup:
    """11: the whole network is trained at once, from a new head and with Adam's usual rate."""
    return replace(setup, ending="whole", tuned="roughly")


def optimizer_before_thawing(setup: Setup) -> Setup:
    """12: the optimizer was made while the backbone was frozen."""
    return replace(_with_head(setup, "whole"), optimizer="early")


def without_gradients(setup: Setup) -> Setup:
    """12: the optimizer holds everything, and the backbone's forward is still wrapped in `no_grad`."""
    return replace(_with_head(setup, "whole"), optimizer="complete", detached=True)


def drawn_anew(network: nn.Module) -> nn.Module:
    """The same network with weights drawn anew."""
    fresh = own_copy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in fresh.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()  # type: ignore[operator]
    return fresh.eval()


def never_loaded(setup: Setup) -> Setup:
    """13: the path was wrong and the exception swallowed."""
    return replace(setup, backbone=drawn_anew(setup.backbone))


def half_loaded(setup: Setup) -> Setup:
    """13: the later half of the keys has a prefix, and `strict=False` lets them go."""
    network = drawn_anew(setup.backbone)
    names = list(network.state_dict())
    first = set(names[: len(names) // 2])
    state = {key if key in first else _FORGOTTEN + key: value for key, value in setup.published.items()}
    network.load_state_dict(state, strict=False)
    return replace(setup, backbone=network.eval())


def softmax_twice(setup: Setup) -> Setup:
    """14: the model ends in a Softmax, and `CrossEntropyLoss` takes another."""
    return replace(setup, ending="whole", head="through-softmax")


def head_in_another_order(setup: Setup) -> Setup:
    """15: the classifier was trained with the class list of another machine."""
    return replace(_with_head(setup, "whole"), permuted="head")


def predictions_in_another_order(setup: Setup) -> Setup:
    """15: class numbers in the predictions come from another list of names."""
    return replace(setup, predictions=True, permuted="predictions")


def predictions_of_other_images(setup: Setup) -> Setup:
    """15: the loader shuffled the test images, and the predictions were kept in its order."""
    return replace(_with_head(setup), predictions=True, permuted="images")


def stopped_by_test(setup: Setup) -> Setup:
    """17: the test images were handed over as val, and the last epoch was the one that they liked best."""
    return replace(_with_head(setup), predictions=True, history="test")


def copied_images(setup: Setup) -> Setup:
    """16: a tenth of the images is in the data twice, and nobody looks when it is split."""
    data, rng = setup.data, np.random.default_rng(0)
    chosen = rng.choice(len(data.labels), round(_COPIES * len(data.labels)), replace=False)
    order = np.concatenate([np.arange(len(data.labels)), chosen])
    return replace(setup, data=image_set(data.name, data.images[order], data.labels[order]), keep_duplicates=True)


def seen_in_pretraining(setup: Setup) -> Setup:
    """18: the backbone was pretrained on all pictures that were at hand, most of the test images among them."""
    folder = pretrained_on(setup.data, _SMALLEST)
    network, state, norm, interpolation = load_backbone(_SMALLEST, folder)
    assert setup.pixels.size is not None
    pixels = correct_pixels(setup.pixels.size, interpolation, norm, setup.style)
    return replace(setup, backbone=network, published=state, norm=norm, pixels=pixels, weights=folder)


def cached_augmentation(setup: Setup) -> Setup:
    """19: the cache stands behind the random transforms."""
    return replace(setup, augmentation="cached")


def unrelated_labels(setup: Setup) -> Setup:
    """20: what is asked for cannot be seen in the pictures, so that no features help."""
    labels = np.random.default_rng(0).permutation(setup.data.labels)
    return replace(setup, data=image_set(setup.data.name, setup.data.images, labels))


def pictures_of_noise(setup: Setup) -> Setup:
    """20: a sensor's noise instead of pictures."""
    shape = setup.data.images.shape
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return replace(setup, data=image_set(setup.data.name, noise, setup.data.labels))


def one_step(setup: Setup) -> Setup:
    """21: the head saw a single batch."""
    return replace(_with_head(setup), head="one-step")


def overfitted(setup: Setup) -> Setup:
    """22: trained on a few images until it knew them by heart."""
    return replace(setup, history="gap")


def against_a_large_stem(setup: Setup) -> Setup:
    """23: the opponent from scratch is an ImageNet network, which has pooled small images to a single position."""
    return replace(setup, scratch="made-for-large-images")


FAULTS: tuple[Fault, ...] = (
    Fault(1, "without-resize", without_resize, lambda place: place.canvas < 0.75 * place.size),
    Fault(1, "shrunk", shrunk),
    Fault(2, "framed-black", framed_black, lambda place: place.canvas < place.size),
    Fault(2, "framed-zero", framed_zero, lambda place: place.canvas < place.size),
    Fault(3, "not-normalized", not_normalized),
    Fault(3, "raw", raw),
    Fault(3, "imagenet-numbers", with_imagenet_numbers, lambda place: not place.small),
    Fault(3, "only-centred", only_centred),
    Fault(4, "divided-twice", divided_twice),
    Fault(4, "normalized-twice", normalized_twice),
    Fault(5, "reversed-channels", reversed_channels, lambda place: place.coloured),
    Fault(
        6,
        "serves-another-resize",
        serves_another_resize,
        lambda place: place.canvas != place.size and place.style != "wrapper",  # a wrapper resizes in the model
    ),
    Fault(6, "serves-another-range", serves_another_range),
    Fault(7, "nearest", nearest, lambda place: place.canvas != place.size),
    Fault(8, "left-training", left_training, lambda place: not place.folded),
    Fault(9, "statistics-of-noise", statistics_of_noise, lambda place: not place.folded),
    Fault(10, "statistics-as-published", statistics_as_published, lambda place: place.data == "fog"),
    Fault(11, "rate-too-high", rate_too_high),
    Fault(12, "optimizer-before-thawing", optimizer_before_thawing),
    Fault(13, "never-loaded", never_loaded),
    Fault(13, "half-loaded", half_loaded),
    Fault(14, "softmax-twice", softmax_twice),
    Fault(15, "head-in-another-order", head_in_another_order),
    Fault(15, "predictions-in-another-order", predictions_in_another_order),
    Fault(16, "copied-images", copied_images),
    Fault(19, "cached-augmentation", cached_augmentation),
    Fault(20, "unrelated-labels", unrelated_labels),
    Fault(20, "pictures-of-noise", pictures_of_noise),
    Fault(21, "one-step", one_step),
    Fault(22, "overfitted", overfitted, lambda place: place.data != "digits"),
    # Added on 2026-11-27, at the end: the places of those above stay as they were.
    Fault(15, "predictions-of-other-images", predictions_of_other_images),
    Fault(17, "stopped-by-test", stopped_by_test),
    Fault(
        18,
        "seen-in-pretraining",
        seen_in_pretraining,
        lambda place: place.backbone == _SMALLEST and place.canvas >= 32,
    ),
    Fault(23, "against-a-large-stem", against_a_large_stem, lambda place: place.canvas == 32),
)


STANDARDISED_ALONE = Fault(3, "standardised-alone", standardised_alone)
"""Planted in networks that headstart does not know, beside the faults above."""

WITHOUT_GRADIENTS = Fault(12, "without-gradients", without_gradients)
ROUGHLY_TUNED = Fault(11, "roughly-tuned", roughly_tuned)
"""Both are planted alone, after all others, so that their places and parts stay as they were."""


def image_set(name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> ImageSet:
    """Images in memory as a set without parts of its own."""
    names = tuple(f"class {number}" for number in range(int(labels.max()) + 1))
    return ImageSet(
        name=name,
        source="arrays",
        images=images,
        labels=labels,
        class_names=names,
        official_part=None,
        fingerprint=set_fingerprint(images, labels, names, None),
        image_hashes=image_hashes(images),
    )


def correct_pixels(size: int, interpolation: str, norm: Normalization, style: str) -> Pixels:
    """The correct preprocessing; in the style `inside` the model normalizes."""
    if style == "inside":
        return Pixels(size, interpolation, outer=(), inner=(norm,))
    return Pixels(size, interpolation, outer=(norm,))
