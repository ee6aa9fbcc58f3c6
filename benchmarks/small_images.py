"""The backbones that come with headstart against an ImageNet backbone and against training from scratch, on CIFAR-10.

    python benchmarks/small_images.py --cifar10 DIR --weights DIR [--parts speed,widths,probe,taps,few,budget]
        [--seeds 3] [--labels 500,5000] [--tuned small32_l,small32_m] [--opponents fast,small32_m-scratch,cnn]

DIR of CIFAR-10 has train/<class>/ and test/<class>/; DIR of weights has mobilenetv2_100.safetensors. Every part is one
process on one machine; what is compared is measured in turns. Results go to `benchmarks/results/small_images.json` (a
part that is not asked for keeps what it had), table and figures of docs/small-images.md are written from it by
`benchmarks/small_images_figures.py`.

speed    images/s of the frozen features in ONNX Runtime, each in its best way: one session on all threads with one of three batch
         sizes, or what headstart's own race chooses, mostly a session for each thread; five rounds in turns, medians
probe    linear probe on frozen features with 500, 5,000 and all labels, test accuracy on all 10,000 test images
widths   images/s of channel numbers around those of small32_m and small32_s
taps     the probe with 5,000 labels on parts of small32_m's features: which map, mean or maximum
few      fine-tuning with 500 and 5,000 labels against scratch networks that get the same labels, at least the seconds that
         the longest fine-tuning took, and at least their own default number of epochs
budget   fine-tuning with all labels in ten minutes of training, against scratch networks that train at least as long

Rows of the last two that are not asked for stay as they are. Of both, the results name the opponents that were not run.
"""

import argparse
import datetime
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.analysis.statistics import bootstrap_accuracy, paired_difference
from headstart.data.preprocessing import apply_preprocessing
from headstart.data.sources import load_images
from headstart.data.splits import draw_stratified, make_split
from headstart.environment import describe_environment
from headstart.files import read_json, write_json
from headstart.models.backbones import Backbone, build_backbone, find_backbone, untrained_backbone
from headstart.models.cost import complexity
from headstart.models.small32 import FAMILY, Small32
from headstart.randomness import generator
from headstart.records import ImageSet, Preprocessing, Recipe, Split, TrialResult
from headstart.study.kinds import TRAINERS, Bench
from headstart.study.observer import SilentObserver
from headstart.study.presets import fast_recipe, fine_tune_recipe, probe_recipe, scratch_recipe, small_fine_tune_epochs
from headstart.study.resolving import Overrides, backbone_preprocessing, resolve_recipe
from headstart.study.trial import run_trial
from headstart.training.features import extract_features
from headstart.training.frozen import FrozenNetwork, Way, choose_forward, fastest
from headstart.training.probe import fit_probe

RESULTS = Path(__file__).parent / "results" / "small_images.json"
CPU = torch.device("cpu")
LABELS = (500, 5000)
SMALL = ("small32_l", "small32_m", "small32_s")
MIDDLE = "small32_m"
"""What `headstart compare` takes by default; its taps and its architecture from scratch are measured."""
OTHER_WIDTHS = {
    "small32_m": (
        (32, 64, 112, 224),
        (32, 64, 112, 192),
        (32, 64, 112, 176),
        (32, 64, 96, 224),
        (32, 64, 128, 160),
        (32, 56, 112, 208),
    ),
    "small32_s": ((16, 32, 56, 112), (24, 24, 56, 112), (12, 24, 72, 112), (16, 32, 64, 64)),
}
"""Channels of stem and stages, around those that were chosen."""

PEER = "mobilenetv2_100"
PEER_SIZES = (32, 96, 160)
BATCHES = (16, 32, 64)
ROUNDS, WAY_SECONDS = 5, 2 / 3  # of each way in each round
SPEED_IMAGES = 256  # of each contender, prepared before the clock starts
ENOUGH_FOR_A_RACE = 10**9  # images to come: the best way is wanted, however long its race
BUDGET_SECONDS = 600.0
OPPONENTS = ("fast", f"{MIDDLE}-scratch", "cnn")
"""Both default networks from scratch, and between them a small backbone's own architecture with weights drawn anew."""

PACE_IMAGES = 3000  # chosen: a pace is read from the epochs that so many images make, at least one
PACE_MARGIN = 1.05  # chosen: epochs differ by a few percent, and an opponent's training must not come out shorter
ATTEMPTS = 3  # chosen: a training that came out shorter than asked is lengthened by what was missing, and run anew


