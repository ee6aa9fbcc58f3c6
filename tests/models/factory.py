"""Networks for tests: small weight files of random numbers in the real format, and the bundled backbone."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.models.backbones import find_backbone

TINY = "test_efficientnet"
"""timm's own test network: a real EfficientNet of 0.2 M parameters."""


def metadata(**changes: str) -> dict[str, str]:
    """Metadata of a tiny weight file, with changes."""
    return {
        "architecture": TINY,
        "input_size": "64",
        "mean": "0.5,0.5,0.5",
        "std": "0.25,0.25,0.25",
        "interpolation": "bilinear",
        "license": "CC0-1.0",
        "pretraining": "none: random numbers",
    } | changes


def tiny_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """State dict of the tiny network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(TINY, num_classes=0)
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def write_tiny_weights(folder: Path, name: str = TINY, **changes: str) -> Path:
    """Write a weight file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file(tiny_state(), path, metadata=metadata(**changes))
    return path


def write_other_weights(folder: Path, name: str, seed: int) -> Path:
    """Write a weight file of the same network with other random weights, or over one of this name."""
    path = folder / f"{name}.safetensors"
    save_file(tiny_state(seed), path, metadata=metadata())
    return path


def write_vit(folder: Path, side: int, arguments: str) -> Path:
    """Write a weight file of timm's tiny transformer, made with these arguments, and return its path."""
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model("test_vit", num_classes=0, **json.loads(arguments))
    path = folder / "vit.safetensors"
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, path, metadata=metadata(architecture="test_vit", input_size=str(side), timm_kwargs=arguments))
    return path


def write_foreign_files(folder: Path) -> dict[str, str]:
    """Write files that no backbone can be made of, and return by their names a part of what must be said of each."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = write_tiny_weights(folder, "whole").read_bytes()
    (folder / "whole.safetensors").unlink()
    (folder / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    write_tiny_weights(folder, "unheard", architecture="nosuchnet")
    write_tiny_weights(folder, "argued", timm_kwargs='{"foo": 1}')
    write_tiny_weights(folder, "fetched", timm_kwargs='{"pretrained": true}')
    write_tiny_weights(folder, "misfit", architecture="test_resnet")
    return {
        "torn": "not a readable safetensors file",
        "pointer": "not a readable safetensors file",
        "model": "no 'architecture'",
        "unheard": "'architecture' in its metadata is 'nosuchnet'",
        "argued": "'timm_kwargs' {\"foo\": 1}",
        "fetched": "'timm_kwargs' in its metadata sets pretrained",
        "misfit": "does not fit",
    }


def bundled_backbone(name: str = "small32_s") -> nn.Module:
    """A bundled backbone, the smallest one by default, loaded as a user of timm would."""
    module: nn.Module = timm.create_model(name, num_classes=0)
    path = find_backbone(name).path
    assert path is not None
    module.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=False)
    return module.eval()
