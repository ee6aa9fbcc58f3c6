"""What a recipe leaves open is filled in by data and backbone, and what cannot be done is refused."""

from pathlib import Path

import pytest

from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.errors import UsageError
from headstart.models.backbones import find_backbone
from headstart.records import Preprocessing, Recipe
from headstart.study.presets import probe_recipe
from headstart.study.resolving import Overrides, resolve_recipe
from tests.models.factory import write_vit


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
