"""A document as Markdown (the GitHub dialect), its figures as SVG files beside it."""

import re
from pathlib import Path
from urllib.parse import quote

from headstart.files import write_text
from headstart.report.document import (
    Block,
    Claim,
    CodeBlock,
    Details,
    Document,
    Figure,
    Gallery,
    Heading,
    Inline,
    ListBlock,
    Paragraph,
    Span,
    Table,
)

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$!])")
_PICTURES_PER_ROW = 6


def render_markdown(document: Document, assets: Path) -> str:
    """Write a document as Markdown.

    Args:
        document: to be written.
        assets: folder for the figures' SVG files, beside the Markdown file; made if missing. Images are linked where they
            are in the run's folder, so the Markdown file belongs there too.

    Returns:
        The text.
    """
    parts = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    parts += [part for block in document.blocks for part in _block(block, assets)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Escape what Markdown or HTML would read as markup; line breaks and other controls become spaces."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text.replace("\u00a0", "\ue000")).split())
    clean = clean.replace("\ue000", "\u00a0").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", clean)


def _block(block: Block, assets: Path) -> list[str]:
    match block:
        case Heading():
            return [f"{'#' * block.level} {escaped(block.text)}"]
        case Paragraph():
            return [_inline(block.text)]
        case Claim():
            return [f"> {_inline(block.text)}\n>\n> *{_inline(block.evidence, emphasised=True)}*"]
        case Table():
            return _table(block)
        case Figure():
            return _figure(block, assets)
        case Gallery():
            return _gallery(block)
        case CodeBlock():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
            return [f"{fence}text\n{block.text}\n{fence}"]
        case ListBlock():
            marks = [f"{number}." if block.ordered else "-" for number in range(1, len(block.items) + 1)]
            return ["\n".join(f"{mark} {_inline(item)}" for mark, item in zip(marks, block.items, strict=True))]
        case Details():
            inner = [part for child in block.blocks for part in _block(child, assets)]
            return [f"<details>\n<summary>{_for_html(block.summary)}</summary>", *inner, "</details>"]


def _inline(inline: Inline, *, emphasised: bool = False) -> str:
    return "".join(_span(span, emphasised) for span in inline)


def _span(span: Span, emphasised: bool) -> str:
    if not span.text:
        return ""
    if span.style == "code":
        return _code(span.text)
    # Spaces at the ends of a run stay: they stand between it and its neighbours.
    body = escaped(span.text)
    before = " " if span.text[0] == " " and body else ""
    after = " " if span.text[-1] == " " and (body or not before) else ""
    if span.style == "strong" and not emphasised and body:
        return f"{before}**{body}**{after}"
    return f"{before}{body}{after}"


def _code(text: str) -> str:
    """Write a code span whose fence is longer than any run of backticks in it (CommonMark 6.1)."""
    clean = "".join(c if c.isprintable() else " " for c in text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", clean)), default=0))
    room = " " if clean.startswith("`") or clean.endswith("`") else ""
    return f"{fence}{room}{clean}{room}{fence}"


def _cell(inline: Inline) -> str:
    # Inside a table even a code span ends at a bar, unless it is escaped (GitHub Flavored Markdown 4.10).
    return "".join(
        _code(span.text).replace("|", r"\|") if span.style == "code" else _span(span, False) for span in inline
    )


def _table(block: Table) -> list[str]:
    rule = "|".join("---:" if column in block.numeric else "---" for column in range(len(block.header)))
    rows = []
    for number, row in enumerate(block.rows):
        cells = [_cell(cell) for cell in row]
        if number == block.highlight:
            cells[0] = f"▶ {cells[0]}"
        rows.append("| " + " | ".join(cells) + " |")
    header = "| " + " | ".join(escaped(cell) for cell in block.header) + " |"
    return [f"*{escaped(block.caption)}*", "\n".join([header, f"|{rule}|", *rows])]


def _figure(block: Figure, assets: Path) -> list[str]:
    """Write the SVG with a white ground of its own, since its colours are those of a light page when it stands alone."""
    alone = re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', block.svg, count=1)
    write_text(assets / f"{block.name}.svg", alone + "\n")
    link = f"{quote(assets.name)}/{quote(block.name)}.svg"
    return [f"![{escaped(block.alt)}]({link})", f"*{escaped(block.caption)}*"]


def _gallery(block: Gallery) -> list[str]:
    """Write pictures as an HTML table, which GitHub shows and which Markdown has no form for."""
    cells = []
    for picture in block.pictures:
        caption = "".join(span.text for span in picture.caption)
        if picture.content is None:
            shown = f"<em>{_for_html(picture.missing)}</em>"
        else:
            shown = f'<img src="{quote(picture.path)}" width="96" alt="{_for_html(picture.alt)}">'
        cells.append(f"<td>{shown}<br>{_for_html(caption)}</td>")
    rows = [
        "<tr>" + "".join(cells[start : start + _PICTURES_PER_ROW]) + "</tr>"
        for start in range(0, len(cells), _PICTURES_PER_ROW)
    ]
    return [f"*{escaped(block.caption)}*", "<table>\n" + "\n".join(rows) + "\n</table>"]


def _for_html(text: str) -> str:
    clean = " ".join("".join(c if c.isprintable() or c == "\u00a0" else " " for c in text).split(" "))
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        clean = clean.replace(character, entity)
    return clean