@dataclass(frozen=True)
class Pace:
    """Training seconds as a trial counts them: `once` for features, head and what is evaluated before, and `per_epoch`."""

    once: float
    per_epoch: float


def main() -> None:
    """Run the parts that were asked for and keep their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--parts", default="speed,widths,probe,taps,few,budget")
    parser.add_argument("--seeds", type=int, default=3, help="of the part few")
    parser.add_argument("--labels", default=",".join(map(str, LABELS)), help="of the part few; other rows stay")
    parser.add_argument("--tuned", default="small32_l,small32_m", help="of the parts few and budget")
    parser.add_argument("--opponents", default=",".join(OPPONENTS), help="of the parts few and budget")
    arguments = parser.parse_args()
    opponents, tuned = ([name for name in part.split(",") if name] for part in (arguments.opponents, arguments.tuned))
    if unknown := sorted(set(opponents) - set(OPPONENTS)):
        raise SystemExit(f"There is no opponent {', '.join(unknown)}. There are {', '.join(OPPONENTS)}.")
    if not tuned:
        raise SystemExit(f"--tuned names one or more of {', '.join(SMALL)}.")
    if unknown := sorted(set(tuned) - set(SMALL)):
        raise SystemExit(f"{', '.join(unknown)} does not come with the package. What does: {', '.join(SMALL)}.")
    if unknown := sorted(set(arguments.parts.split(",")) - {"speed", "widths", "probe", "taps", "few", "budget"}):
        raise SystemExit(
            f"There is no part {', '.join(unknown)}. There are speed, widths, probe, taps, few and budget."
        )
    images = replace(load_images(str(arguments.cifar10.resolve())), mirror_safe=True)  # as for the built-in CIFAR-10
    split, _ = make_split(images)
    results: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    wanted = [int(labels) for labels in arguments.labels.split(",")]
    parts: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "speed": lambda: speed(images, arguments.weights),
        "widths": widths,
        "probe": lambda: probes(images, split, arguments.weights),
        "taps": lambda: taps(images, split),
        "few": lambda: few_labels(images, split, arguments.seeds, wanted, tuned, opponents),
        "budget": lambda: same_budget(images, split, tuned, opponents),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    for name in arguments.parts.split(","):
        started = time.perf_counter()
        rows = _kept(
            name, results.get(name, {}).get("rows", []), wanted, [f"{one}-finetune" for one in tuned] + opponents
        )
        print(f"== {name}", flush=True)
        for row in parts[name]():
            rows.append(row)
            results[name] = measured_part(rows, started)
            if name in ("few", "budget"):
                results[name]["not_run"] = not_run(rows)
            write_json(RESULTS, results)  # after each row: what is measured is not lost with what is interrupted


def _kept(part: str, rows: list[dict[str, Any]], labels: list[int], names: list[str]) -> list[dict[str, Any]]:
    """The rows of a part that are not measured anew: of other numbers of labels, or of other recipes with all labels."""
    if part == "few":
        return [row for row in rows if row["labels"] not in labels]
    return [row for row in rows if part == "budget" and row["name"] not in names]


def contenders(weights: Path) -> list[tuple[str, Backbone, Preprocessing]]:
    """The small backbones at 32 px, the ImageNet backbone at 32 px and enlarged."""
    listed = [(f"{name}@32", find_backbone(name), 32) for name in SMALL]
    listed += [(f"{PEER}@{size}", find_backbone(PEER, weights), size) for size in PEER_SIZES]
    return [(label, backbone, backbone_preprocessing(backbone, 32, size)) for label, backbone, size in listed]


def speed(images: ImageSet, weights: Path) -> list[dict[str, Any]]:
    """Images per second of the frozen features, from prepared inputs on."""
    rows: list[dict[str, Any]] = []
    runs: list[tuple[list[FrozenNetwork], torch.Tensor]] = []
    for label, backbone, preprocessing in contenders(weights):
        module = build_backbone(backbone)
        size = complexity(module, preprocessing.input_size)
        inputs = apply_preprocessing(images.images[:SPEED_IMAGES], preprocessing).contiguous()  # as the engine wants it
        forward, engine = choose_forward(module, inputs[:4], CPU)
        ways = [FrozenNetwork(forward, engine, Way(1, torch.get_num_threads(), batch)) for batch in BATCHES]
        raced = fastest(module, f"benchmark, {backbone.weights_sha256}, {label}", inputs, CPU, ENOUGH_FOR_A_RACE)
        runs.append((list({network.way: network for network in (*ways, raced)}.values()), inputs))
        rows.append(
            {
                "name": label,
                "engine": engine,
                "parameters": size.parameters,
                "multiply_adds": size.macs,
                "by_way": {},
            }
        )
    for _ in range(ROUNDS):
        for row, (ways, inputs) in zip(rows, runs, strict=True):
            for network in ways:
                row["by_way"].setdefault(_written(network.way), []).append(_rate(network, inputs))
    for row in rows:
        medians = {way: statistics.median(values) for way, values in row["by_way"].items()}
        row["best_way"] = max(medians, key=lambda way: medians[way])
        row["images_per_second"] = round(medians[row["best_way"]], 1)
        row["by_way"] = {way: [round(value, 1) for value in values] for way, values in row["by_way"].items()}
        print(row["name"], row["best_way"], row["images_per_second"], flush=True)
    return rows


def _written(way: Way) -> str:
    return f"{way.workers} x {way.threads} threads, batch {way.batch}"


def _rate(network: FrozenNetwork, inputs: torch.Tensor) -> float:
    """Images per second over all inputs, again and again, after a few calls."""
    parts = torch.split(inputs, network.way.batch)
    with ThreadPoolExecutor(network.way.workers) as pool:
        list(pool.map(network.forward, parts[: 2 * network.way.workers]))
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < WAY_SECONDS:
            done += sum(len(values) for values in pool.map(network.forward, parts))
        return done / (time.perf_counter() - started)


def widths() -> list[dict[str, Any]]:
    """Images per second of the family's architecture with its channels shared out otherwise, in turns, medians."""
    inputs = torch.zeros(BATCHES[1], 3, 32, 32)
    rows, runs = [], []
    listed = [channels for name, others in OTHER_WIDTHS.items() for channels in (FAMILY[name], *others)]
    for channels in listed:
        module = Small32(channels).eval()
        forward, engine = choose_forward(module, inputs[:4], CPU)
        size = complexity(module, 32)
        runs.append(forward)
        rows.append({"channels": channels, "engine": engine, "parameters": size.parameters, "multiply_adds": size.macs})
    measured = [[images_per_second(forward, inputs) for forward in runs] for _ in range(ROUNDS)]
    for row, speeds in zip(rows, zip(*measured, strict=True), strict=True):
        row["images_per_second"] = round(statistics.median(speeds), 1)
        print(row["channels"], row["multiply_adds"], row["images_per_second"], flush=True)
    return rows


