"""Which published weights somebody's network was made from, by what is on this machine."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from headstart.diagnosis.modules import norm_layers
from headstart.models.backbones import Backbone, build_backbone, find_backbone
from headstart.models.weights import weight_files

ALIKE = 0.5
"""Chosen: cosine between a kernel and the published one; fine-tuning leaves it above 0.9, chance near 0."""

NOT_COMPARED = "num_batches_tracked"  # bookkeeping of training, no part of what a network computes


def find_published(module: nn.Module, weights_dir: Path | None) -> tuple[Backbone, dict[str, str]] | None:
    """Recognise a known backbone inside a module, by tensor names or, failing that, by the sequence of tensor shapes.

    Only weights on this machine are tried.

    Returns:
        The backbone, and the module's names of its tensors mapped to the published names; `None` if none fits.
    """
    state = {name: tuple(value.shape) for name, value in module.state_dict().items() if not name.endswith(NOT_COMPARED)}
    for file in weight_files(weights_dir):
        with safe_open(file.path, framework="pt") as tensors:
            wanted = {
                name: tuple(tensors.get_slice(name).get_shape())
                for name in tensors.keys()  # noqa: SIM118 - not a dict
                if not name.endswith(NOT_COMPARED)
            }
        names = _match_by_name(state, wanted)
        if names is None:
            backbone = find_backbone(str(file.path), weights_dir)
            built = build_backbone(backbone).state_dict()  # a file's tensors are sorted by name, a module's by depth
            names = _match_by_shape(state, {name: wanted[name] for name in built if name in wanted})
        if names is not None:
            return find_backbone(str(file.path), weights_dir), names
    return None


def cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Between two tensors of one shape, as vectors."""
    return float(nn.functional.cosine_similarity(ours.float().cpu().flatten(), theirs.float().flatten(), dim=0))


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
