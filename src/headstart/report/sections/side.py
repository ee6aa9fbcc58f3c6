"""The side-by-side table, and every difference between two recipes."""

from typing import Any

from headstart.report.document import Block, Figure, Heading, Inline, Table, plain, strong
from headstart.report.figures.comparisons import forest
from headstart.report.sections.source import Source

COLUMNS = ("recipe", "test", "val", "train", "gap", "fit", "parameters", "macs", "train_time", "latency", "kind")


def side_section(source: Source, *, differences: bool = True) -> list[Block]:
    """Set the recipes side by side, then (if asked for) the differences between them."""
    texts = source.texts
    best = source.results["verdict"]["best"]
    names = [recipe["name"] for recipe in source.recipes]
    blocks: list[Block] = [
        Heading(2, texts.get("side.heading"), "side-by-side"),
        Table(
            header=tuple(texts.get(f"side.{column}") for column in COLUMNS),
            rows=tuple(_row(recipe, source) for recipe in source.recipes),
            caption=texts.get("side.caption", confidence=source.confidence),
            numeric=frozenset({1, 2, 3, 4, 6, 7, 8, 9}),
            highlight=names.index(best) if best in names else None,
        ),
    ]
    if differences and source.results["comparisons"]:
        blocks += _differences(source)
    return blocks


def _row(recipe: dict[str, Any], source: Source) -> tuple[Inline, ...]:
    texts, cost = source.texts, recipe["cost"]
    cells = (
        texts.share_interval(recipe["test_accuracy"]),
        texts.percent(recipe["val_accuracy"]["mean"]),
        texts.percent(recipe["train_accuracy"]["mean"]),
        texts.signed_points(recipe["train_val_gap"]["mean"]),
        texts.named("fit", recipe["fit_verdict"]),
        texts.short_count(cost["parameters"]),
        texts.short_count(cost["macs"]),
        texts.duration(cost["train_seconds"]),
        texts.milliseconds(cost["latency_ms"]),
        texts.named("kinds", recipe["kind"]),
    )
    return (strong(recipe["name"]), *(plain(cell) for cell in cells))


def _differences(source: Source) -> list[Block]:
    texts, study = source.texts, source.results["study"]
    pairs = source.results["comparisons"]
    images = texts.many("units.test_images", pairs[0]["images"])
    margin = texts.gap(study["margin"])
    return [
        Heading(3, texts.get("side.differences"), "differences"),
        Figure(
            "differences",
            forest(pairs, study["margin"], texts),
            texts.get("side.forest_caption", confidence=source.confidence, margin=margin),
            texts.get("side.forest_alt"),
        ),
        Table(
            header=tuple(texts.get(f"side.{name}") for name in ("pair", "difference", "p", "p_holm", "only", "result")),
            rows=tuple(_pair_row(pair, source) for pair in pairs),
            caption=texts.get("side.differences_caption", images=images, confidence=source.confidence),
            numeric=frozenset({1, 2, 3, 4}),
        ),
    ]


def _pair_row(pair: dict[str, Any], source: Source) -> tuple[Inline, ...]:
    texts = source.texts
    result = texts.named("side", pair["verdict"])
    if pair["within_margin"]:
        result = texts.get("side.within_margin", result=result)
    if pair["purpose"] == "control":
        result = texts.get("side.purpose_control", result=result)
    only = [f"{texts.count(test['only_a'])} / {texts.count(test['only_b'])}" for test in pair["mcnemar"]]
    return (
        texts.rich("side.pair_of", a=strong(pair["a"]), b=strong(pair["b"])),
        plain(texts.difference_interval(pair["difference"])),
        plain(_p(pair["p"], source)),
        plain(_p(pair["p_holm"], source)),
        plain(" · ".join(only)),
        plain(result),
    )


def _p(p: float, source: Source) -> str:
    """Write a p value for a column that is already called p."""
    return source.texts.p_value(p).removeprefix("p\u00a0=\u00a0").removeprefix("p\u00a0")
