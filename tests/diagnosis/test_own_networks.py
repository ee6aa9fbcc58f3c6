"""Networks as people really write them: what they return, what they take, and how they are handed over."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import center_crop

import headstart
from headstart.analysis.diagnosis import Cell, Finding
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.diagnosing import _image_set
from headstart.diagnosis import examine as examining
from headstart.diagnosis import look as looking
from headstart.diagnosis.arrival import measure_arrival, sample_images
from headstart.diagnosis.examine import examine
from headstart.diagnosis.look_network import look_at_network
from headstart.diagnosis.look_pixels import look_at_pixels
from headstart.diagnosis.modules import find_classifier, in_batches, in_mode, one_tensor
from headstart.diagnosis.pipeline import Fed, Repairs, pixels_with
from headstart.diagnosis.subject import Subject, subject_of_module
from headstart.errors import UsageError
from headstart.records import Preprocessing, SizeCount
from headstart.study.observer import SilentObserver
from tests.diagnosis.test_look_training import one_score
from tests.models.factory import bundled_backbone

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def trunk(channels: int = 3) -> nn.Sequential:
    """A small convolutional backbone with eight features."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Wrapped(nn.Module):
    """A classifier that answers with a dictionary, as some libraries' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(trunk(), nn.Linear(8, 10))

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """`logits`, behind a loss that is not there."""
        return {"loss": None, "logits": self.network(inputs)}


class Centred(nn.Module):
    """A backbone that normalises its input itself, in the tensor that it is given or in a new one."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.trunk, self.in_place = trunk(), in_place

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features `(B, 8)`."""
        if not self.in_place:
            return self.trunk((inputs - 0.5) / 0.25)  # type: ignore[no-any-return]
        inputs -= 0.5
        inputs /= 0.25
        return self.trunk(inputs)  # type: ignore[no-any-return]


class ConvolutionalHead(nn.Module):
    """A classifier that ends in a 1x1 convolution and the mean of its scores over positions, as SqueezeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = trunk()[:-2]
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `(B, 10)`."""
        return self.classifier(self.maps(inputs)).flatten(1)  # type: ignore[no-any-return]


class OneSize(nn.Module):
    """A classifier that flattens its last map, and so takes inputs of one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.MaxPool2d(4))
        self.last = nn.Linear(8, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `(B, 10)`."""
        return self.last(self.maps(inputs).flatten(1))  # type: ignore[no-any-return]


def unit(image: Image.Image) -> torch.Tensor:
    """Pixels 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def diagnose(folder: Path, module: nn.Module, preprocess: Any = unit, **given: Any) -> headstart.Diagnosis:
    """Diagnose on a part of the digits."""
    return headstart.diagnose(module, "digits", preprocess=preprocess, limit=300, runs=folder, language="en", **given)


def test_an_answer_s_tensor_is_found_wherever_it_is() -> None:
    scores = torch.zeros(2, 3)
    for answer in (
        scores,
        (scores, "other"),
        {"loss": None, "logits": scores},
        {"out": scores},
        SimpleNamespace(logits=scores),
    ):
        assert one_tensor(answer) is scores
    with pytest.raises(UsageError, match="NoneType"):
        one_tensor(None)


def test_no_batch_has_a_single_image_unless_there_is_but_one() -> None:
    assert in_batches(129, 64) == [slice(0, 64), slice(64, 129)]
    assert in_batches(130, 64) == [slice(0, 64), slice(64, 128), slice(128, 130)]
    assert in_batches(1, 64) == [slice(0, 1)]
    assert in_batches(0, 64) == []


def test_a_network_that_works_in_place_is_measured_as_its_twin() -> None:
    def subject(*, in_place: bool) -> Subject:
        return subject_of_module(Centred(in_place=in_place).eval(), unit, IMAGES[:2], 10, name="centred")

    examples = sample_images(IMAGES)
    ours, twin = subject(in_place=True), subject(in_place=False)
    assert measure_arrival(ours, examples) == measure_arrival(twin, examples)
    fed = torch.randn(4, 3, 8, 8)
    before = fed.clone()
    features = [Fed(one.module, one)(fed) for one in (ours, twin)]
    assert torch.equal(*features)
    assert torch.equal(fed, before)


def test_a_head_that_is_a_convolution_is_the_networks_own(tmp_path: Path) -> None:
    network = ConvolutionalHead().eval()
    assert find_classifier(network, network(torch.zeros(2, 3, 8, 8)), 10) == "classifier.1"
    middle = nn.Sequential(
        nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10), nn.Conv2d(10, 10, 1)
    )
    assert (
        find_classifier(middle, torch.zeros(2, 10), 10) == "3"
    )  # a linear layer comes before convolutions of the same width
    found = diagnose(tmp_path, network)
    head = next(cause for cause in found.causes if cause["id"] == 21)
    assert head["status"] == "proved"  # never trained, and judged by its own answers
    assert found.record["accuracy"]["failing"] < 0.3


