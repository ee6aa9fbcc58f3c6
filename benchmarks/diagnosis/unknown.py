"""Networks that headstart has never seen: public ones rebuilt as people rebuild them, and made to want other pixels.

What a network wants is changed exactly (but at the image's border, where a convolution sees padding): the affine map between
two contracts goes into the first convolution and the statistics of the batch norm behind it. So the same weights want ImageNet's
mean and deviation, bytes, or BGR, and nothing that is published says so. All contracts but `cifar10` are among the ten that
diagnosis/look_contract.py tries: these cases say nothing of networks with a contract that nobody else has.

ported   every layer kept, in lists by kind, as ports from other frameworks have them: other names, another order of tensors
fused    batch norm folded into the convolutions, as for deployment: no statistics to ask
cut      the network up to an earlier stage, its map averaged: some tensors are not there
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from setups import Normalization, Pixels, Triple, own_copy
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_Norm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Wanted:
    """What a network wants of its pixels.

    Attributes:
        mean, std: of pixels 0..1, in the order that the network sees its channels.
        divisions: how often its users divide by 255: not at all where it wants bytes.
        reversed_channels: whether it wants BGR.
    """

    mean: Triple
    std: Triple
    divisions: int = 1
    reversed_channels: bool = False

    def pixels(self, size: int, interpolation: str, style: str) -> Pixels:
        """The correct preprocessing; in the style `inside` the model normalizes."""
        factor = 1 if self.divisions else 255
        mean, std = _times(self.mean, factor), _times(self.std, factor)
        normalizations = () if (mean, std) == (_NONE, _UNIT) else ((mean, std),)
        inside = style == "inside"
        return Pixels(
            size,
            interpolation,
            outer=() if inside else normalizations,
            inner=normalizations if inside else (),
            divisions=self.divisions,
            reversed_channels=self.reversed_channels,
        )


_NONE: Triple = (0.0, 0.0, 0.0)
_UNIT: Triple = (1.0, 1.0, 1.0)
_BYTE: Triple = (1 / 255, 1 / 255, 1 / 255)
_HALF: Triple = (0.5, 0.5, 0.5)

WANTED: dict[str, Wanted] = {
    "minus-one": Wanted(_HALF, _HALF),
    "unit": Wanted(_NONE, _UNIT),
    "imagenet": Wanted((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Wanted((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "bytes": Wanted(_NONE, _BYTE, divisions=0),
    "caffe": Wanted((0.406, 0.456, 0.485), _BYTE, divisions=0, reversed_channels=True),
}
"""-1..1, 0..1, ImageNet's numbers, CIFAR-10's, 0..255, and 0..255 BGR less the mean (Keras' "caffe" mode)."""


def rebuilt(network: nn.Module, norm: Normalization, wanted: Wanted, way: str) -> nn.Module:
    """A network that wants other pixels and that nobody recognises.

    Args:
        network: a public one; it is left as it is.
        norm: what it wants, RGB.
        wanted: what the new one wants.
        way: a key of `WAYS`.
    """
    return WAYS[way](wanting(network, norm, wanted)).eval()


def wanting(network: nn.Module, norm: Normalization, wanted: Wanted) -> nn.Module:
    """A copy whose first convolution takes in the map from the wanted pixels to those that the network was trained with.

    With `x = (p - m) / s` for the network and `z = (p - n) / t` for the new one, `x = (t / s) z + (n - m) / s`: the weights are
    multiplied, and what the offset adds is taken off the stored mean of the batch norm behind it.
    """
    network = own_copy(network)
    convolution = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    behind = next(layer for layer in network.modules() if isinstance(layer, _Norm))
    assert behind.running_mean is not None
    assert behind.running_var is not None
    colours = [2, 1, 0] if wanted.reversed_channels else [0, 1, 2]
    mean, std = (torch.tensor(values, dtype=torch.float64)[colours] for values in norm)
    new_mean, new_std = (torch.tensor(values, dtype=torch.float64) for values in (wanted.mean, wanted.std))
    with torch.no_grad():
        kernels = convolution.weight.double()[:, colours]
        offset = (kernels.sum((2, 3)) * ((new_mean - mean) / std)).sum(1)
        convolution.weight.copy_(kernels * (new_std / std).view(1, 3, 1, 1))
        if bool(behind.running_mean.any()):
            behind.running_mean -= offset
        else:  # folded into the convolution before: its stored statistics say nothing and shall go on doing so
            behind.bias.copy_(behind.bias + offset * behind.weight / (behind.running_var + behind.eps).sqrt())
    return network


def ported(network: nn.Module) -> nn.Module:
    """The same layers in lists by kind."""
    graph = _Layers().trace(network)
    kinds: dict[str, list[nn.Module]] = {"convolutions": [], "norms": [], "others": []}
    for node in graph.nodes:
        if node.op == "call_module":
            layer = network.get_submodule(node.target)
            kind = "convolutions" if isinstance(layer, nn.Conv2d) else "norms" if isinstance(layer, _Norm) else "others"
            node.target = f"{kind}.{len(kinds[kind])}"
            kinds[kind].append(layer)
    return fx.GraphModule(nn.ModuleDict({kind: nn.ModuleList(layers) for kind, layers in kinds.items()}), graph)


def fused(network: nn.Module) -> nn.Module:
    """Every batch norm folded into the convolution before it; what it did besides, its activation, stays in its place."""
    network = own_copy(network).eval()
    graph = _Layers().trace(network)
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        norm = network.get_submodule(node.target)
        if not isinstance(norm, _Norm):
            continue
        convolution = network.get_submodule(node.args[0].target)
        assert isinstance(convolution, nn.Conv2d)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,  # type: ignore[arg-type]
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,
            norm.weight,
            norm.bias,
        )
        network.set_submodule(node.target, getattr(norm, "act", nn.Identity()))
    return fx.GraphModule(network, graph)


def cut(network: nn.Module) -> nn.Module:
    """The network up to its last stage but one."""
    stages: list[nn.Module]
    if hasattr(network, "stage2"):
        stages = [network.stem, network.stage1, network.stage2]  # type: ignore[list-item]
    else:
        stages = [network.conv_stem, network.bn1, *list(network.blocks)[:-1]]  # type: ignore[list-item, arg-type]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {"ported": ported, "fused": fused, "cut": cut}


class _Layers(fx.Tracer):
    """Follows a network down to its convolutions and batch norms, those of timm's own classes included."""

    def is_leaf_module(self, layer: nn.Module, name: str) -> bool:
        return isinstance(layer, nn.Conv2d | _Norm) or super().is_leaf_module(layer, name)


def _times(values: Triple, factor: float) -> Triple:
    first, second, third = (value * factor for value in values)
    return first, second, third
