"""Whole diagnoses on the digits and the bundled backbone: planted faults are named, healthy code is left in peace."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import headstart
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.diagnosing import _image_set
from headstart.diagnosis import look_contract, published, subject
from headstart.diagnosis.arrival import measure_arrival, sample_images
from headstart.diagnosis.examine import examine
from headstart.diagnosis.probing import Array, cross_fitted
from headstart.diagnosis.prove import draw_sample
from headstart.errors import UsageError
from headstart.models.backbones import find_backbone
from headstart.records import Booleans, ImageSet, Indices, Labels, Preprocessing, Recipe
from headstart.study.observer import SilentObserver
from headstart.study.presets import read_recipe
from headstart.training.probe import fit_probe
from tests.models.factory import bundled_backbone

SMALL = find_backbone("small32_s")
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (SMALL.preprocessing.mean, SMALL.preprocessing.std))


def pixels(image: Any) -> torch.Tensor:
    """An image at 32 px, 0..1."""
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).float() / 255


def right(image: Any) -> torch.Tensor:
    """As the backbone expects it."""
    return (pixels(image) - MEAN) / STD


def diagnose(
    folder: Path, module: nn.Module, preprocess: Callable[..., Any] = right, **given: Any
) -> headstart.Diagnosis:
    """Diagnose on the digits."""
    return headstart.diagnose(module, "digits", preprocess=preprocess, runs=folder, language="en", **given)


def test_the_call_that_made_a_diagnosis_is_in_its_report(tmp_path: Path) -> None:
    found = diagnose(tmp_path, bundled_backbone(), limit=400)
    assert found.record["command"].startswith(
        "headstart.diagnose(<Small32>, data='digits', preprocess=right, limit=400"
    )
    assert found.record["study"]["limit"] == 400
    assert "limit=400" in found.paths.markdown.read_text(encoding="utf-8")


def test_healthy_code_is_left_in_peace_and_not_changed(tmp_path: Path) -> None:
    module = bundled_backbone().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = diagnose(tmp_path, module, train_mode=False)
    assert found.record["verdict"]["code"] == "healthy"
    assert found.proved == []
    assert [cause["name"] for cause in found.causes if cause["status"] == "suspected"] == []
    assert len(found.causes) == 23
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert (tmp_path / "digits-diagnosis" / "report.html").stat().st_size > 5000


def test_planted_pixel_faults_are_named_and_repaired(tmp_path: Path) -> None:
    def wrong(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((4, 4)))).permute(2, 0, 1).float() / 255  # 4 px, 0..1

    found = diagnose(tmp_path, bundled_backbone(), wrong)
    assert found.proved[0] == "input-size"
    assert {cause["name"] for cause in found.causes if cause["points"] is not None} == {"input-size", "pixel-range"}
    accuracy = found.record["accuracy"]
    assert accuracy["repaired"] > accuracy["failing"] + 0.01
    assert found.causes[0]["points"]["low"] > 0
    assert sum(step["points"] for step in found.record["waterfall"]) == pytest.approx(
        100 * (accuracy["repaired"] - accuracy["failing"])
    )
    recipe = found.repaired_recipe
    assert recipe is not None
    assert recipe.preprocessing is not None
    assert recipe.preprocessing.input_size == 32
    assert read_recipe(tmp_path / "digits-diagnosis" / "repaired.toml") == recipe
    assert "v2.Resize((32, 32)" in found.record["repair"]["code"]
    sizes = {one["size"]: one["accuracy"]["mean"] for one in found.record["experiment"]["sizes"]}
    assert sorted(sizes) == [4, 8, 16, 24, 32]
    assert sizes[4] < sizes[32]
    assert "| 16\u00a0px |" in found.paths.markdown.read_text(encoding="utf-8").replace(" px", "\u00a0px")


def test_weights_that_were_never_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = diagnose(tmp_path, timm.create_model("small32_s", num_classes=0).eval(), limit=600)
    assert found.causes[0]["name"] == "weights-not-loaded"
    assert found.causes[0]["status"] in ("proved", "suspected")


def test_a_network_that_is_evaluated_on_other_pixels_than_it_was_trained_with(tmp_path: Path) -> None:
    def brightened(image: Any) -> torch.Tensor:
        return 255 * right(image).flip(-1)  # 255 times the range, mirrored every time

    found = diagnose(tmp_path, bundled_backbone(), limit=600, augment=brightened)
    causes = {cause["name"]: cause for cause in found.causes}
    assert causes["train-serve-mismatch"]["status"] == "suspected"
    assert causes["train-serve-mismatch"]["evidence"]["code"] == "training-range-differs"
    assert causes["cached-augmentation"]["status"] == "could-not-look"  # cached or absent: its pixels differ, too
    assert "preprocess" in found.paths.html.read_text(encoding="utf-8")


def test_statistics_overwritten_by_a_stray_pass(tmp_path: Path) -> None:
    module = bundled_backbone()
    module.train()
    with torch.no_grad():
        for _ in range(30):
            module(4 * torch.randn(16, 3, 32, 32) + 3)
    found = diagnose(tmp_path, module.eval(), limit=600)
    cause = next(cause for cause in found.causes if cause["name"] == "batch-norm-overwritten")
    # Seen for certain, and measured: digits are so easy that it costs them next to nothing.
    assert cause["evidence"]["code"] == "buffers-differ"
    assert cause["points"] is not None
    assert abs(cause["points"]["mean"]) < 10
    # What is cleared must not be told of as if it were not.
    gap = next(cause for cause in found.causes if cause["name"] == "domain-gap")
    assert gap["status"] == "cleared"
    assert gap["evidence"]["code"] in ("better-than-random", "images-are-easy")


def test_causes_that_the_owner_s_evidence_shows(tmp_path: Path) -> None:
    images = load_images("digits", limit=600)
    split, _ = make_split(images)
    module = bundled_backbone()
    permuted = (images.labels[split.test] + 1) % 10
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    module.get_submodule("stage3").requires_grad_(True)
    found = diagnose(
        tmp_path,
        nn.Sequential(module, nn.Linear(SMALL.features, 10), nn.Softmax(dim=1)),
        limit=600,
        predictions=permuted,
        optimizer=optimizer,
        loss=nn.CrossEntropyLoss(),
        history={"loss": [2.0, 1.0, 3.0], "accuracy": [0.5, 0.8, 0.99], "val_accuracy": [0.5, 0.6, 0.6]},
        serve=pixels,
        augment=lambda image: right(image).flip(-1),
    )
    causes = {cause["name"]: cause for cause in found.causes}
    for name in ("loss-activation", "learning-rate", "overfit", "train-serve-mismatch", "cached-augmentation"):
        assert causes[name]["status"] == "suspected", name
    # The head was never trained: that costs what a convex head gains, once.
    missed, head = causes["optimizer-misses-parameters"], causes["underfit-head"]
    assert (missed["status"], missed["indistinguishable_from"]) == ("proved", [21])
    assert (head["status"], head["points"]) == ("suspected", None)
    assert causes["label-order"]["status"] == "proved"
    # The kept predictions are another network's: what their order costs is no part of this one's accuracy.
    assert [step["cause"] for step in found.record["waterfall"]] == [12, None]
    assert "Measured apart, no part of the way from" in found.verdict


def features_of(module: nn.Module, images: ImageSet, part: Indices) -> torch.Tensor:
    """Features of a part, prepared as the backbone expects it."""
    with torch.inference_mode():
        return module(torch.stack([right(Image.fromarray(one)) for one in images.images[part]])).clone()  # type: ignore[no-any-return]


class Remembering(nn.Module):
    """A head that answers with the label of the nearest image that it was trained on."""

    def __init__(self, module: nn.Module, images: ImageSet, part: Indices) -> None:
        super().__init__()
        self.known = features_of(module, images, part)
        self.labels = torch.from_numpy(images.labels[part])
        self.classes = len(images.class_names)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scores `(B, C)`, one for the neighbour's class."""
        nearest = torch.cdist(features, self.known).argmin(1)
        return nn.functional.one_hot(self.labels[nearest], self.classes).float()


