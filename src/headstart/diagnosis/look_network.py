"""Looking at the network: batch norm's mode and statistics, the weights, what the optimizer holds (causes 8, 9, 10, 12, 13)."""

from typing import cast

import numpy as np
import torch
from torch import nn

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.modules import (
    batch_bound_layers,
    copied,
    fed_at_first_convolution,
    non_leaves,
    norm_layers,
    one_tensor,
)
from headstart.diagnosis.published import ALIKE, STATISTICS, close, cosine
from headstart.diagnosis.subject import Subject
from headstart.models.backbones import seeded_torch
from headstart.records import Images

_FEW_IMAGES = 4  # of which a gradient is computed
_FEW = 0.05  # chosen: share of tensors that a conversion may round differently
_ROUNDED = 1e-3
"""Chosen: one minus the cosine of a kernel with itself in numbers of eight bits is below it (in the bundled networks at most 1e-4 with a
scale for each output channel, 6e-4 with one for the kernel: docs/log.md); a training that changes what a network does leaves more."""

_FAR = 0.5  # chosen: median shift of a channel's mean, in its own standard deviations; digits, which lose nothing, have 0.4
_WIDE = 1.6
"""Chosen on the half of benchmarks/diagnosis/ that is there for it: the median ratio of a channel's deviation to the stored one, or its
inverse. Fog, which costs 6 to 8 points, has 1.7 to 2.1; images that lose nothing have 1.5 at most."""


_Norm = nn.modules.batchnorm._BatchNorm


def look_at_network(subject: Subject, clean_inputs: torch.Tensor | None, example: Images) -> list[Finding]:
    """Inspect a subject's network.

    Args:
        subject: as it is run.
        clean_inputs: `(B, 3, H, W)`, real images as the first convolution should see them; `None` where nobody can say that.
        example: `(B, S, S, 3) uint8`, of which a few go through the network as it is run.

    Returns:
        One finding for each of causes 8, 9, 10, 12 and 13.
    """
    weights = _weights(subject)
    buffers = _buffers(subject, weights)
    network = weights.status == "suspected" or buffers.status == "suspected"
    domain = Finding(10, "could-not-look", "statistics-unusable", {}) if network else _domain(subject, clean_inputs)
    return [_mode(subject), buffers, domain, _optimizer(subject, example), weights]


def _mode(subject: Subject) -> Finding:
    layers, bound = norm_layers(subject.module), batch_bound_layers(subject.module)
    if bound:
        return Finding(8, "could-not-look", "no-running-statistics", {"layers": len(bound)})
    if not layers:
        return Finding(8, "cleared", "no-batch-norm", {})
    moving = layers if subject.train_mode else []
    if moving:
        return Finding(8, "suspected", "batch-norm-moves", {"layers": len(moving)})
    return Finding(8, "cleared", "batch-norm-still", {"layers": len(layers)})


def _weights(subject: Subject) -> Finding:
    published = subject.published_tensors
    if not published:
        layers = norm_layers(subject.module)
        untouched = [layer for layer in layers if _as_new(layer)]
        if layers and len(untouched) == len(layers):
            return Finding(13, "suspected", "statistics-untouched", {"total": len(layers)})
        return Finding(13, "could-not-look", "no-published-weights", {})
    likeness = _likeness(subject)
    strange = [name for name, cosine_with in likeness.items() if cosine_with < ALIKE]
    if strange:
        # Where the others have moved, too, a training that went too far looks the same.
        moved = [name for name, cosine_with in likeness.items() if ALIKE <= cosine_with < 1 - _ROUNDED]
        like = (11,) if len(moved) > len(likeness) / 2 else ()
        return Finding(13, "suspected", "weights-differ", {"tensors": len(strange), "total": len(likeness)}, like=like)
    return Finding(13, "cleared", "weights-as-published", {"total": len(likeness)})


def _buffers(subject: Subject, weights: Finding) -> Finding:
    published = subject.published_tensors
    statistics = [name for name in published if name.endswith(STATISTICS)]
    if not published:
        return Finding(9, "could-not-look", "no-published-weights", {})
    if not statistics:
        return Finding(9, "cleared", "no-batch-norm", {})
    state = subject.module.state_dict()
    different = [name for name in statistics if not close(state[name], published[name])]
    kernels = [name for name, value in published.items() if value.ndim >= 2]
    moved = [name for name in kernels if not close(state[name], published[name])]
    if different and weights.status != "suspected" and len(moved) <= _FEW * len(kernels):
        return Finding(9, "suspected", "buffers-differ", {"tensors": len(different), "total": len(statistics)})
    return Finding(9, "cleared", "buffers-as-published", {"total": len(statistics)})


