"""The parts of the benchmark: each runs its processes in turns and yields its rows as they are measured."""

import shutil
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from headstart.models.cost import complexity
from headstart.models.network import NetworkSpec, build_network

from .data import headstart_arrays, read_all
from .processes import Finished, Word, compare, empty_cache, in_turns, medians, script, seconds_of
from .setting import Row, Setting

RECIPES = Path(__file__).parent / "recipes"
BACKBONE = "mobilenetv2_100"
FEATURE_IMAGES = {96: 20_000, 160: 10_000, 224: 5_000}
"""Images per round, by input size: about a minute of the peer's on two cores (chosen)."""

FORWARD_IMAGES = {96: 2048, 160: 1024, 224: 512}
"""Prepared batches of about 220 to 310 MB in all (chosen)."""

L2_VALUES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
SAME_OBJECTIVE = 1e-3
"""Relative; within it two fits count as the same (chosen: far below what a test image can tell)."""

TRANSFER_SIZE, TRANSFER_EPOCHS, RERUNS = 96, 5, 3
TUTORIAL_EPOCHS, TUTORIAL_ACCURACY = 10, 0.71
"""The tutorial's own number of epochs. More would only add to the seconds of a peer that does not get there."""

VAL_FRACTION_OF_94 = 0.02
"""Val chooses nothing in that training but the epoch that is kept, for which a thousand images are enough (chosen); the others train it."""

RESNET_EPOCHS, RESNET_STEPS = 30, 8
"""An assumption in the peer's favour: kuangliu/pytorch-cifar trains its ResNet-18 for 200 epochs."""

WATCH_SECONDS, WATCH_SECONDS_BESIDE = 0.1, 1.0
"""From one look at the memory to the next; rarer where seconds are measured, since a look costs some milliseconds (chosen)."""

FINE_TUNED_IMAGES, FINE_TUNED_EPOCHS = 5000, 3
FORWARD_EQUIVALENTS = 3  # of a training step: the backward pass costs about two forward passes


def features(setting: Setting) -> Iterator[Row]:
    """Frozen MobileNetV2 at three sizes: from decoded images, and the forward pass alone."""
    for size, count in {TRANSFER_SIZE: 128}.items() if setting.quick else FEATURE_IMAGES.items():
        images, forward_images = count, min(count, FORWARD_IMAGES[size])
        data = ("--arrays", setting.arrays, "--weights", setting.weights, "--size", size)
        arguments: list[Word] = ["features", *data, "--images", images, "--forward-images", forward_images]
        ours, peers, products = in_turns(
            setting.rounds_or(3),
            partial(_in_empty_cache, setting, partial(script, "ours", *arguments)),
            partial(script, "keras_peer", *arguments),
            partial(script, "ours", "matrix"),
        )
        by_library = {
            library: max(run.facts["flop_per_second"][library] for run in products)
            for library in products[0].facts["flop_per_second"]
        }
        matrix = max(by_library.values())
        first = ours[0].facts
        yield {
            **_timed(f"features-{size}", _reported(ours, "seconds"), _reported(peers, "seconds")),
            "images": images,
            "ours_images_per_second": round(images / medians(ours, "seconds"), 1),
            "peer_images_per_second": round(images / medians(peers, "seconds"), 1),
            "ours_process_seconds": seconds_of(ours),
            "peer_process_seconds": seconds_of(peers),
            "engine": first["engine"],
            "raced": first["raced"],
            "note": "seconds of the call in the process; ours exports and checks in them, "
            + (
                "and races its ways"
                if first["raced"]
                else "without a race of its ways, which so short a job is not worth"
            )
            + "; the peer traces",
        }
        rates = {side: medians(runs, "forward_images_per_second") for side, runs in (("ours", ours), ("peer", peers))}
        flop = 2 * first["macs"] * rates["ours"]
        yield {
            "name": f"forward-{size}",
            "target": f"forward-{size}",
            "ratio": round(rates["ours"] / rates["peer"], 2),
            "images": forward_images,
            "ours_rounds": [round(run.facts["forward_images_per_second"], 1) for run in ours],
            "peer_rounds": [round(run.facts["forward_images_per_second"], 1) for run in peers],
            "ours_images_per_second": round(rates["ours"], 1),
            "peer_images_per_second": round(rates["peer"], 1),
            "multiply_adds": first["macs"],
            "way": first["way"],
            "peer_way": peers[0].facts["way"],
            "matrix_flop_per_second": round(matrix),
            "share": round(flop / matrix, 3),
            "conditions": peer_at_its_best(rates["peer"], images / medians(peers, "seconds")),
            "note": "prepared batches, after a first call, on both sides the best of several ways; `share` is of the "
            "matrix-product rate, two FLOP per multiply-add",
        }
        if size == TRANSFER_SIZE:
            yield {
                "name": "matrix-96",
                "target": "matrix-96",
                "share": round(flop / matrix, 3),
                "ours_flop_per_second": round(flop),
                "peer_flop_per_second": round(matrix),
                "by_library": {library: round(rate) for library, rate in by_library.items()},
                "share_of_torch": round(flop / by_library["torch"], 3),
                "note": "two FLOP per multiply-add; of each library the best of all rounds' twenty products of 2048 x 2048",
            }


