"""What a network costs: parameters, multiply-accumulates, latency, throughput."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from headstart.environment import wait_for
from headstart.models.looks import sure_at_first

_LATENCY_RUNS, _THROUGHPUT_RUNS, _THROUGHPUT_BATCH = (
    20,
    3,
    64,
)  # chosen: under a second for the smaller networks used here
_ENOUGH_SECONDS = 1.0  # chosen: a pass of a larger network takes so long that others hardly disturb it
_FREE = ("view", "reshape", "expand", "permute", "transpose", "detach", "clone", "copy", "empty", "zeros", "ones")
_FREE_TOO = ("slice", "select", "squeeze", "unsqueeze", "alias", "_to_copy", "t.", "flatten", "fill", "as_strided")


@dataclass(frozen=True)
class Complexity:
    """Size of a network: parameters, MACs of one image's forward pass, and the operators that were not counted."""

    parameters: int
    macs: int
    macs_uncounted: tuple[str, ...]


@dataclass(frozen=True)
class Speed:
    """`latency_ms` of one image, `images_per_second` in batches of 64, both forward passes of PyTorch."""

    latency_ms: float
    images_per_second: float


class _OperatorNames(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the name of every operator that has no FLOP formula and moves more than memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if func.overloadpacket not in flop_registry and not name.startswith(_FREE + _FREE_TOO):
            self.names.add(name.split(".")[0])
        return func(*args, **(kwargs or {}))


def complexity(network: nn.Module, input_size: int) -> Complexity:
    """Count parameters and multiply-accumulates.

    Args:
        network: on the CPU or a GPU; it is run once in evaluation mode with one black image, whose answer counts as sure (`Looks`).
        input_size: side of the image in pixels.

    Returns:
        MACs are half of `torch.utils.flop_counter`'s FLOPs (convolutions and matrix products); what it has no formula
        for (batch norm, activations, pooling) is named in `macs_uncounted`.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    names = _OperatorNames()
    with torch.no_grad(), sure_at_first(network), FlopCounterMode(display=False) as counter, names:
        network.eval()(_black_images(network, 1, input_size))
    return Complexity(parameters, counter.get_total_flops() // 2, tuple(sorted(names.names)))


def speed(network: nn.Module, input_size: int) -> Speed:
    """Time forward passes with sure answers (`Looks`): the median of 20 with one image, and the best of 3 with 64 images.

    Of both there are fewer where they have taken a second by then.
    """
    network.eval()
    one = _black_images(network, 1, input_size)
    many = _black_images(network, _THROUGHPUT_BATCH, input_size)
    with torch.inference_mode(), sure_at_first(network):
        latency = statistics.median(_seconds(lambda: network(one), _LATENCY_RUNS, one.device))
        batch = min(_seconds(lambda: network(many), _THROUGHPUT_RUNS, many.device))
    return Speed(latency * 1000, _THROUGHPUT_BATCH / batch)


def _black_images(network: nn.Module, count: int, input_size: int) -> torch.Tensor:
    tensor = next((t for t in (*network.parameters(), *network.buffers())), torch.zeros(()))
    images = torch.zeros(count, 3, input_size, input_size, device=tensor.device)
    return images.contiguous(memory_format=torch.channels_last)


def _seconds(call: Callable[[], Any], runs: int, device: torch.device) -> list[float]:
    call()  # warm-up: the first call chooses kernels
    wait_for(device)
    durations: list[float] = []
    while len(durations) < runs and sum(durations) < _ENOUGH_SECONDS:
        started = time.perf_counter()
        call()
        wait_for(device)
        durations.append(time.perf_counter() - started)
    return durations
