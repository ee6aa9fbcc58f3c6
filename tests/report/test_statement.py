"""The verdict in one sentence, for every code and way of deciding."""

from typing import Any

import pytest

from headstart.report.language import LANGUAGES, Texts
from headstart.report.statement import verdict_statement
from tests.report.example import full_results


def _verdict(**changes: Any) -> dict[str, Any]:
    return {**full_results()["verdict"], **changes}


def test_names_the_difference_of_the_two_sides_whoever_is_next() -> None:
    assert verdict_statement(_verdict(), Texts("en")) == (
        "Reuse a pretrained network: mobilenetv2_100-finetune is right more often than cnn, "
        "the best network trained from scratch (+19.3 points [+18.2,\u00a0+20.3])."
    )


def test_the_difference_is_that_of_the_better_side() -> None:
    worse = {"mean": -0.193, "low": -0.204, "high": -0.182, "method": "bootstrap"}
    verdict = _verdict(code="scratch-better", best="cnn", scratch_transfer_difference=worse)
    assert "(+19.3 points [+18.2,\u00a0+20.4])" in verdict_statement(verdict, Texts("en"))


def test_recommends_the_cheaper_of_two_equals_on_the_better_side() -> None:
    verdict = _verdict(best="mobilenetv2_100-probe", runner_up="mobilenetv2_100-finetune", decided_by="cost")
    sentence = verdict_statement(verdict, Texts("en"))
    assert "mobilenetv2_100-finetune is right more often than cnn" in sentence
    assert "Take mobilenetv2_100-probe" in sentence


def test_says_how_much_less_time_the_cheaper_one_takes() -> None:
    verdict = _verdict(
        code="not-distinguishable",
        best="a",
        best_scratch="b",
        best_transfer="a",
        runner_up="b",
        decided_by="cost",
        cost_ratio=2.5,
    )
    assert "2,5 veces menos" in verdict_statement(verdict, Texts("es"))
    assert "times" not in verdict_statement({**verdict, "cost_ratio": 1.01}, Texts("en"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("decided_by", ["accuracy", "cost", "alone"])
@pytest.mark.parametrize(
    "code",
    ["transfer-better", "scratch-better", "not-distinguishable", "only-scratch", "only-transfer", "nothing-learned"],
)
def test_every_verdict_is_one_paragraph_that_names_the_recommended_recipe(
    code: str, decided_by: str, language: str
) -> None:
    sentence = verdict_statement(_verdict(code=code, decided_by=decided_by), Texts(language))
    assert "mobilenetv2_100-finetune" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_nothing_can_be_recommended() -> None:
    verdict = _verdict(code="nothing-learned", best=None, runner_up=None, best_scratch=None, best_transfer=None)
    assert verdict_statement(verdict, Texts("en")).startswith("There is nothing to recommend yet")
