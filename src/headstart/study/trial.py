"""One trial: one recipe with one seed, from decoded images to a trained network and its predictions.

Each kind of recipe has its own training (`kinds.py`); `run_trial` does what all have in common: it measures, and it opens test
once, at the end.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from headstart.data.splits import JUDGED_TRAIN_IMAGES, evenly_spaced
from headstart.environment import describe_environment
from headstart.files import canonical_json
from headstart.models.backbones import Backbone
from headstart.models.cost import Speed, complexity, speed
from headstart.models.network import NetworkSpec
from headstart.records import Cost, EpochRecord, Recipe, TrialResult
from headstart.study.kinds import TRAINERS, Bench, Trained
from headstart.study.memory import PeakMemory


@dataclass(frozen=True)
class FinishedTrial:
    """A result with the network that made it."""

    result: TrialResult
    network: nn.Module
    spec: NetworkSpec


def run_trial(
    bench: Bench, recipe: Recipe, backbone: Backbone | None, seed: int, identity: str, folder: Path
) -> FinishedTrial:
    """Run one trial.

    Args:
        bench: data, split, device, reporter, callbacks.
        recipe: resolved.
        backbone: of the recipe, where it has one.
        seed: of the training.
        identity: of the trial.
        folder: of the trial; its resume file is here.

    Returns:
        Result and network; nothing but learning curve and resume file has been written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    split, labels = bench.split, bench.images.labels
    with PeakMemory(bench.device) as memory:
        trained = TRAINERS[recipe.kind](bench, recipe, backbone, seed, folder)
        bench.reporter.stage("evaluation", 3)
        seen = split.train[evenly_spaced(labels[split.train], JUDGED_TRAIN_IMAGES)]
        train_correct = trained.logits(seen).argmax(1) == labels[seen]
        bench.reporter.advance(1)
        val_logits = trained.logits(split.val)
        bench.reporter.advance(2)
        test_logits = trained.logits(split.test)
        bench.reporter.advance(3)
    cost = _measure(trained, bench.paces)
    fitted = trained.fitted
    # Epochs of a run that was interrupted and resumed took their time in that one.
    wall_seconds = time.perf_counter() - started + (fitted.earlier_seconds if fitted else 0.0)
    history: tuple[EpochRecord, ...] = fitted.history if fitted else ()
    result = TrialResult(
        identity=identity,
        recipe=recipe,
        seed=seed,
        test_indices=split.test,
        test_labels=labels[split.test],
        test_logits=test_logits,
        val_labels=labels[split.val],
        val_logits=val_logits,
        train_correct=train_correct,
        history=history,
        best_epoch=fitted.best_epoch if fitted else 0,
        stopped_early=fitted.stopped_early if fitted else False,
        chosen=trained.chosen or {},
        cost=replace(cost, peak_bytes=memory.peak_bytes, wall_seconds=wall_seconds),
        environment=describe_environment(bench.device),
    )
    return FinishedTrial(result, trained.network, trained.spec)


def _measure(trained: Trained, paces: dict[str, Speed]) -> Cost:
    size = complexity(trained.network, trained.spec.input_size)
    structure = canonical_json(asdict(trained.spec))
    if structure not in paces:
        paces[structure] = speed(trained.network, trained.spec.input_size)
    pace = paces[structure]
    parts = (trained.data_seconds, trained.features_seconds, trained.head_seconds, trained.network_seconds)
    return Cost(
        parameters=size.parameters,
        parameters_trained=trained.parameters_trained,
        macs=size.macs,
        macs_uncounted=size.macs_uncounted,
        train_seconds=sum(parts),
        data_seconds=trained.data_seconds,
        features_seconds=trained.features_seconds,
        head_seconds=trained.head_seconds,
        network_seconds=trained.network_seconds,
        train_images_per_second=trained.images_per_second,
        latency_ms=pace.latency_ms,
        throughput_images_per_second=pace.images_per_second,
    )
