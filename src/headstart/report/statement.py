"""The verdict in one sentence, in the reader's language, from the verdict's numbers."""

from collections.abc import Mapping
from typing import Any

from headstart.report.document import Inline, plain_text, strong
from headstart.report.language import Texts

_WORTH_SAYING = 1.05  # chosen: below, "1.0 times less" would say nothing


def verdict_statement(verdict: Mapping[str, Any], texts: Texts) -> str:
    """Say the verdict in one sentence.

    Args:
        verdict: `verdict` of `results.json`; its `statement` is not read.
        texts: of the language to say it in.
    """
    return plain_text(rich_statement(verdict, texts))


def rich_statement(verdict: Mapping[str, Any], texts: Texts) -> Inline:
    """Say the verdict in one sentence, with the recipes' names emphasised."""
    verdict_code = verdict["code"]
    key = f"statement.{verdict_code}"
    if verdict["best"] is None:
        return texts.rich("statement.nothing-learned")
    best = strong(verdict["best"])
    if verdict_code == "nothing-learned":
        return texts.rich("statement.nothing-learned-best", best=best)
    if verdict_code in ("only-scratch", "only-transfer"):
        return texts.rich(key, best=best)
    if verdict_code == "not-distinguishable":
        return _not_distinguishable(verdict, texts)
    return _one_side_better(verdict, texts)


def _one_side_better(verdict: Mapping[str, Any], texts: Texts) -> Inline:
    """Name the side that is ahead, the two recipes that show it, and the cheaper equal that is recommended, if any."""
    sides = (
        ("best_transfer", "best_scratch") if verdict["code"] == "transfer-better" else ("best_scratch", "best_transfer")
    )
    ahead, behind = (verdict[side] for side in sides)
    estimate = verdict["scratch_transfer_difference"]
    if verdict["code"] == "scratch-better":
        estimate = estimate | {"mean": -estimate["mean"], "low": -estimate["high"], "high": -estimate["low"]}
    difference = texts.difference_interval(estimate)
    key, other = f"statement.{verdict['code']}", strong(behind)
    if verdict["best"] != ahead:
        best = strong(verdict["best"])
        return texts.rich(f"{key}-cheaper", best=best, ahead=strong(ahead), other=other, difference=difference)
    return texts.rich(f"{key}-by", best=strong(ahead), other=other, difference=difference)


def _not_distinguishable(verdict: Mapping[str, Any], texts: Texts) -> Inline:
    best, runner_up, ratio = verdict["best"], verdict["runner_up"], verdict["cost_ratio"]
    sides = {"scratch": strong(verdict["best_scratch"]), "transfer": strong(verdict["best_transfer"])}
    if verdict["decided_by"] != "cost":
        return texts.rich("statement.not-distinguishable-accuracy", best=strong(best), **sides)
    if {best, runner_up} != {verdict["best_scratch"], verdict["best_transfer"]}:
        return texts.rich("statement.not-distinguishable", best=strong(best), **sides)
    if ratio is not None and ratio >= _WORTH_SAYING:
        return texts.rich(
            "statement.not-distinguishable-ratio",
            best=strong(best),
            other=strong(runner_up),
            ratio=texts.decimal(ratio, 1 if ratio < 10 else 0),
        )
    return texts.rich("statement.not-distinguishable-between", best=strong(best), other=strong(runner_up))
