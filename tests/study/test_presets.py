"""Recipes by name: what the number of images decides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data.splits import TEST
from headstart.errors import UsageError
from headstart.records import ImageSet
from headstart.study.presets import fast_recipe, fine_tune_recipe, read_recipe, shown_names


def _images(count: int, mirror_safe: bool = True) -> ImageSet:
    return ImageSet(
        name="some",
        source="some",
        images=np.zeros((count, 1, 1, 3), np.uint8),
        labels=np.zeros(count, np.int64),
        class_names=("a", "b"),
        official_part=None,
        fingerprint="0" * 64,
        image_hashes=np.zeros(count, "<U32"),
        mirror_safe=mirror_safe,
    )


@pytest.mark.parametrize(
    ("count", "batch_size", "momentum", "epochs"),
    [
        (60_000, 256, 0.6, 8),
        (20_000, 256, 0.6, 10),
        (19_999, 128, 0.9, 10),
        (3_000, 128, 0.9, 40),
        (2_999, 64, 0.9, 40),
        (1_000, 64, 0.9, 40),
    ],
)
def test_the_fast_network_makes_a_few_hundred_steps_with_few_images(
    count: int, batch_size: int, momentum: float, epochs: int
) -> None:
    recipe = fast_recipe(_images(count))
    assert (recipe.batch_size, recipe.momentum, recipe.epochs) == (batch_size, momentum, epochs)
    trained_on = 0.7 * count  # val and test take the rest, where they are drawn
    assert recipe.epochs * (trained_on // recipe.batch_size) >= 400
    assert fast_recipe(_images(60_000), count) == recipe


@pytest.mark.parametrize(("count", "epochs"), [(50_000, 6), (8_000, 6), (5_000, 10), (2_500, 20), (100, 20)])
def test_the_fewer_images_the_more_often_a_small_backbone_sees_them(count: int, epochs: int) -> None:
    assert fine_tune_recipe("small32_m", _images(count)).epochs == epochs


def test_images_that_the_data_keeps_for_test_teach_nothing() -> None:
    plain, parts = _images(5_000), np.zeros(15_000, np.int8)
    parts[5_000:] = TEST
    with_test = replace(_images(15_000), official_part=parts)
    assert fast_recipe(with_test) == fast_recipe(plain)
    assert fine_tune_recipe("small32_m", with_test) == fine_tune_recipe("small32_m", plain)


def test_the_fast_network_mirrors_only_what_may_be_mirrored() -> None:
    assert fast_recipe(_images(1_000)).augmentation == "shift-alternate"
    assert fast_recipe(_images(1_000, mirror_safe=False)).augmentation == "shift"


def test_backbones_that_are_called_alike_are_told_apart() -> None:
    assert shown_names(["small32_m", "runs/small32_m.safetensors", "b/mine.safetensors"]) == {
        "small32_m": "small32_m",
        "runs/small32_m.safetensors": "small32_m-file",
        "b/mine.safetensors": "mine",
    }
    # An architecture keeps its name wherever it stands; of several files the first does.
    assert shown_names(["a/x.safetensors", "b/x.safetensors", "x", "c/y.safetensors", "d/y.safetensors"]) == {
        "x": "x",
        "a/x.safetensors": "x-file",
        "b/x.safetensors": "x-file2",
        "c/y.safetensors": "y",
        "d/y.safetensors": "y-file",
    }


def test_a_recipe_file_without_epochs_is_read_and_one_with_less_than_none_is_not(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nkind = "scratch"\n')
    assert read_recipe(path).epochs == 0  # the command line may say how many
    path.write_text('name = "mine"\nkind = "scratch"\nepochs = -1\n')
    with pytest.raises(UsageError, match="'epochs': it is -1; expected at least 1"):
        read_recipe(path)
