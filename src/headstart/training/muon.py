"""Muon: steps of equal length in every direction of a weight matrix, for the convolutions of a network.

The momentum of a kernel is replaced by the nearest semi-orthogonal matrix, found by a few Newton-Schulz steps (Jordan et al.
2024, "Muon: an optimizer for hidden layers in neural networks"), so that rare directions are learned as fast as common ones.
PyTorch has a Muon for plain matrices only; here a convolution's kernel is one after flattening.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration (Jordan et al. 2024)
_ITERATIONS = 5
_SMALL = 1e-7
_BETAS = (0.9, 0.999)  # of Adam (Kingma and Ba 2015) for what is no kernel
_ADAM_SMALL = 1e-8
_ADAM_SHARE = 0.1
"""Rate of Adam's parameters relative to Muon's: 3e-3 beside 0.03, each good on its own on Tiny ImageNet (docs/log.md)."""


class Muon(torch.optim.Optimizer):
    """Muon for convolution kernels, AdamW for everything else (vectors, the first convolution, linear heads).

    A kernel keeps its length, which gives the rate the same meaning in every layer: before every step its root-mean-square row
    length is brought to 1. The batch norm behind it makes that harmless, unless its statistics are frozen.

    Args:
        groups: from `muon_groups`. Nothing here waits for a GPU or leaves it, so that steps can be recorded there (`steps.py`), if
            the rate is a tensor: a number would be recorded as it is.
        weight_decay: of AdamW's parameters.
        momentum: of the kernels; the source's 0.95 is for long trainings, 0.9 for those of a few thousand steps (chosen), 0.6 for a few
            hundred (docs/log.md).
        pretrained: the length is the one that a kernel comes with, and steps are in proportion to it.
    """

    def __init__(
        self, groups: list[dict[str, Any]], weight_decay: float, *, momentum: float = 0.9, pretrained: bool = False
    ) -> None:
        super().__init__(groups, {"weight_decay": weight_decay, "momentum": momentum, "pretrained": pretrained})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["kernels"]:
                for kernel in moving:
                    _orthogonal_step(kernel, self.state[kernel], group)
            elif moving:
                _adam_step(moving, [self.state[parameter] for parameter in moving], group)
        return loss


def muon_groups(network: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Divide parameter groups into kernels for Muon and the rest for Adam.

    Args:
        network: its first convolution, which sees pixels, counts as rest.
        groups: with `params`, `lr` and `initial_lr`; the rate is Muon's.
    """
    kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    chosen = {id(parameter) for parameter in kernels[1:]}
    divided = []
    for group in groups:
        for of_kernels, share in ((True, 1.0), (False, _ADAM_SHARE)):
            if part := [parameter for parameter in group["params"] if (id(parameter) in chosen) == of_kernels]:
                rates = {"lr": group["lr"] * share, "initial_lr": group["initial_lr"] * share}
                divided.append({"params": part, "kernels": of_kernels, **rates})
    return divided


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of a matrix near 1 and keep its singular vectors.

    Args:
        matrix: `(m, n) float32`.

    Returns:
        `(m, n) float32`; singular values that were not tiny lie between about 0.7 and 1.2.
    """
    first, third, fifth = _COEFFICIENTS
    tall = len(matrix) > matrix.shape[1]
    wide: torch.Tensor = matrix.T if tall else matrix
    wide = wide / (wide.norm() + _SMALL)
    # Each iterate is a polynomial in the first Gram matrix times the matrix itself: everything between the first and the
    # last product happens among small square matrices, which saves half of the time and more.
    gram = wide @ wide.T
    identity = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    product = identity
    for iteration in range(_ITERATIONS):
        factor = first * identity + third * gram + fifth * gram @ gram
        product = factor @ product
        if iteration < _ITERATIONS - 1:
            gram = factor @ gram @ factor  # polynomials in one matrix commute
    wide = product @ wide
    return wide.T if tall else wide


def _orthogonal_step(kernel: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    assert kernel.grad is not None
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(kernel)
        if group["pretrained"]:
            state["length"] = kernel.norm() / len(kernel) ** 0.5
    length = state.get("length", 1.0)  # a tensor stays where it is: asking for its value would wait for a GPU
    kept = group["momentum"]
    momentum = state["momentum"].mul_(kept).add_(kernel.grad)
    direction = kernel.grad.add(momentum, alpha=kept)  # Nesterov's
    update = orthogonalised(direction.reshape(len(direction), -1)).view(direction.shape)
    kernel.mul_(length * len(kernel) ** 0.5 / (kernel.norm() + _SMALL))
    kernel.sub_(update.mul_(length * group["lr"]))


def _adam_step(parameters: list[torch.Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), over all parameters of a group at once: a GPU waits for few large calls."""
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            state |= {
                "steps": torch.zeros((), device=parameter.device),
                "mean": torch.zeros_like(parameter),
                "square": torch.zeros_like(parameter),
            }
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    steps, means, squares = ([state[name] for state in states] for name in ("steps", "mean", "square"))
    (first, second), rate = _BETAS, group["lr"]
    torch._foreach_add_(steps, 1.0)
    torch._foreach_mul_(parameters, _one_number(1 - rate * group["weight_decay"], parameters))
    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
    scales = torch._foreach_div(squares, _corrections(second, steps))
    torch._foreach_sqrt_(scales)
    torch._foreach_add_(scales, _ADAM_SMALL)
    moves = torch._foreach_div(means, scales)
    torch._foreach_div_(moves, _corrections(first, steps))
    torch._foreach_mul_(moves, _one_number(rate, parameters))
    torch._foreach_sub_(parameters, moves)


def _corrections(beta: float, steps: list[torch.Tensor]) -> list[torch.Tensor]:
    """`1 - beta ** steps` of each, without the cancellation that this has in float32."""
    return list(torch._foreach_neg(torch._foreach_expm1(torch._foreach_mul(steps, math.log(beta)))))


def _one_number(value: Any, like: list[torch.Tensor]) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float32, device=like[0].device)
