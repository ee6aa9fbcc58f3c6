"""The data: counts, sizes, pixel statistics, duplicates, files left out or converted, and samples."""

from typing import Any

from headstart.report.document import (
    Block,
    Details,
    Figure,
    Gallery,
    Heading,
    Inline,
    ListBlock,
    Paragraph,
    Table,
    code,
    plain,
    strong,
)
from headstart.report.figures.classes import class_counts
from headstart.report.sections.source import Source

_OPEN_FILES = 20  # chosen: longer tables are folded away
_SAMPLES = 100  # chosen: more images would make the page slow to open
_UNEVEN = 1.5  # chosen: from this ratio on, plain accuracy begins to hide the rare classes


def data_section(source: Source) -> list[Block]:
    """State the facts about the images that every number rests on."""
    texts, data = source.texts, source.results["data"]
    return [
        Heading(2, texts.get("data.heading"), "data"),
        Paragraph(
            texts.rich(
                "data.intro",
                name=strong(data["name"]),
                images=texts.many("units.images", data["images"]),
                classes=texts.many("units.classes", len(data["classes"])),
                source=code(data["source"]),
            )
        ),
        ListBlock(tuple(_facts(source))),
        *_counts(source),
        *_sizes(source),
        _channels(source),
        *_duplicate_examples(source),
        *_left_out(source),
        *_converted(source),
        *_samples(source),
    ]


def _facts(source: Source) -> list[Inline]:
    texts, data = source.texts, source.results["data"]
    split, duplicates = data["split"], data["duplicates"]
    parts = {part: texts.count(split[part]) for part in ("train", "val", "test")}
    mirror = {True: "mirror_yes", False: "mirror_no"}.get(data["mirror_safe"], "mirror_unknown")
    facts = [
        texts.rich(f"data.split_{split['origin']}", **parts, seed=str(split["seed"])),
        texts.rich(
            "data.imbalance_uneven" if data["imbalance"] >= _UNEVEN else "data.imbalance_even",
            ratio=texts.decimal(data["imbalance"], 1 if data["imbalance"] >= 1.95 else 2),
        ),
        texts.rich("data.canvas", canvas=texts.count(data["canvas"])),
        texts.rich("data.grayscale_yes" if data["grayscale"] else "data.grayscale_no"),
        texts.rich(f"data.{mirror}"),
    ]
    if not duplicates["groups"]:
        return [*facts, texts.rich("data.duplicates_none")]
    told = texts.rich("data.duplicates", groups=texts.count(duplicates["groups"]))
    across = texts.count(duplicates["across_splits"])
    if not duplicates["across_splits"]:
        told += plain(" ") + texts.rich("data.duplicates_across_none")
    else:
        state = "removed" if duplicates["removed"] else "kept"
        told += plain(" ") + texts.rich(f"data.duplicates_across_{state}", across=across)
    if duplicates["conflicting_labels"]:
        conflicting = texts.count(duplicates["conflicting_labels"])
        told += plain(" ") + texts.rich("data.duplicates_conflicting", conflicting=conflicting)
    return [*facts, told]


def _counts(source: Source) -> list[Block]:
    texts, classes = source.texts, source.results["data"]["classes"]
    totals = [entry["train"] + entry["val"] + entry["test"] for entry in classes]
    summary = texts.get("data.counts_alt_range", low=texts.count(min(totals)), high=texts.count(max(totals)))
    table = Table(
        header=tuple(texts.get(f"data.{column}") for column in ("class", "train", "val", "test")),
        rows=tuple(
            (plain(entry["name"]), *(plain(texts.count(entry[part])) for part in ("train", "val", "test")))
            for entry in classes
        ),
        caption=texts.get("data.counts_caption"),
        numeric=frozenset({1, 2, 3}),
    )
    return [
        Figure(
            "class-counts",
            class_counts(classes, texts),
            texts.get("data.counts_caption"),
            texts.get("data.counts_alt", summary=summary),
        ),
        Details(texts.get("data.counts_summary"), (table,)),
    ]


