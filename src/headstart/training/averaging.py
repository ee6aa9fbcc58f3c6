"""Weight averaging: a running mean of the weights, which generalises better than the last step's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

_WARM_UP = 10  # the first steps count more, so that the mean does not remember the random start


class WeightAverage:
    """Exponential moving average of all floating-point weights and buffers (Polyak and Juditsky 1992; Izmailov et al. 2018).

    After step `t` it is `d * average + (1 - d) * weights` with `d = min(decay, (1 + t) / (10 + t))`.

    Args:
        network: its present weights are the start.
        decay: share of the old average, below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}
        # A tensor where the weights are, so that a recorded step reads what it has become.
        self._share = torch.zeros((), device=next(iter(self.state.values())).device)

    def advance(self) -> None:
        """Count a step and find the share of the next weights; outside of a recorded step (`steps.py`)."""
        self.steps += 1
        self._share.fill_(1 - min(self.decay, (1 + self.steps) / (_WARM_UP + self.steps)))

    @torch.no_grad()
    def take_in(self, network: nn.Module) -> None:
        """Move towards the network's present weights."""
        now = network.state_dict()
        moving = [name for name, value in now.items() if value.is_floating_point()]
        averages = [self.state[name] for name in moving]
        torch._foreach_lerp_(averages, [now[name] for name in moving], [self._share] * len(moving))
        for name in now.keys() - moving:
            self.state[name].copy_(now[name])

    def restore(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from a saved average."""
        self.steps = steps
        for name, value in state.items():
            self.state[name].copy_(value)

    @contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """Give the network the averaged weights inside the block, and its own back afterwards."""
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.state)
        try:
            yield
        finally:
            network.load_state_dict(own)
