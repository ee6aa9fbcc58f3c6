"""Which head counts as trained to its end, and which network as trained further than its pretraining."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.analysis.diagnosis import Finding
from headstart.analysis.statistics import Estimate
from headstart.diagnosis import look_head as under_test
from headstart.diagnosis import subject
from headstart.diagnosis.arrival import LARGE, last_map
from headstart.diagnosis.look_head import HeadProbe, is_as_good, judge_head, overfit_or_behind
from headstart.diagnosis.look_network import is_as_published, is_fine_tuned
from headstart.diagnosis.look_scratch import look_at_stem
from headstart.diagnosis.subject import Subject, subject_of_module
from headstart.records import Preprocessing, Recipe
from tests.models.factory import bundled_backbone


def _subject(module: nn.Module) -> Subject:
    example = np.zeros((2, 32, 32, 3), np.uint8)
    return subject_of_module(
        module, lambda image: torch.zeros(3, 32, 32) + float(np.asarray(image).mean()), example, 10, name="mine"
    )


@pytest.mark.parametrize(
    ("behind", "status"),
    [
        ((0.05, 0.01, 0.09), "proved"),
        ((0.02, 0.01, 0.03), "cleared"),  # for certain, and too little to matter
        ((0.05, -0.01, 0.11), "could-not-look"),
        ((0.01, -0.05, 0.07), "could-not-look"),
        ((-0.03, -0.05, -0.01), "cleared"),
    ],
)
def test_a_head_is_behind_for_certain_or_not_at_all_or_nobody_can_tell(
    behind: tuple[float, float, float], status: str
) -> None:
    assert judge_head(Estimate(*behind, "bootstrap"), {}).status == status


def test_a_training_that_ends_where_a_convex_head_ends_has_learned_what_there_was() -> None:
    right = np.arange(400) < 200
    probe = HeadProbe(right, np.arange(400), 1800)
    assert is_as_good({"val_accuracy": [0.2, 0.48]}, probe)
    assert not is_as_good({"val_accuracy": [0.2, 0.3]}, probe)
    assert not is_as_good({"val_accuracy": [0.48]}, None)
    assert not is_as_good({"loss": [1.0]}, probe)


@pytest.mark.parametrize("scale_of", ["channel", "kernel"])
def test_rounded_weights_are_as_published_and_trained_ones_are_not(scale_of: str) -> None:
    network = bundled_backbone()
    assert is_as_published(_subject(network))
    for parameter in network.parameters():
        over = tuple(range(1 if scale_of == "channel" else 0, parameter.ndim))
        step = parameter.data.abs().amax(over, keepdim=True) / 127
        parameter.data = (parameter.data / step).round() * step
    rounded = _subject(network)
    assert rounded.published is not None
    assert is_as_published(rounded)
    assert not is_fine_tuned(rounded)
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.2 * parameter.data.std() * torch.randn_like(parameter)
    trained = _subject(network)
    assert is_fine_tuned(trained)
    assert not is_as_published(trained)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter)
    assert not is_fine_tuned(_subject(network))  # another pretraining, or none


def test_nobody_knows_of_an_unknown_network_whether_its_weights_have_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "find_published", lambda *_: None)
    unknown = _subject(bundled_backbone())
    assert not is_fine_tuned(unknown)
    assert not is_as_published(unknown)


def test_a_network_that_takes_one_size_has_no_map_at_another() -> None:
    stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    free = nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert (last_map(free, 32), last_map(free, LARGE)) == (16, 64)
    fixed = nn.Sequential(stem, nn.Flatten(), nn.Linear(4 * 16 * 16, 8))
    assert (last_map(fixed, 32), last_map(fixed, LARGE)) == (16, None)


@pytest.mark.parametrize(
    ("architecture", "size", "status"),
    [
        ("mobilenetv2_035", 32, "suspected"),
        ("mobilenetv2_035", 96, "cleared"),
        ("small32_s", 32, "cleared"),
        ("small32_s", 8, "cleared"),
        (None, 8, "cleared"),
    ],
)
def test_an_opponent_from_scratch_is_unfair_where_its_stride_leaves_small_images_nothing(
    architecture: str | None, size: int, status: str
) -> None:
    recipe = Recipe("scratch", "scratch", backbone=architecture, preprocessing=Preprocessing(size))
    found = look_at_stem(recipe, 10)
    assert found.status == status
    assert found.code == ("scratch-stem" if status == "suspected" else "scratch-fair")


@pytest.mark.parametrize(
    ("train", "overfits"),
    [(0.99, True), (0.74, False)],  # the convex head is right on 79% of test
)
def test_a_head_that_knows_its_training_images_is_not_called_trained_too_little(train: float, overfits: bool) -> None:
    points = Estimate(8.0, 5.0, 11.0, "bootstrap")
    gap = Finding(22, "suspected", "gap-large", {"train": train, "val": 0.61})
    head = Finding(21, "proved", "head-below-probe", {"head": 0.71, "probe": 0.79, "labels": 2400.0}, points)
    fit, behind = overfit_or_behind(gap, head)
    if overfits:
        assert (fit.status, fit.code, fit.points) == ("proved", "regularised-head-better", points)
        assert (behind.status, behind.code, behind.points) == ("cleared", "head-knows-train", None)
    else:
        assert (fit, behind) == (gap, head)
    calm = Finding(22, "cleared", "gap-small", gap.values)
    assert overfit_or_behind(calm, head) == (calm, head)


@pytest.mark.parametrize(
    ("own", "of_features", "of_published", "status", "like"),
    [
        (0.60, 0.62, 0.75, "proved", ()),
        (0.60, 0.66, 0.70, "suspected", (21,)),  # worse for certain, but the features are not
        (0.50, 0.66, 0.70, "suspected", (21,)),  # the head is behind, and perhaps the features are, too
        (0.50, 0.69, 0.70, "could-not-look", ()),  # it is the head that is behind
        (0.69, 0.69, 0.62, "cleared", ()),
    ],
)
def test_a_fine_tuning_is_blamed_for_what_neither_its_head_nor_chance_explains(
    own: float,
    of_features: float,
    of_published: float,
    status: str,
    like: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, rng = 400, np.random.default_rng(0)

    def right(share: float) -> Any:
        return rng.permutation(np.arange(count) < share * count)

    monkeypatch.setattr(under_test, "held_out", lambda *_: right(of_published))
    monkeypatch.setattr(under_test, "network_before_tuning", lambda _: None)
    monkeypatch.setattr(under_test, "has_layers_of_its_own", lambda _: False)
    images = SimpleNamespace(labels=np.arange(count) % 10, class_names=list(range(10)))
    pipeline: Any = SimpleNamespace(
        subject=SimpleNamespace(train_mode=False), images=images, factors=(), features_through=lambda *_: None
    )
    test = np.arange(count)
    split: Any = SimpleNamespace(test=test, origin="official")
    unseen = Finding(11, "could-not-look", "no-history", {})
    probe = HeadProbe(right(of_features), test, 100)
    found = under_test.prove_fine_tuning(unseen, right(own)[None], probe, pipeline, test, split)
    assert (found.status, found.like) == (status, like)
