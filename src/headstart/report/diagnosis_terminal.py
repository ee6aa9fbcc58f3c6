"""What a terminal shows of a diagnosis: the ranked causes and the verdict."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from headstart.report.diagnosis_words import (
    bare_interval,
    diagnosis_statement,
    drawn_test_note,
    evidence,
    of_status,
)
from headstart.report.document import plain_text
from headstart.report.language import Texts
from headstart.report.terminal import printable


def diagnosis_table(record: dict[str, Any], texts: Texts) -> Table:
    """Rank what was proved and what is suspected, with what was seen and what to do, within 80 columns.

    Args:
        record: the content of `diagnosis.json`.
        texts: of the language to write in.
    """
    causes = of_status(record, "proved", "suspected")
    caption = texts.get(
        "diagnosis.terminal_caption",
        cleared=texts.count(len(of_status(record, "cleared"))),
        unseen=texts.count(len(of_status(record, "could-not-look"))),
    )
    table = Table(
        box=box.SIMPLE_HEAD if causes else None,
        show_header=bool(causes),
        pad_edge=False,
        collapse_padding=True,
        caption=Text(caption),
        caption_justify="left",
    )
    table.add_column(Text(texts.get("diagnosis.cause")), overflow="fold", ratio=1)
    table.add_column(Text(texts.get("diagnosis.status")), no_wrap=True)
    table.add_column(Text(texts.get("diagnosis.points")), justify="right", no_wrap=True)
    for number, cause in enumerate(causes, start=1):
        points = "–"
        if cause["points"] is not None:
            mean = texts.decimal(cause["points"]["mean"], 1)
            points = f"{mean} {bare_interval(cause['points'], texts)}"
        status = texts.named("diagnosis_status", cause["status"])
        described = _described(cause, record, texts)
        if number < len(causes):
            described.append("\n")  # a row of air before the next cause
        table.add_row(described, Text(printable(status)), Text(points))
    return table


def diagnosis_text(record: dict[str, Any], texts: Texts) -> Text:
    """Write the verdict's sentence for a terminal, and what qualifies it; nothing in it is read as markup."""
    said = Text(printable(diagnosis_statement(record, texts)), style="bold")
    if note := drawn_test_note(record, texts):
        said.append("\n" + printable(note), style="not bold")
    return said


def _described(cause: dict[str, Any], record: dict[str, Any], texts: Texts) -> Text:
    """A cause's title, what was seen of it, and what to do about it, each on lines of its own."""
    described = Text(printable(texts.named("diagnosis_cause", cause["name"])), style="")
    described.stylize("bold")
    described.append("\n" + printable(plain_text(evidence(cause, texts, record))))
    described.append("\n→ " + printable(texts.named("diagnosis_todo", cause["name"])), style="dim")
    return described
