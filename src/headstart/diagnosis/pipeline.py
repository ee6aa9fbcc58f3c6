"""A pipeline made again from what was measured of it, so that each fault can be present or repaired on its own."""

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from headstart.analysis.diagnosis import Cell
from headstart.data.preprocessing import apply_preprocessing
from headstart.diagnosis.arrival import Arrival, Standardised, sample_images, standardise
from headstart.diagnosis.modules import (
    copied,
    fed_at_first_convolution,
    in_batches,
    in_mode,
    norm_layers,
    one_tensor,
    pooled,
)
from headstart.diagnosis.published import STATISTICS
from headstart.diagnosis.subject import Subject
from headstart.models.backbones import seeded_torch
from headstart.randomness import generator
from headstart.records import Images, ImageSet, Indices, Preprocessing
from headstart.training.frozen import choose_forward

Array = npt.NDArray[np.float32]
Forward = Callable[[torch.Tensor], Array]

_BATCH = 64
_RE_ESTIMATED_BATCHES = 10
_COMPARED_IMAGES = (
    8  # chosen: two pipelines that give equal tensors of so many images, and of coloured patches, are one
)

_WORTH_AN_EXPORT = 5e10
"""Multiply-adds to come from which ONNX Runtime pays for its export (about two seconds): MobileNetV2 on 500 images of 128 px, which
take three seconds in PyTorch and one in ONNX Runtime (measured on one core)."""


@dataclass(frozen=True)
class Repairs:
    """What the repaired pipeline looks like: its pixels, for causes 1 to 5 and 7; the rest follows from the subject.

    `resized` are the causes (1, 2) by whose repair alone the interpolation changes: with all of them present it is as it was.
    `ordered` says whether the channels are put into the contract's order; otherwise they come in the order that they arrive in.
    """

    preprocessing: Preprocessing
    standardised: Standardised = "none"
    resized: frozenset[int] = frozenset()
    ordered: bool = False


@dataclass(frozen=True)
class _Variant:
    """What makes two cells one and the same pipeline: the network's state and mode, and the pixels it gets."""

    restored: tuple[bool, bool]  # the statistics, all weights
    re_estimated: bool
    training: bool
    size: int
    pixels: str


