"""What a terminal shows at the end of a run: the side-by-side table and the verdict."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from headstart.report.language import Texts
from headstart.report.statement import verdict_statement


def comparison_table(results: dict[str, Any], texts: Texts) -> Table:
    """Set the recipes side by side, in few enough columns for a terminal.

    Args:
        results: the content of `results.json`.
        texts: of the language to write in.
    """
    confidence = texts.percent(results["study"]["confidence"], digits=0)
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=Text(texts.get("terminal.caption", confidence=confidence)),
        caption_justify="left",
    )
    # Five columns fit into 80 characters with names in full; the report has the others.
    for column in ("recipe", "test", "gap", "fit", "train_time"):
        numeric = column not in ("recipe", "fit")
        table.add_column(
            Text(texts.get(f"terminal.{column}")),
            justify="right" if numeric else "left",
            no_wrap=True,
            overflow="fold",
        )
    best = results["verdict"]["best"]
    for recipe in results["recipes"]:
        style = "bold" if recipe["name"] == best else "dim" if recipe["control"] else ""
        cells = (
            printable(recipe["name"]),
            texts.share_interval(recipe["test_accuracy"]),
            texts.signed_points(recipe["train_val_gap"]["mean"]),
            texts.named("fit", recipe["fit_verdict"]),
            texts.duration(recipe["cost"]["train_seconds"]),
        )
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def verdict_text(results: dict[str, Any], texts: Texts) -> Text:
    """Write the verdict's sentence for a terminal; nothing in it is read as markup."""
    return Text(printable(verdict_statement(results["verdict"], texts)), style="bold")


def printable(text: str) -> str:
    """Put spaces for what is not printable: a name could hold escape sequences that a terminal obeys."""
    return "".join(c if c.isprintable() or c == "\u00a0" else " " for c in text)
