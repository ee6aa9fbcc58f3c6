"""From the content of `diagnosis.json` to a document, and to `report.html` and `report.md` beside it."""

from pathlib import Path
from typing import Any

from headstart.report.diagnosis_words import diagnosis_statement
from headstart.report.document import Block, Document
from headstart.report.language import Texts, written_moment
from headstart.report.render import render_fragment
from headstart.report.sections.diagnosis import (
    causes_section,
    cleared_section,
    interactions_section,
    unseen_section,
    verdict_section,
    waterfall_section,
)
from headstart.report.sections.diagnosis_runs import (
    controls_section,
    experiment_section,
    repair_section,
    reproduce_section,
    sizes_section,
)
from headstart.report.write import ReportPaths, read_versioned, write_document

__all__ = [
    "DIAGNOSIS_SCHEMA_VERSION",
    "build_diagnosis_document",
    "diagnosis_statement",
    "render_diagnosis_summary",
    "write_diagnosis_report",
]

DIAGNOSIS_SCHEMA_VERSION = 2
"""Version of `diagnosis.json` that is written and read."""

_SECTIONS = (
    verdict_section,
    waterfall_section,
    causes_section,
    repair_section,
    interactions_section,
    sizes_section,
    controls_section,
    cleared_section,
    unseen_section,
    experiment_section,
    reproduce_section,
)


def build_diagnosis_document(record: dict[str, Any], language: str) -> Document:
    """Make the report of a diagnosis, before it is rendered.

    Args:
        record: the content of `diagnosis.json`.
        language: `en` or `es`, whatever language the diagnosis was made in.

    Returns:
        The document. The same record gives the same document, on any machine.
    """
    texts = Texts(language)
    blocks: list[Block] = [block for section in _SECTIONS for block in section(record, texts)]
    return Document(
        title=texts.get("diagnosis.title", name=record["name"]),
        subtitle=texts.get(
            "diagnosis.subtitle", version=record["headstart_version"], created=written_moment(record["created"])
        ),
        language=texts.language,
        contents_title=texts.get("document.contents"),
        skip=texts.get("document.skip"),
        blocks=tuple(blocks),
    )


def write_diagnosis_report(folder: Path, language: str) -> ReportPaths:
    """Write the reports of a diagnosis.

    Args:
        folder: with `diagnosis.json`; the reports are written beside it.
        language: `en` or `es`.

    Returns:
        The paths of the reports.

    Raises:
        RunError: there is no `diagnosis.json`, or it cannot be read by this version.
        UsageError: there are no texts in that language.
    """
    record = read_versioned(folder / "diagnosis.json", DIAGNOSIS_SCHEMA_VERSION, again="Run the diagnosis again")
    return write_document(build_diagnosis_document(record, language), folder)


def render_diagnosis_summary(record: dict[str, Any], language: str) -> str:
    """Write verdict, waterfall and table of causes as an HTML fragment, for a notebook.

    Args:
        record: the content of `diagnosis.json`.
        language: `en` or `es`.
    """
    texts = Texts(language)
    sections = (verdict_section, waterfall_section, causes_section)
    content = [block for section in sections for block in section(record, texts)[1:]]
    return render_fragment(content, texts.language)
