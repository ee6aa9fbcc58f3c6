"""How far a recipe's confidence can be trusted: calibration, and its most confident mistakes."""

from typing import Any

from headstart.report.document import Block, Details, Figure, Gallery, Heading, Paragraph, Table, plain, strong
from headstart.report.figures.calibration import reliability_diagrams
from headstart.report.sections.source import Source


def calibration_section(source: Source) -> list[Block]:
    """Give ECE and log loss, and draw the reliability diagrams."""
    texts = source.texts
    summary = " ".join(
        texts.get("calibration.alt_row", name=recipe["name"], ece=texts.decimal(recipe["ece"], 3))
        for recipe in source.recipes
    )
    return [
        Heading(2, texts.get("calibration.heading"), "calibration"),
        Paragraph(texts.rich("calibration.intro")),
        Table(
            header=(
                texts.get("side.recipe"),
                texts.get("calibration.ece"),
                texts.get("calibration.log_loss"),
            ),
            rows=tuple(
                (
                    strong(recipe["name"]),
                    plain(texts.decimal(recipe["ece"], 3)),
                    plain(texts.decimal(recipe["log_loss"], 3)),
                )
                for recipe in source.recipes
            ),
            caption=texts.get("calibration.table_caption"),
            numeric=frozenset({1, 2}),
        ),
        Figure(
            "reliability",
            reliability_diagrams(source.recipes, texts),
            texts.get("calibration.caption"),
            texts.get("calibration.alt", summary=summary),
        ),
        Details(texts.get("calibration.bins"), tuple(_bins(recipe, source) for recipe in source.recipes)),
    ]


def _bins(recipe: dict[str, Any], source: Source) -> Table:
    texts = source.texts
    rows = []
    for entry in recipe["reliability"]:
        low, high = texts.decimal(entry["low"], 3), texts.decimal(entry["high"], 3)
        filled = bool(entry["count"])
        rows.append(
            (
                plain(texts.get("calibration.bin_range", low=low, high=high)),
                plain(texts.count(entry["count"])),
                plain(texts.percent(entry["confidence"]) if filled else "–"),
                plain(texts.percent(entry["accuracy"]) if filled else "–"),
            )
        )
    return Table(
        header=tuple(
            texts.get(f"calibration.{name}") for name in ("bin", "bin_count", "bin_confidence", "bin_accuracy")
        ),
        rows=tuple(rows),
        caption=texts.get("calibration.bins_caption", name=recipe["name"]),
        numeric=frozenset({0, 1, 2, 3}),
    )


def mistakes_section(source: Source) -> list[Block]:
    """Show the most confident mistakes: the recommended recipe's in the open, the others' folded away."""
    texts = source.texts
    shown = [recipe for recipe in source.best_first if recipe["mistakes"]]
    blocks: list[Block] = [Heading(2, texts.get("mistakes.heading"), "mistakes")]
    if not shown:
        return [*blocks, Paragraph(texts.rich("mistakes.none"))]
    blocks += [Paragraph(texts.rich("mistakes.intro")), _gallery(shown[0], source)]
    if len(shown) > 1:
        others = tuple(_gallery(recipe, source) for recipe in shown[1:])
        blocks.append(Details(texts.get("mistakes.others"), others))
    return blocks


def _gallery(recipe: dict[str, Any], source: Source) -> Gallery:
    texts = source.texts
    pictures = tuple(
        source.picture(
            mistake["image"],
            texts.get("mistakes.alt", true=mistake["true"], predicted=mistake["predicted"]),
            texts.rich(
                "mistakes.item",
                true=strong(mistake["true"]),
                predicted=strong(mistake["predicted"]),
                confidence=texts.percent(mistake["confidence"], 0 if mistake["confidence"] < 0.995 else 1),
            ),
        )
        for mistake in recipe["mistakes"]
    )
    return Gallery(pictures, texts.get("mistakes.caption", name=recipe["name"]))
