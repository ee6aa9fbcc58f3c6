"""Where a page of docs/ has a place for what is measured: between `<!-- its name -->` and `<!-- end -->`, each on a line."""

from pathlib import Path

from headstart.files import write_text

_CLOSED = "<!-- end -->"


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands in a place of a page.

    Args:
        page: in Markdown.
        name: of the place.
        text: without a line break at its end.
    """
    before, opened, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, closed, after = rest.partition(_CLOSED)
    if not opened or not closed:
        raise SystemExit(f"{page} has no place for it: <!-- {name} --> and {_CLOSED}, each on a line.")
    write_text(page, f"{before}{opened}{text}\n{closed}{after}")
