"""What a diagnosis found: its verdict, the waterfall, the causes, how they hide one another, and what is not to blame."""

from typing import Any

from headstart.report.diagnosis_words import (
    CONFIDENCE,
    accuracy_interval,
    bare_interval,
    cause_title,
    drawn_test_note,
    evidence,
    lost_to,
    of_status,
    rich_diagnosis_statement,
)
from headstart.report.document import (
    Block,
    Claim,
    Figure,
    Heading,
    Inline,
    Paragraph,
    Table,
    Tone,
    code,
    plain,
    plain_text,
    strong,
)
from headstart.report.figures.diagnosis import waterfall_figure
from headstart.report.language import Texts

_TONES: dict[str, Tone] = {
    "proved": "caution",
    "healthy": "good",
    "domain-gap": "bad",
    "unexplained": "bad",
    "suspected-only": "caution",
    "nothing-seen": "neutral",
}


def verdict_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Say the verdict with its evidence, and what was looked at."""
    subject, data = record["subject"], record["data"]
    looked_at = texts.rich(
        f"diagnosis.looked_at_{subject['kind']}",
        name=strong(subject["name"]),
        data=strong(data["name"]),
        classes=texts.many("units.classes", count_of(data["classes"])),
    )
    if subject["architecture"]:
        looked_at += plain(" ") + texts.rich("diagnosis.architecture", architecture=code(subject["architecture"]))
    note = drawn_test_note(record, texts)
    return [
        Heading(2, texts.get("diagnosis.heading"), "verdict"),
        Claim(
            rich_diagnosis_statement(record, texts),
            _evidence(record, texts),
            _TONES.get(record["verdict"]["code"], "neutral"),
        ),
        *([Paragraph(plain(note))] if note else []),
        Paragraph(looked_at),
    ]


def waterfall_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Draw the way from the failing to the repaired accuracy, where there is one."""
    accuracy = record["accuracy"]
    if not record["waterfall"] or accuracy["repaired"] is None:
        return []
    names, notes = [], []
    for entry in record["waterfall"]:
        number = entry["cause"]
        names.append(texts.get("figures.waterfall_rest") if number is None else cause_title(record, number, texts))
        points = next((cause["points"] for cause in record["causes"] if cause["id"] == number), None)
        note = texts.signed_points(entry["points"] / 100)
        notes.append(note if points is None else f"{note} {bare_interval(points, texts)}")
    steps = " ".join(
        texts.get("diagnosis.waterfall_alt_step", cause=name, points=texts.points(entry["points"] / 100))
        for name, entry in zip(names, record["waterfall"], strict=True)
    )
    caption = [texts.get("diagnosis.waterfall_caption", confidence=confidence(texts))]
    if any(entry["points"] < 0 for entry in record["waterfall"] if entry["cause"] is not None):
        caption.append(texts.get("diagnosis.waterfall_caption_left"))
    if any(entry["cause"] is None for entry in record["waterfall"]):
        caption.append(texts.get("diagnosis.waterfall_caption_rest"))
    if _shares_of_all(record):
        caption.append(texts.get("diagnosis.waterfall_caption_all"))
    return [
        Heading(2, texts.get("diagnosis.waterfall_heading"), "waterfall"),
        Figure(
            "waterfall",
            waterfall_figure(record, names, notes, texts),
            " ".join(caption),
            texts.get(
                "diagnosis.waterfall_alt",
                failing=texts.percent(accuracy["failing"]),
                repaired=texts.percent(accuracy["repaired"]),
                steps=steps,
            ),
        ),
    ]


def _shares_of_all(record: dict[str, Any]) -> bool:
    """Whether the points are shares of a repair of all that is suspected, since not every subset was measured."""
    proved = {cause["id"] for cause in record["causes"] if cause["status"] == "proved"}
    return record["experiment"]["design"] == "sampled-orders" and not proved.issuperset(record["experiment"]["factors"])


def causes_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Rank what was proved and what is suspected: points, what was seen, what to do."""
    heading = Heading(2, texts.get("diagnosis.causes_heading"), "causes")
    causes = of_status(record, "proved", "suspected")
    rows = tuple(_cause_row(cause, record, texts) for cause in causes)
    if not rows:
        return [heading, Paragraph(texts.rich("diagnosis.causes_none"))]
    columns = ("cause", "status", "points", "evidence", "todo")
    header = tuple(texts.get(f"diagnosis.{column}") for column in columns)
    table = Table(header, rows, texts.get("diagnosis.causes_caption"), numeric=frozenset({2}))
    return [heading, table, *_copies(causes, record, texts)]


def interactions_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Show which causes cost something else while another one is there too."""
    entries = record["interactions"]
    if not entries:
        return []
    first, second = entries[0]["causes"]
    names = {cause["id"]: lost_to(cause, texts) for cause in record["causes"]}
    reading = texts.rich(
        "diagnosis.interactions_reading",
        cause=names.get(first, str(first)),
        other=names.get(second, str(second)),
        with_other=texts.gap(entries[0]["points_with"] / 100),
        without_other=texts.gap(entries[0]["points_without"] / 100),
    )
    header = ("cause", "interactions_other", "interactions_with", "interactions_without", "interactions_difference")
    rows = tuple(
        (
            *(plain(cause_title(record, number, texts)) for number in entry["causes"]),
            *(plain(texts.decimal(entry[end], 1)) for end in ("points_with", "points_without")),
            plain(_difference(entry, texts)),
        )
        for entry in entries
    )
    return [
        Heading(2, texts.get("diagnosis.interactions_heading"), "interactions"),
        Paragraph(texts.rich("diagnosis.interactions_intro")),
        Table(
            tuple(texts.get(f"diagnosis.{column}") for column in header),
            rows,
            texts.get("diagnosis.interactions_caption", confidence=confidence(texts)),
            numeric=frozenset({2, 3, 4}),
        ),
        Paragraph(reading),
    ]