def measured_part(rows: list[dict[str, Any]], started: float) -> dict[str, Any]:
    """A part of the results file: its rows, when and on what they were measured, and the seconds since it was started."""
    return {
        "rows": rows,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.perf_counter() - started, 1),
        "environment": describe_environment(CPU),
    }


def images_per_second(forward: Callable[[torch.Tensor], Any], inputs: torch.Tensor) -> float:
    forward(inputs)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < WAY_SECONDS:
        forward(inputs)
        done += len(inputs)
    return done / (time.perf_counter() - started)


def probes(images: ImageSet, split: Split, weights: Path) -> list[dict[str, Any]]:
    """The convex probe of every contender, on the same labels and the same test images."""
    rows = []
    for labels in (*LABELS, len(split.train)):
        part = fewer_labels(images, split, labels)
        for label, backbone, preprocessing in contenders(weights):
            recipe = probe_recipe(backbone.architecture).with_changes(name=label, preprocessing=preprocessing)
            result = _trial(images, part, recipe, backbone, seed=0)
            rows.append({"labels": len(part.train), **_row([result])})
            print(labels, label, rows[-1]["test_accuracy"]["mean"], flush=True)
    return rows


def taps(images: ImageSet, split: Split) -> list[dict[str, Any]]:
    """The probe on parts of the features of the middle width."""
    backbone = find_backbone(MIDDLE)
    features = extract_features(
        images,
        build_backbone(backbone),
        f"{backbone.weights_sha256}",
        backbone_preprocessing(backbone, 32),
        device=CPU,
        reporter=SilentObserver(),
    ).values
    middle, last = FAMILY[MIDDLE][2:]
    ends = np.cumsum([0, middle, middle, middle, last, last, last])
    columns = [np.arange(first, end) for first, end in pairwise(ends)]  # mean, centre, maximum of each map
    part = fewer_labels(images, split, 5000)
    rows = []
    for name, chosen in {
        "last map, mean": [3],
        "last map, mean and maximum": [3, 5],
        "last two maps, mean": [0, 3],
        "last two maps, mean and maximum": [0, 2, 3, 5],
        "last two maps, mean, centre and maximum": [0, 1, 2, 3, 4, 5],
    }.items():
        kept = np.asarray(features)[:, np.concatenate([columns[number] for number in chosen])]
        head = fit_probe(kept, images.labels, part.train, part.val, len(images.class_names))
        correct = (head.logits(kept[part.test]).argmax(1) == images.labels[part.test])[None]
        rows.append({"name": name, "features": kept.shape[1], "test_accuracy": asdict(bootstrap_accuracy(correct))})
        print(name, rows[-1]["test_accuracy"]["mean"], flush=True)
    return rows


