"""What a loss, predictions and a serving path give away."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from headstart.analysis.diagnosis import Finding
from headstart.data.sources import load_images
from headstart.diagnosis.look_training import (
    look_at_augmentation,
    look_at_loss,
    look_at_overlap,
    look_at_paths,
    predicted_classes,
)
from headstart.diagnosis.subject import Evidence, Prepare, Subject
from headstart.errors import UsageError
from headstart.models.backbones import find_backbone
from tests.models.factory import write_tiny_weights


def test_a_perfect_answer_without_a_finite_loss_is_suspected() -> None:
    outputs = np.array([[2.0, -3.0], [0.5, 4.0]])
    found = look_at_loss(lambda outputs, labels: torch.tensor(float("nan")), outputs, classes=2)
    assert (found.status, found.code, found.values) == ("suspected", "perfect-loss-not-finite", {})


def test_a_loss_that_falls_below_zero_expects_something_else() -> None:
    loss = nn.NLLLoss()
    raw = torch.tensor([[2.0, -3.0], [0.5, 4.0]])
    for outputs in (raw, raw.softmax(1)):
        found = look_at_loss(loss, outputs.numpy(), classes=2)
        assert (found.status, found.code) == ("suspected", "loss-below-zero")
    assert look_at_loss(loss, raw.log_softmax(1).numpy(), classes=2).status == "cleared"


def one_score(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of a network that ends in one score for two classes, as people write it."""
    return binary_cross_entropy_with_logits(outputs.squeeze(1), labels.float())