def test_weights_that_are_no_numbers_are_refused_with_the_cause(tmp_path: Path) -> None:
    network = trunk()
    next(network.parameters()).data[0] = float("nan")
    with pytest.raises(UsageError, match=r"1 of 9 tensors, 0.weight first: its training diverged \(cause 11"):
        diagnose(tmp_path, network.eval())
    head = nn.Linear(8, 10)
    head.bias.data[0] = float("inf")
    with pytest.raises(UsageError, match="The head holds values that are no numbers"):
        diagnose(tmp_path, trunk().eval(), head=head)


def test_where_no_gradient_tells_what_a_position_sees_nothing_is_said_of_it() -> None:
    class WithoutGradients(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            """Features `(B, 8)`."""
            with torch.no_grad():
                return self.trunk(inputs)  # type: ignore[no-any-return]

    subject = subject_of_module(WithoutGradients().eval(), unit, IMAGES[:2], 10, name="still")
    found = look_at_pixels(measure_arrival(subject, sample_images(IMAGES)), None, 32, 32)[0]
    assert (found.status, found.code) == ("suspected", "small-input-by-map")
    assert "field" not in found.values


def test_a_dictionary_of_answers_is_diagnosed(tmp_path: Path) -> None:
    found = diagnose(tmp_path, Wrapped().eval())
    assert found.record["accuracy"]["failing"] > 0
    head = next(cause for cause in found.causes if cause["id"] == 21)
    assert head["status"] == "proved"  # nobody trained it


def test_a_network_of_gray_images_is_diagnosed(tmp_path: Path) -> None:
    module = nn.Sequential(trunk(channels=1), nn.Linear(8, 10)).eval()
    found = diagnose(tmp_path, module, lambda image: unit(image).mean(0, keepdim=True))
    assert found.record["subject"]["preprocessing"]["order"] == "gray"
    assert found.record["experiment"]["cells"]


@pytest.mark.parametrize(("coloured", "code"), [(True, "colour-thrown-away"), (False, "channels-in-order")])
def test_colour_that_the_pipeline_throws_away_is_said(coloured: bool, code: str) -> None:
    subject = subject_of_module(
        trunk().eval(), lambda image: unit(image.convert("L").convert("RGB")), IMAGES, 10, name="mine"
    )
    arrival = measure_arrival(subject, sample_images(IMAGES))
    assert arrival.order == "gray"
    order = next(one for one in look_at_pixels(arrival, Preprocessing(8), 8, 8, coloured=coloured) if one.cause == 5)
    assert (order.status, order.code) == ("could-not-look" if coloured else "cleared", code)
    # What the pipeline is made again with is as gray as what arrives.
    again = pixels_with(arrival, Repairs(arrival.preprocessing()), frozenset(), IMAGES)
    torch.testing.assert_close(again, subject.prepare(IMAGES), rtol=0, atol=2 / 255)


@pytest.mark.parametrize(
    ("images", "level", "random", "status", "code"),
    [
        (40, 0.5, 0.45, "could-not-look", "too-few-images"),
        (4000, 0.5, 0.5, "suspected", "no-better-than-random"),
        (4000, 0.1, 0.1, "suspected", "features-at-chance"),
        (4000, 0.5, 0.2, "cleared", "better-than-random"),
    ],
)
def test_a_domain_gap_needs_a_certain_lack_of_gain(
    monkeypatch: pytest.MonkeyPatch, images: int, level: float, random: float, status: str, code: str
) -> None:
    rng = np.random.default_rng(0)
    own = rng.random((3, images)) < level
    by_chance = rng.random((3, images)) < random if random != level else own
    monkeypatch.setattr(examining, "measure_random", lambda pipeline, clean, sample: (by_chance, own))
    cells: dict[Cell, Any] = {frozenset(): None}
    pipeline: Any = SimpleNamespace(images=SimpleNamespace(labels=np.arange(images) % 10), own_pixels=False)
    _, gap = examining._controls(pipeline, cells, np.arange(images))
    assert (gap.status, gap.code) == (status, code)
    if status != "could-not-look":
        assert gap.values["difference"]["mean"] == pytest.approx(own.mean() - by_chance.mean())


@pytest.mark.parametrize(
    ("origin", "right", "status"),
    [("official", 0.8, "suspected"), ("official", 0.97, "cleared"), ("drawn", 0.8, "could-not-look")],
)
def test_a_network_without_a_curve_answers_to_its_training_images_once_more(
    monkeypatch: pytest.MonkeyPatch, origin: str, right: float, status: str
) -> None:
    images = load_images("digits", limit=500)
    split = replace(make_split(images)[0], origin=origin)  # type: ignore[arg-type]
    monkeypatch.setattr(
        looking, "own_predictions", lambda subject, images, part: np.eye(10, dtype=np.float32)[images.labels[part]]
    )
    labels = images.labels[split.test]
    said = np.where(np.arange(len(labels)) < right * len(labels), labels, (labels + 1) % 10)
    subject: Any = SimpleNamespace(recipe=None)
    found = looking._own_gap(subject, np.eye(10, dtype=np.float32)[said], images, split)
    assert (found.cause, found.status) == (22, status)
    assert status == "could-not-look" or found.values["train"] == 1.0
    assert looking._own_gap(subject, None, images, split).status == "could-not-look"


def test_a_gap_on_a_handful_of_images_is_none_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images("digits", limit=500)
    split = replace(make_split(images)[0], origin="official")
    split = replace(split, test=split.test[:4])

    def nine_in_ten(subject: object, images: Any, part: Any) -> Any:
        return np.eye(10, dtype=np.float32)[(images.labels[part] + (np.arange(len(part)) % 10 == 0)) % 10]

    monkeypatch.setattr(looking, "own_predictions", nine_in_ten)
    said = np.eye(10, dtype=np.float32)[(images.labels[split.test] + np.array([1, 0, 0, 0])) % 10]
    subject: Any = SimpleNamespace(recipe=None)
    found = looking._own_gap(subject, said, images, split)
    assert (found.status, found.code, found.values["val"]) == ("could-not-look", "gap-unclear", 0.75)


def test_only_what_is_proved_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of_module(bundled_backbone(), lambda image: unit(image.resize((20, 20))), IMAGES, 10, name="mine")
    images = load_images("digits", limit=300)
    split, _ = make_split(images)

    def decided(finding: Finding, points: Any, alone: Any) -> Finding:
        return replace(finding, status="proved" if finding.cause == 3 else "suspected", points=points)

    monkeypatch.setattr(examining, "judged", decided)
    examination = examine(subject, images, split, SilentObserver())
    assert {1, 3} <= set(examination.factors)
    assert examination.remade is not None
    assert examination.remade.pipeline.repairs.preprocessing.input_size == 32  # what the proof tried
    assert examination.remade.repaired.preprocessing.input_size == 20
    assert subject.contract is not None
    assert examination.remade.repaired.preprocessing.mean == subject.contract.mean


def test_one_score_for_two_classes_is_a_head(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    images = (rng.integers(0, 128, (200, 8, 8, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        module[0].weight.fill_(1.0)  # type: ignore[operator]
        module[0].bias.fill_(0.0)  # type: ignore[operator]
        module[3].weight.fill_(1.0)  # type: ignore[operator]
        module[3].bias.fill_(-4 * 27 * 114 / 255)  # type: ignore[operator]
    found = headstart.diagnose(
        module.eval(), (images, labels), preprocess=unit, loss=one_score, runs=tmp_path, language="en"
    )
    assert found.record["accuracy"]["failing"] > 0.95
    loss = next(cause for cause in found.causes if cause["id"] == 14)
    assert (loss["status"], loss["evidence"]["code"]) == ("cleared", "loss-fits")


def test_a_network_of_one_size_is_not_told_to_take_another(tmp_path: Path) -> None:
    def enlarged(image: Image.Image) -> torch.Tensor:
        return unit(image.resize((16, 16)))

    found = diagnose(tmp_path, OneSize().eval(), enlarged)
    size = next(cause for cause in found.causes if cause["id"] == 1)
    assert (size["status"], size["evidence"]["code"]) == ("could-not-look", "fixed-input-size")
    assert size["evidence"]["values"]["size"] == 16


def test_batch_norm_that_is_frozen_in_part_is_run_in_evaluation_mode() -> None:
    module = nn.Sequential(trunk(), nn.BatchNorm1d(8), nn.Linear(8, 10)).train()
    module[0].eval()
    given: dict[str, Any] = {"example": IMAGES, "classes": 10, "name": "mine"}
    assert not subject_of_module(module, unit, **given).train_mode
    assert subject_of_module(module.train(), unit, **given).train_mode
    with pytest.raises(UsageError, match="two images at least"):
        subject_of_module(module, unit, **given, batch=1)


def test_a_network_on_another_device_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"model\.cpu\(\)"):
        subject_of_module(trunk().to("meta"), unit, IMAGES, 10, name="mine")


def test_training_mode_leaves_nothing_behind() -> None:
    module = trunk()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with in_mode(module, training=True), torch.inference_mode():
        module(torch.randn(4, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no numbers"):
        diagnose(tmp_path, trunk().eval(), lambda image: unit(image) * float("nan"))


def test_a_head_that_learns_by_heart_is_not_praised_on_images_that_it_may_know(tmp_path: Path) -> None:
    images = _image_set(np.repeat(IMAGES, 30, axis=0), np.repeat(np.arange(4), 30) % 2)
    found = headstart.diagnose(
        trunk().eval(),
        images,
        preprocess=unit,
        head=nn.Linear(8, 2),
        keep_duplicates=True,
        runs=tmp_path,
        language="en",
    )
    head = next(cause for cause in found.causes if cause["id"] == 21)
    assert head["status"] in ("could-not-look", "proved")
    assert found.record["data"]["test_drawn"]


def test_evidence_that_a_recipe_of_ours_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="loss, augment: these describe a network of your own"):
        headstart.diagnose("digits", loss=nn.CrossEntropyLoss(), augment=print, runs=tmp_path)
    with pytest.raises(UsageError, match="nothing to try it on"):
        headstart.diagnose("digits", history={"loss": [1.0]}, loss=nn.CrossEntropyLoss(), runs=tmp_path)
    with pytest.raises(UsageError, match="Leave them out"):
        headstart.diagnose(trunk(), "digits", preprocess=unit, recipe="cnn", runs=tmp_path)


def test_data_of_another_kind_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    dataset = [(Image.fromarray(IMAGES[0]), 0)] * 5  # as a torchvision dataset gives them
    for data in (dataset, IMAGES, object()):
        with pytest.raises(UsageError, match=r"`data` is a .*dataset\.data"):
            headstart.diagnose(trunk().eval(), data, preprocess=unit, runs=tmp_path)  # type: ignore[arg-type]


def test_the_path_that_gives_no_inputs_is_named(tmp_path: Path) -> None:
    for name in ("serve", "augment"):
        with pytest.raises(UsageError, match=f"`{name}` turns images"):
            diagnose(tmp_path, trunk().eval(), **{name: lambda images: 1 / 0})


def test_a_script_may_import_its_neighbours_late(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("SIZE = 8\n", encoding="utf-8")
    script = tmp_path / "late.py"
    script.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import numpy, torch\n"
        "from torch import nn\n"
        "@dataclass\nclass Settings:\n    channels: int = 3\n"
        "def build():\n"
        "    from neighbour_of_mine import SIZE\n"
        "    model = nn.Sequential(nn.Conv2d(Settings().channels, SIZE, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return model.eval(), lambda image: torch.from_numpy(numpy.array(image)).permute(2, 0, 1) / 255\n",
        encoding="utf-8",
    )
    found = headstart.diagnose(f"{script}:build", "digits", limit=300, runs=tmp_path, language="en")
    assert found.record["subject"]["kind"] == "module"


def test_a_network_of_another_pretraining_is_not_said_to_lack_its_weights() -> None:
    """Its architecture is that of a file on this machine, its weights are not: neither they nor its pixels are judged by the file."""
    module = bundled_backbone()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) / 10 + (value.ndim == 1))
    subject = subject_of_module(module, unit, IMAGES, 10, name="mine")
    assert subject.published is None
    clean = torch.rand(8, 3, 32, 32, generator=generator)
    weights = next(one for one in look_at_network(subject, clean, IMAGES) if one.cause == 13)
    assert (weights.status, weights.code) == ("could-not-look", "no-published-weights")
    # One that was never loaded is as new: that is still seen.
    fresh = bundled_backbone()
    for layer in fresh.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()  # type: ignore[operator]
    for never_loaded in (fresh, timm.create_model("small32_s", num_classes=0)):
        assert subject_of_module(never_loaded, unit, IMAGES, 10, name="mine").published is not None


def test_what_a_crop_cuts_off_is_cut_off_again() -> None:
    def prepare(image: Image.Image) -> torch.Tensor:
        cropped: torch.Tensor = center_crop(unit(image.resize((32, 32), Image.Resampling.BILINEAR)), [28, 28])
        return cropped

    images = np.random.default_rng(1).integers(0, 256, (6, 64, 64, 3), np.uint8)
    subject = subject_of_module(trunk().eval(), prepare, images, 10, name="mine")
    arrival = measure_arrival(subject, sample_images(images))
    assert (arrival.size, arrival.crop) == (28, 0.875)
    again = pixels_with(arrival, Repairs(arrival.preprocessing()), frozenset(), images)
    torch.testing.assert_close(again, subject.prepare(images), rtol=0, atol=0.02)


def test_frames_of_images_that_are_not_square_could_not_be_seen() -> None:
    images = load_images("digits", limit=200)
    oblong = replace(images, original_sizes=(SizeCount(8, 8, 150), SizeCount(8, 12, len(images.labels) - 150)))
    split, _ = make_split(images)
    subject = subject_of_module(trunk().eval(), unit, IMAGES, 10, name="mine")
    for data, code in ((images, "no-borders"), (oblong, "squares-alone")):
        found = examine(subject, data, split, SilentObserver()).findings
        assert next(finding for finding in found if finding.cause == 2).code == code
