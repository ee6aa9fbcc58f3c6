"""The backbones that can be used here: those of the package, weight files on this machine, and timm's hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import huggingface_hub
import timm
import torch
from safetensors import safe_open

from headstart.models.backbones import HUB_FILE
from headstart.models.weights import BUNDLED_WEIGHTS, WeightsFile, weight_files

HUB_SUGGESTIONS = (
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "convnext_tiny",
)
"""Well-known backbones of every cost; any other timm name works as well."""


@dataclass(frozen=True)
class CatalogEntry:
    """A backbone that can be used.

    Attributes:
        name: what `--backbone` takes.
        origin: `package`, `file` or `hub`.
        here: whether its weights are on this machine.
        native_size: side in pixels that it was pretrained at.
        parameters: without classifier.
        file_bytes: of the weights on this machine; `None` where they are not.
        licence, pretraining: words for people; empty where nothing is known.
        path: of the weights on this machine.
    """

    name: str
    origin: Literal["package", "file", "hub"]
    here: bool
    native_size: int
    parameters: int
    file_bytes: int | None
    licence: str
    pretraining: str
    path: Path | None


def list_backbones(weights_dir: Path | None = None) -> list[CatalogEntry]:
    """List what can be used, what is on this machine first; the network is not asked.

    Args:
        weights_dir: searched before `HEADSTART_WEIGHTS` and the cache.

    Raises:
        WeightsError: a file in a weight folder breaks the format.
    """
    files = [_of_file(file) for file in weight_files(weights_dir)]
    files.sort(key=lambda entry: entry.origin != "package")  # stable: the order of the search otherwise
    known = {entry.name for entry in files}
    hub = [_of_hub(name) for name in HUB_SUGGESTIONS if name not in known]
    return [*files, *sorted(hub, key=lambda entry: not entry.here)]


def _of_file(file: WeightsFile) -> CatalogEntry:
    with safe_open(file.path, framework="pt") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118 - not a dict
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    bundled = file.path.parent == BUNDLED_WEIGHTS
    return CatalogEntry(
        # Where two files hold the same architecture, the architecture's name means the first; the path is always right.
        name=file.architecture if file.path.stem == file.architecture else str(file.path),
        origin="package" if bundled else "file",
        here=True,
        native_size=file.input_size,
        parameters=sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.endswith(buffers)),
        file_bytes=file.path.stat().st_size,
        licence=file.licence,
        pretraining=file.pretraining,
        path=file.path,
    )


def _of_hub(name: str) -> CatalogEntry:
    config = timm.get_pretrained_cfg(name)
    cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, HUB_FILE) if config.hf_hub_id else None
    path = Path(cached) if isinstance(cached, str) else None
    with torch.device("meta"):  # shapes only: no memory, no random numbers
        module = timm.create_model(name, pretrained=False, num_classes=0)
    return CatalogEntry(
        name=name,
        origin="hub",
        here=path is not None,
        native_size=int(config.input_size[-1]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        file_bytes=path.stat().st_size if path else None,
        licence=str(config.license or ""),
        pretraining=str(config.tag or ""),
        path=path,
    )