def one_against_the_rest(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of a network whose classes are each judged by themselves."""
    return binary_cross_entropy_with_logits(outputs, one_hot(labels, outputs.shape[1]).float())


def test_a_loss_of_one_score_for_two_classes_gets_one_column() -> None:
    scores = np.array([[2.0], [-1.5], [0.3]])
    probabilities = 1 / (1 + np.exp(-scores))
    assert look_at_loss(one_score, scores, 2).code == "loss-fits"
    assert look_at_loss(lambda o, y: nn.BCELoss()(o.squeeze(1), y.float()), probabilities, 2).code == "loss-fits"
    assert look_at_loss(one_score, probabilities, 2).code == "outputs-are-probabilities"  # a sigmoid twice
    with pytest.raises(UsageError, match=r"outputs \(2, 1\) and labels \(2,\)"):
        look_at_loss(nn.BCEWithLogitsLoss(), scores, 2)


def test_a_loss_of_each_class_against_the_rest_fits_raw_scores() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 10))
    assert look_at_loss(one_against_the_rest, scores, 10).code == "loss-fits"
    assert look_at_loss(nn.CrossEntropyLoss(), scores, 10).code == "loss-fits"
    found = look_at_loss(one_against_the_rest, 1 / (1 + np.exp(-scores)), 10)
    assert (found.status, found.code) == ("suspected", "outputs-are-probabilities")
    twice = look_at_loss(lambda o, y: nn.functional.cross_entropy(o.softmax(1), y), scores, 10)
    assert (twice.code, twice.values["loss"]) == ("first-loss-off", round(math.log(math.e + 9) - 1, 3))


def test_predictions_of_every_form_become_classes() -> None:
    two = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]])
    for given in (two, np.array([1, 0, 1]), two[:, 1], two[:, 1:], np.array([2.0, -1.5, 0.5])):
        assert predicted_classes(given, np.arange(3), 9, 2).tolist() == [1, 0, 1]
    assert predicted_classes(np.arange(9) % 3, np.array([1, 5]), 9, 3).tolist() == [
        1,
        2,
    ]  # of all images: test's are taken
    for given, said in (
        (np.zeros((3, 5)), "5 columns"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.array([1, 2, 3]), "from 0 to 2"),
        (np.array([0.5, 1.0, 2.0]), "whole numbers"),
    ):
        with pytest.raises(UsageError, match=said):
            predicted_classes(given, np.arange(3), 9, 3)


def test_a_serving_path_of_another_shape_is_told_by_its_shapes() -> None:
    subject = Subject(
        "mine",
        nn.Identity(),
        lambda images: torch.zeros(len(images), 3, 32, 32),
        evidence=Evidence(serve=lambda images: torch.zeros(len(images), 3, 64, 64)),
    )
    found = look_at_paths(subject, np.zeros((2, 8, 8, 3), np.uint8))
    assert (found.status, found.code) == ("suspected", "paths-differ-in-shape")
    assert found.values == {"first": "(3, 32, 32)", "second": "(3, 64, 64)"}


def scaled(scale: float, offset: float = 0.0) -> Prepare:
    """Pixels 0..1, times a scale, plus an offset."""
    return lambda images: torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * scale + offset


def mirrored(prepare: Prepare) -> Prepare:
    """The same, half of the images mirrored at random."""
    return lambda images: torch.stack([one.flip(-1) if torch.rand(()) < 0.5 else one for one in prepare(images)])


def looked(augment: Prepare, serve: Prepare | None = None) -> tuple[Finding, Finding]:
    """Look at paths and augmentation of a network that is evaluated on pixels from -1 to 1."""
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    one = Subject("mine", nn.Identity(), scaled(2, -1), evidence=Evidence(serve=serve, augment=augment))
    return look_at_paths(one, images), look_at_augmentation(one, images)


def test_training_in_another_range_is_no_cached_augmentation() -> None:
    plain = ("could-not-look", "training-path-differs")  # no augmentation, or a cached one
    for augment, expected in ((scaled(1), plain), (mirrored(scaled(1)), ("cleared", "epochs-differ"))):
        paths, cached = looked(augment)
        assert (paths.status, paths.code) == ("suspected", "training-range-differs")
        assert paths.values == {"low": -1.0, "high": 1.0, "train_low": 0.0, "train_high": 1.0}
        assert (cached.status, cached.code) == expected
    paths, cached = looked(lambda images: scaled(2, -1)(images).flip(1))
    assert (paths.status, paths.code, cached.code) == ("suspected", "training-order-differs", "training-path-differs")
    assert paths.values == {"order": "RGB", "train_order": "BGR"}


def test_training_in_the_same_range_is_told_from_cached_draws() -> None:
    paths, cached = looked(mirrored(scaled(2, -1)))
    assert (paths.status, paths.code, cached.code) == ("cleared", "training-alike", "epochs-differ")
    paths, cached = looked(lambda images: scaled(2, -1)(images).flip(-1))
    assert (paths.code, cached.status, cached.code) == ("training-alike", "suspected", "epochs-identical")
    paths, cached = looked(lambda images: torch.full((len(images), 3, 8, 8), 0.5))
    assert (paths.status, paths.code) == ("could-not-look", "training-not-compared")


@pytest.mark.parametrize("kept_by", ["image", "place"])
def test_draws_that_are_kept_are_told_from_a_path_that_draws_nothing(kept_by: str) -> None:
    rng, kept = np.random.default_rng(0), dict[object, bool]()

    def cached(images: npt.NDArray[np.uint8]) -> torch.Tensor:
        keys = [image.tobytes() if kept_by == "image" else place for place, image in enumerate(images)]
        turned = [kept.setdefault(key, bool(rng.random() < 0.5)) for key in keys]
        prepared = scaled(2, -1)(images)
        return torch.stack([one.flip(-1) if turn else one for one, turn in zip(prepared, turned, strict=True)])

    found = looked(cached)[1]
    assert (found.cause, found.status, found.code) == (19, "proved", "draws-are-kept")


def test_the_path_in_use_is_looked_at_first() -> None:
    assert looked(scaled(1), serve=scaled(255))[0].code == "paths-differ"
    assert looked(scaled(1), serve=scaled(2, -1))[0].code == "training-range-differs"
    assert looked(mirrored(scaled(2, -1)), serve=scaled(2, -1))[0].code == "paths-equal"


@pytest.mark.parametrize(
    ("exact", "near", "status"), [(6, 9, "cleared"), (None, 11, "suspected"), (11, 11, "suspected")]
)
def test_an_overlap_with_the_pretraining_counts_each_image_once(
    exact: int | None, near: int, status: str, tmp_path: Path
) -> None:
    images = load_images("digits", limit=50)
    judged = {
        "fingerprint": images.fingerprint,
        "exact_duplicates": exact,
        "near_duplicates": near,
        "test_images": 1000,
    }
    path = write_tiny_weights(tmp_path, judged=json.dumps([judged]))
    one = Subject(
        "one", nn.Identity(), prepare=lambda given: torch.as_tensor(given), published=find_backbone(str(path))
    )
    found = look_at_overlap(one, images)
    assert (found.status, found.values["count"]) == (status, max(exact or 0, near))
