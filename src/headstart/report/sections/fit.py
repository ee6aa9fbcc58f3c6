"""Learning curves, and whether each recipe overfits or underfits, why, and what to try."""

from typing import Any

from headstart.report.document import (
    Block,
    Claim,
    Details,
    Figure,
    Heading,
    Inline,
    ListBlock,
    Paragraph,
    Table,
    Tone,
    plain,
    strong,
)
from headstart.report.figures.comparisons import gap_figure
from headstart.report.figures.curves import learning_curves
from headstart.report.sections.source import Source

_TONES: dict[str, Tone] = {"overfits": "caution", "underfits": "caution", "sound": "good"}


def curves_section(source: Source) -> list[Block]:
    """Draw the learning curves and fold their numbers away below."""
    texts = source.texts
    drawn = [recipe for recipe in source.recipes if any(run["epochs"] for run in recipe["history"])]
    blocks: list[Block] = [Heading(2, texts.get("curves.heading"), "curves")]
    if not drawn:
        return [*blocks, Paragraph(texts.rich("curves.none"))]
    names = texts.listing([recipe["name"] for recipe in drawn])
    return [
        *blocks,
        Paragraph(texts.rich("curves.intro")),
        Figure(
            "learning-curves",
            learning_curves(drawn, texts),
            texts.get("curves.caption"),
            texts.get("curves.alt", recipes=names),
        ),
        Details(
            texts.get("curves.summary"),
            tuple(_curve_table(recipe, run, source) for recipe in drawn for run in recipe["history"] if run["epochs"]),
        ),
    ]


def _curve_table(recipe: dict[str, Any], run: dict[str, Any], source: Source) -> Table:
    texts = source.texts
    values = {"name": recipe["name"], "seed": str(run["seed"]), "best": texts.count(run["best_epoch"])}
    if run["stopped_early"]:
        caption = texts.get("curves.stopped_early", **values, last=texts.count(run["epochs"][-1]["epoch"]))
    else:
        caption = texts.get("curves.table_caption", **values)
    columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
    places = [place for place, epoch in enumerate(run["epochs"]) if epoch["epoch"] == run["best_epoch"]]
    return Table(
        header=tuple(texts.get(f"curves.{column}") for column in columns),
        rows=tuple(
            (
                plain(texts.count(epoch["epoch"])),
                plain(texts.decimal(epoch["train_loss"], 3)),
                plain(texts.percent(epoch["train_accuracy"])),
                plain(texts.decimal(epoch["val_loss"], 3)),
                plain(texts.percent(epoch["val_accuracy"])),
                plain(texts.decimal(epoch["learning_rate"], 6)),
                plain(texts.duration(epoch["seconds"])),
            )
            for epoch in run["epochs"]
        ),
        caption=caption,
        numeric=frozenset(range(len(columns))),
        highlight=places[0] if places else None,
    )


def fit_section(source: Source) -> list[Block]:
    """Give each recipe's fit verdict with its reason, its evidence and what to try."""
    texts = source.texts
    recipes = source.contest
    blocks: list[Block] = [Heading(2, texts.get("fit.heading"), "fit"), Paragraph(texts.rich("fit.intro"))]
    for recipe in recipes:
        blocks.append(_fit_claim(recipe, source))
        if recipe["fit_advice"]:
            blocks.append(Paragraph(texts.rich("fit.try", name=strong(recipe["name"]))))
            advice = tuple(plain(texts.named("advice", entry)) for entry in recipe["fit_advice"])
            blocks.append(ListBlock(advice, ordered=True))
    summary = " ".join(
        texts.get(
            "fit.figure_alt_row",
            name=recipe["name"],
            train=texts.percent(recipe["train_accuracy"]["mean"]),
            val=texts.percent(recipe["val_accuracy"]["mean"]),
        )
        for recipe in source.recipes
    )
    figure = Figure(
        "gaps",
        gap_figure(source.recipes, texts),
        texts.get("fit.figure_caption"),
        texts.get("fit.figure_alt", summary=summary),
    )
    return [*blocks, figure]


def _fit_claim(recipe: dict[str, Any], source: Source) -> Claim:
    texts, verdict = source.texts, recipe["fit_verdict"]
    text = texts.rich(
        "fit.claim",
        name=strong(recipe["name"]),
        verdict=texts.named("fit", f"claim_{verdict}"),
        reason=_reason(recipe["fit_reason"], source),
    )
    evidence = texts.rich(
        "fit.evidence",
        gap=texts.difference_interval(recipe["train_val_gap"]),
        confidence=source.confidence,
        train=texts.share_interval(recipe["train_accuracy"]),
        val=texts.share_interval(recipe["val_accuracy"]),
        seeds=texts.many("units.seeds", len(recipe["seeds"])),
    ) + source.trials_of(recipe["name"])
    return Claim(text, evidence, _TONES.get(verdict, "neutral"))


def _reason(reason: dict[str, Any], source: Source) -> Inline:
    texts, key = source.texts, f"fit.reason_{reason['code']}"
    if not texts.has(key):
        return plain(reason["code"])
    reference, accuracy = reason.get("reference"), reason.get("reference_accuracy")
    if reference is None and texts.has(f"{key}-unnamed"):
        key += "-unnamed"
    return texts.rich(
        key,
        train=texts.percent(reason["train_accuracy"]),
        val=texts.percent(reason["val_accuracy"]),
        gap=texts.gap(reason["gap"]),
        reference=strong(reference or ""),
        reference_accuracy="–" if accuracy is None else texts.percent(accuracy),
    )
