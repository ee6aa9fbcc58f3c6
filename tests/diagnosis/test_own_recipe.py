"""A repaired recipe is written only where it says exactly what was measured; elsewhere there is none."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.analysis.diagnosis import CATALOGUE, Finding, waterfall
from headstart.analysis.statistics import Estimate
from headstart.diagnosis.arrival import Standardised
from headstart.diagnosis.both_trials import _apart_from_recipes
from headstart.diagnosis.examination import Examination, Remade
from headstart.diagnosis.own_recipe import findable_name, recipe_of_subject
from headstart.diagnosis.pipeline import Repairs
from headstart.diagnosis.subject import subject_of_module
from headstart.models.backbones import find_backbone
from headstart.records import Preprocessing
from tests.models.factory import bundled_backbone

IMAGES = np.zeros((2, 8, 8, 3), np.uint8)
SMALL = find_backbone("small32_s")
POINTS = Estimate(10.0, 8.0, 12.0, "bootstrap")


def examined(
    proved: set[int],
    left_in: frozenset[int] = frozenset(),
    standardised: Standardised = "none",
    order: str = "seen",
    crop: float = 1.0,
    *,
    understood: bool = True,
    shuffled: list[int] | None = None,
) -> Examination:
    """An examination with these causes proved and those no more than suspected."""
    findings = tuple(
        Finding(
            cause,
            "proved" if cause in proved else "suspected" if cause in left_in else "cleared",
            order if cause == 5 else "seen",
            {},
            POINTS if cause in proved else None,
        )
        for cause in CATALOGUE
    )
    unused: Any = None
    factors = tuple(sorted(proved | left_in))
    arrival: Any = SimpleNamespace(crop=crop, is_understood=understood, shuffled=shuffled)
    remade = Remade(arrival, unused, factors, {}, np.arange(0), Repairs(Preprocessing(32), standardised))
    return Examination(findings, remade, None, 0.0, 0.0)


def recipe(module: nn.Module, examination: Examination) -> Any:
    """The recipe of somebody's network."""

    def right(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).float() / 255

    subject = subject_of_module(module.eval(), right, IMAGES, 10, name="mine", train_mode=False)
    assert subject.published is not None
    return recipe_of_subject(subject, examination, None)


def test_the_published_weights_behind_repaired_pixels_are_a_recipe() -> None:
    found = recipe(
        nn.Sequential(bundled_backbone(), nn.Linear(SMALL.features, 10)), examined({1, 3}, left_in=frozenset({7, 10}))
    )
    assert (found.kind, found.backbone, found.preprocessing) == ("probe", "small32_s", Preprocessing(32))


@pytest.mark.parametrize(
    "examination",
    [
        examined({10}),
        examined({3}, standardised="image"),
        examined({3}, crop=0.875),
        examined({3}, order="colour-thrown-away"),
        examined({3}, left_in=frozenset({2})),
        examined({3}, left_in=frozenset({8})),
        examined({13}, understood=False),
        examined({3}, left_in=frozenset({5}), shuffled=[1, 2, 0]),
    ],
)
def test_what_no_recipe_can_say_is_none(examination: Examination) -> None:
    assert recipe(bundled_backbone(), examination) is None


def test_weights_of_one_s_own_are_no_recipe_unless_the_published_ones_are_restored() -> None:
    module = bundled_backbone()
    kernel = next(value for value in module.parameters() if value.ndim == 4)
    with torch.no_grad():
        kernel.mul_(1.1)
    assert recipe(module, examined({1})) is None
    assert recipe(module, examined({1, 13})) is not None
    between = nn.Sequential(bundled_backbone(), nn.Linear(SMALL.features, 16), nn.ReLU(), nn.Linear(16, 10))
    assert recipe(between, examined({1})) is None


def test_a_weight_file_is_named_where_the_architecture_finds_another(tmp_path: Path) -> None:
    assert findable_name(SMALL, None) == "small32_s"
    assert SMALL.path is not None
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(SMALL.path.read_bytes())
    mine = find_backbone(str(copy))
    assert findable_name(mine, None) == findable_name(mine, tmp_path) == str(copy)
    named = tmp_path / "other" / "small32_s.safetensors"
    named.parent.mkdir()
    named.write_bytes(SMALL.path.read_bytes())
    assert findable_name(find_backbone(str(named)), named.parent) == "small32_s"


def test_statistics_that_no_recipe_estimates_anew_are_no_step_to_its_accuracy() -> None:
    found = _apart_from_recipes(examined({3, 10}))
    proved = [finding for finding in found.findings if finding.status == "proved"]
    assert {finding.cause for finding in proved} == {3, 10}
    assert waterfall(0.5, 0.7, proved) == [(3, 10.0), (None, pytest.approx(10.0))]
