"""Class by class: averages, precision, recall and F1, confusion matrices."""

from collections.abc import Sequence
from typing import Any

from headstart.report.document import Block, Details, Figure, Heading, Inline, Paragraph, Table, plain, strong
from headstart.report.figures.classes import confusion_matrix, f1_by_class
from headstart.report.sections.source import Source

_OPEN_CLASSES = 20  # chosen: up to so many classes the whole table stands in the open
_EXTREMES = 10  # otherwise so many of the worst and of the best do
_MEASURES = ("precision", "recall", "f1")


def classes_section(source: Source) -> list[Block]:
    """Set precision, recall and F1 of every class side by side for all recipes that can win."""
    texts, recipes = source.texts, source.best_first
    if not recipes:
        return []
    blocks: list[Block] = [
        Heading(2, texts.get("classes.heading"), "classes"),
        Paragraph(texts.rich("classes.intro")),
        _averages(source),
        Paragraph(texts.rich("classes.balanced"), small=True),
    ]
    count = len(recipes[0]["per_class"])
    mean_f1 = [sum(recipe["per_class"][index]["f1"] for recipe in recipes) / len(recipes) for index in range(count)]
    order = sorted(range(count), key=lambda index: (mean_f1[index], index))
    if count <= _OPEN_CLASSES:
        blocks.append(_class_table(source, recipes, range(count), texts.get("classes.caption"), averages=True))
        shown, caption = list(range(count)), texts.get("classes.f1_caption")
    else:
        worst, best = order[:_EXTREMES], order[::-1][:_EXTREMES]
        number = texts.count(_EXTREMES)
        blocks += [
            _class_table(source, recipes, worst, texts.get("classes.caption_worst", n=number)),
            _class_table(source, recipes, best, texts.get("classes.caption_best", n=number)),
            Details(
                texts.get("classes.all", classes=texts.many("units.classes", count)),
                (_class_table(source, recipes, range(count), texts.get("classes.caption"), averages=True),),
            ),
        ]
        shown, caption = order[:_OPEN_CLASSES], texts.get("classes.f1_caption_worst")
    summary = " ".join(
        texts.get("classes.f1_alt_row", name=recipe["name"], f1=texts.decimal(recipe["macro_f1"], 3))
        for recipe in recipes
    )
    alt = texts.get("classes.f1_alt", summary=summary)
    return [*blocks, Figure("f1-by-class", f1_by_class(recipes, shown, texts), caption, alt)]


def _averages(source: Source) -> Table:
    texts = source.texts
    names = ("balanced_accuracy", *(f"{which}_{measure}" for which in ("macro", "weighted") for measure in _MEASURES))
    rows = []
    for recipe in source.recipes:
        averages = recipe["averages"]
        cells = [texts.percent(recipe["balanced_accuracy"])]
        cells += [texts.decimal(averages[which][m], 3) for which in ("macro", "weighted") for m in _MEASURES]
        rows.append((strong(recipe["name"]), *(plain(cell) for cell in cells)))
    return Table(
        header=(texts.get("side.recipe"), *(texts.get(f"classes.{name}") for name in names)),
        rows=tuple(rows),
        caption=texts.get("classes.summary_caption"),
        numeric=frozenset(range(1, 8)),
    )


def _class_table(
    source: Source, recipes: Sequence[dict[str, Any]], shown: Sequence[int], caption: str, *, averages: bool = False
) -> Table:
    texts = source.texts
    header = [texts.get("classes.class")]
    for recipe in recipes:
        header += [
            texts.get("classes.column", name=recipe["name"], measure=texts.get(f"classes.{measure}"))
            for measure in _MEASURES
        ]
    header.append(texts.get("classes.support"))
    rows: list[tuple[Inline, ...]] = []
    for index in shown:
        entries = [recipe["per_class"][index] for recipe in recipes]
        cells = [plain(texts.decimal(entry[measure], 3)) for entry in entries for measure in _MEASURES]
        rows.append((plain(entries[0]["name"]), *cells, plain(texts.count(entries[0]["support"]))))
    if averages:
        support = texts.count(sum(entry["support"] for entry in recipes[0]["per_class"]))
        for which in ("macro", "weighted"):
            cells = [plain(texts.decimal(recipe["averages"][which][m], 3)) for recipe in recipes for m in _MEASURES]
            rows.append((strong(texts.get(f"classes.{which}")), *cells, plain(support)))
    return Table(tuple(header), tuple(rows), caption, numeric=frozenset(range(1, len(header))))


def confusion_section(source: Source) -> list[Block]:
    """Draw confusion matrices: the recommended recipe's in the open, the others' folded away."""
    texts, recipes = source.texts, source.best_first
    numbers = {recipe["name"]: number for number, recipe in enumerate(source.recipes)}
    blocks: list[Block] = [
        Heading(2, texts.get("confusion.heading"), "confusion"),
        Paragraph(texts.rich("confusion.intro")),
        *_confusion(source, recipes[0], numbers[recipes[0]["name"]]),
    ]
    others = recipes[1:] + [recipe for recipe in source.recipes if recipe["control"] and recipe not in recipes]
    folded = [block for recipe in others for block in _confusion(source, recipe, numbers[recipe["name"]])]
    return [*blocks, Details(texts.get("confusion.others"), tuple(folded))] if folded else blocks


def _confusion(source: Source, recipe: dict[str, Any], number: int) -> list[Block]:
    texts, name, top = source.texts, recipe["name"], recipe["top_confusions"]
    if top:
        first = top[0]
        summary = texts.get(
            "confusion.alt_top",
            true=first["true"],
            predicted=first["predicted"],
            count=texts.count(first["count"]),
        )
    else:
        summary = texts.get("confusion.alt_none")
    figure = Figure(
        f"confusion-{number}",
        confusion_matrix(recipe, number, texts),
        texts.get("confusion.caption", name=name),
        texts.get("confusion.alt", name=name, summary=summary),
    )
    if not top:
        return [figure, Paragraph(texts.rich("confusion.none", name=strong(name)))]
    table = Table(
        header=tuple(texts.get(f"confusion.{column}") for column in ("true", "predicted", "count", "share")),
        rows=tuple(
            (
                plain(entry["true"]),
                plain(entry["predicted"]),
                plain(texts.count(entry["count"])),
                plain(texts.percent(entry["share"])),
            )
            for entry in top
        ),
        caption=texts.get("confusion.top_caption", name=name),
        numeric=frozenset({2, 3}),
    )
    return [figure, table]
