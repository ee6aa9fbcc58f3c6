"""A recipe from scratch on a GPU, seed by seed: seconds of training, test accuracy, arithmetic.

    python -m benchmarks.speed.gpu --cifar10 DIR [--recipe FILE] [--seeds 20] [--device cuda] [--out FILE]

DIR has train/<class>/ and test/<class>/. One training before the first is not counted: it loads what CUDA loads once. Seconds are those
of the epochs, their evaluation on train and val included; decoding and the evaluation of test are not. Results go to
benchmarks/results/gpu.json, one entry for each recipe and device.
"""

import argparse
import datetime
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.analysis.statistics import bootstrap_accuracy
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.environment import describe_environment
from headstart.files import read_json, write_json
from headstart.models.cost import complexity
from headstart.models.network import build_network, classifier_spec
from headstart.records import ImageSet, Recipe, TrialResult
from headstart.study.kinds import Bench
from headstart.study.observer import SilentObserver
from headstart.study.presets import read_recipe
from headstart.study.resolving import Overrides, resolve_recipe
from headstart.study.trial import run_trial

from .parts import FORWARD_EQUIVALENTS

RESULTS = Path(__file__).parent.parent / "results" / "gpu.json"
RECIPE = Path(__file__).parent / "recipes" / "fast_gpu.toml"


def main() -> None:
    """Train with every seed; print each, and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    images = load_images(str(arguments.cifar10.resolve()))
    split = make_split(images, seed=0)[0]
    recipe = resolve_recipe(read_recipe(arguments.recipe), images, split, None, Overrides())
    bench = Bench(images, split, device, SilentObserver())
    _trained(bench, recipe.with_changes(epochs=1), 0)
    results = []
    for seed in range(arguments.seeds):
        results.append(_trained(bench, recipe, seed))
        print(f"seed {seed}: {_accuracy(results[-1]):.2%} in {results[-1].cost.train_seconds:.2f} s", flush=True)
    row = _row(results, _macs(recipe, images) * len(split.train)) | {"environment": describe_environment(device)}
    print({name: row[name] for name in ("accuracy", "seconds_median", "flops")})
    kept = read_json(arguments.out) if arguments.out.exists() else {}
    write_json(arguments.out, kept | {f"{recipe.name} on {row['environment'].get('gpu', device.type)}": row})


def _trained(bench: Bench, recipe: Recipe, seed: int) -> TrialResult:
    with tempfile.TemporaryDirectory() as folder:
        return run_trial(bench, recipe, None, seed, "gpu", Path(folder)).result


def _accuracy(result: TrialResult) -> float:
    return float((result.test_logits.argmax(1) == result.test_labels).mean())


def _macs(recipe: Recipe, images: ImageSet) -> int:
    """Multiply-adds of an image in training, where the network sees it in one direction."""
    assert recipe.preprocessing is not None
    spec = classifier_spec(recipe.preprocessing.input_size, len(images.class_names), None, recipe)
    return complexity(build_network(replace(spec, mirrored=False, shifted=False)), spec.input_size).macs


def _row(results: list[TrialResult], macs: int) -> dict[str, Any]:
    first = results[0]
    right = np.stack([result.test_logits.argmax(1) == result.test_labels for result in results])
    estimate = bootstrap_accuracy(right)
    seconds = [result.cost.train_seconds for result in results]
    return {
        "date": datetime.date.today().isoformat(),
        "epochs": first.recipe.epochs,
        "accuracy": {"mean": estimate.mean, "low": estimate.low, "high": estimate.high},
        "accuracies": [_accuracy(result) for result in results],
        "seconds": seconds,
        "seconds_median": statistics.median(seconds),
        "flops": 2 * FORWARD_EQUIVALENTS * macs * first.recipe.epochs,
    }


if __name__ == "__main__":
    main()
