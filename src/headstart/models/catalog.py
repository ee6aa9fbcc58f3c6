"""The backbones that can be used here: those of the package, weight files on this machine, and timm's hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import huggingface_hub
import timm
import torch

from headstart.models.backbones import HUB_FILE
from headstart.models.weights import (
    BUNDLED_WEIGHTS,
    UnusableFile,
    WeightsFile,
    inspect_weight_files,
    path_by_name,
    shapes_in,
    weights_folders,
)

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


@dataclass(frozen=True)
class Catalog:
    """The backbones that can be used, and the files in the weight folders that cannot."""

    entries: tuple[CatalogEntry, ...]
    unusable: tuple[UnusableFile, ...]


def list_backbones(weights_dir: Path | None = None) -> Catalog:
    """List what can be used, files first in the order of the search; the network is not asked.

    Args:
        weights_dir: searched before `HEADSTART_WEIGHTS` and the cache.
    """
    folders = weights_folders(weights_dir)
    files = inspect_weight_files(weights_dir)
    here = [_of_file(file, folders) for file in files if isinstance(file, WeightsFile)]
    hub = [_of_hub(name) for name in HUB_SUGGESTIONS if path_by_name(name, folders) is None]
    return Catalog(
        entries=(*here, *sorted(hub, key=lambda entry: not entry.here)),
        unusable=tuple(file for file in files if isinstance(file, UnusableFile)),
    )


def _of_file(file: WeightsFile, folders: list[Path]) -> CatalogEntry:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    means_this = path_by_name(file.architecture, folders) == file.path
    bundled = file.path.parent.resolve() == BUNDLED_WEIGHTS.resolve()
    return CatalogEntry(
        name=file.architecture if means_this else str(file.path),  # the path is always right
        origin="package" if bundled else "file",
        here=True,
        native_size=file.input_size,
        parameters=sum(shape.numel() for name, shape in shapes_in(file.path).items() if not name.endswith(buffers)),
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
