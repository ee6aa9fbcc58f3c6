"""From the content of `results.json` to a document: which sections there are, and in which order."""

from pathlib import Path
from typing import Any

from headstart.report.document import Block, Document
from headstart.report.language import Texts, written_moment
from headstart.report.sections.classes import classes_section, confusion_section
from headstart.report.sections.cost import cost_section
from headstart.report.sections.data import data_section
from headstart.report.sections.fit import curves_section, fit_section
from headstart.report.sections.reproduce import reproduce_section, statistics_section
from headstart.report.sections.side import side_section
from headstart.report.sections.source import Source
from headstart.report.sections.trust import calibration_section, mistakes_section
from headstart.report.sections.verdict import verdict_section

_OF_RECIPES = (
    side_section,
    curves_section,
    fit_section,
    classes_section,
    confusion_section,
    calibration_section,
    mistakes_section,
    cost_section,
)


def build_document(results: dict[str, Any], language: str, run_folder: Path) -> Document:
    """Make a run's report, before it is rendered.

    Args:
        results: the content of `results.json`, as docs/results.md describes it.
        language: `en` or `es`, whatever language the results were written in.
        run_folder: that the results' image paths are relative to.

    Returns:
        The document. The same results give the same document, on any machine.
    """
    texts = Texts(language)
    source = Source(results, texts, run_folder)
    blocks: list[Block] = verdict_section(source)
    if results["recipes"]:  # nothing may have run at all; then the verdict says so and the data are still described
        for section in _OF_RECIPES:
            blocks += section(source)
    blocks += [*data_section(source), *statistics_section(source), *reproduce_section(source)]
    return Document(
        title=texts.get("document.title", name=results["name"]),
        subtitle=texts.get(
            "document.subtitle", version=results["headstart_version"], created=written_moment(results["created"])
        ),
        language=texts.language,
        contents_title=texts.get("document.contents"),
        skip=texts.get("document.skip"),
        blocks=tuple(blocks),
    )
