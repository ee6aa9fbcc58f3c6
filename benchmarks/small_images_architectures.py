"""What other architectures of about the middle width's cost are worth: short pretrainings, judged by a probe.

    python benchmarks/small_images_architectures.py --tiny-imagenet DIR --cifar10 DIR

`--tiny-imagenet` has the class folders of Tiny ImageNet's training part, `--cifar10` the folders train/ and test/. Each architecture is
pretrained on the same 20,000 images for four epochs, from labels alone, and judged as `headstart pretrain --judge` does: a linear probe
with 5,000 labels. Ranks after so short a training need not be those after a long one. Results go into the part `architectures` of
`benchmarks/results/small_images.json`; `benchmarks/small_images_figures.py` writes the table of docs/small-images.md from it.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from headstart.files import read_json, write_json
from headstart.models import small32
from headstart.models.cost import complexity
from headstart.study.observer import SilentObserver
from headstart.study.pretraining import run_pretraining
from headstart.study.pretraining_request import PretrainRequest
from headstart.training.frozen import choose_forward
from small_images import BATCHES, CPU, MIDDLE, RESULTS, ROUNDS, images_per_second, measured_part

IMAGES, EPOCHS = 20_000, 4
_GROUP = 16  # channels that a group norm normalises together, as in its source (Wu and He 2018)

CHOSEN = small32.FAMILY[MIDDLE]
VARIANTS: dict[str, tuple[tuple[int, int, int, int], str]] = {
    "as chosen": (CHOSEN, "batch"),
    "group norm": (CHOSEN, "group"),
    "wider early": ((48, 80, 96, 160), "batch"),
    "wider middle": ((32, 64, 112, 176), "batch"),
    "wider late": ((32, 48, 80, 240), "batch"),
}


def main() -> None:
    """Pretrain and judge every variant, time them in turns, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny-imagenet", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path, required=True)
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows, forwards, inputs = [], [], torch.zeros(BATCHES[1], 3, 32, 32)
    for name, (channels, norm) in VARIANTS.items():
        with ExitStack() as stack:
            stack.enter_context(patch.dict(small32.FAMILY, {MIDDLE: channels}))
            if norm == "group":
                stack.enter_context(patch.object(small32, "_convolution", _with_group_norm))
            rows.append({"name": name, "channels": channels, "norm": norm, **_pretrained(arguments)})
            module = small32.Small32(channels).eval()
        forwards.append(choose_forward(module, inputs[:4], CPU)[0])
        size = complexity(module, 32)
        rows[-1] |= {"parameters": size.parameters, "multiply_adds": size.macs}
        print(rows[-1], flush=True)
    measured = [[images_per_second(forward, inputs) for forward in forwards] for _ in range(ROUNDS)]
    for row, speeds in zip(rows, zip(*measured, strict=True), strict=True):
        row["images_per_second"] = round(statistics.median(speeds), 1)
    write_json(RESULTS, read_json(RESULTS) | {"architectures": measured_part(rows, started)})


def _pretrained(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pretrain the middle width as it now is; what its probe gets right."""
    with tempfile.TemporaryDirectory() as folder:
        request = PretrainRequest(
            data=str(arguments.tiny_imagenet.resolve()),
            out=Path(folder) / f"{MIDDLE}.safetensors",
            architecture=MIDDLE,
            epochs=EPOCHS,
            augmentation="crop-flip",
            judges=(str(arguments.cifar10.resolve()),),
            limit=IMAGES,
        )
        made = run_pretraining(request, CPU, SilentObserver(), "benchmarks/small_images_architectures.py")
        (judged,) = json.loads(made.file.metadata["judged"])
    return {
        "probe_accuracy": judged["probe_accuracy"],
        "labels": judged["labels"],
        "test_images": judged["test_images"],
    }


def _with_group_norm(channels: int, wider: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, wider, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(max(wider // _GROUP, 1), wider),
        nn.ReLU(inplace=True),
    )


if __name__ == "__main__":
    main()