def _domain(subject: Subject, clean_inputs: torch.Tensor | None) -> Finding:
    """How far the images' own statistics lie from the stored ones: medians over channels, then over layers."""
    module = copied(subject.module).eval()
    layers, bound = norm_layers(module), batch_bound_layers(module)
    if not layers and bound:
        return Finding(10, "could-not-look", "no-running-statistics", {"layers": len(bound)})
    if not layers:
        return Finding(10, "cleared", "no-batch-norm", {})
    if clean_inputs is None:
        return Finding(10, "could-not-look", "input-not-understood", {})
    shifts: list[float] = []
    spreads: list[float] = []

    def watch(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, _Norm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        axes = [axis for axis in range(given[0].ndim) if axis != 1]
        stored = (layer.running_var + layer.eps).sqrt()
        shifts.append(float(((given[0].mean(axes) - layer.running_mean).abs() / stored).median()))
        spreads.append(float(((given[0].var(axes) + layer.eps).sqrt() / stored).median()))

    for layer in layers:
        layer.register_forward_pre_hook(watch)
    with torch.inference_mode(), fed_at_first_convolution(module) as run:
        run(clean_inputs)
    # Where batch norm was folded into the convolutions, the stored statistics are 0 and 1 and say nothing.
    folded = all(_as_new(layer) for layer in layers)
    if folded:
        return Finding(10, "could-not-look", "statistics-unusable", {})
    distance, spread = round(float(np.median(shifts)), 3), round(float(np.median(spreads)), 3)
    values = {"distance": distance, "spread": spread}
    if distance > _FAR or not 1 / _WIDE < spread < _WIDE:
        # Without the published statistics nobody can say whether these were ever right.
        like = (9,) if subject.published is None else ()
        return Finding(10, "suspected", "statistics-far", values, like=like)
    return Finding(10, "cleared", "statistics-near", values)


def _optimizer(subject: Subject, example: Images) -> Finding:
    optimizer = subject.evidence.optimizer
    if optimizer is None:
        return Finding(12, "could-not-look", "no-optimizer", {})
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = [*subject.module.parameters(), *(subject.head.parameters() if subject.head else ())]
    wanted = list({id(parameter): parameter for parameter in parameters if parameter.requires_grad}.values())
    missing = [parameter for parameter in wanted if id(parameter) not in held]
    if missing and _holds_head_alone(subject, held):
        # As linear probing has it, and as it is if the optimizer was made before the backbone was unfrozen: nobody can tell.
        return Finding(12, "suspected", "head-alone-trained", {"parameters": len(missing), "total": len(wanted)})
    if missing:
        return Finding(12, "suspected", "not-in-optimizer", {"parameters": len(missing), "total": len(wanted)})
    unreached = _without_gradient(subject, example) if wanted else []
    if unreached is None:
        return Finding(12, "could-not-look", "gradient-not-computed", {"total": len(wanted)})
    if unreached:
        values = {"parameters": len(unreached), "total": len(wanted), "layer": unreached[0]}
        return Finding(12, "suspected", "no-gradient", values)
    return Finding(12, "cleared", "optimizer-complete", {"total": len(wanted)})


def _without_gradient(subject: Subject, example: Images) -> list[str] | None:
    """Names of the parameters that are to train, in layers that run, and that no gradient reaches from the outputs; `None` where none
    can be computed.

    A copy runs, in training mode, where auxiliary outputs are there that prediction leaves out. Layers that the network leaves out
    altogether (a classifier beside somebody's own head) are nobody's mistake.
    """
    parts = [subject.module] if subject.head is None else [subject.module, subject.head]
    both = cast(nn.ModuleList, copied(nn.ModuleList(parts)).train())
    ran: set[nn.Module] = set()
    inputs = subject.prepare(example[:_FEW_IMAGES]).clone()
    try:
        for layer in both.modules():
            layer.register_forward_hook(lambda one, *_: ran.add(one))
        with seeded_torch(0), torch.enable_grad():  # dropout draws numbers
            outputs = both[0](inputs)
            answers = [outputs, one_tensor(outputs)]
            if subject.head is not None:
                answers.append(both[1](one_tensor(outputs)))
            named = [
                (name, parameter)
                for path, layer in both.named_modules()
                for name, parameter in layer.named_parameters(path, recurse=False)
                if parameter.requires_grad and layer in ran
            ]
            found = non_leaves(answers)
            if not found:
                return [_own_name(name) for name, _ in named]
            total = torch.stack([tensor.float().pow(2).sum() for tensor in found]).sum()
            gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    except Exception:  # noqa: BLE001 - somebody else's network may not be made to be trained as it is handed over
        return None
    return [_own_name(name) for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


def _own_name(name: str) -> str:
    """A parameter's name in the network, or with `head.` before it in the head beside it."""
    place, _, own = name.partition(".")
    return own if place == "0" else f"head.{own}"


def has_layers_of_its_own(subject: Subject) -> bool:
    """Whether a network has parameters that the published one has not, but for its own last layer."""
    layer = f"{subject.classifier}." if subject.classifier is not None else None
    published = subject.published_tensors
    others = [name for name, _ in subject.module.named_parameters() if name not in published]
    return any(layer is None or not name.startswith(layer) for name in others)


def is_fine_tuned(subject: Subject) -> bool:
    """Whether the kernels are the published ones and have moved since, by more than numbers of eight bits would move them."""
    likeness = list(_likeness(subject).values())
    moved = [value for value in likeness if value < 1 - _ROUNDED]
    return bool(likeness) and len(moved) > _FEW * len(likeness) and min(likeness) >= ALIKE


def is_as_published(subject: Subject) -> bool:
    """Whether every kernel is the published one, but for rounding."""
    likeness = _likeness(subject).values()
    return bool(likeness) and min(likeness) >= 1 - _ROUNDED


def _likeness(subject: Subject) -> dict[str, float]:
    """The cosine of each kernel with the published one; empty where nobody knows that."""
    state = subject.module.state_dict()
    return {name: cosine(state[name], value) for name, value in subject.published_tensors.items() if value.ndim >= 2}


def head_parameters(subject: Subject) -> list[nn.Parameter]:
    """The parameters of a subject's head, its own or its module's last layer; empty where it has none."""
    if subject.head is not None:
        return list(subject.head.parameters())
    return list(subject.module.get_submodule(subject.classifier).parameters()) if subject.classifier is not None else []


def _holds_head_alone(subject: Subject, held: set[int]) -> bool:
    head = {id(parameter) for parameter in head_parameters(subject)}
    backbone = {id(parameter) for parameter in subject.module.parameters()} - head
    return bool(head) and head <= held and not backbone & held


def _as_new(layer: nn.modules.batchnorm._BatchNorm) -> bool:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return not bool(layer.running_mean.any()) and bool((layer.running_var == 1).all())