class Pipeline:
    """A subject's pipeline with any set of its faults; networks and engines are made once and kept.

    Where nobody understands what arrives, its owner's own preprocessing makes the inputs, whatever the cell: of the faults those of the
    network alone can then be taken away.

    Args:
        subject, arrival: as it is.
        repairs: how it should be.
        factors: the suspected causes.
        images: what goes through it.
    """

    def __init__(
        self, subject: Subject, arrival: Arrival, repairs: Repairs, factors: Iterable[int], images: ImageSet
    ) -> None:
        self.subject, self.arrival, self.repairs, self.images = subject, arrival, repairs, images
        self.factors = frozenset(factors)
        self.own_pixels = not arrival.is_understood
        self._networks: dict[tuple[bool, bool], nn.Module] = {}
        self._forwards: dict[_Variant, Forward] = {}
        self._to_come: Counter[tuple[tuple[bool, bool], int]] = Counter()

    def expect(self, cells: Iterable[Cell], images: int) -> None:
        """Say what will be asked for: an engine that is slow to make may then be worth it."""
        for variant in {self.variant(cell) for cell in cells}:
            if not (variant.training or variant.re_estimated):
                self._to_come[variant.restored, variant.size] += images

    def with_repairs(self, repairs: Repairs) -> "Pipeline":
        """The same with other pixels as the repaired ones; networks and engines are shared."""
        other = copy.copy(self)
        other.repairs = repairs
        return other

    def variant(self, cell: Cell) -> _Variant:
        """What tells a cell's pipeline from others: two cells with the same have the same features."""
        few = self.pixels(cell, sample_images(self.images.images, _COMPARED_IMAGES))
        return _Variant(
            restored=(self._repaired(9, cell), self._repaired(13, cell)),
            re_estimated=self._repaired(10, cell),
            training=self._trains(cell),
            size=few.shape[2],
            pixels=hashlib.sha256(few.contiguous().numpy().tobytes()).hexdigest(),
        )

    def pixels(self, cell: Cell, images: Images) -> torch.Tensor:
        """What the first convolution gets when exactly these faults are present, `(B, 3, S, S) float32`; or what the network gets from its
        owner."""
        if self.own_pixels:
            return self.subject.prepare(images)
        return pixels_with(self.arrival, self.repairs, cell, images)

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What a cell does, for the record: its pixels, where its weights and its batch statistics come from, the network's mode."""
        restored = self._repaired(13, cell)
        statistics = "published" if restored or self._repaired(9, cell) else "own"
        return {
            **({"pixels": "own"} if self.own_pixels else self._pixel_settings(cell)),
            "weights": "published" if restored else "own",
            "statistics": "estimated anew" if self._repaired(10, cell) else statistics,
            "training_mode": self._trains(cell),
        }

    def _pixel_settings(self, cell: Cell) -> dict[str, Any]:
        contract = contract_with(self.arrival, self.repairs, cell)
        content = _content(self.arrival, contract, cell)
        aliased = _is_aliased(self.arrival, cell, round(content / self.arrival.crop), self.images.canvas)
        shuffled = _shuffled_with(self.arrival, self.repairs, cell) is not None
        return {
            **asdict(contract),
            "channel_order": self.arrival.order if shuffled else contract.channel_order,
            "interpolation": self.arrival.interpolation if aliased else contract.interpolation,
            "content": content,
            "crop": self.arrival.crop,
            "standardised": _standardised_with(self.arrival, self.repairs, cell),
            "gray": self.arrival.order == "gray",
        }

    def network(self, cell: Cell) -> nn.Module:
        """The subject's network with the weights and statistics of a cell."""
        key = (self._repaired(9, cell), self._repaired(13, cell))
        if key not in self._networks:
            self._networks[key] = network_with(self.subject, cell, self.factors)
        return self._networks[key]

    def features(self, cell: Cell, part: Indices, own_images: Indices | None = None) -> Array:
        """Features of a part's images, `(n, D) float32`, with the faults of a cell present.

        `own_images` are those that batch statistics are re-estimated on, where a repair asks for it; `None` takes the part.
        """
        variant = self.variant(cell)
        module = self.network(cell)
        own = part if own_images is None else own_images
        if variant.re_estimated:
            module = copied(module)
            re_estimate(self._fed(module), lambda some: self.pixels(cell, self.images.images[some]), own)
        elif not variant.training:
            forward = self._forward(variant, cell)
            return self._through(forward, cell, part, _BATCH)
        with in_mode(module, training=variant.training):
            batch = self.subject.batch if variant.training else _BATCH
            return self._through(torch_forward(self._fed(module)), cell, part, batch)

    def features_through(self, module: nn.Module, cell: Cell, part: Indices) -> Array:
        """Features of another network in evaluation mode, with a cell's pixels."""
        return self._through(self._quickest(module.eval(), cell, len(part)), cell, part, _BATCH)

    def random_network(self, cell: Cell, calibrating: Indices) -> nn.Module:
        """The network of a cell with random weights, its batch statistics from these images."""
        drawn = with_random_weights(self.network(cell), 0)
        inputs = self.pixels(cell, self.images.images[calibrating])
        re_estimate(self._fed(drawn.eval()), lambda part: inputs[torch.from_numpy(part)], np.arange(len(inputs)))
        return drawn

    def _fed(self, module: nn.Module) -> "Fed":
        fed = Fed(module, self.subject, at_first_convolution=not self.own_pixels)
        fed.training = module.training
        return fed

    def _through(self, forward: Forward, cell: Cell, part: Indices, batch: int) -> Array:
        # In training mode a batch norm's output depends on its neighbours: they are drawn, not sorted by class.
        shuffled = generator(0, "diagnosis", "order").permutation(len(part))
        rows: Array | None = None
        for some in in_batches(len(shuffled), batch):
            places = shuffled[some]
            found = forward(self.pixels(cell, self.images.images[part[places]]))
            if rows is None:
                rows = np.empty((len(part), found.shape[1]), np.float32)
            rows[places] = found
        assert rows is not None
        return np.nan_to_num(rows, posinf=0.0, neginf=0.0)

    def _forward(self, variant: _Variant, cell: Cell) -> Forward:
        known = replace(variant, pixels="")  # an engine serves all pixels of its size
        if known not in self._forwards:
            count = self._to_come[variant.restored, variant.size]
            self._forwards[known] = self._quickest(self.network(cell), cell, count)
        return self._forwards[known]

    def _quickest(self, module: nn.Module, cell: Cell, images_to_come: int) -> Forward:
        """PyTorch, or ONNX Runtime where so many images are to come that its export pays."""
        example = self.pixels(cell, self.images.images[:4])
        fed = self._fed(module).eval()
        # What stands before the first convolution of somebody else's network may not be exportable.
        if self.own_pixels or images_to_come * multiply_adds(fed, example[:1]) < _WORTH_AN_EXPORT:
            return torch_forward(fed)
        return choose_forward(fed, example, torch.device("cpu"))[0]

    def _trains(self, cell: Cell) -> bool:
        """Whether the network is run in training mode."""
        return 8 in cell or (self.subject.train_mode and 8 not in self.factors)

    def _repaired(self, cause: int, cell: Cell) -> bool:
        return cause in self.factors and cause not in cell