def _sizes(source: Source) -> list[Block]:
    texts, data = source.texts, source.results["data"]
    sizes = data["original_sizes"]
    if not sizes:
        return []
    written = [f"{texts.count(size['width'])} × {texts.count(size['height'])}" for size in sizes]
    if data["original_size_kinds"] == 1:
        return [Paragraph(texts.rich("data.sizes_one", size=written[0]))]
    table = Table(
        header=(texts.get("data.size"), texts.get("data.count")),
        rows=tuple((plain(name), plain(texts.count(size["count"]))) for name, size in zip(written, sizes, strict=True)),
        caption=texts.get("data.sizes_caption"),
        numeric=frozenset({0, 1}),
    )
    return [Paragraph(texts.rich("data.sizes_many", kinds=texts.count(data["original_size_kinds"]))), table]


def _channels(source: Source) -> Table:
    texts, data = source.texts, source.results["data"]
    return Table(
        header=tuple(texts.get(f"data.{column}") for column in ("channel", "mean", "std")),
        rows=tuple(
            (plain(texts.get(f"data.{name}")), plain(texts.decimal(mean, 1)), plain(texts.decimal(std, 1)))
            for name, mean, std in zip(("red", "green", "blue"), data["channel_mean"], data["channel_std"], strict=True)
        ),
        caption=texts.get("data.channels_caption"),
        numeric=frozenset({1, 2}),
    )


def _duplicate_examples(source: Source) -> list[Block]:
    texts, examples = source.texts, source.results["data"]["duplicates"]["examples"]
    if not examples:
        return []
    return [
        Table(
            header=(texts.get("data.kept"), texts.get("data.duplicate")),
            rows=tuple((code(str(kept)), code(str(duplicate))) for kept, duplicate in examples),
            caption=texts.get("data.duplicates_caption"),
        )
    ]


def _left_out(source: Source) -> list[Block]:
    texts, files = source.texts, source.results["data"]["left_out"]
    heading = Heading(3, texts.get("data.left_out_heading"), "left-out")
    if not files:
        return [heading, Paragraph(texts.rich("data.left_out_none"))]
    count = texts.many("units.files", len(files))
    caption = texts.get("data.left_out_caption", files=count)
    table = _file_table(files, caption, source)
    if len(files) <= _OPEN_FILES:
        return [heading, table]
    return [heading, Details(texts.get("data.left_out_all", files=count), (table,))]


def _file_table(files: list[dict[str, Any]], caption: str, source: Source) -> Table:
    texts = source.texts
    details = [texts.quoted(file["detail"]) for file in files]
    columns = ("path", "reason", "detail") if any(details) else ("path", "reason")
    rows = [
        (code(file["path"]), plain(texts.named("left_out", file["reason"])), code(detail) if detail else plain("–"))
        for file, detail in zip(files, details, strict=True)
    ]
    return Table(
        header=tuple(texts.get(f"data.{column}") for column in columns),
        rows=tuple(row[: len(columns)] for row in rows),
        caption=caption,
    )


def _converted(source: Source) -> list[Block]:
    texts, kinds = source.texts, source.results["data"]["converted"]
    heading = Heading(3, texts.get("data.converted_heading"), "converted")
    if not kinds:
        return [heading, Paragraph(texts.rich("data.converted_none"))]
    table = Table(
        header=tuple(texts.get(f"data.{column}") for column in ("conversion", "count", "examples")),
        rows=tuple(
            (
                plain(texts.named("converted", kind["conversion"])),
                plain(texts.count(kind["count"])),
                code("  ".join(kind["examples"])) if kind["examples"] else plain("–"),
            )
            for kind in kinds
        ),
        caption=texts.get("data.converted_caption"),
        numeric=frozenset({1}),
    )
    return [heading, table]


def _samples(source: Source) -> list[Block]:
    """Show samples of every class, fewer of each where there are many classes."""
    texts, samples = source.texts, source.results["data"]["samples"]
    by_class: dict[str, list[str]] = {}
    for sample in samples:
        by_class.setdefault(sample["class"], []).append(sample["image"])
    each = max(1, _SAMPLES // max(1, len(by_class)))
    pictures = tuple(
        source.picture(image, texts.get("data.samples_alt", name=name), plain(name))
        for name, images in by_class.items()
        for image in images[:each]
    )
    if not pictures:
        return []
    cut = any(len(images) > each for images in by_class.values())
    key = "data.samples_caption_some" if cut else "data.samples_caption"
    return [Gallery(pictures, texts.get(key, n=texts.count(each)))]
