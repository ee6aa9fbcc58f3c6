"""Proofs from its owner's evidence, on networks whose accuracy can be counted by hand; each with a control that clears."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from headstart.analysis.diagnosis import Finding
from headstart.analysis.statistics import Estimate
from headstart.data.fingerprint import image_hashes
from headstart.data.splits import make_split
from headstart.diagnosis.look_training import look_at_paths
from headstart.diagnosis.prove_training import own_predictions, prove_optimizer, prove_paths, prove_training_path
from headstart.diagnosis.subject import Evidence, Prepare, Subject
from headstart.records import Images, ImageSet, SizeCount

CLASSES = 4


def quarters(count: int = 2000) -> ImageSet:
    """Noise in which one quarter of the image is a little brighter: the class is which."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    images = rng.normal(128, 60, (count, 8, 8, 3))
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 20
    pixels = images.clip(0, 255).astype(np.uint8)
    return ImageSet(
        name="quarters",
        source="quarters",
        images=pixels,
        labels=labels.astype(np.int64),
        class_names=tuple("abcd"),
        official_part=None,
        fingerprint="",
        image_hashes=image_hashes(pixels),
        original_sizes=(SizeCount(8, 8, count),),
    )


IMAGES = quarters()
SPLIT, _ = make_split(IMAGES)
BRIGHTEST = IMAGES.images.reshape(-1, 2, 4, 2, 4, 3).mean((2, 4, 5)).reshape(-1, CLASSES).argmax(1)
RIGHT = IMAGES.labels == BRIGHTEST


def plain(images: Images) -> torch.Tensor:
    """Pixels 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def inverted(images: Images) -> torch.Tensor:
    """A negative: the right quarter is the darkest."""
    return 1 - plain(images)


def shifted(images: Images) -> torch.Tensor:
    """Another tensor, in which the same quarter is the brightest."""
    return plain(images) + 0.001


def network(*, head: bool, roll: int = 0) -> tuple[nn.Module, nn.Module | None]:
    """Mean brightness of the four quarters; the head says which is the brightest, its classes moved on by `roll`."""
    convolution, layer = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(CLASSES, CLASSES, bias=False)
    nn.init.constant_(convolution.weight, 1 / 3)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(CLASSES).roll(roll, 0))
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval(), layer if head else None


def subject(prepare: Prepare, serve: Prepare | None, *, head: bool = True, roll: int = 0, **given: Any) -> Subject:
    """Somebody's network with two paths to its input."""
    module, layer = network(head=head, roll=roll)
    return Subject("mine", module, prepare, head=layer, evidence=Evidence(serve=serve, **given))


def paths(one: Subject, meant: npt.NDArray[np.int64] | None = None) -> Finding:
    """Look at both paths, and prove what is suspected."""
    finding = look_at_paths(one, IMAGES.images[:8])
    predictions = own_predictions(one, IMAGES, SPLIT.test)
    return prove_paths(finding, one, IMAGES, SPLIT, SPLIT.train, predictions, meant)


@pytest.mark.parametrize("head", [True, False])
def test_serving_other_pixels_costs_what_the_two_accuracies_differ_by(head: bool) -> None:
    found = paths(subject(plain, inverted, head=head))
    assert (found.status, found.code, found.apart) == ("proved", "paths-compared", True)
    assert found.points is not None
    assert found.points.low > 0
    values = found.values
    assert found.points.mean == pytest.approx(100 * (values["accuracy"] - values["serving"]), abs=0.02)
    by_hand = float(RIGHT[SPLIT.test].mean())
    assert values["accuracy"] == pytest.approx(by_hand, abs=5e-3 if head else 0.05)
    assert values["serving"] < 0.1


@pytest.mark.parametrize("head", [True, False])
def test_serving_other_pixels_that_mean_the_same_is_cleared(head: bool) -> None:
    found = paths(subject(plain, shifted, head=head))
    assert found.status == "cleared"
    assert found.points is not None
    assert abs(found.points.mean) < 0.3
    assert found.points.high < 1