def _difference(entry: dict[str, Any], texts: Texts) -> str:
    points = entry["difference"]
    return f"{texts.decimal(points['mean'], 1)} {bare_interval(points, texts)}"


def cleared_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Say what was looked at and is not to blame, with what was seen."""
    heading = Heading(2, texts.get("diagnosis.cleared_heading"), "cleared")
    causes = of_status(record, "cleared")
    if not causes:
        return [heading, Paragraph(texts.rich("diagnosis.cleared_none"))]
    # What one sentence clears stands in one row.
    cleared: dict[str, tuple[list[str], Inline]] = {}
    for cause in causes:
        said = evidence(cause, texts)
        cleared.setdefault(plain_text(said), ([], said))[0].append(texts.named("diagnosis_cause", cause["name"]))
    rows = tuple((plain("; ".join(names)), said) for names, said in cleared.values())
    caption = texts.get("diagnosis.cleared_caption", causes=texts.many("diagnosis.causes", len(causes)))
    table = Table((texts.get("diagnosis.cause"), texts.get("diagnosis.evidence")), rows, caption)
    return [heading, table, *_copies(causes, record, texts)]


def _copies(causes: list[dict[str, Any]], record: dict[str, Any], texts: Texts) -> list[Block]:
    """Where the copies are named, beside the causes among which duplicates are."""
    is_here = any(cause["name"] == "duplicates" for cause in causes)
    return [Paragraph(texts.rich("diagnosis.copies_named"))] if is_here and record["repair"].get("copies") else []


def unseen_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Say what could not be looked at, why, and what to do about it all the same."""
    heading = Heading(2, texts.get("diagnosis.unseen_heading"), "not-looked-at")
    causes = of_status(record, "could-not-look")
    if not causes:
        return [heading, Paragraph(texts.rich("diagnosis.unseen_none"))]
    rows = tuple(
        (
            plain(texts.named("diagnosis_cause", cause["name"])),
            evidence(cause, texts),
            plain(texts.named("diagnosis_todo", cause["name"])),
        )
        for cause in causes
    )
    header = tuple(texts.get(f"diagnosis.{column}") for column in ("cause", "unseen_why", "unseen_todo"))
    caption = texts.get("diagnosis.unseen_caption", causes=texts.many("diagnosis.causes", len(causes)))
    return [heading, Paragraph(texts.rich("diagnosis.unseen_intro")), Table(header, rows, caption)]


def confidence(texts: Texts) -> str:
    """The confidence of a diagnosis' intervals, such as "95%"."""
    return texts.percent(CONFIDENCE, 0)


def count_of(classes: Any) -> int:
    """How many classes there are, whether they are listed or counted."""
    return len(classes) if isinstance(classes, list) else int(classes)


def _evidence(record: dict[str, Any], texts: Texts) -> Inline:
    """Write what the verdict rests on: intervals, images, labels, and what the points were measured with."""
    accuracy, experiment = record["accuracy"], record["experiment"]
    if record["subject"]["kind"] == "history":
        return texts.rich("diagnosis.evidence_curve", failing=texts.percent(accuracy["failing"]))
    noun = "units.test_images" if accuracy["part"] == "test" else "diagnosis.held_out_images"
    counts = [texts.many(noun, accuracy["images"])]
    if accuracy["labels"]:
        counts.append(texts.many("diagnosis.labels", accuracy["labels"]))
    key = "diagnosis.evidence_failing" if accuracy["repaired"] is None else "diagnosis.evidence_repaired"
    said = texts.rich(
        key,
        failing=accuracy_interval(accuracy["failing"], accuracy["failing_interval"], texts),
        repaired=accuracy_interval(accuracy["repaired"], accuracy["repaired_interval"], texts),
        confidence=confidence(texts),
        counts=texts.listing(counts),
    )
    others = accuracy.get("repaired_images")
    if others is not None and others != accuracy["images"]:
        said += plain(" ") + texts.rich("diagnosis.evidence_repaired_on", count=texts.many(noun, others))
    if experiment and experiment["factors"]:
        said += plain(" ") + texts.rich(
            "diagnosis.evidence_experiment", counts=texts.listing(measured_with(record, texts))
        )
    return said


def measured_with(record: dict[str, Any], texts: Texts) -> list[str]:
    """What the counterfactual runs were measured with: images, labels, seeds, each with its noun."""
    experiment = record["experiment"]
    return [
        texts.many("diagnosis.held_out_images", experiment["images"]),
        texts.many("diagnosis.labels", experiment["labels"]),
        texts.many("units.seeds", experiment["seeds"]),
    ]


def _cause_row(cause: dict[str, Any], record: dict[str, Any], texts: Texts) -> tuple[Inline, ...]:
    said = evidence(cause, texts, record)
    points = "–"
    if cause["points"] is not None:
        mean = texts.decimal(cause["points"]["mean"], 1)
        points = f"{mean} {bare_interval(cause['points'], texts)}"
    return (
        plain(texts.named("diagnosis_cause", cause["name"])),
        plain(texts.named("diagnosis_status", cause["status"])),
        plain(points),
        said,
        plain(texts.named("diagnosis_todo", cause["name"])),
    )