class Fed(nn.Module):
    """From inputs `(B, C, H, W)` to a subject's features `(B, D)`, in a form that can be exported.

    Args:
        module: with its weights.
        subject: whose it is.
        at_first_convolution: whether the inputs are the first convolution's, whatever stands before it, or the module's own.
    """

    def __init__(self, module: nn.Module, subject: Subject, *, at_first_convolution: bool = True) -> None:
        super().__init__()
        self.module, self.subject, self.at_first_convolution = module, subject, at_first_convolution

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the module."""
        with self.runs() as run:
            return pooled(features_of(run, self.subject, self.module, inputs))

    def runs(self) -> AbstractContextManager[Callable[[torch.Tensor], torch.Tensor]]:
        """The module as a function of its inputs."""
        return fed_at_first_convolution(self.module) if self.at_first_convolution else nullcontext(self.module)


def torch_forward(fed: Fed) -> Forward:
    """Run a module in PyTorch, in the mode that it is in."""

    def forward(inputs: torch.Tensor) -> Array:
        with torch.inference_mode():
            found: Array = fed(inputs).float().numpy()
        return found

    return forward


def multiply_adds(fed: Fed, example: torch.Tensor) -> float:
    """Of one image, in its convolutions and matrix products."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        fed(example)
    return counter.get_total_flops() / 2 / len(example)


def contract_with(arrival: Arrival, repairs: Repairs, cell: Cell) -> Preprocessing:
    """The contract of the pixels when exactly these faults are present."""
    ours, contract = arrival.preprocessing(), repairs.preprocessing
    if 1 in cell:
        contract = replace(contract, input_size=arrival.size)
    if 7 in cell or (repairs.resized and repairs.resized <= cell):
        contract = replace(contract, interpolation=ours.interpolation)
    if 3 in cell or 4 in cell:
        contract = replace(contract, mean=ours.mean, std=ours.std)
    if 5 in cell:
        contract = replace(contract, channel_order=ours.channel_order)
    return contract


def _content(arrival: Arrival, contract: Preprocessing, cell: Cell) -> int:
    """The side that the image fills of its input."""
    size = contract.input_size
    return max(round(size * arrival.content / arrival.size), 1) if 2 in cell else size


def _is_aliased(arrival: Arrival, cell: Cell, side: int, canvas: int) -> bool:
    """Whether images of this canvas are shrunk to that side without smoothing first."""
    return 7 in cell and arrival.interpolation == "bilinear-aliased" and side < canvas


def _shuffled_with(arrival: Arrival, repairs: Repairs, cell: Cell) -> list[int] | None:
    """Which pixel channels are shown, where their order is neither RGB nor BGR and these faults leave it so."""
    return None if repairs.ordered and 5 not in cell else arrival.shuffled


def _standardised_with(arrival: Arrival, repairs: Repairs, cell: Cell) -> Standardised:
    return arrival.standardised if cell & {3, 4} else repairs.standardised