def peer_at_its_best(forward: float, pipeline: float) -> dict[str, bool]:
    """That the peer's forward pass alone makes at least the images per second that its own pipeline makes with it."""
    return {"the peer at its best (as fast alone as in its own pipeline)": forward >= pipeline}


def transfer(setting: Setting) -> Iterator[Row]:
    """Files on disk to test accuracy, then a second run on the cached features, then both peers."""
    read_all(setting.cifar10)
    rounds = setting.rounds_or(1)
    shared = ("--data", setting.cifar10, "--weights", setting.weights, "--size", TRANSFER_SIZE)
    epochs = ("--epochs", 1 if setting.quick else TRANSFER_EPOCHS)
    ours: list[Finished] = []
    again: list[Finished] = []
    peers: dict[str, list[Finished]] = {"keras": [], "torch": []}
    for seed in range(rounds):
        with empty_cache(setting.work) as cache:
            run = partial(_compare, setting, cache, "--input-size", TRANSFER_SIZE, "--seeds", 1)
            ours.append(run("--recipe", f"{BACKBONE}-probe"))
            again += [run("--recipe", RECIPES / "other_head.toml") for _ in range(RERUNS)]
        yield {
            **_timed("rerun", seconds_of(again), seconds_of(ours)),
            "ours_test_accuracy": _accuracy(again[0]),
            "peer_test_accuracy": _accuracy(ours[0]),
            "note": "the peer is our own first run; the head of the second is trained by Adam, the features are cached",
        }
        for name, runs in peers.items():
            runs.append(script(f"{name}_peer", "transfer", *shared, *epochs, "--seed", seed))
            yield _transferred(name, ours, runs)


def _transferred(name: str, ours: list[Finished], peers: list[Finished]) -> Row:
    accuracies = [run.facts["test_accuracy"] for run in peers]
    found = [_accuracy(run) for run in ours]
    return {
        **_timed(f"transfer-{name}", seconds_of(ours), seconds_of(peers)),
        "ours_test_accuracy": statistics.median(found),
        "peer_test_accuracy": round(statistics.median(accuracies), 4),
        "ours_parts_of_seconds": _parts_of_seconds(ours[0]),
        "seeds": list(range(len(peers))),
        "note": "ours trains on 45,000 images and chooses L2 on the other 5,000, the peer trains on all 50,000",
        "conditions": {"accuracy not lower than the peer's": statistics.median(found) >= statistics.median(accuracies)},
    }


