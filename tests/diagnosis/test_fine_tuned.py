"""Networks that their owner has trained further than the pretraining: what they have learned by heart, and whether it made them worse."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import headstart
from headstart.data.sources import load_images
from headstart.data.splits import TEST, TRAIN, make_split
from headstart.diagnosing import _image_set
from headstart.diagnosis import subject
from headstart.diagnosis.look_network import look_at_network
from headstart.models.backbones import find_backbone
from headstart.records import ImageSet, Indices
from tests.diagnosis.test_diagnose import pixels, right, trained_head
from tests.models.factory import bundled_backbone

SMALL = find_backbone("small32_s")


def fine_tuned(prepare: Callable[[Any], torch.Tensor], images: ImageSet, part: Indices) -> nn.Sequential:
    """The bundled backbone with a head, both trained on a part until they know it by heart."""
    classifier = nn.Sequential(bundled_backbone(), nn.Linear(SMALL.features, 10)).train()
    inputs = torch.stack([prepare(Image.fromarray(one)) for one in images.images[part]])
    labels = torch.from_numpy(images.labels[part])
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(8):
        for some in torch.randperm(len(inputs), generator=order).split(50):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(inputs[some]), labels[some]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return classifier.eval()


def noisy_digits() -> ImageSet:
    """Digits that a few hundred of are not enough to tell apart, though they can be learned by heart."""
    images = load_images("digits", limit=900)
    rng = np.random.default_rng(0)
    drawn = np.clip(images.images + rng.normal(0, 160, images.images.shape), 0, 255).astype(np.uint8)
    return _image_set(drawn, images.labels)


def shaken(kept: int | None = None) -> nn.Module:
    """The bundled backbone, its kernels moved a little; of each batch norm no more than the first channels say something."""
    module, generator = bundled_backbone(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for kernel in module.parameters():
            if kernel.ndim >= 2:
                kernel.add_(0.1 * kernel.std() * torch.randn(kernel.shape, generator=generator))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d) and kept is not None:
                layer.weight[kept:] = layer.bias[kept:] = 0
    return module


def test_a_training_that_made_the_published_network_worse_is_named_and_undone(tmp_path: Path) -> None:
    images = load_images("digits", limit=900)
    module = shaken(kept=1)
    head = trained_head(module, images, make_split(images)[0].train)
    classifier = nn.Sequential(module, head).eval()
    found = headstart.diagnose(classifier, images, preprocess=right, runs=tmp_path, language="en")
    assert found.record["subject"]["trained_further"]
    causes = {cause["id"]: cause for cause in found.causes}
    assert (causes[11]["status"], causes[11]["evidence"]["code"]) == ("proved", "below-probe")
    assert "published weights in place of the fine-tuned ones" in found.verdict
    accuracy = found.record["accuracy"]
    assert accuracy["repaired"] > 0.9 > accuracy["failing"] + 0.3
    assert found.record["repaired_recipe"]["kind"] == "probe"
    assert [change["code"] for change in found.record["repair"]["changes"] if change["cause"] == 11] == ["start-again"]
    lines = found.record["repair"]["code"]
    assert "load_state_dict" in lines
    names: dict[str, Any] = {"model": module, "head": head, "torch": torch}
    exec(lines[lines.index("# head: your last layer") :], names)
    of_head, of_network = names["optimizer"].param_groups
    assert {id(one) for one in of_head["params"]} == {id(one) for one in head.parameters()}
    assert len(of_network["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize(("tuned", "like"), [(True, (11,)), (False, ())])
def test_a_kernel_that_is_another_may_be_one_that_a_training_pushed_too_far(tuned: bool, like: tuple[int, ...]) -> None:
    module = shaken() if tuned else bundled_backbone()
    kernels = [kernel for kernel in module.parameters() if kernel.ndim >= 2]
    with torch.no_grad():
        kernels[-1].copy_(torch.randn(kernels[-1].shape, generator=torch.Generator().manual_seed(1)))
    images = load_images("digits", limit=100).images
    given = subject.subject_of_module(module, right, images[:2], 10, name="mine")
    weights = next(one for one in look_at_network(given, None, images[:4]) if one.cause == 13)
    assert (weights.status, weights.code, weights.like) == ("suspected", "weights-differ", like)


def test_a_head_that_is_behind_or_training_mode_is_not_taken_for_a_fine_tuning_that_did_damage(tmp_path: Path) -> None:
    images = load_images("digits", limit=900)
    untrained = nn.Sequential(shaken(), nn.Linear(SMALL.features, 10)).eval()
    found = headstart.diagnose(untrained, images, preprocess=right, runs=tmp_path, language="en")
    causes = {cause["id"]: cause["status"] for cause in found.causes}
    assert found.record["subject"]["trained_further"]
    assert (causes[11], causes[21]) == ("could-not-look", "proved")
    module = shaken(kept=2)
    head = trained_head(module, images, make_split(images)[0].train)
    found = headstart.diagnose(
        nn.Sequential(module, head), images, preprocess=right, train_mode=True, batch=8, runs=tmp_path, language="en"
    )
    assert next(cause["status"] for cause in found.causes if cause["id"] == 11) == "could-not-look"


def test_a_fine_tuning_that_did_no_damage_is_cleared_where_test_is_the_data_s_own(tmp_path: Path) -> None:
    images = load_images("digits", limit=900)
    images = dataclasses.replace(images, official_part=np.where(np.arange(900) % 3 == 0, TEST, TRAIN).astype(np.int8))
    module = shaken()
    head = trained_head(module, images, make_split(images)[0].train)
    found = headstart.diagnose(
        nn.Sequential(module, head).eval(), images, preprocess=right, runs=tmp_path, language="en"
    )
    rate = next(cause for cause in found.causes if cause["id"] == 11)
    assert (rate["status"], rate["evidence"]["code"]) == ("cleared", "not-below-probe")


@pytest.mark.parametrize("known", [True, False])
def test_a_network_that_has_learned_its_images_is_judged_on_others(
    tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noisy_digits()
    split, _ = make_split(images)
    classifier = fine_tuned(right, images, split.train)
    if not known:
        monkeypatch.setattr(subject, "find_published", lambda *_: None)
    found = headstart.diagnose(classifier, images, preprocess=right, runs=tmp_path, language="en")
    causes = {cause["id"]: cause for cause in found.causes}
    # Its features are right on nearly all of train, its head on test: between the two lies what it learned by heart, no fault of the head.
    assert causes[21]["status"] != "proved"
    assert causes[20]["evidence"]["code"] == "features-trained-further"
    assert found.record["subject"]["trained_further"]
    assert found.proved == []


def test_a_frozen_network_that_nobody_knows_is_not_taken_for_a_fine_tuned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "find_published", lambda *_: None)
    images = noisy_digits()
    split, _ = make_split(images)
    module = bundled_backbone()
    # A test part that is harder than train for every network: its noise is as strong again.
    harder = images.images.copy()
    harder[split.test] = np.random.default_rng(1).integers(0, 256, harder[split.test].shape, np.uint8)
    shifted = _image_set(harder, images.labels)
    head = trained_head(module, shifted, make_split(shifted)[0].train)
    found = headstart.diagnose(module, shifted, preprocess=right, head=head, runs=tmp_path, language="en")
    assert not found.record["subject"]["trained_further"]


def test_other_pixels_that_adapted_weights_do_not_like_clear_nothing(tmp_path: Path) -> None:
    def raw(image: Any) -> torch.Tensor:
        return 255 * pixels(image)

    images = noisy_digits()
    split, _ = make_split(images)
    found = headstart.diagnose(
        fine_tuned(raw, images, split.train), images, preprocess=raw, runs=tmp_path, language="en"
    )
    scale = next(cause for cause in found.causes if cause["id"] == 3)
    assert scale["status"] == "suspected"
    assert scale["points"]["mean"] < 0  # the published range, given to weights that have learned another
    assert "perhaps on pixels like these" in found.paths.markdown.read_text(encoding="utf-8")
