"""How to read the numbers, and exactly how to get them again."""

import json
from typing import Any

from headstart.report.document import (
    Block,
    CodeBlock,
    Details,
    Heading,
    Inline,
    ListBlock,
    Paragraph,
    Table,
    code,
    plain,
    strong,
)
from headstart.report.sections.source import Source

_FEW_SEEDS = 5  # chosen: a standard deviation from fewer values is off by a third or more


def statistics_section(source: Source) -> list[Block]:
    """Explain the intervals, what they answer, and what they leave out."""
    texts, study = source.texts, source.results["study"]
    estimates = [
        recipe[name]
        for recipe in source.recipes
        for name in ("test_accuracy", "val_accuracy", "train_accuracy", "train_val_gap")
    ] + [pair["difference"] for pair in source.results["comparisons"]]
    methods = list(dict.fromkeys(texts.named("statistics", f"method_{entry['method']}") for entry in estimates))
    items = [texts.rich("statistics.interval", confidence=source.confidence)]
    if source.results["comparisons"]:
        items.append(texts.rich("statistics.paired"))
        items.append(texts.rich("statistics.holm", alpha=texts.percent(1 - study["confidence"], 0)))
        items.append(texts.rich("statistics.margin", margin=texts.gap(study["margin"])))
    items += [texts.rich("statistics.methods", methods=texts.listing(methods)), texts.rich("statistics.test_once")]
    if len(study["seeds"]) < _FEW_SEEDS:
        items.append(texts.rich("statistics.few_seeds", seeds=texts.many("units.seeds", len(study["seeds"]))))
    if any(recipe["deterministic"] for recipe in source.contest):
        items.append(texts.rich("statistics.deterministic"))
    items.append(texts.rich("statistics.not_covered"))
    return [Heading(2, texts.get("statistics.heading"), "statistics"), ListBlock(tuple(items))]


def reproduce_section(source: Source) -> list[Block]:
    """Give command, settings, seeds, fingerprint, versions and trial identities."""
    texts, results, study = source.texts, source.results, source.results["study"]
    facts = [
        texts.rich(
            "reproduce.study",
            seeds=texts.listing([str(seed) for seed in study["seeds"]]),
            margin=texts.gap(study["margin"]),
            confidence=source.confidence,
            split_seed=str(study["split_seed"]),
            device=code(study["device"]),
        )
    ]
    if study["preset"]:
        facts.insert(0, texts.rich("reproduce.preset", preset=code(study["preset"])))
    if study["limit"] is not None:
        train = texts.many("units.images", results["data"]["split"]["train"])
        limit = texts.count(study["limit"])
        facts.append(texts.rich("reproduce.limit", option=code("--limit"), limit=limit, train=train))
    facts.append(texts.rich("reproduce.fingerprint", fingerprint=code(results["data"]["fingerprint"])))
    schema = str(results["schema_version"])
    facts.append(texts.rich("reproduce.schema", file=code("results.json"), schema=schema))
    settings = [block for recipe in source.recipes for block in _settings(recipe, source)]
    return [
        Heading(2, texts.get("reproduce.heading"), "reproduce"),
        Paragraph(texts.rich("reproduce.command")),
        CodeBlock(results["command"]),
        ListBlock(tuple(facts)),
        _trials(source),
        *_weights(source),
        Table(
            header=(texts.get("reproduce.item"), texts.get("reproduce.value")),
            rows=tuple((code(name), code(_value(value))) for name, value in results["environment"].items()),
            caption=texts.get("reproduce.environment_caption"),
        ),
        Details(texts.get("reproduce.raw_summary"), tuple(settings)),
    ]


def _trials(source: Source) -> Table:
    texts = source.texts
    rows: list[tuple[Inline, ...]] = []
    for recipe in source.recipes:
        chosen = {entry["seed"]: entry for entry in recipe["chosen"]}
        for seed, identity in zip(recipe["seeds"], recipe["trials"], strict=True):
            picked = {name: value for name, value in chosen.get(seed, {}).items() if name != "seed"}
            written = ", ".join(f"{name} = {_value(value)}" for name, value in picked.items())
            rows.append(
                (
                    strong(recipe["name"]),
                    plain("–" if recipe["deterministic"] else str(seed)),
                    code(identity),
                    code(written) if written else plain("–"),
                )
            )
    return Table(
        header=tuple(texts.get(f"reproduce.{column}") for column in ("recipe", "seed", "identity", "chosen")),
        rows=tuple(rows),
        caption=texts.get("reproduce.trials_caption"),
        numeric=frozenset({1}),
    )


def _weights(source: Source) -> list[Block]:
    texts = source.texts
    rows = tuple(
        (
            strong(recipe["name"]),
            code(recipe["backbone"] or "–"),
            code(recipe["weights"]["pretraining"] or "–"),
            code(recipe["weights"]["licence"] or "–"),
            code(recipe["weights"]["source"] or "–"),
            code(recipe["weights"]["sha256"] or "–"),
        )
        for recipe in source.recipes
        if recipe["weights"] is not None
    )
    if not rows:
        return []
    columns = ("recipe", "architecture", "pretraining", "licence", "source", "sha256")
    header = tuple(texts.get(f"reproduce.{column}") for column in columns)
    return [Table(header, rows, texts.get("reproduce.weights_caption"))]


def _settings(recipe: dict[str, Any], source: Source) -> list[Block]:
    title = source.texts.rich("reproduce.settings", name=strong(recipe["name"]))
    return [Paragraph(title), CodeBlock(json.dumps(recipe["settings"], indent=2, ensure_ascii=False))]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