def probe(setting: Setting) -> Iterator[Row]:
    """The probe for twelve values of L2 against scikit-learn's, and what each reaches."""
    features_file, labels_file = setting.work / "probe-features.npy", setting.work / "probe-labels.npy"
    files = ("--features", features_file, "--labels", labels_file)
    data = ("--arrays", setting.arrays, "--weights", setting.weights, "--size", TRANSFER_SIZE)
    made = _in_empty_cache(setting, partial(script, "ours", "probe-data", *data, *files)).facts
    values = L2_VALUES[::4] if setting.quick else L2_VALUES
    wanted = ("--l2", ",".join(map(str, values)))
    ours, peers = in_turns(
        setting.rounds_or(3),
        partial(script, "ours", "probe", *files, *wanted),
        partial(script, "sklearn_peer", *files, *wanted),
    )
    judged = script("ours", "probe", *files, *wanted, "--judge").facts
    by_l2: list[dict[str, float]] = [
        {
            "l2": l2,
            **{f"ours_{key}": mine[key] for key in theirs},
            **{f"peer_{key}": value for key, value in theirs.items()},
        }
        for l2, mine, theirs in zip(values, judged["reached"], peers[0].facts["reached"], strict=True)
    ]
    worst = max(one["ours_objective"] / one["peer_objective"] - 1 for one in by_l2)
    yield {
        **_timed("probe", seconds_of(ours), seconds_of(peers)),
        "images": made["images"],
        "features": made["features"],
        "values_fitted": {"ours": len(judged["l2"]), "peer": len(values)},
        "ours_fit_seconds": _reported(ours, "seconds"),
        "peer_fit_seconds": _reported(peers, "seconds"),
        "peer_iterations": peers[0].facts["iterations"],
        "by_l2": by_l2,
        "largest_relative_excess": worst,
        "conditions": {
            "all values fitted": len(judged["l2"]) == len(values),
            f"what is minimised within {SAME_OBJECTIVE:.1%} of the peer's": worst <= SAME_OBJECTIVE,
        },
        "note": "whole processes; the feature file is read in them",
    }


def scratch(setting: Setting) -> Iterator[Row]:
    """Seconds to 71% test accuracy: the recipe `fast` against the CNN of Keras' tutorial, both from arrays.

    Where the peer does not get there, its seconds are those up to its best epoch, so that its patience adds nothing.
    """
    arrays = headstart_arrays(setting.arrays)
    arrays.read_bytes()
    goal = 0.2 if setting.quick else TUTORIAL_ACCURACY
    epochs = 2 if setting.quick else TUTORIAL_EPOCHS
    ours: list[Finished] = []
    peers: list[Finished] = []
    for seed in range(setting.rounds_or(3)):
        with empty_cache(setting.work) as cache:
            ours.append(
                compare(
                    arrays,
                    setting.weights,
                    *("--recipe", RECIPES / "fast_71.toml", "--seeds", 1),
                    cache=cache,
                    runs=setting.work,
                )
            )
        peer = ("--arrays", setting.arrays, "--epochs", epochs, "--accuracy", goal, "--seed", seed)
        peers.append(script("keras_peer", "scratch", *peer))
        accuracies = [_accuracy(run) for run in ours]
        all_reached = all(run.facts["reached"] for run in peers)
        peer_seconds = [
            seconds_to_best(run.seconds, run.facts["by_epoch"], run.facts["epoch_seconds"]) for run in peers
        ]
        yield {
            **_timed("scratch-71", seconds_of(ours), peer_seconds),
            "goal": goal,
            "ours_test_accuracy": statistics.median(accuracies),
            "peer_test_accuracy": statistics.median(max(run.facts["by_epoch"]) for run in peers),
            "peer_by_epoch": [run.facts["by_epoch"] for run in peers],
            "peer_epoch_seconds": [[round(one, 2) for one in run.facts["epoch_seconds"]] for run in peers],
            "peer_process_seconds": seconds_of(peers),
            "ours_settings": ours[0].facts["recipes"][0]["settings"],
            "ours_parts_of_seconds": _parts_of_seconds(ours[0]),
            "seeds": list(range(len(peers))),
            "lower_bound": not all_reached,
            "conditions": {f"at least {goal:.0%} in every round": min(accuracies) >= goal},
            "note": "whole processes; both begin with arrays, as `load_data` gives them; ours ends with its report, the peer "
            "with its best epoch on test",
        }