def test_a_head_with_other_names_is_served_under_its_own() -> None:
    one = subject(plain, inverted, roll=1)
    assert paths(one).status != "proved"  # right by no more than chance on either path
    found = paths(one, (np.arange(CLASSES) - 1) % CLASSES)
    assert found.status == "proved"
    assert found.values["accuracy"] == pytest.approx(float(RIGHT[SPLIT.test].mean()), abs=5e-3)


def test_serving_that_is_better_or_cannot_run_stays_suspected() -> None:
    better = paths(subject(inverted, plain))
    assert better.status == "suspected"
    assert better.points is not None
    assert better.points.high < 0
    broken = paths(subject(plain, lambda images: plain(images)[:, :1]))
    assert (broken.status, broken.code) == ("suspected", "serving-fails")
    assert "RuntimeError" in broken.values["error"]
    assert paths(subject(plain, plain)).code == "paths-equal"
    assert paths(subject(plain, None)).status == "could-not-look"


@pytest.mark.parametrize("head", [True, False])
def test_evaluation_on_other_pixels_than_training_s_costs_what_these_would_bring(head: bool) -> None:
    one = subject(inverted, None, head=head, augment=plain)
    looked = Finding(6, "suspected", "training-range-differs", {"low": 1.0, "high": 0.0})
    predictions = own_predictions(one, IMAGES, SPLIT.test)
    found = prove_training_path(looked, [], one, IMAGES, SPLIT, predictions)
    if not head:
        assert found == looked  # nothing here has learned from training's pixels
        return
    assert (found.status, found.code, found.apart) == ("proved", "training-compared", True)
    assert found.points is not None
    assert found.points.mean == pytest.approx(100 * (found.values["train"] - found.values["accuracy"]), abs=0.02)
    assert found.values["train"] == pytest.approx(float(RIGHT[SPLIT.test].mean()), abs=5e-3)
    # What evaluation's pixels are proved to be wrong in already is one and the same.
    wrong = Finding(3, "proved", "other-range", {})
    assert prove_training_path(looked, [wrong], one, IMAGES, SPLIT, predictions) == replace(looked, like=(3,))


def test_evaluation_that_is_as_good_as_on_training_s_pixels_stays_suspected() -> None:
    looked = Finding(6, "suspected", "training-range-differs", {})
    for augment in (shifted, inverted, lambda images: plain(images)[:, :1]):
        one = subject(plain, None, augment=augment)
        predictions = own_predictions(one, IMAGES, SPLIT.test)
        assert prove_training_path(looked, [], one, IMAGES, SPLIT, predictions) == looked


def test_a_head_that_the_optimizer_misses_costs_what_the_convex_head_gains() -> None:
    module, head = network(head=True)
    assert head is not None
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    one = Subject("mine", module, plain, head=head, evidence=Evidence(optimizer=optimizer))
    missed = Finding(12, "suspected", "not-in-optimizer", {"parameters": 1, "total": 2})
    behind = Finding(21, "proved", "head-below-probe", {"head": 0.4, "probe": 0.7}, Estimate(30, 25, 35, "newcombe"))
    first, second = prove_optimizer(missed, behind, behind.points, one)
    assert (first.status, first.points, first.like) == ("proved", behind.points, (21,))
    assert (second.status, second.points, second.like) == ("suspected", None, (12,))
    assert first.values == {"parameters": 1, "total": 2, "head": 0.4, "probe": 0.7}
    # The controls: a head that is as good as the convex one, and one that the optimizer holds.
    good = replace(behind, status="cleared", points=None)
    first, second = prove_optimizer(missed, good, Estimate(0.1, -0.6, 0.8, "newcombe"), one)
    assert (first.status, second) == ("cleared", good)
    assert prove_optimizer(missed, good, Estimate(0.1, -3, 3, "newcombe"), one)[0].status == "suspected"
    held = replace(one, evidence=Evidence(optimizer=torch.optim.SGD(head.parameters(), lr=0.1)))
    assert prove_optimizer(missed, behind, behind.points, held) == (missed, behind)
    assert prove_optimizer(missed, behind, None, one) == (missed, behind)
