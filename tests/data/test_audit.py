"""What is said about a data set, counted by hand."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data import audit
from headstart.data.audit import channel_statistics, data_facts, is_grayscale, sample_indices
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.records import Converted, LeftOut, SizeCount
from tests.data.making import image_set, noise


def documented_fields() -> set[str]:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.split("## `data`")[1].split("\n## ")[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for first in firsts for name in re.findall(r"`(\w+)`", first)}


def test_facts_are_the_documented_ones() -> None:
    images = image_set([0] * 40 + [1] * 10, same_as={1: 0, 41: 2})
    images = replace(
        images,
        left_out=(LeftOut("a/b.png", "empty", "zero bytes"),),
        converted=(Converted("cmyk", 2, ("a/c.jpg",)),),
        original_sizes=tuple(SizeCount(width, 8, 30 - width) for width in range(1, 26)),
    )
    split, duplicates = make_split(images)
    facts = data_facts(images, split, duplicates)
    assert set(facts) == documented_fields() - {"samples"}
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["images"] == 50
    assert facts["canvas"] == 4
    counted = {part: sum(one[part] for one in facts["classes"]) for part in ("train", "val", "test")}
    assert counted == {part: facts["split"][part] for part in counted}
    assert sum(counted.values()) == 50 - len(split.removed_duplicates)
    train = [one["train"] for one in facts["classes"]]
    assert facts["imbalance"] == train[0] / train[1]
    assert facts["split"] | {"train": 0, "val": 0, "test": 0} == {
        "train": 0, "val": 0, "test": 0, "seed": 0, "origin": "drawn",
    }  # fmt: skip
    assert len(facts["original_sizes"]) == 20
    assert facts["original_sizes"][0] == {"width": 1, "height": 8, "count": 29}
    assert facts["original_size_kinds"] == 25
    assert facts["left_out"] == [{"path": "a/b.png", "reason": "empty", "detail": "zero bytes"}]
    assert facts["converted"] == [{"conversion": "cmyk", "count": 2, "examples": ["a/c.jpg"]}]
    assert facts["duplicates"]["groups"] == 2
    assert facts["duplicates"]["conflicting_labels"] == 1
    assert facts["grayscale"] is False
    assert facts["mirror_safe"] is None


def test_digits_are_gray() -> None:
    images = load_images("digits", limit=100)
    facts = data_facts(images, *make_split(images))
    assert facts["grayscale"] is True
    assert len(set(facts["channel_mean"])) == 1


@pytest.mark.parametrize("block", [1, 1000, 1 << 24])
def test_channel_statistics_are_numpys(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(audit, "_BLOCK_BYTES", block)
    images = np.stack([noise(seed, 8, 8) for seed in range(30)])
    indices = np.arange(0, 30, 2)
    mean, std = channel_statistics(images, indices)
    np.testing.assert_allclose(mean, images[indices].mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, images[indices].std(axis=(0, 1, 2)), rtol=1e-12)


def test_pages_are_given_back_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    images, released = np.stack([noise(seed, 8, 8, 1) for seed in range(30)])[..., None].repeat(3, axis=3), list[bool]()
    monkeypatch.setattr(audit, "release_pages", lambda given: released.append(given is images))
    monkeypatch.setattr(audit, "_BLOCK_BYTES", 10 * images[0].nbytes)
    channel_statistics(images, np.arange(25))
    assert released == 3 * [True]
    assert is_grayscale(images)
    assert released == 6 * [True]


def test_one_coloured_pixel_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_BLOCK_BYTES", 1000)
    images = np.repeat(np.stack([noise(seed, 8, 8, 1) for seed in range(30)])[..., None], 3, axis=3)
    assert is_grayscale(images)
    for channel in (1, 2):
        coloured = images.copy()
        coloured[29, 7, 7, channel] ^= 1
        assert not is_grayscale(coloured)


def test_samples_come_from_train() -> None:
    images = image_set([0] * 40 + [1] * 3 + [2] * 20)
    split, _ = make_split(images)
    samples = sample_indices(images, split, per_class=5)
    assert {label: len(chosen) for label, chosen in samples.items()} == {0: 5, 1: 1, 2: 5}
    for label, chosen in samples.items():
        assert set(chosen) <= set(split.train.tolist())
        assert (images.labels[chosen] == label).all()
    assert samples == sample_indices(images, split, per_class=5)
    assert samples != sample_indices(images, split, per_class=5, seed=1)


@pytest.mark.data
def test_cifar10_has_the_published_channel_statistics(real_cifar10: Path) -> None:
    images = load_images(str(real_cifar10))
    split, duplicates = make_split(images)
    assert (len(split.train), len(split.val), len(split.test)) == (45000, 5000, 10000)
    assert (duplicates.across_splits, images.left_out) == (0, ())
    mean, std = channel_statistics(images.images, np.sort(np.concatenate([split.train, split.val])))
    # As printed in many training scripts, such as KellerJordan/cifar10-airbench.
    np.testing.assert_allclose(mean / 255, (0.4914, 0.4822, 0.4465), atol=5e-4)
    np.testing.assert_allclose(std / 255, (0.2470, 0.2435, 0.2616), atol=5e-4)