def seconds_to_best(seconds: float, accuracies: list[float], epoch_seconds: list[float]) -> float:
    """A process' seconds without those of the epochs after its best one."""
    best = accuracies.index(max(accuracies)) + 1
    return round(seconds - sum(epoch_seconds[best:]), 2)


def scratch90(setting: Setting) -> Iterator[Row]:
    """Seconds to 90% test accuracy."""
    yield _long_scratch(setting, "scratch-90", RECIPES / "fast_90.toml", 0.90)


def scratch94(setting: Setting) -> Iterator[Row]:
    """Seconds to 94% test accuracy."""
    yield _long_scratch(setting, "scratch-94", RECIPES / "fast_94.toml", 0.94, "--val-fraction", VAL_FRACTION_OF_94)


def _long_scratch(setting: Setting, name: str, recipe: Path, goal: float, *options: Word) -> Row:
    """Our run to its end; of the peer some steps, from which its epochs are extrapolated."""
    read_all(setting.cifar10)
    ours: list[Finished] = []
    quick = ("--epochs", 1, "--batch-size", 64) if setting.quick else ()
    for _ in range(setting.rounds_or(1)):
        with empty_cache(setting.work) as cache:
            ours.append(_compare(setting, cache, "--recipe", recipe, "--seeds", 1, *options, *quick))
    steps = 1 if setting.quick else RESNET_STEPS
    batch = 16 if setting.quick else 128
    peer = script("torch_peer", "resnet", "--steps", steps, "--batch-size", batch).facts
    accuracies = [_accuracy(run) for run in ours]
    facts = ours[0].facts
    mine = facts["recipes"][0]
    parts = facts["data"]["split"]
    settings = mine["settings"]
    # Not the trial's own count: that is of a prediction, in which the mirror image is asked, too.
    spec = NetworkSpec(settings["network"], len(facts["data"]["classes"]), settings["input_size"], settings["width"])
    macs = complexity(build_network(spec), spec.input_size).macs
    our_flop = FORWARD_EQUIVALENTS * 2 * parts["train"] * macs * settings["epochs"]
    peer_seconds = RESNET_EPOCHS * 50_000 / peer["batch_size"] * peer["step_seconds"]
    peer_flop = FORWARD_EQUIVALENTS * 2 * 50_000 * peer["macs"] * RESNET_EPOCHS
    seconds = statistics.median(seconds_of(ours))
    return {
        "name": name,
        "target": name,
        "seconds": seconds,
        "ours_seconds": seconds_of(ours),
        "peer_seconds_extrapolated": round(peer_seconds, 1),
        "ratio_extrapolated": round(peer_seconds / seconds, 1),
        "peer_step_seconds": peer["step_seconds"],
        "peer_epochs_assumed": RESNET_EPOCHS,
        "ours_flop": our_flop,
        "peer_flop_extrapolated": peer_flop,
        "flop_ratio_extrapolated": round(peer_flop / our_flop, 1),
        "ours_test_accuracy": statistics.median(accuracies),
        "ours_settings": settings,
        "ours_multiply_adds": macs,
        "ours_train_images": parts["train"],
        "ours_parts_of_seconds": _parts_of_seconds(ours[0]),
        "conditions": {f"at least {goal:.0%}": statistics.median(accuracies) >= goal},
        "note": f"ours trains on {parts['train']:,} images; the peer is not trained: {RESNET_EPOCHS} epochs are assumed, its step is the "
        f"median of {steps} without any data loading, FLOP are three forward passes a step; "
        "whether it would reach the accuracy is not measured",
    }