def trained_head(module: nn.Module, images: ImageSet, part: Indices) -> nn.Linear:
    """A head fitted on a part of the digits."""
    features = features_of(module, images, part).numpy()
    rows = np.arange(len(part))
    fitted = fit_probe(features, images.labels[part], rows[50:], rows[:50], 10)
    head = nn.Linear(features.shape[1], 10)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weight))
        head.bias.copy_(torch.from_numpy(fitted.bias))
    return head


def test_mixed_up_names_and_other_pixels_in_use_are_proved_and_only_the_names_repaired(tmp_path: Path) -> None:
    images = load_images("digits", limit=900)
    split, _ = make_split(images)
    module = bundled_backbone()
    head = trained_head(module, images, split.train)
    with torch.no_grad():
        head.weight.copy_(head.weight.roll(1, 0))
        head.bias.copy_(head.bias.roll(1, 0))
    found = diagnose(tmp_path, module, head=head, limit=900, serve=lambda image: -2 * right(image))
    causes = {cause["id"]: cause for cause in found.causes}
    assert (causes[15]["status"], causes[6]["status"]) == ("proved", "proved")
    # The head is as good as a convex one, on images that were drawn: whoever gave it may have trained it on them.
    assert (causes[21]["status"], causes[21]["evidence"]["code"]) == ("could-not-look", "may-know-test")
    accuracy = found.record["accuracy"]
    assert accuracy["failing"] < 0.1
    assert accuracy["repaired"] == pytest.approx(causes[15]["evidence"]["values"]["permuted"], abs=1e-4)
    assert accuracy["repaired"] > 0.9
    # Serving is no part of the way: all of it is the names'.
    assert [step["cause"] for step in found.record["waterfall"]] == [15, None]
    assert found.record["waterfall"][1]["points"] == pytest.approx(0, abs=1e-6)
    assert causes[6]["evidence"]["values"]["accuracy"] > causes[6]["evidence"]["values"]["serving"] + 0.1
    assert {change["cause"] for change in found.record["repair"]["changes"]} == {6, 15}


