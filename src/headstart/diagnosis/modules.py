"""Somebody else's PyTorch modules: copied, run in steps, put into a mode and back."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from headstart.errors import UsageError

_Norm = nn.modules.batchnorm._BatchNorm


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """A module's convolutions as they are registered, which need not be the order in which they run.

    Raises:
        UsageError: it has none.
    """
    found = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    if not found and (hidden := _unregistered(module)):
        raise UsageError(
            f"The network keeps layers in a plain list or dictionary ({hidden}). PyTorch does not know them: model.eval(), "
            "model.to() and model.parameters() pass them by, so their batch norm stays in training mode. Keep them as an attribute "
            "or in a torch.nn.ModuleList, and diagnose again."
        )
    if not found:
        raise UsageError("The network has no convolution; headstart diagnoses convolutional backbones.")
    return found


def _unregistered(module: nn.Module) -> str:
    """Name of an attribute in which layers lie that are not registered; empty if there is none."""
    for owner in module.modules():
        for name, value in vars(owner).items():
            inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if name != "_modules" and any(isinstance(one, nn.Module) for one in inside):
                return f"{type(owner).__name__}.{name}"
    return ""


@contextmanager
def fed_at_first_convolution(module: nn.Module) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Run a module with its first convolution fed directly, whatever stands before it (an inner normalisation, a resize).

    The first is the one that runs first: what is registered before it may run later, or never.

    Yields:
        A function from the convolution's input `(B, 3, H, W)` to the module's output.
    """
    pending: list[torch.Tensor] = []

    def replace(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not pending:
            return None
        fed = pending.pop()
        # A network of gray images: what we feed has three channels, each of them the picture.
        return (fed.mean(1, keepdim=True) if layer.in_channels == 1 and fed.shape[1] == 3 else fed,)

    handles = [layer.register_forward_pre_hook(replace) for layer in convolutions(module)]

    def run(inputs: torch.Tensor) -> torch.Tensor:
        pending[:] = [inputs]
        output: torch.Tensor = module(inputs.clone())  # what stands before the convolution may work in place
        return output

    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()


def find_classifier(module: nn.Module, outputs: torch.Tensor, classes: int) -> str | None:
    """Name of the module's own last linear layer, if its outputs have one number for each class, or one for two classes.

    Where there is none, a 1x1 convolution whose scores are averaged over positions, as in SqueezeNet, is such a layer, too.
    """
    if outputs.ndim != 2 or outputs.shape[1] not in ((classes, 1) if classes == 2 else (classes,)):
        return None
    wanted = outputs.shape[1]
    layers = list(module.named_modules())
    linear = [name for name, layer in layers if isinstance(layer, nn.Linear) and layer.out_features == wanted]
    pointwise = [
        name
        for name, layer in layers
        if isinstance(layer, nn.Conv2d) and layer.out_channels == wanted and layer.kernel_size == (1, 1)
    ]
    found = linear or pointwise  # a small 1x1 convolution may also stand in the middle of a network
    return found[-1] if found else None


def one_tensor(outputs: Any) -> torch.Tensor:
    """The tensor that a network's answer is about: the answer itself, its `logits`, or the first tensor in it.

    Raises:
        UsageError: there is none.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    inside = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, tuple | list) else ()
    found = next((one for one in (logits, *inside) if isinstance(one, torch.Tensor)), None)
    if found is None:
        raise UsageError(
            f"The network returned {type(outputs).__name__}, and there is no tensor in it. Wrap it so that it returns one."
        )
    return found


def in_batches(count: int, size: int) -> list[slice]:
    """Where batches begin and end; a last one of a single image joins the one before it, since batch norm needs two."""
    firsts = list(range(0, count, size))
    if len(firsts) > 1 and count - firsts[-1] == 1:
        firsts.pop()
    return [slice(first, end) for first, end in pairwise([*firsts, count])]


def pooled(features: torch.Tensor) -> torch.Tensor:
    """`(B, D)` features: maps are averaged over their positions, anything else is flattened."""
    return features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)


def copied(module: nn.Module) -> nn.Module:
    """A module that can be changed without changing its owner's.

    A tensor that a training step left in it (`self.features = x`) is copied without its gradient's past, which nothing can copy.

    Raises:
        UsageError: it holds something else that cannot be copied.
    """
    computed = {
        id(tensor): tensor.detach().clone()
        for layer in module.modules()
        for tensor in non_leaves(list(vars(layer).values()))
    }
    try:
        return copy.deepcopy(module, computed)
    except Exception as error:  # somebody else's network may hold anything
        raise UsageError(
            f"{type(module).__name__} cannot be copied (copy.deepcopy), and headstart changes nothing of yours: "
            f"{type(error).__name__}: {error}. Build the network anew, load its weights with load_state_dict, and hand that over."
        ) from error


def non_leaves(value: Any) -> list[torch.Tensor]:
    """The tensors in a value, its lists, tuples and dictionaries that came out of a computation with gradients."""
    if isinstance(value, torch.Tensor):
        return [] if value.is_leaf else [value]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for one in inside for tensor in non_leaves(one)]


def norm_layers(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch-norm layers that keep statistics."""
    return [layer for layer in module.modules() if isinstance(layer, _Norm) and layer.track_running_stats]


def batch_bound_layers(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch-norm layers that keep no statistics, and take each batch's own in evaluation mode, too."""
    return [layer for layer in module.modules() if isinstance(layer, _Norm) and not layer.track_running_stats]


@contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside the block; stored statistics do not move, and everything is put back afterwards."""
    modes = {layer: layer.training for layer in module.modules()}
    momenta = {layer: layer.momentum for layer in norm_layers(module)}
    counts = [
        (count, count.clone()) for layer in momenta if isinstance(count := layer.num_batches_tracked, torch.Tensor)
    ]
    for norm in momenta:
        norm.momentum = 0.0
    module.train(training)
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for count, before in counts:
            count.copy_(before)
        for layer, mode in modes.items():
            layer.training = mode