def finetune(setting: Setting) -> Iterator[Row]:
    """Seconds of an epoch of the default fine-tuning, with and without kept activations."""
    images = 300 if setting.quick else FINE_TUNED_IMAGES
    epochs = 1 if setting.quick else FINE_TUNED_EPOCHS
    data = ("--data", setting.cifar10, "--weights", setting.weights)
    arguments: list[Word] = ["finetune", *data, "--images", images, "--epochs", epochs]
    ours, peers = in_turns(
        setting.rounds_or(3),
        partial(_in_empty_cache, setting, partial(script, "ours", *arguments, "--cached")),
        partial(_in_empty_cache, setting, partial(script, "ours", *arguments)),
    )
    facts = ours[0].facts
    yield {
        **_timed("finetune", _reported(ours, "median_epoch_seconds"), _reported(peers, "median_epoch_seconds")),
        "images": facts["train_images"],
        "input_size": facts["input_size"],
        "epochs": epochs,
        "extraction_seconds": round(facts["extraction_seconds"], 2),
        "kept_bytes": facts["kept_bytes"],
        "note": "median epoch, its evaluation included; the extraction is paid once and is not in it; without the cache the "
        "frozen part runs in eager PyTorch",
    }


def memory(setting: Setting) -> Iterator[Row]:
    """Peak memory of the whole default comparison, seen from outside over all its processes."""
    limit, epochs = (300, 1) if setting.quick else (setting.limit, setting.epochs)
    limits = [*(("--limit", limit) if limit else ()), *(("--epochs", epochs) if epochs else ())]
    if setting.budget:
        limits += ["--budget", setting.budget, "--seeds", 1]
    with empty_cache(setting.work) as cache:
        run = _compare(setting, cache, *limits, watch=WATCH_SECONDS)
    left_out = [missing["name"] for missing in run.facts["not_run"]]
    yield {
        "name": "memory",
        "target": "memory",
        "bytes": run.peak_rss_bytes,
        "rss_bytes": run.peak_rss_bytes,
        "uss_bytes": run.peak_uss_bytes,
        "anonymous_bytes": run.peak_anonymous_bytes,
        "seconds": round(run.seconds, 1),
        "limit": limit,
        "epochs": epochs,
        "budget": setting.budget,
        "contest": [_competitor(recipe) for recipe in run.facts["recipes"]],
        "verdict": run.facts["verdict"]["statement"],
        "left_out": left_out,
        "conditions": {
            "the whole of it, controls aside": limit is None
            and epochs is None
            and not [name for name in left_out if not name.startswith("random-features")]
        },
        "note": "the highest of sums over all processes, ten looks a second; mapped files count while they are resident",
    }


def folder(setting: Setting) -> Iterator[Row]:
    """Folders of JPEG files of 256 px, cold: the probe at 96 px against one epoch of plain PyTorch."""
    rows: list[Row] = []
    for images in (200, 400) if setting.quick else sorted(setting.folder_images):
        place = setting.work / f"jpeg-{images}"
        made = script("data", "--cifar10", setting.cifar10, "--folder", place, "--images", images).facts
        read_all(place)
        peer = ("--data", place, "--weights", setting.weights, "--size", TRANSFER_SIZE, "--epochs", 1)
        ours: list[Finished] = []
        peers: list[Finished] = []
        for seed in range(setting.rounds_or(1)):
            with empty_cache(setting.work) as cache:
                options = ("--recipe", f"{BACKBONE}-probe", "--input-size", TRANSFER_SIZE, "--seeds", 1)
                ours.append(
                    compare(
                        place, setting.weights, *options, cache=cache, runs=setting.work, watch=WATCH_SECONDS_BESIDE
                    )
                )
            peers.append(script("torch_peer", "transfer", *peer, "--seed", seed))
        shutil.rmtree(place)
        row: Row = {
            **_timed(f"folder-{images}", seconds_of(ours), seconds_of(peers)),
            "target": "folder",
            "images": images,
            "file_bytes": made["bytes"],
            "ours_images_per_second": round(images / statistics.median(seconds_of(ours)), 1),
            "peer_images_per_second": round(images / statistics.median(seconds_of(peers)), 1),
            "rss_bytes": max(run.peak_rss_bytes for run in ours),
            "uss_bytes": max(run.peak_uss_bytes for run in ours),
            "anonymous_bytes": max(run.peak_anonymous_bytes for run in ours),
            "ours_test_accuracy": _accuracy(ours[0]),
            "peer_test_accuracy": round(peers[0].facts["test_accuracy"], 4),
            "ours_parts_of_seconds": _parts_of_seconds(ours[0]),
            "note": "our whole process: decoding, features, probe with L2 chosen on val, report; our memory was looked at "
            "once a second meanwhile",
        }
        rows.append(row)
        yield row
    yield from _growth(rows[0], rows[-1])