def test_copies_of_test_images_flatter_and_the_repaired_accuracy_is_without_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 8, 8, 3), np.uint8)  # nothing to learn but by heart
    labels = np.arange(300) % 3
    twice = np.concatenate([noise, noise[:150]]), np.concatenate([labels, labels[:150]])
    images = _image_set(*twice)
    split, duplicates = make_split(images, remove_duplicates=False)
    assert duplicates.across_splits > 20
    module = bundled_backbone()
    head = Remembering(module, images, split.train)
    found = headstart.diagnose(
        module, images, preprocess=right, head=head, keep_duplicates=True, runs=tmp_path, language="en"
    )
    cause = next(one for one in found.causes if one["id"] == 16)
    assert cause["status"] == "proved"
    assert cause["points"]["high"] < 0
    assert "points of the score are owed to" in found.verdict
    values, accuracy = cause["evidence"]["values"], found.record["accuracy"]
    assert accuracy["failing"] == pytest.approx(values["accuracy"], abs=1e-4)
    assert accuracy["repaired"] is not None
    step = next(step for step in found.record["waterfall"] if step["cause"] == 16)
    assert step["points"] == pytest.approx(100 * (values["without"] - values["accuracy"]), abs=0.02)


def test_a_recipe_of_ours_and_the_second_time_it_is_found_done(tmp_path: Path) -> None:
    recipe = Recipe(
        name="mine",
        kind="probe",
        backbone="small32_s",
        preprocessing=dataclasses.replace(SMALL.preprocessing, input_size=4),
    )
    first = headstart.diagnose(
        "digits", recipe=recipe, runs=tmp_path, language="es", command="headstart diagnose digits"
    )
    assert first.proved[0] == "input-size"
    record = json.loads((first.folder / "diagnosis.json").read_text(encoding="utf-8"))
    assert {"recipe", "accuracy", "causes", "repaired_recipe"} <= record.keys()
    assert record["accuracy"]["repaired"] > record["accuracy"]["failing"]
    assert record["causes"][0]["points"]["low"] > 0
    assert "tamaño" in first.verdict
    assert first.verdict in first._repr_html_()
    # Everything that was run can be run again.
    assert {path.name for path in (first.folder / "trials").iterdir()} == {
        identity[:16] for identity in record["study"]["trials"]
    }
    assert record["study"]["environment"]["device"] == "cpu"
    sizes = {tuple(cell["faults"]): cell["settings"]["input_size"] for cell in record["experiment"]["cells"]}
    assert sizes[1,] == 4
    assert sizes[()] == 32
    created = record["created"]
    again = headstart.diagnose("digits", recipe=recipe, runs=tmp_path, language="en")
    assert again.record["created"] == created
    assert again.verdict != first.verdict
    compared = headstart.compare("digits", [str(first.folder / "repaired.toml")], seeds=1, runs=tmp_path, language="en")
    assert list(compared.accuracies.values()) == [pytest.approx(record["accuracy"]["repaired"])]
    from_run = headstart.diagnose(compared.folder, runs=tmp_path, language="en")
    assert from_run.record["verdict"]["code"] == "healthy"


