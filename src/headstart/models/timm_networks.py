"""timm's networks as a weight file describes them: made, or refused with the field that must be corrected."""

import json
from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

import headstart.models.small32  # noqa: F401 - makes its family known to timm
from headstart.errors import WeightsError

_OURS = {
    "cache_dir",
    "checkpoint_path",
    "features_only",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
}
"""Arguments of `timm.create_model` that would bring other weights than the file's, or another output than features."""


def create_network(architecture: str, arguments: Mapping[str, Any], origin: str) -> nn.Module:
    """Make the network that a weight file describes, without classifier, with freshly drawn weights.

    Args:
        architecture: timm's name.
        arguments: keyword arguments for `timm.create_model`.
        origin: the file, for the message.

    Raises:
        WeightsError: timm has no such architecture, or does not take these arguments; the message names file and field.
    """
    if not timm.is_model(architecture.split(".")[0]):
        raise WeightsError(
            f"{origin}: 'architecture' in its metadata is {architecture!r}, a model that timm {timm.__version__} does not "
            "have. Correct it (timm.list_models() lists the names), or install a newer timm."
        )
    if refused := sorted(_OURS & arguments.keys()):
        raise WeightsError(
            f"{origin}: 'timm_kwargs' in its metadata sets {', '.join(refused)}, which the file must not decide. Remove it."
        )
    try:
        network: nn.Module = timm.create_model(architecture, num_classes=0, **arguments)
    except Exception as error:  # each network says in its own way what it does not take
        raise WeightsError(
            f"{origin}: timm makes no {architecture} from 'timm_kwargs' {json.dumps(arguments)} in its metadata "
            f"({type(error).__name__}: {error}). docs/weights.md shows the format."
        ) from error
    return network


def fixed_side(network: Any, arguments: Mapping[str, Any]) -> int | None:
    """The only side, in pixels, that one of timm's networks takes; `None` where it takes others too.

    Args:
        network: made by timm; its `pretrained_cfg` says whether its positions belong to one size.
        arguments: that it was made with; some of them choose the size, or set it free.
    """
    config = network.pretrained_cfg
    if not config.get("fixed_input_size") or arguments.get("dynamic_img_size"):
        return None
    size = arguments.get("img_size", config["input_size"][-1])
    return int(size if isinstance(size, int) else size[-1])
