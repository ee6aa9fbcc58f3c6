"""Predicted seconds, and how they are fitted to a budget: what is on the disk costs nothing, what is freed is given back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.models.backbones import build_backbone, find_backbone
from headstart.records import Preprocessing, Recipe
from headstart.study import prediction
from headstart.study.observer import SilentObserver
from headstart.study.planning import Plan, make_plan
from headstart.study.prediction import PredictedCost, extraction_seconds, predict_seconds
from headstart.study.presets import probe_recipe, random_features_recipe
from headstart.study.resolving import Overrides, resolve_recipe
from headstart.training.features import are_extracted, extract_features

CPU = torch.device("cpu")


def test_features_that_are_cached_are_predicted_to_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    images = load_images("digits", limit=200)
    split, _ = make_split(images)
    backbone = find_backbone("small32_s", None)
    probe = resolve_recipe(probe_recipe("small32_s"), images, split, backbone, Overrides())
    control = resolve_recipe(random_features_recipe("small32_s"), images, split, backbone, Overrides())
    assert predict_seconds(probe, backbone, images, split, CPU, {}).shared > 0
    assert probe.preprocessing is not None
    key = str(backbone.weights_sha256)
    assert not are_extracted(images, key, probe.preprocessing, device=CPU)
    extract_features(images, build_backbone(backbone), key, probe.preprocessing, device=CPU, reporter=SilentObserver())
    assert are_extracted(images, key, probe.preprocessing, device=CPU)
    assert predict_seconds(probe, backbone, images, split, CPU, {}).shared == 0
    with monkeypatch.context() as patched:  # what costs nothing is not timed either
        patched.delattr(prediction, "extraction_seconds")
        assert predict_seconds(probe, backbone, images, split, CPU, {}).shared == 0
    # Of other pixels, and of weights that are drawn anew for each seed, nothing is there.
    larger = probe.with_changes(preprocessing=probe.preprocessing.__class__(48))
    assert predict_seconds(larger, backbone, images, split, CPU, {}).shared > 0
    assert predict_seconds(control, backbone, images, split, CPU, {}).shared > 0


def test_a_network_is_timed_once_for_all_of_its_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images("digits", limit=200)
    split, _ = make_split(images)
    backbone = find_backbone("small32_s", None)
    timed: list[float] = []

    def slower_each_time(*_: object) -> float:
        timed.append(float(len(timed) + 1))
        return timed[-1]

    monkeypatch.setattr(prediction, "extraction_seconds", slower_each_time)
    extractions: dict[str, float] = {}
    for recipe in (probe_recipe("small32_s"), random_features_recipe("small32_s")):
        resolved = resolve_recipe(recipe, images, split, backbone, Overrides())
        assert predict_seconds(resolved, backbone, images, split, CPU, extractions).shared == 1
    assert timed == [1]


def _planned(
    monkeypatch: pytest.MonkeyPatch, costs: dict[str, PredictedCost], recipes: list[Recipe], **wanted: Any
) -> Plan:
    """A plan of recipes whose seconds are known; those of the fast network are of its full width, 32."""

    def predicted(recipe: Recipe, *_: object) -> PredictedCost:
        cost = costs[recipe.name]
        return replace(cost, per_epoch=cost.per_epoch * recipe.width / 32)

    monkeypatch.setattr("headstart.study.planning.predict_seconds", predicted)
    images = load_images("digits", limit=100)
    split, _ = make_split(images)
    settings = {"seeds": None, "budget_seconds": None} | wanted
    return make_plan([(recipe, None) for recipe in recipes], [], images, split, CPU, **settings)


FAST = Recipe("fast", "scratch", network="fast", epochs=20)
PROBE = Recipe("probe", "probe", backbone="b")
TUNED = Recipe("tuned", "finetune", backbone="b", epochs=5)
COSTS = {
    "fast": PredictedCost(shared=0, fixed=1, per_epoch=1),
    "probe": PredictedCost(shared=10, fixed=2, per_epoch=0),
    "tuned": PredictedCost(shared=25, fixed=3, per_epoch=4),
}


def test_shared_features_are_charged_once_and_the_lines_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _planned(monkeypatch, COSTS, [FAST, PROBE, TUNED], seeds=3)
    assert [planned.shared_seconds for planned in plan.recipes] == [0, 10, 15]
    assert [planned.seconds for planned in plan.recipes] == [3 * 21, 10 + 2, 15 + 3 * 23]
    assert plan.predicted_seconds == sum(planned.seconds for planned in plan.recipes)
    assert [planned.first_seconds for planned in plan.recipes] == [21, 12, 38]
    first = _planned(monkeypatch, COSTS, [TUNED, PROBE], seeds=3)
    assert [planned.shared_seconds for planned in first.recipes] == [25, 0]


@pytest.mark.parametrize(
    ("budget", "epochs", "seeds", "width", "least"),
    [
        (64 + 12 + 1, [20, 0], 3, 32, False),  # all that was asked for, without the one that does not fit
        (21 + 12 + 1, [20, 0], 1, 32, False),
        (11 + 12 + 1, [11, 0], 1, 32, False),
        (15, [2, 0], 1, 32, False),
        (14, [2, 0], 1, 16, False),
        (12, [2, 0], 1, 8, True),
    ],
)
def test_what_a_recipe_frees_is_given_to_the_others(
    monkeypatch: pytest.MonkeyPatch, budget: float, epochs: list[int], seeds: int, width: int, least: bool
) -> None:
    costly = COSTS | {"tuned": PredictedCost(shared=25, fixed=30, per_epoch=100)}
    plan = _planned(monkeypatch, costly, [FAST, PROBE, TUNED], budget_seconds=budget)
    assert [(missing.name, missing.reason, missing.detail) for missing in plan.not_run] == [("tuned", "budget", "555")]
    assert [planned.recipe.epochs for planned in plan.recipes] == epochs
    assert (len(plan.seeds), plan.recipes[0].recipe.width) == (seeds, width)
    assert plan.is_over_budget == least


@pytest.mark.parametrize(
    ("budget", "per_epoch", "epochs"),
    [
        (23, 10, [2, 3]),  # by one common factor 2 and 4: the other network gives way, the fast one keeps its width
        (
            31,
            4,
            [7, 3],
        ),  # 4 and 11: the other network gives way to the fast one; the second that this leaves is its own again
        (45, 4, [8, 13]),
        (500, 4, [8, 20]),
    ],
)
def test_the_fast_network_is_cut_last_and_gets_what_is_left(
    monkeypatch: pytest.MonkeyPatch, budget: float, per_epoch: float, epochs: list[int]
) -> None:
    costs = {"fast": PredictedCost(0, 0, per_epoch), "cnn": PredictedCost(0, 0, 1)}
    plain = Recipe("cnn", "scratch", epochs=20)
    plan = _planned(monkeypatch, costs, [FAST.with_changes(epochs=8), plain], budget_seconds=budget, seeds=1)
    assert [planned.recipe.epochs for planned in plan.recipes] == epochs
    assert plan.recipes[0].recipe.width == 32
    assert plan.predicted_seconds <= budget


@pytest.mark.parametrize(
    ("budget", "epochs", "left_out"),
    [
        (8 * 10 + 12 + 30, 8, []),
        (8 * 10 + 12 + 29, 8, ["random-large"]),  # rather than one epoch of the network that transfer has to beat
        (5 * 10 + 12, 5, ["random-large"]),  # the cheaper control stays
    ],
)
def test_the_fast_network_is_not_cut_for_a_second_control(
    monkeypatch: pytest.MonkeyPatch, budget: float, epochs: int, left_out: list[str]
) -> None:
    costs = {
        "fast": PredictedCost(0, 0, 10),
        "random-small": PredictedCost(10, 2, 0),
        "random-large": PredictedCost(25, 5, 0),
    }
    controls = [Recipe(name, "random-features", backbone=name) for name in ("random-small", "random-large")]
    plan = _planned(monkeypatch, costs, [FAST.with_changes(epochs=8), *controls], budget_seconds=budget, seeds=1)
    assert plan.recipes[0].recipe.epochs == epochs
    assert [(missing.name, missing.reason) for missing in plan.not_run] == [(name, "budget") for name in left_out]
    assert plan.predicted_seconds <= budget


def test_a_control_comes_back_where_a_fine_tuning_leaves_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = COSTS | {
        "tuned": PredictedCost(shared=25, fixed=30, per_epoch=100),
        "random-small": PredictedCost(10, 2, 0),
        "random-large": PredictedCost(25, 5, 0),
    }
    controls = [Recipe(name, "random-features", backbone=name) for name in ("random-small", "random-large")]
    plan = _planned(monkeypatch, costs, [FAST, PROBE, TUNED, *controls], budget_seconds=200, seeds=1)
    assert [planned.recipe.name for planned in plan.recipes] == ["fast", "probe", "random-small", "random-large"]
    assert [missing.name for missing in plan.not_run] == ["tuned"]
    assert plan.recipes[0].recipe.epochs == FAST.epochs


def test_without_a_budget_nothing_is_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = COSTS | {"fast": PredictedCost(shared=0, fixed=0, per_epoch=1000)}
    plan = _planned(monkeypatch, slow, [FAST])
    assert (plan.predicted_seconds, len(plan.seeds), plan.is_over_budget) == (20_000, 1, False)


@pytest.mark.parametrize(
    ("architecture", "depthwise"),
    [("mobilenetv3_small_050", True), ("convnext_tiny", False), ("resnet18", False), ("small32_s", False)],
)
def test_depthwise_networks_gain_more_from_the_other_engine(architecture: str, depthwise: bool) -> None:
    module = timm.create_model(architecture, num_classes=0)
    expected = prediction._DEPTHWISE_SPEED_UP if depthwise else prediction._PLAIN_SPEED_UP
    assert prediction._speed_up(module, 32) == expected
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_network_that_could_not_be_exported_is_not_expected_to_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr(prediction, "_time_forward", lambda *_: 1.6)
    monkeypatch.setattr(prediction, "_TIMED_IMAGES", 16)
    images, seen = load_images("digits", limit=100), Preprocessing(32)
    module = timm.create_model("small32_s", num_classes=0).eval()

    def predicted(key: str = "k") -> float:
        return extraction_seconds(module, images, seen, CPU, key) - prediction._EXPORT_SECONDS

    assert predicted() == pytest.approx(0.1 * 100 / prediction._PLAIN_SPEED_UP)
    with monkeypatch.context() as broken:
        broken.setattr("headstart.training.frozen._checked_graph", lambda *_: None)
        extract_features(images, module, "k", seen, device=CPU, reporter=SilentObserver())
    assert predicted() == pytest.approx(0.1 * 100)
    assert predicted("other") < 0.1 * 100
    extract_features(images, module, "k", seen, device=CPU, reporter=SilentObserver(), half_precision=True)
    assert predicted() < 0.1 * 100


def test_the_network_is_timed_on_the_device_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = set[str]()

    def noted(module: torch.nn.Module, inputs: torch.Tensor) -> float:
        devices.update(parameter.device.type for parameter in module.parameters())
        devices.add(inputs.device.type)
        return 0.0

    monkeypatch.setattr(prediction, "_time_forward", noted)
    module = timm.create_model("small32_s", num_classes=0)
    extraction_seconds(module, load_images("digits", limit=100), Preprocessing(32), torch.device("meta"))
    assert devices == {"meta"}