def test_the_contract_of_an_unknown_network_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "weight_files", lambda folder: [])
    module = bundled_backbone("small32_m")
    del module.pretrained_cfg

    def washed_out(image: Any) -> torch.Tensor:
        return pixels(image) / 100 + 10

    found = diagnose(tmp_path, module, washed_out)  # all of them: it costs two points
    cause = next(one for one in found.causes if one["name"] == "pixel-range")
    assert cause["status"] == "proved"
    assert cause["points"]["low"] > 0
    assert cause["evidence"]["code"] == "other-contract-better"
    tried = cause["evidence"]["values"]
    assert tried["tried"] == 10
    assert tried["probe"]["mean"] > tried["own"]["mean"]
    assert found.record["accuracy"]["repaired"] > found.record["accuracy"]["failing"]
    usual = diagnose(tmp_path, module, limit=300)
    assert next(one for one in usual.causes if one["id"] == 3)["status"] != "suspected"


def test_a_contract_that_a_few_images_leave_open_may_prove_itself_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "weight_files", lambda folder: [])
    monkeypatch.setattr(look_contract, "_TRIED", 60)
    judged: list[int] = []

    def watched(features: Array, labels: Labels, classes: int) -> Booleans:
        judged.append(len(labels))
        return cross_fitted(features, labels, classes)

    monkeypatch.setattr(look_contract, "cross_fitted", watched)
    module = bundled_backbone("small32_m")
    del module.pretrained_cfg
    images = load_images("digits", limit=1000)
    split, _ = make_split(images)
    one = subject.subject_of_module(
        module, lambda image: pixels(image) / 100 + 10, np.zeros((2, 8, 8, 3), np.uint8), 10, name="mine"
    )
    arrival = measure_arrival(one, sample_images(images.images[split.train]))
    guess = look_contract.guess_contract(one, arrival, images, split, draw_sample(images, split), 32)
    others = len(split.train) - 60
    assert judged == [60] * 11 + [others, others]
    assert guess is not None
    assert guess.contract is not None
    assert guess.values["probe"]["low"] > guess.values["own"]["mean"]  # of the other images, not of the sixty


def test_causes_that_these_data_cannot_tell_apart_are_both_named(tmp_path: Path) -> None:
    low, high = (torch.tensor(values).view(3, 1, 1) for values in ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)))
    contract = dataclasses.replace(SMALL.preprocessing, mean=(0.5,) * 3, std=(0.5,) * 3)
    one = subject.subject_of_module(
        bundled_backbone(),
        lambda image: (pixels(image) - low) / high,
        np.zeros((2, 8, 8, 3), np.uint8),
        10,
        name="mine",
    )
    images = load_images("digits", limit=600)
    split, _ = make_split(images)
    examination = examine(dataclasses.replace(one, contract=contract), images, split, SilentObserver())
    found = {finding.cause: finding for finding in examination.findings}
    assert (found[3].like, found[4].like) == ((4,), (3,))
    # The contract is made up: the stored statistics do not suit it, either.
    assert set(examination.factors) - {10} == {3}
    assert found[3].points is not None
    assert found[3].status == "cleared" or found[4].status == "suspected"


def test_a_fault_of_the_network_is_proved_where_nobody_understands_its_pixels(tmp_path: Path) -> None:
    def edges(image: Any) -> torch.Tensor:
        arrived = right(image)
        return 2 * (arrived - arrived.roll(1, -1)).abs()

    module = bundled_backbone()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
                layer.running_mean += 3 * layer.running_var.sqrt() if layer.running_var is not None else 0
    found = diagnose(tmp_path, module.eval(), edges)
    causes = {cause["name"]: cause for cause in found.causes}
    assert found.proved == ["batch-norm-overwritten"]
    assert causes["pixel-range"]["evidence"]["code"] == "input-not-understood"
    assert causes["domain-gap"]["status"] == "could-not-look"  # its pixels may be to blame
    assert found.record["accuracy"]["repaired"] > found.record["accuracy"]["failing"]
    assert found.repaired_recipe is None
    assert {cell["settings"]["pixels"] for cell in found.record["experiment"]["cells"]} == {"own"}


def test_an_unfair_opponent_is_proved_beside_a_network_made_for_small_images(tmp_path: Path) -> None:
    rivals = [
        Recipe(name="unfair", kind="scratch", backbone="mobilenetv2_035", input_size=32, epochs=1, learning_rate=1e-3),
        Recipe(name="mine", kind="probe", backbone="small32_s"),
    ]
    compared = headstart.compare("digits", rivals, seeds=1, limit=400, runs=tmp_path, language="en")
    found = headstart.diagnose(compared.folder, recipe="mine", scratch=True, runs=tmp_path, language="en")
    cause = next(one for one in found.causes if one["name"] == "unfair-scratch")
    assert (cause["status"], cause["evidence"]["code"], cause["apart"]) == ("proved", "scratch-compared", True)
    values = cause["evidence"]["values"]
    assert values["scratch"] == pytest.approx(compared.accuracies["unfair"], abs=1e-4)
    assert cause["points"]["mean"] == pytest.approx(100 * (values["fair"] - values["scratch"]), abs=0.02)
    control = next(one for one in found.record["controls"] if one["name"] == "scratch")
    assert control["accuracy"]["mean"] == pytest.approx(values["fair"], abs=1e-4)
    assert len(found.record["study"]["trials"]) == 2


