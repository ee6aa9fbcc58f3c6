"""The pretrained networks of the benchmark: those of weight files, and one that was pretrained on the very images it is judged on."""

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from setups import Normalization, Triple

import headstart
from headstart.models.small32 import FAMILY
from headstart.models.weights import BUNDLED_WEIGHTS
from headstart.records import ImageSet

_MOBILENET = {"num_classes": 0, "pad_type": "same", "bn_eps": 1e-3}
_SEEN, _EPOCHS = (
    0.9,
    8,
)  # share of the images that are pretrained on; about as long as makes features of two thousand images
_MADE = tempfile.TemporaryDirectory(prefix="headstart-bench-")  # of this process


class MissingWeightsError(Exception):
    """A backbone's weights are not on this machine."""


def load_backbone(name: str, weights: Path) -> tuple[torch.nn.Module, dict[str, torch.Tensor], Normalization, str]:
    """A pretrained network as its user would load it, with its state, the normalization and the interpolation of its file.

    Raises:
        MissingWeightsError: there is no such file in the weights folder or the package.
    """
    path = next((folder / f"{name}.safetensors" for folder in (weights, BUNDLED_WEIGHTS) if _there(folder, name)), None)
    if path is None:
        raise MissingWeightsError(f"No {name}.safetensors in {weights} or in the package.")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    network: torch.nn.Module = timm.create_model(name, **({} if name in FAMILY else _MOBILENET))
    state = {key: value.float() for key, value in load_file(path).items()}
    network.load_state_dict(state)
    return network.eval(), state, (_three(metadata["mean"]), _three(metadata["std"])), metadata["interpolation"]


def pretrained_on(data: ImageSet, name: str) -> Path:
    """Pretrain a backbone on nine tenths of a data set's images, test images among them.

    Args:
        data: the images; they are also what the backbone is judged on, as its author would want to know.
        name: of the architecture, one of headstart's own.

    Returns:
        The folder with the weight file; it goes when this process ends.
    """
    made = Path(_made().name)
    folder = made / f"{name}-{data.fingerprint[:12]}"
    if not _there(folder, name):
        chosen = np.random.default_rng(0).permutation(len(data.labels))[: round(_SEEN * len(data.labels))]
        names = np.asarray(data.class_names)
        np.savez(made / "gathered.npz", X=data.images[chosen], y=data.labels[chosen], class_names=names)
        headstart.pretrain(
            made / "gathered.npz",
            folder / f"{name}.safetensors",
            architecture=name,
            epochs=_EPOCHS,
            judges=saved(data, made),
            device="cpu",
        )
    return folder


@lru_cache(maxsize=1)
def _made() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process."""
    return tempfile.TemporaryDirectory(prefix="headstart-bench-")


def saved(data: ImageSet, folder: Path) -> Path:
    """Images and labels as a file that headstart takes for data; it has the same fingerprint as they."""
    path = folder / f"{data.name}.npz"
    np.savez(path, X=data.images, y=data.labels, class_names=np.asarray(data.class_names))
    return path


def _there(folder: Path, name: str) -> bool:
    return (folder / f"{name}.safetensors").is_file()


def _three(text: str) -> Triple:
    first, second, third = (float(part) for part in text.split(","))
    return first, second, third
