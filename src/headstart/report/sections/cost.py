"""What each recipe costs: size, computation, time and memory."""

from collections.abc import Mapping
from typing import Any

from headstart.report.document import Block, Figure, Heading, Inline, ListBlock, Paragraph, Table, code, plain, strong
from headstart.report.figures.comparisons import accuracy_against_seconds
from headstart.report.language import Texts
from headstart.report.sections.source import Source

_COUNTS = ("parameters", "parameters_trained", "macs")
_TIMES = ("train_seconds", "data_seconds", "features_seconds", "head_seconds", "network_seconds")
_RATES = ("train_images_per_second", "throughput_images_per_second")
_MEASURES = (
    *_COUNTS,
    *_TIMES,
    "train_images_per_second",
    "peak_bytes",
    "latency_ms",
    "throughput_images_per_second",
    "wall_seconds",
)


def cost_section(source: Source) -> list[Block]:
    """Tabulate every cost, name what the counter left out, and draw accuracy against training time."""
    texts, study = source.texts, source.results["study"]
    times = {
        "predicted": texts.duration(study["predicted_seconds"]),
        "actual": texts.duration(study["actual_seconds"]),
    }
    if study["budget_seconds"] is None:
        planned = texts.rich("cost.planned", **times)
    else:
        planned = texts.rich("cost.planned_budget", **times, budget=texts.duration(study["budget_seconds"]))
    summary = " ".join(
        texts.get(
            "cost.figure_alt_row",
            name=recipe["name"],
            seconds=texts.duration(recipe["cost"]["train_seconds"]),
            accuracy=texts.percent(recipe["test_accuracy"]["mean"]),
        )
        for recipe in source.recipes
    )
    return [
        Heading(2, texts.get("cost.heading"), "cost"),
        Paragraph(texts.rich("cost.intro", device=code(study["device"]))),
        Figure(
            "accuracy-against-time",
            accuracy_against_seconds(source.recipes, texts),
            texts.get("cost.figure_caption", confidence=source.confidence),
            texts.get("cost.figure_alt", summary=summary),
        ),
        Table(
            header=(texts.get("cost.measure"), *(recipe["name"] for recipe in source.recipes)),
            rows=tuple(
                (
                    plain(texts.get(f"cost.{measure}")),
                    *(plain(written_cost(measure, recipe["cost"], texts)) for recipe in source.recipes),
                )
                for measure in _MEASURES
            )
            + _predicted(source),
            caption=texts.get("cost.caption"),
            numeric=frozenset(range(1, len(source.recipes) + 1)),
        ),
        *_uncounted(source),
        Paragraph(planned),
        *_cut(source),
    ]


def written_cost(measure: str, cost: dict[str, Any], texts: Texts) -> str:
    """Write one entry of a recipe's `cost` with its unit."""
    value = cost[measure]
    if measure in _COUNTS:
        return texts.count(value)
    if measure in _RATES:
        return texts.get("units.per_second", n=texts.decimal(value, 0 if value >= 10 else 2)) if value else "–"
    if measure == "peak_bytes":
        return texts.bytes(value)
    if measure == "latency_ms":
        return texts.milliseconds(value)
    return texts.duration(value)


def written_cut(settings: Mapping[str, Any], asked_epochs: int, asked_width: int, texts: Texts) -> str:
    """What a budget cut of a recipe, such as "6 of its 20 epochs"; empty where it cut nothing."""
    cuts = []
    if settings["epochs"] != asked_epochs:
        cuts.append(
            texts.get("cost.cut_epochs", epochs=texts.count(settings["epochs"]), asked=texts.count(asked_epochs))
        )
    if settings["width"] != asked_width:
        cuts.append(texts.get("cost.cut_width", width=texts.count(settings["width"]), asked=texts.count(asked_width)))
    return texts.listing(cuts)


def _predicted(source: Source) -> tuple[tuple[Inline, ...], ...]:
    """The rows with what was predicted of the first trial and what it took; none for a run from before these were kept."""
    texts, rows = source.texts, []
    for name in ("seconds", "actual_seconds"):
        if all(name in recipe.get("planned", {}) for recipe in source.recipes):
            seconds = [texts.duration(recipe["planned"][name]) for recipe in source.recipes]
            rows.append((plain(texts.get(f"cost.first_{name}")), *map(plain, seconds)))
    return tuple(rows)


def _cut(source: Source) -> list[Block]:
    """What the budget left out, recipe by recipe."""
    texts, items = source.texts, []
    for recipe in source.recipes:
        if planned := recipe.get("planned"):
            cut = written_cut(recipe["settings"], planned["asked_epochs"], planned["asked_width"], texts)
            if cut:
                items.append(texts.rich("cost.cut", name=strong(recipe["name"]), cut=cut))
    return [ListBlock(tuple(items))] if items else []


def _uncounted(source: Source) -> list[Block]:
    texts = source.texts
    items: list[Inline] = []
    for recipe in source.recipes:
        if operators := recipe["cost"]["macs_uncounted"]:
            names = code(", ".join(operators))
            items.append(texts.rich("cost.uncounted", name=strong(recipe["name"]), operators=names))
    return [ListBlock(tuple(items)) if items else Paragraph(texts.rich("cost.all_counted"), small=True)]