def few_labels(
    images: ImageSet, split: Split, seeds: int, wanted: list[int], tuned: list[str], opponents: list[str]
) -> Iterator[dict[str, Any]]:
    """Fine-tuning with few labels against scratch networks with the same labels, at least the same seconds and their own epochs."""
    for labels in wanted:
        part, winners = fewer_labels(images, split, labels), {}
        for name in tuned:
            recipe = fine_tune_recipe(name, images).with_changes(epochs=small_fine_tune_epochs(labels))
            winners[recipe.name] = [_trial(images, part, recipe, find_backbone(name), seed) for seed in range(seeds)]
            yield _printed(labels, winners[recipe.name])
        longest = max(_seconds(results) for results in winners.values())
        for scratch, architecture in scratch_opponents(images, labels, opponents):
            yield _printed(labels, lasting_trials(longest, scratch, architecture, images, part, seeds), winners)


def same_budget(images: ImageSet, split: Split, tuned: list[str], opponents: list[str]) -> Iterator[dict[str, Any]]:
    """All labels and ten minutes of training; the opponents train at least as long as the longest fine-tuning then did."""
    labels, winners = len(split.train), {}
    for name in tuned:
        recipe, backbone = fine_tune_recipe(name, images), find_backbone(name)
        pace = measured_pace(recipe, backbone, images, split)
        recipe = recipe.with_changes(epochs=max(int((BUDGET_SECONDS - pace.once) / pace.per_epoch), 1))
        winners[recipe.name] = [_trial(images, split, recipe, backbone, seed=0)]
        yield _printed(labels, winners[recipe.name])
    longest = max(_seconds(results) for results in winners.values())
    for scratch, architecture in scratch_opponents(images, labels, opponents):
        # One epoch at least, not its own number: of the slower two that would be much more than the budget.
        results = lasting_trials(longest, scratch, architecture, images, split, seeds=1, least=1)
        yield _printed(labels, results, winners)