def pixels_with(arrival: Arrival, repairs: Repairs, cell: Cell, images: Images) -> torch.Tensor:
    """What the first convolution gets when exactly these faults are present: `(B, 3, S, S) float32`."""
    ours, faulty = arrival.preprocessing(), contract_with(arrival, repairs, cell)
    if arrival.order == "gray":  # colour is thrown away, with and without the faults
        images = _in_gray(images)
    if (shuffled := _shuffled_with(arrival, repairs, cell)) is not None:
        images = images[..., shuffled]
    size, content = faulty.input_size, _content(arrival, faulty, cell)
    whole = round(content / arrival.crop)  # of which the centre is seen, with and without the faults
    if _is_aliased(arrival, cell, whole, images.shape[1]):
        images = _aliased(images, whole)
    standardised = _standardised_with(arrival, repairs, cell)
    inner: torch.Tensor = functional.center_crop(
        _scaled(images, replace(faulty, input_size=whole), standardised), [content, content]
    )
    if content == size:
        return inner.contiguous(memory_format=torch.channels_last)
    before = (size - content) // 2
    after = size - content - before
    # The frame's value was seen in the pipeline's own range; as a pixel it means the same in another one.
    pixel = arrival.border * ours.std[0] + ours.mean[0]
    border = (pixel - faulty.mean[0]) / faulty.std[0]
    return nn.functional.pad(inner, (before, after, before, after), value=border).contiguous(
        memory_format=torch.channels_last
    )


def _scaled(images: Images, preprocessing: Preprocessing, standardised: Standardised) -> torch.Tensor:
    """What a contract makes of images, each of them standardised first where that is asked for."""
    if standardised == "none":
        return apply_preprocessing(images, preprocessing)
    plain = apply_preprocessing(images, replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    own = torch.from_numpy(standardise(plain.double().numpy(), standardised))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return ((own - mean) / std).float().contiguous(memory_format=torch.channels_last)


def network_with(subject: Subject, cell: Cell, factors: Iterable[int]) -> nn.Module:
    """The subject's network, its weights or statistics restored unless the cell keeps them as they are."""
    module = copied(subject.module).to(memory_format=torch.channels_last)
    published = subject.published_tensors
    state = module.state_dict()
    for name, value in published.items():
        statistic = name.endswith(STATISTICS)
        if (13 in factors and 13 not in cell) or (9 in factors and 9 not in cell and statistic):
            state[name].copy_(value)
    return module.eval()


def network_before_tuning(subject: Subject) -> nn.Module:
    """The subject's network with all of its published weights, in evaluation mode."""
    return network_with(subject, frozenset(), (13,))


def with_random_weights(module: nn.Module, seed: int) -> nn.Module:
    """The control: the same structure with weights drawn anew."""
    drawn = copied(module)
    with seeded_torch(seed):
        for layer in drawn.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()  # type: ignore[operator]
    return drawn


def re_estimate(fed: Fed, prepared: Callable[[Indices], torch.Tensor], pool: Indices) -> None:
    """Give batch norm the statistics of these images (Li et al. 2017, AdaBN), drawn from all of them: many lie sorted by class."""
    module = fed.module
    drawn = pool[generator(0, "diagnosis", "statistics").permutation(len(pool))[: _RE_ESTIMATED_BATCHES * _BATCH]]
    layers = norm_layers(module)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    with torch.inference_mode(), fed.runs() as run:
        for some in in_batches(len(drawn), _BATCH):
            run(prepared(drawn[some]))
    module.eval()


def features_of(
    run: Callable[[torch.Tensor], torch.Tensor], subject: Subject, module: nn.Module, inputs: torch.Tensor
) -> torch.Tensor:
    """What a module says before its own classifier, if it has one."""
    if subject.classifier is None:
        return one_tensor(run(inputs))
    seen: list[torch.Tensor] = []
    layer = module.get_submodule(subject.classifier)
    handle = layer.register_forward_pre_hook(lambda linear, given: seen.append(given[0]))
    try:
        run(inputs)
    finally:
        handle.remove()
    return seen[0]


def _in_gray(images: Images) -> Images:
    """Three equal channels, with the weights of ITU-R BT.601 that Pillow, torchvision and TensorFlow take."""
    gray = np.rint(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3)


def _aliased(images: Images, side: int) -> Images:
    """Shrunk without smoothing first, as some libraries do."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    small = functional.resize(pixels, [side, side], interpolation=InterpolationMode.BILINEAR, antialias=False)
    result: Images = small.permute(0, 2, 3, 1).numpy()
    return result
