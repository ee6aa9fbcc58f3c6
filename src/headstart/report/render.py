"""A document as one self-contained HTML page; Markdown and the terminal are in files of their own."""

import base64
import html
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from headstart.report.document import Block, Document, Figure, Heading, Picture
from headstart.report.language import Texts
from headstart.report.markdown import render_markdown
from headstart.report.sections.side import side_section
from headstart.report.sections.source import Source
from headstart.report.sections.verdict import verdict_section
from headstart.report.terminal import comparison_table, verdict_text

__all__ = [
    "comparison_table",
    "render_fragment",
    "render_html",
    "render_markdown",
    "render_summary_html",
    "verdict_text",
]

_SMALL_PIXELS = 100  # chosen: images shown larger than they are keep their pixels sharp


def render_html(document: Document) -> str:
    """Write a document as one HTML page that needs nothing beside itself: no script, no network, no other file."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            document=document,
            headings=[block for block in document.blocks if isinstance(block, Heading) and block.level == 2],
            style=Markup(_style()),  # our own file
        )
    )


def render_summary_html(results: dict[str, Any], language: str) -> str:
    """Write verdict and side-by-side table as an HTML fragment, for a notebook.

    Args:
        results: the content of `results.json`.
        language: `en` or `es`.
    """
    source = Source(results, Texts(language), Path())
    content: list[Block] = verdict_section(source)[1:2]
    if results["recipes"]:
        content.append(side_section(source, differences=False)[1])
    return render_fragment(content, source.texts.language)


def render_fragment(content: Sequence[Block], language: str) -> str:
    """Write blocks as an HTML fragment without style, for a notebook."""
    return _environment().get_template("summary.html.j2").render(content=list(content), language=language)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["data_uri"] = _data_uri
    environment.filters["is_small"] = _is_small
    environment.filters["labelled_svg"] = _labelled_svg
    return environment


@cache
def _style() -> str:
    return resources.files("headstart.report").joinpath("templates", "style.css").read_text(encoding="utf-8")


def _data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.content or b"").decode("ascii")


def _is_small(picture: Picture) -> bool:
    """Read the width from the PNG's header (bytes 16 to 19, PNG specification 11.2.2)."""
    return int.from_bytes((picture.content or b"")[16:20], "big") < _SMALL_PIXELS


def _labelled_svg(figure: Figure) -> Markup:
    """Give an SVG, which is our own and already escaped, its description and its natural width."""
    width = re.search(r'width="([\d.]+)"', figure.svg)
    natural = f"{width[1]}px" if width else "34rem"
    label = html.escape(figure.alt)
    return Markup(figure.svg.replace("<svg ", f'<svg role="img" aria-label="{label}" style="--natural: {natural}" ', 1))