def _growth(small: Row, large: Row) -> Iterator[Row]:
    """How seconds and memory grow from the smallest to the largest folder; 1 is in proportion (seconds), flat (memory)."""
    images = large["images"] / small["images"]
    seconds = statistics.median(large["ours_seconds"]) / statistics.median(small["ours_seconds"])
    span = f"from {small['images']:,} to {large['images']:,} images"
    yield {
        "name": "folder-time",
        "target": "folder-time",
        "growth": round(seconds / images, 3),
        "note": f"{span}: growth of the seconds divided by growth of the number",
    }
    yield {
        "name": "folder-memory",
        "target": "folder-memory",
        "growth": round(large["rss_bytes"] / small["rss_bytes"], 3),
        "anonymous_growth": round(large["anonymous_bytes"] / max(small["anonymous_bytes"], 1), 3),
        "note": f"{span}: growth of the peak resident memory; `anonymous_growth` leaves mapped files out",
    }


def _timed(name: str, ours: list[float], peer: list[float]) -> Row:
    """The seconds of all rounds, and the ratio of their medians."""
    return {
        "name": name,
        "target": name,
        "ratio": round(statistics.median(peer) / statistics.median(ours), 2),
        "ours_seconds": ours,
        "peer_seconds": peer,
    }


def _reported(runs: list[Finished], fact: str) -> list[float]:
    return [round(run.facts[fact], 3) for run in runs]


def _in_empty_cache(setting: Setting, run: Callable[..., Finished]) -> Finished:
    with empty_cache(setting.work) as cache:
        return run(cache=cache)


def _compare(setting: Setting, cache: Path, *arguments: Word, watch: float = 0.0) -> Finished:
    return compare(setting.cifar10, setting.weights, *arguments, cache=cache, runs=setting.work, watch=watch)


def _competitor(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of a comparison, in as many words as a table has columns."""
    settings, planned, accuracy = recipe["settings"], recipe["planned"], recipe["test_accuracy"]
    return {
        "name": recipe["name"],
        "control": recipe["control"],
        "input_size": settings["input_size"],
        "epochs": settings["epochs"],
        "width": settings["width"],
        "asked_epochs": planned["asked_epochs"],
        "asked_width": planned["asked_width"],
        "test_accuracy": {end: round(accuracy[end], 4) for end in ("mean", "low", "high")},
        "gap": round(recipe["train_val_gap"]["mean"], 4),
        "fit": recipe["fit_verdict"],
        "seconds": round(recipe["cost"]["train_seconds"], 1),
        "planned_seconds": round(planned["seconds"], 1),
        "actual_seconds": round(planned["actual_seconds"], 1),
    }


def _accuracy(run: Finished) -> float:
    """Test accuracy of the first recipe of a comparison."""
    return round(float(run.facts["recipes"][0]["test_accuracy"]["mean"]), 4)


def _parts_of_seconds(run: Finished) -> dict[str, float]:
    """What the comparison itself says of where its training time went."""
    cost: dict[str, Any] = run.facts["recipes"][0]["cost"]
    return {name: round(cost[f"{name}_seconds"], 2) for name in ("train", "data", "features", "head", "network")}


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "features": features,
    "transfer": transfer,
    "probe": probe,
    "scratch": scratch,
    "scratch90": scratch90,
    "scratch94": scratch94,
    "finetune": finetune,
    "memory": memory,
    "folder": folder,
}
