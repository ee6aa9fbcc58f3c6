"""The verdict and why: the sentence, what it rests on, the controls, and what could not run."""

import re
from typing import Any

from headstart.report.document import Block, Claim, Details, Heading, Inline, ListBlock, Tone, code, plain, strong
from headstart.report.sections.source import Source
from headstart.report.statement import rich_statement

_TONES: dict[str, Tone] = {
    "transfer-better": "good",
    "scratch-better": "good",
    "not-distinguishable": "neutral",
    "only-scratch": "caution",
    "only-transfer": "caution",
    "nothing-learned": "bad",
}
_REPAIRS = {
    "no-weights": {"command": "headstart env", "option": "--weights-dir"},
    "not-pretrained": {"command": "headstart pretrain --architecture"},
    "budget": {"option": "--budget"},
}


def verdict_section(source: Source) -> list[Block]:
    """Say the verdict, then each of its reasons with its evidence."""
    verdict, texts = source.results["verdict"], source.texts
    statement = rich_statement(verdict, texts)
    blocks: list[Block] = [
        Heading(2, texts.get("verdict.heading"), "verdict"),
        Claim(statement, _verdict_evidence(source), _TONES.get(verdict["code"], "neutral")),
    ]
    if verdict["decided_by"] == "cost":
        blocks += _cost_claim(source)
    if verdict["decided_by"] == "alone" and len(source.contest) == 1:
        blocks.append(Claim(texts.rich("verdict.decided_alone"), _alone_evidence(source, verdict["best"]), "caution"))
    blocks += _scratch_against_transfer(source)
    blocks += _runner_up(source)
    return [*blocks, *_controls(source), *_not_run(source)]


def pair_evidence(source: Source, pair: dict[str, Any]) -> Inline:
    """Write what a difference rests on: interval, p, test, images, seeds, trials."""
    texts = source.texts
    test = "test_mcnemar" if len(pair["mcnemar"]) == 1 else "test_permutation"
    return texts.rich(
        "verdict.evidence_pair",
        difference=texts.difference_interval(pair["difference"]),
        confidence=source.confidence,
        p=texts.p_value(pair["p_holm"]),
        test=texts.get(f"verdict.{test}"),
        images=texts.many("units.test_images", pair["images"]),
        seeds=texts.many("units.seeds", source.count_of_seeds(pair)),
    ) + source.trials_of(pair["a"], pair["b"])


def _verdict_evidence(source: Source) -> Inline:
    """Write the evidence of the pair that the verdict's sentence speaks of."""
    verdict = source.results["verdict"]
    best, scratch, transfer = verdict["best"], verdict["best_scratch"], verdict["best_transfer"]
    majority = next((recipe["name"] for recipe in source.recipes if recipe["kind"] == "majority"), None)
    spoken_of = {
        "transfer-better": (transfer, scratch),
        "scratch-better": (scratch, transfer),
        "not-distinguishable": (best, verdict["runner_up"]),
        "nothing-learned": (best, majority),
    }
    pair = source.pair(*spoken_of.get(verdict["code"], (None, None)))
    return pair_evidence(source, pair) if pair else _alone_evidence(source, best)


def _alone_evidence(source: Source, name: str | None) -> Inline:
    recipe = source.recipe(name) or max(source.contest, key=lambda entry: entry["test_accuracy"]["mean"], default=None)
    if recipe is None:
        return ()
    texts = source.texts
    return texts.rich(
        "verdict.evidence_alone",
        accuracy=texts.share_interval(recipe["test_accuracy"]),
        confidence=source.confidence,
        images=texts.many("units.test_images", source.results["data"]["split"]["test"]),
        seeds=texts.many("units.seeds", len(recipe["seeds"])),
    ) + source.trials_of(recipe["name"])


def _cost_claim(source: Source) -> list[Block]:
    verdict, texts = source.results["verdict"], source.texts
    best, other = source.recipe(verdict["best"]), source.recipe(verdict["runner_up"])
    if best is None or other is None:
        return []
    pair = source.pair(best["name"], other["name"])
    text = texts.rich(
        "verdict.decided_by_cost",
        best=strong(best["name"]),
        best_time=texts.duration(best["cost"]["train_seconds"]),
        other=strong(other["name"]),
        other_time=texts.duration(other["cost"]["train_seconds"]),
    )
    return [Claim(text, pair_evidence(source, pair) if pair else _alone_evidence(source, best["name"]))]


