"""Which published weights somebody's network was made from, by what is on this machine."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from headstart.diagnosis.modules import norm_layers
from headstart.models.backbones import Backbone, build_backbone, find_backbone
from headstart.models.weights import network_of, shapes_in, weight_files

ALIKE = 0.5
"""Chosen: cosine between a kernel and the published one; fine-tuning leaves it above 0.9, chance near 0."""

STATISTICS = ("running_mean", "running_var")
_EQUAL = 1e-3  # relative: float16 files and folded batch norm stay below it, a training step does not
NOT_COMPARED = "num_batches_tracked"  # bookkeeping of training, no part of what a network computes


def find_published(module: nn.Module, weights_dir: Path | None) -> tuple[Backbone, dict[str, str]] | None:
    """Recognise a known backbone inside a module, by tensor names or, failing that, by the sequence of tensor shapes.

    Only weights on this machine are tried.

    Returns:
        The backbone, and the module's names of its tensors mapped to the published names; `None` if none fits.
    """
    state = {name: tuple(value.shape) for name, value in module.state_dict().items() if not name.endswith(NOT_COMPARED)}
    for file in weight_files(weights_dir):
        wanted = {name: tuple(shape) for name, shape in shapes_in(file.path).items() if not name.endswith(NOT_COMPARED)}
        names = _match_by_name(state, wanted)
        if names is None:
            with torch.device("meta"):  # a file's tensors are sorted by name, a module's by depth
                built = network_of(file).state_dict()
            names = _match_by_shape(state, {name: wanted[name] for name in built if name in wanted})
        if names is not None:
            return find_backbone(str(file.path), weights_dir), names
    return None


def cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Between two tensors of one shape, as vectors."""
    return float(nn.functional.cosine_similarity(ours.float().cpu().flatten(), theirs.float().flatten(), dim=0))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether two tensors of one shape are the same but for rounding."""
    ours, theirs = ours.float().cpu(), theirs.float()
    scale = float(theirs.abs().max()) or 1.0
    return float((ours - theirs).abs().max()) <= _EQUAL * scale


def is_pretrained_otherwise(module: nn.Module, published: Backbone, names: Mapping[str, str]) -> bool:
    """Whether a network of a known architecture was trained, but not from these weights: torchvision's beside timm's.

    No kernel is alike, and its batch norm's factors have moved from those of a new network: ones, and zeros at the end of a
    residual block. (One whose weights were never loaded, and that was then trained whole, cannot be told from another pretraining.)
    """
    state, theirs = module.state_dict(), build_backbone(published).state_dict()
    if any(cosine(state[ours], theirs[name]) >= ALIKE for ours, name in names.items() if theirs[name].ndim >= 2):
        return False
    factors = [layer.weight for layer in norm_layers(module) if layer.affine]
    return any(bool(((factor != 1) & (factor != 0)).any()) for factor in factors)


def _match_by_name(state: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> dict[str, str] | None:
    first = next(iter(wanted))
    for name in state:
        if name == first or name.endswith("." + first):
            prefix = name[: len(name) - len(first)]
            if all(state.get(prefix + key) == shape for key, shape in wanted.items()):
                return {prefix + key: key for key in wanted}
    return None


def _match_by_shape(state: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> dict[str, str] | None:
    names, shapes, sought = list(state), list(state.values()), list(wanted.values())
    for start in range(len(shapes) - len(sought) + 1):
        if shapes[start : start + len(sought)] == sought:
            return dict(zip(names[start : start + len(sought)], wanted, strict=True))
    return None
