"""Pipelines made again: one engine gives what the other gives, and equal pipelines are known to be equal."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from headstart.data.sources import load_images
from headstart.diagnosis import pipeline as under_test
from headstart.diagnosis.arrival import Arrival, measure_arrival, sample_images
from headstart.diagnosis.pipeline import Fed, Pipeline, Repairs, re_estimate
from headstart.diagnosis.subject import Subject, subject_of_module
from headstart.records import ImageSet, Preprocessing
from headstart.training.frozen import choose_forward
from tests.models.factory import TINY


class Owned(nn.Module):
    """A classifier as people write it: normalises inside, ends in its own linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(TINY, num_classes=0)
        self.fc = nn.Linear(self.backbone.num_features, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.fc(self.backbone((pixels - 0.5) / 0.5))
        return answers


@pytest.fixture(scope="module")
def owned() -> tuple[Subject, Arrival, ImageSet]:
    """Somebody's classifier on digits at 32 px."""

    def preprocess(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).float() / 255

    images = load_images("digits", limit=200)
    subject = subject_of_module(Owned().eval(), preprocess, images.images[:2], 10, name="owned", train_mode=False)
    return subject, measure_arrival(subject, sample_images(images.images)), images


def test_onnx_runtime_gives_pytorch_s_features(
    owned: tuple[Subject, Arrival, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, arrival, images = owned
    repairs = Repairs(Preprocessing(64, "bilinear", (0.5,) * 3, (0.5,) * 3))
    cells = [frozenset[int](), frozenset({1})]
    part = np.arange(80)
    found = {}
    for worth in (np.inf, 0.0):
        monkeypatch.setattr(under_test, "_WORTH_AN_EXPORT", worth)
        engines: list[str] = []

        def watched(*given: Any, engines: list[str] = engines) -> Any:
            forward, engine = choose_forward(*given)
            engines.append(engine)
            return forward, engine

        monkeypatch.setattr(under_test, "choose_forward", watched)
        pipeline = Pipeline(subject, arrival, repairs, (1,), images)
        pipeline.expect(cells, len(part))
        found[worth] = [pipeline.features(cell, part) for cell in cells]
        assert engines == (["onnxruntime"] * 2 if worth == 0 else [])
    for theirs, ours in zip(found[np.inf], found[0.0], strict=True):
        assert ours.shape == (80, subject.module.backbone.num_features)  # type: ignore[union-attr]
        assert ours == pytest.approx(theirs, abs=1e-3 * float(np.abs(theirs).max()))


def test_equal_pipelines_are_one(owned: tuple[Subject, Arrival, ImageSet]) -> None:
    subject, arrival, images = owned
    same = Pipeline(subject, arrival, Repairs(arrival.preprocessing()), (3, 5), images)
    assert len({same.variant(cell) for cell in (frozenset[int](), frozenset({3}), frozenset({3, 5}))}) == 1
    other = Pipeline(subject, arrival, Repairs(Preprocessing(32, "bilinear")), (3,), images)
    assert other.variant(frozenset()) != other.variant(frozenset({3}))
    assert same.variant(frozenset()).training is False


def test_a_random_network_has_the_statistics_of_the_images_and_leaves_the_other_alone(
    owned: tuple[Subject, Arrival, ImageSet],
) -> None:
    subject, arrival, images = owned
    pipeline = Pipeline(subject, arrival, Repairs(arrival.preprocessing()), (), images)
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    drawn, again = (pipeline.random_network(frozenset(), np.arange(100)) for _ in range(2))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in drawn.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    kernel = "backbone.conv_stem.weight"
    assert not torch.equal(drawn.state_dict()[kernel], before[kernel])
    first = next(layer for layer in drawn.modules() if isinstance(layer, nn.BatchNorm2d))
    assert first.running_mean is not None
    assert bool(first.running_mean.any())


def test_a_repaired_size_alone_changes_the_interpolation(owned: tuple[Subject, Arrival, ImageSet]) -> None:
    subject, arrival, images = owned
    assert arrival.interpolation == "bicubic"
    wanted = Preprocessing(64, "bilinear", arrival.mean, arrival.std)
    pipeline = Pipeline(subject, arrival, Repairs(wanted, resized=frozenset({1})), (1,), images)
    assert [pipeline.settings(cell)["interpolation"] for cell in (frozenset({1}), frozenset[int]())] == [
        "bicubic",
        "bilinear",
    ]
    few = images.images[:8]
    as_it_is = pipeline.pixels(frozenset({1}), few)
    torch.testing.assert_close(as_it_is, (subject.prepare(few) - 0.5) / 0.5, atol=0.05, rtol=0)


@pytest.mark.parametrize("order", ["GBR", "RRR"])
def test_channels_in_an_order_of_their_own_are_made_again(order: str) -> None:
    shown = ["RGB".index(colour) for colour in order]

    def preprocess(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[shown] / 255

    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    images = replace(load_images("digits", limit=100), images=pixels)
    subject = subject_of_module(Owned().eval(), preprocess, pixels[:2], 10, name="owned", train_mode=False)
    arrival = measure_arrival(subject, sample_images(pixels))
    assert (arrival.order, arrival.is_understood) == (order, True)
    seen = (subject.prepare(pixels[:4]) - 0.5) / 0.5
    faulty = frozenset({5})
    repaired = Pipeline(subject, arrival, Repairs(arrival.preprocessing(), ordered=True), (5,), images)
    torch.testing.assert_close(repaired.pixels(faulty, pixels[:4]), seen, atol=1e-3, rtol=0)
    in_order = (torch.from_numpy(pixels[:4]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    torch.testing.assert_close(repaired.pixels(frozenset(), pixels[:4]), in_order, atol=1e-3, rtol=0)
    assert [repaired.settings(cell)["channel_order"] for cell in (faulty, frozenset[int]())] == [order, "RGB"]
    left = Pipeline(subject, arrival, Repairs(arrival.preprocessing()), (), images)
    torch.testing.assert_close(left.pixels(frozenset(), pixels[:4]), seen, atol=1e-3, rtol=0)


def test_first_images_without_colour_do_not_make_two_orders_of_the_channels_one(
    owned: tuple[Subject, Arrival, ImageSet],
) -> None:
    subject, arrival, images = owned  # digits, of which every image is gray
    bgr = replace(arrival, order="BGR")
    pipeline = Pipeline(subject, bgr, Repairs(arrival.preprocessing(), ordered=True), (5,), images)
    assert pipeline.variant(frozenset()) != pipeline.variant(frozenset({5}))


def test_statistics_are_estimated_anew_on_images_from_everywhere_in_the_data(
    owned: tuple[Subject, Arrival, ImageSet],
) -> None:
    """Black images before white ones, as folders are sorted by class: half of what is estimated on is black."""
    subject, _, _ = owned
    sorted_by_class = torch.cat([torch.zeros(1000, 3, 8, 8), torch.ones(1000, 3, 8, 8)])
    norm = nn.BatchNorm2d(3)
    fed = Fed(
        nn.Sequential(norm, nn.Conv2d(3, 4, 1)).eval(), replace(subject, classifier=None), at_first_convolution=False
    )
    re_estimate(fed, lambda some: sorted_by_class[torch.from_numpy(some)], np.arange(2000))
    assert norm.running_mean is not None
    assert norm.running_mean.numpy() == pytest.approx(np.full(3, 0.5), abs=0.05)
