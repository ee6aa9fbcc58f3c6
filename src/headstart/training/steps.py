"""One step of a training: forward, loss, backward, optimizer, average of the weights.

A GPU computes a step on small images in less time than Python needs to ask for its few hundred operations. There the first steps
run as written, then one is recorded as a CUDA graph and replayed for every batch of the same size: the same operations on the same
memory, asked for at once.
"""

import logging
from dataclasses import dataclass

import torch
from torch import nn

from headstart.records import Recipe
from headstart.training.arithmetic import Arithmetic
from headstart.training.averaging import WeightAverage
from headstart.training.criterion import Criterion
from headstart.training.muon import Muon

_WRITTEN_STEPS = (
    3  # before one is recorded, as PyTorch's notes on CUDA graphs advise: what is made at first use exists by then
)

SMALLEST_MICRO_BATCH = 3
"""With fewer, a part of a batch could be a single image, of which batch norm has no statistics."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """Mixup (Zhang et al. 2018): each image's share in the batch's inputs, and the places in the batch of its partners."""

    share: float
    partners: torch.Tensor


class Step:
    """A step of a training, as written.

    Args:
        network: in training mode when the step is called, on the device.
        criterion: the loss.
        optimizer: over the network's trainable parameters.
        arithmetic: of the device.
        average: of the weights, if one is kept.
        micro_batch: of the recipe.
    """

    warm_up = 1
    """After so many steps, one takes as long as any other."""

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        arithmetic: Arithmetic,
        average: WeightAverage | None,
        micro_batch: int = 0,
    ) -> None:
        self._network = network
        self._criterion = criterion
        self._optimizer = optimizer
        self._arithmetic = arithmetic
        self._average = average
        self._micro_batch = micro_batch

    def set_rates(self, factor: float) -> None:
        """Set every group's learning rate to `factor` times its initial one."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def __call__(
        self, inputs: torch.Tensor, positions: torch.Tensor, mixture: Mixture | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one step.

        Args:
            inputs: `(B, 3, S, S) float32`, mixed already where there is a mixture.
            positions: `(B,) int64`, of the images in train, on the device.
            mixture: whose labels count, too.

        Returns:
            The mean loss and the number of hits, scalars on the device.
        """
        if self._average is not None:
            self._average.advance()
        return self._computed(inputs, positions, mixture)

    def _computed(
        self, inputs: torch.Tensor, positions: torch.Tensor, mixture: Mixture | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything that happens on the device."""
        criterion = self._criterion
        partners = None if mixture is None else positions[mixture.partners]
        mean_loss = torch.zeros((), device=inputs.device)
        hits = torch.zeros((), dtype=torch.int64, device=inputs.device)
        self._optimizer.zero_grad(set_to_none=True)
        for part in even_parts(len(inputs), self._micro_batch):
            with self._arithmetic.mixed():
                outputs = self._network(inputs[part])
            outputs = outputs.float()
            loss = criterion(outputs, positions[part])
            if mixture is not None and partners is not None:
                loss = mixture.share * loss + (1 - mixture.share) * criterion(outputs, partners[part])
            loss = loss * (len(outputs) / len(inputs))
            loss.backward()  # type: ignore[no-untyped-call]
            mean_loss, hits = mean_loss + loss.detach(), hits + criterion.hits(outputs, positions[part])
        self._optimizer.step()
        if self._average is not None:
            self._average.take_in(self._network)
        return mean_loss, hits


class RecordedStep(Step):
    """A step that is recorded on a GPU once, and replayed where a batch has the recorded size; all others run as written.

    What the recording holds is what the network, the optimizer's groups and the loss were then: of what may change later, it follows the
    rates alone.
    """

    warm_up = _WRITTEN_STEPS + 1

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        arithmetic: Arithmetic,
        average: WeightAverage | None,
        micro_batch: int = 0,
    ) -> None:
        super().__init__(network, criterion, optimizer, arithmetic, average, micro_batch)
        self._device = next(self._network.parameters()).device
        self._beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._written, self._largest = 0, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._can_be_recorded = True
        self._inputs, self._positions = torch.empty(0), torch.empty(0)
        self._loss, self._hits = torch.empty(0), torch.empty(0)
        for group in self._optimizer.param_groups:
            group["lr"] = torch.tensor(group["initial_lr"], dtype=torch.float32, device=self._device)

    def set_rates(self, factor: float) -> None:
        """Set them in the memory that a recorded step reads them from."""
        for group in self._optimizer.param_groups:
            group["lr"].fill_(group["initial_lr"] * factor)

    def __call__(
        self, inputs: torch.Tensor, positions: torch.Tensor, mixture: Mixture | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._average is not None:
            self._average.advance()
        assert mixture is None  # see `make_step`
        # The largest is the usual one: an epoch's last batch may be smaller.
        self._largest = max(self._largest, len(inputs))
        is_usual = len(inputs) == self._largest
        with torch.cuda.device(self._device):
            if self._can_be_recorded and self._graph is None and self._written >= _WRITTEN_STEPS and is_usual:
                self._record(inputs, positions)
            if self._graph is None or inputs.shape != self._inputs.shape:
                self._written += 1
                return self._apart(inputs, positions)
            self._inputs.copy_(inputs)
            self._positions.copy_(positions)
            self._graph.replay()
            return self._loss.clone(), self._hits.clone()

    def _apart(self, inputs: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As written, in a stream of its own: what autograd makes there may be recorded later."""
        now = torch.cuda.current_stream()
        self._beside.wait_stream(now)
        with torch.cuda.stream(self._beside):
            result = self._computed(inputs, positions)
        now.wait_stream(self._beside)
        return result

    def _record(self, inputs: torch.Tensor, positions: torch.Tensor) -> None:
        self._inputs, self._positions = inputs.clone(), positions.clone()
        graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self._beside):  # nothing is computed in here
                self._loss, self._hits = self._computed(self._inputs, self._positions)
        except RuntimeError as error:  # a network that waits for the GPU in between, or too little memory
            torch.cuda.set_stream(now)
            self._can_be_recorded = False
            _log.warning("A training step could not be recorded on the GPU; steps run as written. %s", error)
        else:
            self._graph = graph


def make_step(
    recipe: Recipe,
    network: nn.Module,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    arithmetic: Arithmetic,
    average: WeightAverage | None,
) -> Step:
    """A recorded step where the device and the training allow it, else one as written.

    A training is not recorded if it mixes images anew in each batch, or if the user's own callbacks may change it.

    Args:
        recipe: of the training.
        network, criterion, optimizer, arithmetic, average: as for `Step`.
    """
    on_gpu = arithmetic.device_type == "cuda" and isinstance(optimizer, Muon)
    is_fixed = not recipe.mixup and not recipe.callbacks and not _draws_numbers(network)
    kind = RecordedStep if on_gpu and is_fixed else Step
    return kind(network, criterion, optimizer, arithmetic, average, recipe.micro_batch)


def even_parts(count: int, largest: int) -> list[slice]:
    """Cut so many images into parts whose sizes differ by at most one, none larger than asked; 0 cuts nothing.

    >>> even_parts(10, 4)
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    >>> even_parts(10, 0)
    [slice(0, 10, None)]
    """
    parts = -(-count // largest) if largest else 1
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def _draws_numbers(network: nn.Module) -> bool:
    """Whether it drops activations or whole branches (timm's `drop_prob`) at random, drawn anew for each epoch."""
    shares = (
        getattr(layer, "p" if isinstance(layer, nn.modules.dropout._DropoutNd) else "drop_prob", 0.0)
        for layer in network.modules()
    )
    return any(share for share in shares)