def test_somebody_s_own_network_meets_one_from_scratch_where_that_is_asked_for(tmp_path: Path) -> None:
    found = diagnose(tmp_path, bundled_backbone(), limit=400, scratch=True)
    control = next(one for one in found.record["controls"] if one["name"] == "scratch")
    assert control["against"]["mean"] == pytest.approx(found.record["accuracy"]["failing"])
    assert 0.5 < control["accuracy"]["mean"] <= 1
    stem = next(one for one in found.causes if one["name"] == "unfair-scratch")
    assert stem["evidence"]["code"] == "scratch-fair"
    assert len(found.record["study"]["trials"]) == 1
    with pytest.raises(UsageError, match="a curve alone has no test images"):
        headstart.diagnose("digits", history={"val_accuracy": [0.5]}, scratch=True, runs=tmp_path)


def test_the_network_from_scratch_of_a_finished_run_is_the_control(tmp_path: Path) -> None:
    rivals = [
        Recipe(name="tiny", kind="scratch", epochs=1, batch_size=32, learning_rate=1e-3, width=4),
        Recipe(name="mine", kind="probe", backbone="small32_s", preprocessing=Preprocessing(4)),
    ]
    compared = headstart.compare("digits", rivals, seeds=1, limit=600, runs=tmp_path, language="en")
    found = headstart.diagnose(compared.folder, recipe="mine", runs=tmp_path, language="en")
    cause = next(one for one in found.causes if one["name"] == "unfair-scratch")
    assert (
        cause["evidence"]["code"] == "scratch-fair"
    )  # 8 px leave every network a small map; its stride suits small images
    control = next(one for one in found.record["controls"] if one["name"] == "scratch")
    assert control["accuracy"]["mean"] == pytest.approx(compared.accuracies["tiny"])
    assert control["says"] == "scratch-worse"
    assert found.record["accuracy"]["failing"] == pytest.approx(compared.accuracies["mine"])
    assert len(list((found.folder / "trials").glob("*/result.json"))) == 1  # the repaired one: the other was there


def test_a_script_s_function_and_what_it_may_do_wrong(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import timm, numpy, torch\n"
        "def build():\n"
        "    model = timm.create_model('test_efficientnet', num_classes=10).eval()\n"
        "    return model, lambda image: torch.from_numpy(numpy.array(image.resize((64, 64)))).permute(2, 0, 1) / 255\n"
        "def broken():\n    raise ValueError('no such file')\n"
        "def empty():\n    return None\n",
        encoding="utf-8",
    )
    found = headstart.diagnose(f"{script}:build", "digits", limit=300, runs=tmp_path, language="en")
    assert found.record["subject"]["kind"] == "module"
    for target, said in (
        (f"{script}:broken", r"broken\(\) failed: ValueError: no such file"),
        (f"{script}:empty", r"returned NoneType. Expected \(model, preprocess\)"),
        (f"{script}:nothing", "has no function 'nothing'. It has build, broken, empty"),
        (f"{tmp_path / 'gone.py'}:build", "There is no script"),
    ):
        with pytest.raises(UsageError, match=said):
            headstart.diagnose(target, "digits", runs=tmp_path)
    with pytest.raises(UsageError, match="needs data"):
        headstart.diagnose(f"{script}:build", runs=tmp_path)
    with pytest.raises(UsageError, match="there is no transfer to diagnose"):
        headstart.diagnose("digits", recipe="cnn", runs=tmp_path)


def test_the_sample_leaves_test_closed() -> None:
    images = load_images("digits")
    split, _ = make_split(images)
    sample = draw_sample(images, split)
    assert set(sample) <= set(split.train)
    assert len(sample) > 1000


@pytest.mark.data
@pytest.mark.slow
def test_the_classroom_s_causes_on_cifar10(real_cifar10: Path, real_weights: Path, tmp_path: Path) -> None:
    found = headstart.diagnose(real_cifar10, weights_dir=real_weights, limit=4000, runs=tmp_path, language="en")
    assert found.proved[:2] == ["input-size", "pixel-range"]
    assert found.record["accuracy"]["failing"] < 0.35
    assert found.record["accuracy"]["repaired"] > 0.80
