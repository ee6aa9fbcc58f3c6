"""Predicted seconds: what is on the disk already costs nothing, and is not made again."""

from pathlib import Path

import pytest
import torch

from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.errors import UsageError
from headstart.models.backbones import build_backbone, find_backbone
from headstart.records import Recipe
from headstart.study.observer import SilentObserver
from headstart.study.planning import Overrides, resolve_recipe
from headstart.study.prediction import predict_seconds
from headstart.study.presets import probe_recipe, random_features_recipe
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
    assert predict_seconds(probe, backbone, images, split, CPU).shared > 0
    assert probe.preprocessing is not None
    key = str(backbone.weights_sha256)
    assert not are_extracted(images, key, probe.preprocessing, device=CPU)
    extract_features(images, build_backbone(backbone), key, probe.preprocessing, device=CPU, reporter=SilentObserver())
    assert are_extracted(images, key, probe.preprocessing, device=CPU)
    assert predict_seconds(probe, backbone, images, split, CPU).shared == 0
    # Of other pixels, and of weights that are drawn anew for each seed, nothing is there.
    larger = probe.with_changes(preprocessing=probe.preprocessing.__class__(48))
    assert predict_seconds(larger, backbone, images, split, CPU).shared > 0
    assert predict_seconds(control, backbone, images, split, CPU).shared > 0


@pytest.mark.parametrize(
    ("recipe", "needed"),
    [
        (Recipe("mine", "scratch"), True),
        (Recipe("mine", "finetune", backbone="small32_s"), True),
        (Recipe("mine", "probe", backbone="small32_s", head="gradient"), True),
        (Recipe("mine", "random-features", backbone="small32_s", head="gradient"), True),
        (Recipe("mine", "probe", backbone="small32_s"), False),
        (Recipe("mine", "majority"), False),
    ],
)
def test_what_trains_by_epochs_needs_a_number_of_them(recipe: Recipe, needed: bool) -> None:
    images = load_images("digits", limit=100)
    split, _ = make_split(images)
    backbone = find_backbone("small32_s", None) if recipe.backbone else None
    given = resolve_recipe(recipe, images, split, backbone, Overrides(epochs=5))
    assert given.epochs == (5 if needed else 0)
    stated = resolve_recipe(recipe.with_changes(epochs=3), images, split, backbone, Overrides())
    assert stated.epochs == 3
    if needed:
        with pytest.raises(UsageError, match=r"'mine' \(.*\) trains by epochs.*--epochs 20"):
            resolve_recipe(recipe, images, split, backbone, Overrides())
    else:
        assert resolve_recipe(recipe, images, split, backbone, Overrides()).epochs == 0
