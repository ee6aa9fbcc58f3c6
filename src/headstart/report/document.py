"""A report before rendering: a title and blocks, in one language, with nothing of HTML or Markdown in them."""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "caution", "bad", "neutral"]


@dataclass(frozen=True)
class Span:
    """A run of text in one style. `code` is for what a computer says or is told; it is shown as it is."""

    text: str
    style: Literal["plain", "strong", "code"] = "plain"


Inline = tuple[Span, ...]


def plain(text: str) -> Inline:
    """A text without emphasis."""
    return (Span(text),)


def strong(text: str) -> Inline:
    """An emphasised text."""
    return (Span(text, "strong"),)


def code(text: str) -> Inline:
    """A name, path, command or message, shown in the code font."""
    return (Span(text, "code"),)


def plain_text(inline: Inline) -> str:
    """The characters of an inline text, without its styles."""
    return "".join(span.text for span in inline)


@dataclass(frozen=True)
class Heading:
    """A section's title; `anchor` is unique in the document, lower-case ASCII."""

    level: Literal[2, 3]
    text: str
    anchor: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; `small` sets notes apart."""

    text: Inline
    small: bool = False


@dataclass(frozen=True)
class Claim:
    """A finding with what it rests on: `evidence` has the interval, the test, the counts of images and seeds."""

    text: Inline
    evidence: Inline
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Table:
    """Rows under a header. `numeric` are the columns set flush right, `highlight` the row that stands out."""

    header: tuple[str, ...]
    rows: tuple[tuple[Inline, ...], ...]
    caption: str
    numeric: frozenset[int] = frozenset()
    highlight: int | None = None


@dataclass(frozen=True)
class Figure:
    """A drawing. `svg` is inline SVG, `name` unique in the document; `alt` says in words what is to be seen."""

    name: str
    svg: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Picture:
    """One image. `content` holds the PNG's bytes, or is `None` where the file is missing; `path` is relative."""

    path: str
    content: bytes | None
    alt: str
    caption: Inline
    missing: str


@dataclass(frozen=True)
class Gallery:
    """Images side by side under one caption."""

    pictures: tuple[Picture, ...]
    caption: str


@dataclass(frozen=True)
class CodeBlock:
    """Lines to be copied, such as a command."""

    text: str


@dataclass(frozen=True)
class ListBlock:
    """Points, in order of importance if `ordered`."""

    items: tuple[Inline, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until the reader opens them."""

    summary: str
    blocks: "tuple[Block, ...]"


Block = Heading | Paragraph | Claim | Table | Figure | Gallery | CodeBlock | ListBlock | Details


@dataclass(frozen=True)
class Document:
    """A whole report. Every text is already in its language; `contents_title` heads the table of contents,
    `skip` the link to the verdict for those who read by ear or keyboard."""

    title: str
    subtitle: str
    language: str
    contents_title: str
    skip: str
    blocks: tuple[Block, ...]
