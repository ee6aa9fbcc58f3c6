"""Train from scratch, or reuse a pretrained network? headstart answers, for any image-classification data set.

The public names are loaded when they are first used, so that importing headstart is quick and does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from headstart.version import __version__

if TYPE_CHECKING:
    from headstart.api import Comparison, compare, load, pretrain, rebuild_report
    from headstart.bundle import Bundle, Prediction
    from headstart.diagnosing import Diagnosis, diagnose
    from headstart.errors import HeadstartError
    from headstart.records import Preprocessing, Recipe
    from headstart.training.callbacks import Callback, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau

__all__ = [
    "Bundle",
    "Callback",
    "Comparison",
    "Diagnosis",
    "EarlyStopping",
    "HeadstartError",
    "ModelCheckpoint",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "ReduceLROnPlateau",
    "__version__",
    "compare",
    "diagnose",
    "load",
    "pretrain",
    "rebuild_report",
]

_HOMES = {
    "Bundle": "bundle",
    "Callback": "training.callbacks",
    "Comparison": "api",
    "Diagnosis": "diagnosing",
    "EarlyStopping": "training.callbacks",
    "HeadstartError": "errors",
    "ModelCheckpoint": "training.callbacks",
    "Prediction": "bundle",
    "Preprocessing": "records",
    "Recipe": "records",
    "ReduceLROnPlateau": "training.callbacks",
    "compare": "api",
    "diagnose": "diagnosing",
    "load": "api",
    "pretrain": "api",
    "rebuild_report": "api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"headstart.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'headstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
