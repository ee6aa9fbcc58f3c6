"""Plain PyTorch, as its tutorials use it. Each subcommand is one measured process and writes its facts to `--out`.

python -m benchmarks.speed.torch_peer transfer|resnet ... --out FILE
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from .keras_weights import ARCHITECTURE, timm_arguments, weights_file
from .subcommands import run_subcommand

_WARM_UP_STEPS = 2


def frozen_backbone(path: Path) -> nn.Module:
    """timm's model as `timm.create_model` gives it, with the file's weights.

    The file's network pads only after its rows and columns where it halves the map, timm's default before and after. Where
    the sides are even, padding after them is padding before them for a network turned by 180 degrees. So the kernels are
    turned, `prepared` turns the images, and the features are the file's while the layers are timm's quick default ones.
    """
    arguments = timm_arguments(path)
    if arguments.pop("pad_type", None) != "same":
        raise SystemExit(f"{path}: expected weights of a network with pad_type 'same', as its metadata would say.")
    model: nn.Module = timm.create_model(ARCHITECTURE, num_classes=0, **arguments)
    state = load_file(path)
    model.load_state_dict({name: value.flip(2, 3) if value.ndim == 4 else value for name, value in state.items()})
    return model.eval()


def prepared(size: int) -> Callable[[Any], torch.Tensor]:
    """Resize, to a tensor, pixels from -1 to 1; turned by 180 degrees (see `frozen_backbone`)."""
    steps = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            _turned,
        ]
    )
    result: Callable[[Any], torch.Tensor] = steps
    return result


def _turned(image: torch.Tensor) -> torch.Tensor:
    return image.flip(1, 2)


def transfer(arguments: argparse.Namespace) -> dict[str, Any]:
    """`ImageFolder`, `DataLoader` with two workers, the frozen backbone run anew in every epoch, a linear head with Adam."""
    torch.manual_seed(arguments.seed)
    loaders = {
        part: DataLoader(
            torchvision.datasets.ImageFolder(arguments.data / part, prepared(arguments.size)),
            batch_size=64,
            shuffle=part == "train",
            num_workers=2,
        )
        for part in ("train", "test")
    }
    backbone = frozen_backbone(weights_file(arguments.weights))
    head = nn.Linear(1280, len(loaders["train"].dataset.classes))  # type: ignore[attr-defined]
    optimizer = torch.optim.Adam(head.parameters())
    for epoch in range(arguments.epochs):
        for images, labels in loaders["train"]:
            with torch.no_grad():
                features = backbone(images)
            loss = nn.functional.cross_entropy(head(features), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of the last batch {float(loss.detach()):.3f}", flush=True)
    correct = total = 0
    with torch.no_grad():
        for images, labels in loaders["test"]:
            correct += int((head(backbone(images)).argmax(1) == labels).sum())
            total += len(labels)
    return {"test_accuracy": correct / total}


def resnet(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and multiply-adds of ResNet-18 for 32 px (3x3 stem, no pooling), some training steps with random images."""
    torch.manual_seed(arguments.seed)
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    images, labels = torch.randn(arguments.batch_size, 3, 32, 32), torch.randint(10, (arguments.batch_size,))
    durations = []
    for _ in range(_WARM_UP_STEPS + arguments.steps):
        started = time.perf_counter()
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        durations.append(time.perf_counter() - started)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(images[:1])
    return {
        "step_seconds": statistics.median(durations[_WARM_UP_STEPS:]),
        "macs": counter.get_total_flops() // 2,
        "batch_size": arguments.batch_size,
    }


COMMANDS = {"transfer": transfer, "resnet": resnet}


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int)


if __name__ == "__main__":
    run_subcommand(__doc__, COMMANDS, _own_arguments)