def _scratch_against_transfer(source: Source) -> list[Block]:
    verdict, texts = source.results["verdict"], source.texts
    pair = source.pair(verdict["best_transfer"], verdict["best_scratch"])
    if pair is None:
        return []
    text = texts.rich(
        "verdict.scratch_against_transfer",
        transfer=strong(pair["a"]),
        scratch=strong(pair["b"]),
        difference=texts.difference_interval(pair["difference"]),
    )
    meaning = {"better": "pair_better", "worse": "pair_worse"}.get(pair["verdict"], "pair_equal")
    difference = pair["difference"]
    if meaning != "pair_equal" or not pair["within_margin"] or difference["low"] <= 0 <= difference["high"]:
        text += plain(" ") + texts.rich(f"verdict.{meaning}")
    if pair["within_margin"]:
        margin = texts.gap(source.results["study"]["margin"])
        text += plain(" ") + texts.rich("verdict.pair_within_margin", margin=margin)
    return [Claim(text, pair_evidence(source, pair))]


def _runner_up(source: Source) -> list[Block]:
    """Compare with the next recipe, where that is not what the claims before have said."""
    verdict, texts = source.results["verdict"], source.texts
    said = {verdict["best_scratch"], verdict["best_transfer"]}
    pair = source.pair(verdict["best"], verdict["runner_up"])
    if pair is None or {verdict["best"], verdict["runner_up"]} == said or verdict["decided_by"] == "cost":
        return []
    text = texts.rich(
        "verdict.runner_up_better" if pair["verdict"] == "better" else "verdict.runner_up_equal",
        best=strong(pair["a"]),
        other=strong(pair["b"]),
        difference=texts.difference_interval(pair["difference"]),
    )
    return [Claim(text, pair_evidence(source, pair))]


def _controls(source: Source) -> list[Block]:
    """Say which recipes fail against a control, and which beat random features; what is expected is folded away."""
    opened: list[Block] = []
    folded: list[Block] = []
    for control in source.results["verdict"]["controls"]:
        expected = control["beats"] and _control_kind(source, control) == "majority"
        (folded if expected else opened).append(_control_claim(source, control))
    if folded:
        opened.append(Details(source.texts.get("verdict.controls_beaten"), tuple(folded)))
    return opened


def _control_kind(source: Source, control: dict[str, Any]) -> str:
    entry = source.recipe(control["control"])
    return "majority" if entry is not None and entry["kind"] == "majority" else "random"


def _control_claim(source: Source, control: dict[str, Any]) -> Claim:
    texts = source.texts
    kind = _control_kind(source, control)
    text = texts.rich(
        f"verdict.control_{'beaten' if control['beats'] else 'not_beaten'}_{kind}",
        recipe=strong(control["recipe"]),
        control=strong(control["control"]),
        difference=texts.difference_interval(control["difference"]),
    )
    pair = source.pair(control["recipe"], control["control"])
    evidence = pair_evidence(source, pair) if pair else _alone_evidence(source, control["recipe"])
    return Claim(text, evidence, "good" if control["beats"] else "bad")


def _not_run(source: Source) -> list[Block]:
    texts = source.texts
    items = []
    for missing in source.results["not_run"]:
        reason, detail = missing["reason"], missing["detail"]
        shown: Inline = code(detail or "–")
        if reason == "budget" and re.fullmatch(r"\d+(\.\d+)?", detail):  # the seconds that it would have taken
            shown = texts.rich("verdict.budget_needed", duration=texts.duration(float(detail)))
        if texts.has(f"verdict.not_run_{reason}"):
            repairs = {name: code(value) for name, value in _REPAIRS.get(reason, {}).items()}
            items.append(texts.rich(f"verdict.not_run_{reason}", name=strong(missing["name"]), detail=shown, **repairs))
        else:
            items.append(
                texts.rich("verdict.not_run_other", name=strong(missing["name"]), reason=code(reason), detail=shown)
            )
    if not items:
        return []
    return [Heading(3, texts.get("verdict.not_run_heading"), "not-run"), ListBlock(tuple(items))]
