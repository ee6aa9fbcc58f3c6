"""Predicted seconds: what is on the disk already costs nothing, and is not made again."""

from pathlib import Path

import pytest
import torch

from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.errors import UsageError
from headstart.models.backbones import build_backbone, find_backbone
from headstart.records import Preprocessing
from headstart.study.observer import SilentObserver
from headstart.study.planning import Overrides, resolve_recipe
from headstart.study.prediction import predict_seconds
from headstart.study.presets import probe_recipe, random_features_recipe
from headstart.training.features import are_extracted, extract_features
from tests.models.factory import write_vit

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


def test_a_backbone_of_one_size_sees_that_size_and_no_other_can_be_asked_of_it(tmp_path: Path) -> None:
    images = load_images("digits", limit=200)
    split, _ = make_split(images)
    backbone = find_backbone(str(write_vit(tmp_path, 160, "{}")))
    recipe = probe_recipe(str(backbone.path))
    resolved = resolve_recipe(recipe, images, split, backbone, Overrides())
    assert resolved.input_size == 160
    assert resolve_recipe(recipe, images, split, backbone, Overrides(input_size=160)) == resolved
    asked = "'vit-probe' asks for images of 96 px, but test_vit takes 160 px only"
    with pytest.raises(UsageError, match=asked):
        resolve_recipe(recipe, images, split, backbone, Overrides(input_size=96))
    with pytest.raises(UsageError, match=asked):
        resolve_recipe(recipe.with_changes(preprocessing=Preprocessing(96)), images, split, backbone, Overrides())