def not_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The opponents that no row is of, for each number of labels that there are rows of."""
    found = {(row["labels"], row["name"]) for row in rows}
    return [
        {"labels": labels, "name": name}
        for labels in sorted({labels for labels, _ in found})
        for name in OPPONENTS
        if (labels, name) not in found
    ]


def _printed(
    labels: int, results: list[TrialResult], winners: dict[str, list[TrialResult]] | None = None
) -> dict[str, Any]:
    row = {"labels": labels, **_row(results, winners)}
    print(labels, row["name"], row["test_accuracy"]["mean"], row["train_seconds"], flush=True)
    return row


def _seconds(results: list[TrialResult]) -> float:
    return statistics.median(result.cost.train_seconds for result in results)


def scratch_opponents(images: ImageSet, labels: int, wanted: list[str]) -> list[tuple[Recipe, Backbone | None]]:
    """Those of `OPPONENTS` that are wanted, each as it is by default for so many labels."""
    plain = scratch_recipe(images)
    same = plain.with_changes(name=f"{MIDDLE}-scratch", backbone=MIDDLE)
    listed = [(fast_recipe(images, labels), None), (same, untrained_backbone(MIDDLE)), (plain, None)]
    return [(recipe, backbone) for recipe, backbone in listed if recipe.name in wanted]


def measured_pace(recipe: Recipe, backbone: Backbone | None, images: ImageSet, split: Split) -> Pace:
    """Train for an epoch, or for a few where they are short, and read where the seconds went; nothing is judged."""
    short = recipe.with_changes(epochs=math.ceil(PACE_IMAGES / len(split.train)))
    resolved = resolve_recipe(short, images, split, backbone, Overrides())
    bench = Bench(images, split, CPU, SilentObserver())
    with tempfile.TemporaryDirectory() as folder:
        trained = TRAINERS[recipe.kind](bench, resolved, backbone, 0, Path(folder))
    if trained.fitted is None:
        raise SystemExit(f"{recipe.name} is not trained in epochs; it has no pace.")
    epochs = [epoch.seconds for epoch in trained.fitted.history if epoch.epoch]
    spent = trained.data_seconds + trained.features_seconds + trained.head_seconds + trained.network_seconds
    return Pace(once=spent - sum(epochs), per_epoch=statistics.median(epochs))


def lasting_trials(
    seconds: float,
    recipe: Recipe,
    backbone: Backbone | None,
    images: ImageSet,
    split: Split,
    seeds: int,
    least: int | None = None,
) -> list[TrialResult]:
    """Trials whose median of training seconds is at least `seconds`, with at least the recipe's own epochs (or `least`).

    Training seconds hold each epoch's own evaluation on both sides and the last evaluation, of test, on neither.
    """
    pace = measured_pace(recipe, backbone, images, split)
    epochs = max(
        math.ceil(PACE_MARGIN * (seconds - pace.once) / pace.per_epoch), recipe.epochs if least is None else least
    )
    for _ in range(ATTEMPTS):
        lengthened = recipe.with_changes(epochs=epochs)
        results = [_trial(images, split, lengthened, backbone, seed) for seed in range(seeds)]
        spent = _seconds(results)
        if spent >= seconds:
            return results
        print(f"{recipe.name}: {epochs} epochs took {spent:.1f} s of {seconds:.1f}; once more with more", flush=True)
        epochs = max(math.ceil(PACE_MARGIN * epochs * seconds / spent), epochs + 1)
    raise SystemExit(f"{recipe.name} came out shorter than {seconds:.1f} s {ATTEMPTS} times: is other work going on?")


def fewer_labels(images: ImageSet, split: Split, labels: int) -> Split:
    """The same split with a stratified part of its training labels, and val a fifth of that (at most its own)."""
    if labels >= len(split.train):
        return split
    classes = len(images.class_names)
    train = draw_stratified(images.labels[split.train], classes, labels, generator(0, "benchmark", "train"))
    wanted = min(max(labels // 5, 100), len(split.val))
    val = draw_stratified(images.labels[split.val], classes, wanted, generator(0, "benchmark", "val"))
    return replace(split, train=split.train[train], val=split.val[val])


def _trial(images: ImageSet, split: Split, recipe: Recipe, backbone: Backbone | None, seed: int) -> TrialResult:
    resolved = resolve_recipe(recipe, images, split, backbone, Overrides())
    bench = Bench(images, split, CPU, SilentObserver())
    with tempfile.TemporaryDirectory() as folder:
        return run_trial(bench, resolved, backbone, seed, "benchmark", Path(folder)).result


def _row(results: list[TrialResult], winners: dict[str, list[TrialResult]] | None = None) -> dict[str, Any]:
    correct = _right(results)
    row: dict[str, Any] = {
        "name": results[0].recipe.name,
        "epochs": results[0].recipe.epochs,
        "seeds": len(results),
        "test_images": correct.shape[1],
        "test_accuracy": asdict(bootstrap_accuracy(correct)),
        "train_seconds": round(_seconds(results), 1),
        "parts_of_seconds": {
            part: round(statistics.median(getattr(result.cost, f"{part}_seconds") for result in results), 1)
            for part in ("data", "features", "head", "network")
        },
    }
    if winners is not None:
        row["fine_tuned_minus_this"] = {
            name: asdict(paired_difference(_right(best), correct)) for name, best in winners.items()
        }
    return row


def _right(results: list[TrialResult]) -> npt.NDArray[np.bool_]:
    """`(seeds, test images)`: which answers are right."""
    return np.stack([result.test_logits.argmax(1) == result.test_labels for result in results])


if __name__ == "__main__":
    main()
